"""A batch as the sandbox keeps it, and the pure decisions about when it ends and how much of it is finished."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from .settings import Settings


class Status(StrEnum):
    """OpenAI's batch statuses; those of other protocols are derived from them."""

    VALIDATING = "validating"  # the input is being checked
    IN_PROGRESS = "in_progress"  # accepted, rows are being answered
    FINALIZING = "finalizing"  # every row is answered, files are being written
    COMPLETED = "completed"  # ended: every row was answered
    FAILED = "failed"  # ended: the input was refused
    EXPIRED = "expired"  # ended: the window closed with rows left over
    CANCELLING = "cancelling"  # a cancel was accepted
    CANCELLED = "cancelled"  # ended: by a cancel

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the batch."""
        return self in ENDED


ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})


class LineError(msgspec.Struct, kw_only=True):
    """One entry of OpenAI's `errors.data`."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class RowName(msgspec.Struct, kw_only=True):
    """What a row is called: by the client, and in the books."""

    custom_id: str
    billed_as: str


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """How a `batch_outcome` fault makes a batch end."""

    status: Literal["expired", "failed", "cancelled"]
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


class Tally(msgspec.Struct, kw_only=True):
    """What became of a batch's rows, and what they cost (in tokens)."""

    succeeded: int = 0
    errored: int = 0
    expired: int = 0
    canceled: int = 0
    skipped: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Batch(msgspec.Struct, kw_only=True):
    """One batch of any protocol. Instants are Unix seconds."""

    id: str
    protocol: str  # the name of one
    account: str
    created_at: float
    endpoint: str
    input_file_id: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    status: Status = Status.VALIDATING
    rows: int = 0
    first_row: RowName | None = None  # once the rows have been read
    model: str | None = None
    input_tokens: int = 0
    polls: int = 0
    cancelling_polls: int = 0
    outcome: Outcome | None = None
    cancel_fraction: float | None = None  # set by a cancel: the share of rows that are finished
    staged: bool = False  # the answers lie ready and wait for the batch's end
    errors: list[LineError] = []
    tally: Tally = msgspec.field(default_factory=Tally)
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    ended_at: float | None = None
    deleted: bool = False

    @property
    def finished_rows(self) -> int:
        """How many rows are answered when the batch ends the way it is going to end."""
        return round(self.rows * self._share)

    @property
    def end(self) -> Status:
        """The status in which the batch is going to end."""
        if self.status is Status.CANCELLING:
            return Status.CANCELLED
        return Status(self.outcome.status) if self.outcome else Status.COMPLETED

    @property
    def _share(self) -> float:
        if self.cancel_fraction is not None:
            return self.cancel_fraction
        return self.outcome.fraction if self.outcome else 1.0

    def ends_by_polls(self, settings: Settings) -> bool:
        """Whether the retrieve just counted is the one that shows the batch ended."""
        if self.status is Status.CANCELLING:
            return self.cancelling_polls > settings.cancel_polls
        return settings.finish_after_polls is not None and self.polls > settings.finish_after_polls

    def may_end(self, settings: Settings, now: float) -> bool:
        """Whether the clock lets the batch end."""
        return self.status is Status.CANCELLING or now >= self.created_at + settings.batch_seconds

    def due(self, settings: Settings, now: float) -> bool:
        """Whether the batch is to end now, by the clock and by the polls."""
        free = settings.finish_after_polls is None
        if self.status is Status.CANCELLING:
            free = settings.cancel_polls == 0
        return self.may_end(settings, now) and (free or self.ends_by_polls(settings))

    def progress(self, settings: Settings, now: float) -> float:
        """The share of rows that are finished, 0 to 1: the slower of the clock and the polls."""
        share = 1.0
        if settings.batch_seconds:
            share = min(share, (now - self.created_at) / settings.batch_seconds)
        if settings.finish_after_polls:
            share = min(share, self.polls / (settings.finish_after_polls + 1))
        return max(share, 0.0) * self._share


class File(msgspec.Struct, kw_only=True):
    """A file that a client uploaded, or that a batch ended with. Instants are Unix seconds."""

    id: str
    account: str
    filename: str
    bytes: int
    purpose: str
    created_at: float
    expires_at: float | None = None
    deleted: bool = False


# Made once, on import: msgspec builds what it knows of a type on the type's first use, and two threads that do so at
# the same time crash the process (msgspec 0.22).
decode_batch = msgspec.json.Decoder(Batch).decode
decode_file = msgspec.json.Decoder(File).decode
