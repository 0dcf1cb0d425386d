"""The ledger of one account's queue: what shards ask of it, and what it answers.

Providers bound the input tokens that an account may have enqueued for one model, and fail whatever is over. A ledger is
a workflow that counts them: shards ask it for room before they submit, wait their turn, and give the room back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Annotated

from pydantic import Field

from ._base import LenientModel

#: The workflow type of a ledger. Signals: `reserve` (a Reservation), `release` (holder). Query: `ledger` (LedgerView).
LEDGER_WORKFLOW = "DurabatchLedger"
#: The model of shards whose rows name several.
MIXED = "*"
#: Bytes of reservations that a ledger holds, of each kind, so that they can be carried to a new run (promise G6 allows
#: 64 KiB): some 300 that have room, and as many that wait.
PAGE = 56 * 1024
#: Lines of either kind that a view shows.
SHOWN = 50
#: Characters of a model's name that a ledger's id holds as they are; Temporal's ids have 1,000 at most.
_NAME = 200


def ledger_id(account: str, model: str) -> str:
    """Return the workflow id of the ledger of an account and a model. No batch id has a slash."""
    return f"durabatch-ledger/{account}/{name_in_id(model)}"


def name_in_id(model: str) -> str:
    """Return a model's name as workflow ids hold it: cut where it is too long, with a digest of all of it."""
    name = model or MIXED
    if len(name) > _NAME:
        name = f"{name[:_NAME]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name


class LedgerStart(LenientModel):
    """What a ledger is of; its first argument, the holders and those who wait being the second and the third."""

    account: Annotated[str, Field(description="Digest of the provider's account.")] = ""
    provider: Annotated[str, Field(description="The provider's name in the configuration.")] = ""
    model: Annotated[str, Field(description="The model.")] = ""
    limit: Annotated[int, Field(description="Tokens that may be given out.")] = 0


class Reservation(LenientModel):
    """What a shard asks of a ledger. The same holder asking again keeps its place."""

    holder: Annotated[str, Field(description="The attempt's marker.")]
    workflow_id: Annotated[str, Field(description="The workflow that waits, and is sent the signal `granted`.")]
    tokens: Annotated[int, Field(ge=0, description="Estimated input tokens.")]
    since: Annotated[datetime, Field(description="When it asked first, UTC: who asked earlier comes earlier.")]
    priority: Annotated[int, Field(description="1 comes first, 5 last.")] = 3
    fairness_key: Annotated[str, Field(description="Those with one key share one turn among all keys.")] = ""
    held: Annotated[bool, Field(description="The provider has it already: it is counted, whatever the limit.")] = False

    @property
    def size(self) -> int:
        """Bytes that it takes as JSON, at most."""
        return len(self.holder) + len(self.workflow_id) + 4 * len(self.fairness_key) + 150


def page(reservations: Iterable[Reservation]) -> list[Reservation]:
    """Return the first reservations, as many as fit into a page."""
    kept, size = [], 0
    for reservation in reservations:
        size += reservation.size
        if size > PAGE:
            break
        kept.append(reservation)
    return kept


class Place(LenientModel):
    """A holder's place in a ledger."""

    granted: Annotated[bool, Field(description="Whether it has its room.")]
    ahead: Annotated[int, Field(description="Holders that come before it.")] = 0
    in_use: Annotated[int, Field(description="Tokens that are given out.")] = 0
    holders: Annotated[int, Field(description="Shards that have room.")] = 0
    limit: Annotated[int, Field(description="Tokens that may be given out.")] = 0


class Holder(LenientModel):
    """One line of a ledger."""

    holder: Annotated[str, Field(description="The attempt's marker.")]
    tokens: Annotated[int, Field(description="Its tokens.")]
    since: Annotated[datetime, Field(description="When it asked, UTC.")]


def shown(reservations: Iterable[Reservation]) -> tuple[Holder, ...]:
    """Return the first reservations as a view shows them."""
    first = islice(reservations, SHOWN)
    return tuple(Holder(holder=one.holder, tokens=one.tokens, since=one.since) for one in first)


class LedgerView(LenientModel):
    """The answer of a ledger's `ledger` query."""

    account: Annotated[str, Field(description="Digest of the provider's account.")] = ""
    provider: Annotated[str, Field(description="The provider's name in the configuration.")] = ""
    model: Annotated[str, Field(description='The model; "*" for shards whose rows name several.')] = ""
    limit: Annotated[int, Field(description="Tokens that may be given out.")] = 0
    in_use: Annotated[int, Field(description="Tokens that are given out.")] = 0
    holders: Annotated[int, Field(description="Shards that have room.")] = 0
    waiting: Annotated[int, Field(description="Shards that wait.")] = 0
    waiting_tokens: Annotated[int, Field(description="Tokens that those ask for.")] = 0
    holding: Annotated[tuple[Holder, ...], Field(description="Who has room, the first 50.")] = ()
    queue: Annotated[tuple[Holder, ...], Field(description="Who waits, next first, the first 50.")] = ()
