"""How far a batch of the gateway's has come. Carried when its workflow continues as new."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from ..contract.gateway_batch import BatchObject, Ended, GatewayBatch, Intake
from .attempt_state import CarriedModel
from .state import SteeringState


class TurnState(CarriedModel):
    """A batch's turns. `Turn` owns it."""

    asked_at: datetime | None = None  #: When it asked for the first of them.
    taken: tuple[str, ...] = ()  #: The names of the ledgers whose turn it has.


class GatewayState(CarriedModel):
    """One batch, as far as it has come."""

    object: BatchObject  #: As it is shown.
    steering: SteeringState
    intake: Intake | None = None  #: What is known of its input, once that was read.
    begun: bool = False  #: Whether the batch that carries it out was started.
    ended: Ended | None = None  #: How that batch ended.
    unrun: bool = False  #: Whether a stop came before it was started: then it never is.
    turn: TurnState = Field(default_factory=TurnState)


class GatewayStart(CarriedModel):
    """What the workflow is started with."""

    batch: GatewayBatch
    state: GatewayState | None = None  #: How far the run before came, where this one goes on from it.
