"""How a step fails, as the workflows see it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TemporalTimeout

#: Seconds. A provider that asks to be left alone for longer is asked after our own waits instead.
_LONGEST_WAIT = timedelta(days=1).total_seconds()


class Stopped(Exception):
    """A cancel or the deadline came, and the step was not worth finishing."""


class StepFailed(Exception):
    """A step failed for good."""

    def __init__(self, code: str, message: str, details: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def cause_of(failed: StepFailed) -> dict[str, Any]:
    """Return what failed, as a client reads it: the error's code, and whatever facts the step gave with it."""
    facts = {key: value for detail in failed.details if isinstance(detail, dict) for key, value in detail.items()}
    return {"code": failed.code, **facts}


class Trouble:
    """Why a step failed, read from Temporal's failure."""

    def __init__(self, error: ActivityError) -> None:
        cause = error.cause
        self.details: tuple[Any, ...] = ()
        if isinstance(cause, ApplicationError):
            self.code = cause.type or "unknown"
            self.message = cause.message
            self.details = tuple(cause.details)
        elif isinstance(cause, TemporalTimeout):
            self.code = "timeout"
            self.message = "The worker that did this step was not heard of any more."
        else:
            self.code = "unknown"
            self.message = str(cause or error)

    @property
    def retry_after(self) -> timedelta | None:
        """How long the provider asked to be left alone."""
        for detail in self.details:
            seconds = detail.get("retry_after") if isinstance(detail, dict) else None
            if isinstance(seconds, int | float) and 0 <= seconds <= _LONGEST_WAIT:
                return timedelta(seconds=seconds)
        return None
