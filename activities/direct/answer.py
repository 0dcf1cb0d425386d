"""What comes of one call: an answer, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """What a provider answered."""

    status: int
    headers: Mapping[str, str]  #: Whatever the case of a name.
    body: bytes


class NoAnswer(Exception):
    """A call that was not answered.

    Args:
        reason: a sentence for whoever runs the worker.
        unreached: whether there was no connection, so that nothing was sent.
    """

    def __init__(self, reason: str, *, unreached: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unreached = unreached
