"""What comes of one attempt to deliver an event."""

from __future__ import annotations

from typing import NamedTuple

#: The receiver says that it wants no more of them.
GONE = 410


class Outcome(NamedTuple):
    """What came of an attempt."""

    status: int | None = None  #: The answer's, where there was one.
    error: str | None = None  #: Why it failed, without anything of the receiver's own words or address.

    @property
    def delivered(self) -> bool:
        return self.error is None
