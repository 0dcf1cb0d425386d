"""Whose fault a failure is, the row's or the endpoint's, and what it costs the row. Pure: decisions over values.

A row that fails each time looks like a dead endpoint once no other row is left to show that it lives. So a failure
counts against its row only where something else was answered well since the row was sent: another row, or, where none
is, a *check call*, a short call of our own to the same route and model (`check.py`). Where the check call fails too,
the endpoint is away, and what failed meanwhile costs no row anything.

What neither of them can decide is written down as *doubts* about a row, over the runs of an attempt: that it was in
flight when a worker was lost, when a connection broke, or when a server's time was over.
"""

from __future__ import annotations

from typing import NamedTuple

from ...contract import ProviderError
from .room import Room

#: Failures of a row until the last one is its answer, and seconds before it is sent again, by how often it has failed.
#: Where no other row is answered either it takes a minute in all: a server that is overloaded may still answer a check.
TRIES, TRIES_ALONE = 3, 4
_WAITS, _WAITS_ALONE = (0.5, 1.5), (0.5, 10.0, 45.0)
#: Times that a run sends a row for which the server's time was over each time, and which it may have billed, whatever
#: the endpoint was like meanwhile.
MOST_SPENT = 8
#: Connections that broke while a row was in flight until it may be what breaks them: then it is sent when all others
#: are answered, with few others at a time, and after one more with none.
SUSPECT, FEW = 2, 8
#: What a connection that broke adds to the doubts about a row; everything else adds one.
BROKE = 4
#: Doubts from which on a row is sent alone, and those from which on it is not sent any more.
_ALONE, _GIVEN_UP = BROKE * (SUSPECT + 1), BROKE * (SUSPECT + 1 + TRIES)


class Checked(NamedTuple):
    """What came of a check call."""

    well: bool = False  #: It was answered.
    soon: bool = False  #: Within half of the time that it had.
    away: bool = False  #: It failed as rows do where nobody is there. Neither: it was refused, which says nothing.
    reason: str = ""  #: As a sentence, where it was not answered well.
    wait: float | None = None  #: For how many seconds the provider asks to be left alone.
    hopeless: ProviderError | None = None  #: What every row would be answered, until somebody fixes the account.


def next_try(failures: int, *, quick: bool) -> float | None:
    """Return the seconds before a row is sent again; None where the last failure is its answer.

    Args:
        failures: how often it has failed.
        quick: whether nothing is gained by time: other rows are answered, or it took long to fail.
    """
    if failures >= (TRIES if quick else TRIES_ALONE):
        return None
    waits = _WAITS if quick else _WAITS_ALONE
    return waits[max(0, failures - 1)]


def given_up(doubts: int) -> bool:
    """Return whether a row is not sent again, by the doubts about it."""
    return doubts >= _GIVEN_UP


def breaks(doubts: int) -> int:
    """Return as after how many broken connections a row is treated from the start, by the doubts about it."""
    return SUSPECT + 1 if doubts >= _ALONE else 0


class Pulse:
    """What all runs of a process know of one endpoint and model."""

    def __init__(self) -> None:
        self.good = 0  #: Rows that were answered well.
        self.signs = 0  #: Those, and check calls.
        self.room = Room()  #: For calls in flight.

    def answered(self, number: int, left: float) -> None:
        """Take note of a row that was answered well; the arguments are those of `Room.answered`."""
        self.good += 1
        self.room.answered(number, left)
