"""What comes of one call: an answer, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """What a provider answered."""

    status: int
    headers: Mapping[str, str]  #: Whatever the case of a name.
    body: bytes


#: Bytes that an answer may have. 2,048 embeddings of 3,072 numbers each, the largest answer known, are some 140 MB.
LONGEST = 256 << 20


class TooLong(Exception):
    """An answer that is longer than any may be, so that it was not read to its end."""


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
