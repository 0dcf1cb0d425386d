"""How one attempt is run: what its shard asks of it, whatever the mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..contract import BatchSpec, Phase
from ..contract.steps import Attempt, PlanSummary, ProviderFacts
from .attempt_state import AttemptEnd, AttemptState
from .steering import Steering


class AttemptRun(Protocol):
    """One attempt on its way, in one of the modes: by the provider's batch API, for example."""

    async def run(self) -> AttemptEnd:
        """Take the attempt as far as it will go, from wherever it is, and return what became of it.

        A stop ends it: then nothing of it is under way any more at the provider. It may be called again for an attempt
        that was not sent, and by a new run of the workflow where this one ended in the middle.
        """

    async def tidy(self) -> bool:
        """Remove what it left at the provider; return False if that is to be tried once more when the batch ends."""


@dataclass(frozen=True)
class AttemptContext:
    """One attempt under way, as those see it who take it further."""

    attempt: Attempt
    state: AttemptState  #: How far it has come; changed as it goes on.
    spec: BatchSpec
    plan: PlanSummary
    steering: Steering
    changed: Callable[[Phase], None]  #: Called when something that the progress shows has changed.
    again: bool  #: Whether attempts of its shard came before it.

    @property
    def provider(self) -> ProviderFacts:
        return self.plan.provider

    @property
    def paid(self) -> bool:
        """Whether something of the batch may be bought, so that what an operator can fix is waited out."""
        return self.steering.paid or self.state.doubt or self.again
