"""What providers call the state of a batch, in the contract's words. Pure.

OpenAI's words are documented; servers with its API say the same things in other ones (`SUCCESS`, `JOB_STATE_RUNNING`,
`Cancelled`, `TIMEOUT_EXCEEDED`; their documentation and clients, 2026).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...contract import ProviderStatus

#: A provider's word is kept up to this length.
MAX_WORD = 80

_WORDS = {
    ProviderStatus.SUBMITTED: (
        "validating submitted queued pending scheduled created creating accepted received waiting not_started "
        "initializing preparing pre_schedule"
    ),
    ProviderStatus.IN_PROGRESS: "in_progress inprogress running processing started active working executing updating "
    "paused resumed",
    ProviderStatus.FINALIZING: "finalizing finalising finishing writing_results",
    ProviderStatus.COMPLETED: (
        "completed complete succeeded success successful done ended finished partially_succeeded partially_completed "
        "partiallycompleted completed_with_errors"
    ),
    ProviderStatus.FAILED: "failed failure error errored invalid rejected",
    ProviderStatus.EXPIRED: "expired timeout timed_out timeout_exceeded",
    ProviderStatus.CANCELING: "cancelling canceling cancellation_requested cancel_requested stopping",
    ProviderStatus.CANCELED: "cancelled canceled stopped aborted",
}
_STATUS = {word: status for status, words in _WORDS.items() for word in words.split()}
_PREFIX = re.compile(r"^(job|batch)_(state|status)_")
_GAP = re.compile(r"[\s_-]+")


class State(NamedTuple):
    """The state of a provider's batch."""

    status: ProviderStatus
    raw: str  #: The provider's own word.
    known: bool  #: Whether its meaning is known.


def status_of(word: object, *, answered: bool = False) -> State:
    """Return what a provider's word for a batch's state means, whatever its case, hyphens and spaces.

    A word that nobody knows must not end a batch that is paid for, so it counts as under way. If the provider has
    answered every row and says where, there is nothing left to wait for, and it counts as completed.

    Args:
        word: as the provider sent it.
        answered: whether the provider counts every row as finished and names its results.
    """
    raw = "" if word is None else str(word)[:MAX_WORD]
    status = _STATUS.get(_PREFIX.sub("", _GAP.sub("_", raw.strip().lower())))
    if status is not None:
        return State(status, raw, True)
    return State(ProviderStatus.COMPLETED if answered else ProviderStatus.IN_PROGRESS, raw, False)
