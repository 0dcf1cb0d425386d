"""One attempt under way, as those see it who take it further: its turn, its submission, the following of its batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..contract import BatchSpec, Phase
from ..contract.steps import Attempt, PlanSummary, ProviderFacts
from .state import AttemptState
from .steering import Steering


@dataclass(frozen=True)
class AttemptContext:
    """One attempt under way."""

    attempt: Attempt
    state: AttemptState  #: How far it has come; changed as it goes on.
    spec: BatchSpec
    plan: PlanSummary
    steering: Steering  #: The batch's wishes and waits.
    changed: Callable[[Phase], None]  #: Called when something that the progress tells has changed.

    @property
    def provider(self) -> ProviderFacts:
        return self.plan.provider
