"""What a tenant's batches of a day may cost: a list of entries in the store, each with the sum so far.

An entry has the number after the newest one's, and of two that are made at once only one gets a number. So nobody adds
to a sum that is not the newest any more, and a limit holds whoever asks, however many do, and whoever is killed.

Whoever adds an entry notes before on which day it is looked for, and behind which number. Another try finds the entry
there, or adds it: none is made twice.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime

import msgspec

from ...contract import ObjectNotFound
from ...contract.gateway_layout import parse_spent_path, spender_path, spent_folder, spent_path
from ..store import Store


class _Entry(msgspec.Struct):
    key: str  #: A batch, or its end.
    amount: int  #: Picodollars; negative where a batch cost less than it might have.
    total: int  #: Of the day, up to this entry.


class _Note(msgspec.Struct):
    day: date
    behind: int  #: The number of the newest entry when it was made.
    amount: int = 0


_entry = msgspec.json.Decoder(_Entry).decode
_note = msgspec.json.Decoder(_Note).decode
_encode = msgspec.json.Encoder().encode


async def reserve(store: Store, tenant: str, batch_id: str, amount: int, limit: int, now: datetime) -> int | None:
    """Count what a batch may cost, once, if the rest of its tenant's day is enough for it.

    Args:
        amount: picodollars.
        limit: of a day, in picodollars. Days are those of UTC.

    Returns:
        None where it is counted, by this call or an earlier one; else what the day's batches cost without it.

    Raises:
        StoreError: the store failed.
    """
    note = await _noted(store, tenant, batch_id, now.astimezone(UTC).date(), amount)
    refused = await _append(store, tenant, batch_id, note, limit)
    if refused is not None:
        await store.delete(spender_path(tenant, batch_id))
    return refused


async def settle(store: Store, tenant: str, batch_id: str, cost: int) -> None:
    """Count what a batch has cost instead of what it might have; nothing where it was not counted.

    Raises:
        StoreError: the store failed.
    """
    reserved = await _read_note(store, tenant, batch_id)
    if reserved is None:
        return
    with suppress(ObjectNotFound):  # of a day so long ago that its entries are gone
        if await _find(store, tenant, reserved, batch_id, await _newest(store, tenant, reserved.day)):
            key = f"{batch_id}-end"
            note = await _noted(store, tenant, key, reserved.day, cost - reserved.amount)
            await _append(store, tenant, key, note, None)


async def forget(store: Store, tenant: str, batch_id: str) -> None:
    """Remove where a batch's entries are looked for, once nobody will.

    Raises:
        StoreError: the store failed.
    """
    for key in (batch_id, f"{batch_id}-end"):
        await store.delete(spender_path(tenant, key))


async def _append(store: Store, tenant: str, key: str, note: _Note, limit: int | None) -> int | None:
    """Add the entry of a note, unless there is one; return the day's sum without it if it would pass a limit."""
    behind = note
    while True:
        newest = await _newest(store, tenant, note.day)
        if await _find(store, tenant, behind, key, newest):
            return None
        total = (await _read(store, tenant, note.day, newest)).total if newest else 0
        if limit is not None and total + note.amount > limit:
            return total
        entry = _Entry(key, note.amount, total + note.amount)
        # False may be this call's own, whose answer was lost: it is found then.
        if await store.create(spent_path(tenant, note.day, newest + 1), _encode(entry)):
            return None
        behind = msgspec.structs.replace(note, behind=newest)


async def _noted(store: Store, tenant: str, key: str, day: date, amount: int) -> _Note:
    note = _Note(day, await _newest(store, tenant, day), amount)
    if await store.create(spender_path(tenant, key), _encode(note)):
        return note
    return await _read_note(store, tenant, key) or note


async def _read_note(store: Store, tenant: str, key: str) -> _Note | None:
    try:
        return _note(await store.read(spender_path(tenant, key)))
    except ObjectNotFound:
        return None


async def _newest(store: Store, tenant: str, day: date) -> int:
    """Return the number of a day's newest entry, 0 if there is none."""
    first = await store.page(spent_folder(tenant, day), limit=1)
    return (parse_spent_path(first[0]) or 0) if first else 0


async def _find(store: Store, tenant: str, note: _Note, key: str, newest: int) -> bool:
    """Return whether there is an entry of this key behind the one that a note names."""
    for number in range(note.behind + 1, newest + 1):
        if (await _read(store, tenant, note.day, number)).key == key:
            return True
    return False


async def _read(store: Store, tenant: str, day: date, number: int) -> _Entry:
    return _entry(await store.read(spent_path(tenant, day, number)))
