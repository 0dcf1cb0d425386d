"""Whose fault a failure is, the row's or the endpoint's, and what it costs the row. Pure: decisions over values.

A row that fails each time looks like a dead endpoint once no other row is left to show that it lives. So a failure is
held against its row where the endpoint gave another row its answer meanwhile. Where none did, and the endpoint counts
as dead, each row that is sent to see whether it lives again is preceded by the provider's cheapest call, a list of its
models. If that is answered and the row fails, there is a doubt about the row. Doubts are counted over the runs of an
attempt, so such a row costs its batch some minutes, and an outage, which gives no sign of life, costs no row anything.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto

from .room import Room

#: Failures of a row until the last one is its answer, and seconds before it is sent again, by how often it has failed.
#: Where no other row is answered either it takes a minute in all: a proxy may answer 500 while its server restarts.
TRIES, TRIES_ALONE = 3, 4
_WAITS, _WAITS_ALONE = (0.5, 1.5), (0.5, 10.0, 45.0)
#: Connections that broke while a row was in flight until it may be what breaks them: then it is sent when all others
#: are answered, with few others at a time, and after one more with none.
SUSPECT, FEW = 2, 8
#: Doubts that make a row's failure its answer, where any row was answered well, and where none ever was. Each run adds
#: three at most, and runs are up to ten minutes apart (`outage_delay`): that is a quarter of an hour, and half a day.
_DOUBTS, _DOUBTS_WITHOUT_ANSWER = 24, 240
#: Doubts from which on a row is sent alone.
_DOUBTS_ALONE = 12


class Fault(Enum):
    """How a call failed."""

    SPENT = auto()  #: The server may have worked on it until somebody's patience was over.
    NOBODY = auto()  #: No connection, or a status by which a proxy says that nobody is there.
    BROKEN = auto()  #: The connection broke.
    PLAIN = auto()  #: Any other failure of the server.


class Sign(IntEnum):
    """What the provider's cheapest call said just before a row was sent; its value is how many doubts it adds."""

    SILENT = 0  #: Nothing, or that it failed as well.
    ANSWERED = 1  #: It was refused, so something is there.
    WELL = 3  #: What was asked for.


class Against(Enum):
    """What a failure is held against."""

    ROW = auto()
    ROW_UNTIL_OPEN = auto()  #: The row, unless the endpoint turns out to be dead.
    DOUBT = auto()  #: The row is doubted.
    ENDPOINT = auto()


def judge(fault: Fault, *, answered: bool, dead: bool, sign: Sign | None) -> Against:
    """Return what a failure is held against.

    Args:
        fault: how the call failed.
        answered: whether another row was answered well since this one was sent.
        dead: whether the endpoint counts as dead.
        sign: what was asked before this row was sent, to a dead endpoint; None: it was sent before that.
    """
    if fault is Fault.SPENT:
        return Against.ROW
    if not dead:
        return Against.ROW if answered else Against.ROW_UNTIL_OPEN
    if not sign:
        return Against.ENDPOINT
    # It was there, nothing else was sent, and this row broke the connection.
    return Against.ROW if fault is Fault.BROKEN else Against.DOUBT


def next_try(failures: int, *, quick: bool) -> float | None:
    """Return the seconds before a row is sent again; None where the last failure is its answer.

    Args:
        failures: how often it has failed.
        quick: whether nothing is gained by time: others are answered, or the endpoint soon counts as dead.
    """
    if failures >= (TRIES if quick else TRIES_ALONE):
        return None
    waits = _WAITS if quick else _WAITS_ALONE
    return waits[max(0, failures - 1)]


def given_up(doubts: int, *, succeeded: bool) -> bool:
    """Return whether a row is not sent again.

    Args:
        doubts: about it.
        succeeded: whether any row was answered well.
    """
    return doubts >= (_DOUBTS if succeeded else _DOUBTS_WITHOUT_ANSWER)


def breaks(doubts: int) -> int:
    """Return as after how many broken connections a row is treated from the start, by the doubts about it."""
    return SUSPECT + 1 if doubts >= _DOUBTS_ALONE else 0


class Pulse:
    """What all runs of a process know of one endpoint and model."""

    def __init__(self) -> None:
        self.good = 0  #: Rows that were answered well.
        self.room = Room()  #: For calls in flight.

    def answered(self, number: int, left: float) -> None:
        """Take note of a row that was answered well; the arguments are those of `Room.answered`."""
        self.good += 1
        self.room.answered(number, left)
