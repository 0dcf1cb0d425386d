"""What is to be delivered to an endpoint, in the store: any number of events, of which only those due now are read.

A new event's record is written before the name that says when it is due. Of one that is known, the name is written
first, and the old name goes last. So whatever is killed in between, an event that is pending is due at some time. Where
a record does not confirm a name, either it is about to be written, or the name is left over and removed in a while.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import ValidationError

from ...contract import ObjectNotFound
from ...contract.gateway_layout import (
    Listed,
    delivery_folder,
    delivery_path,
    endpoint_state_path,
    index_path,
    is_id,
    parse_delivery_path,
)
from ...contract.webhooks import Delivery, DeliveryStatus, EndpointState
from ..store import Store

#: For how long a name waits for its record, in milliseconds: another process may be between the two writes. It signals
#: the endpoint's workflow afterwards.
_UNCONFIRMED_MS = 60_000


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1000)


async def read_delivery(store: Store, tenant: str, event_id: str) -> Delivery | None:
    """Return what is known of an event of a tenant's; None where there is none of this id.

    Raises:
        StoreError: the store failed.
    """
    return (await read_deliveries(store, tenant, [event_id]))[0]


async def read_deliveries(store: Store, tenant: str, ids: Sequence[str]) -> list[Delivery | None]:
    """Return what is known of some events of a tenant's, in the order of their ids; None as `read_delivery`.

    Raises:
        StoreError: the store failed.
    """
    paths = {id: index_path(tenant, id) for id in ids if is_id(Listed.EVENTS, id)}
    data = dict(zip(paths, await store.read_each(list(paths.values())), strict=True))
    return [_delivery(data.get(id)) for id in ids]


def _delivery(data: bytes | None) -> Delivery | None:
    try:
        return None if data is None else Delivery.model_validate_json(data)
    except ValidationError:
        return None


class DeliveryQueue:
    """The events for one endpoint. All methods raise StoreError where the store fails."""

    def __init__(self, store: Store, tenant: str, endpoint: str) -> None:
        self._store = store
        self._tenant = tenant
        self._endpoint = endpoint

    async def add(self, delivery: Delivery) -> bool:
        """Queue a new event, again where an earlier try was broken off; return whether it is to be delivered."""
        created = await self._store.create(self._record(delivery), delivery.model_dump_json().encode())
        if not created:
            known = await read_delivery(self._store, self._tenant, delivery.id)
            if known is None or known.status is not DeliveryStatus.PENDING:
                return False
            delivery = known
        await self._store.write(self._due(delivery), b"")
        return True

    async def requeue(self, delivery: Delivery) -> Delivery:
        """Queue an event anew, whatever became of it: its day begins now. Return it."""
        now = now_ms()
        update = {"status": DeliveryStatus.PENDING, "attempts": 0, "queued_ms": now, "next_ms": now}
        return await self.put(delivery, delivery.model_copy(update=update))

    async def put(self, before: Delivery, after: Delivery) -> Delivery:
        """Note what became of an event; return it."""
        if after.status is DeliveryStatus.PENDING:
            await self._store.write(self._due(after), b"")
        await self._store.write(self._record(after), after.model_dump_json().encode())
        if after.status is not DeliveryStatus.PENDING or after.next_ms != before.next_ms:
            await self._store.delete(self._due(before))
        return after

    async def due(self, most: int) -> tuple[list[Delivery], int | None]:
        """Return the events that are due now, at most so many, and when the next one is where none is.

        Names that are left over are removed on the way.
        """
        folder, now = delivery_folder(self._tenant, self._endpoint), now_ms()
        last: str | None = None
        again: list[int] = []  # when names that their records do not confirm may be removed
        while paths := await self._store.page(folder, after=last, limit=most):
            last = paths[-1]
            named = [(path, *parsed) for path in paths if (parsed := parse_delivery_path(path)) is not None]
            ready = [(path, at, id) for path, at, id in named if at <= now]
            if named and not ready:
                again.append(named[0][1])
                break
            known = await read_deliveries(self._store, self._tenant, [id for _, _, id in ready])
            found = []
            for (path, at, _), delivery in zip(ready, known, strict=True):
                if delivery is not None and delivery.status is DeliveryStatus.PENDING and delivery.next_ms == at:
                    found.append(delivery)
                elif now - at < _UNCONFIRMED_MS:
                    again.append(at + _UNCONFIRMED_MS)
                else:
                    await self._store.delete(path)
            for path in set(paths) - {path for path, _, _ in named}:
                await self._store.delete(path)
            if found:
                return found, None
        return [], min(again, default=None)

    async def make_due(self, most: int = 1000) -> None:
        """Have what waits for its next attempt be due now, at most so many events."""
        paths = await self._store.page(delivery_folder(self._tenant, self._endpoint), limit=most)
        for _, event_id in filter(None, map(parse_delivery_path, paths)):
            delivery = await read_delivery(self._store, self._tenant, event_id)
            if delivery is not None and delivery.status is DeliveryStatus.PENDING and delivery.next_ms > now_ms():
                await self.put(delivery, delivery.model_copy(update={"next_ms": now_ms()}))

    async def state(self) -> EndpointState:
        """Return how the endpoint has answered lately."""
        try:
            return EndpointState.model_validate_json(
                await self._store.read(endpoint_state_path(self._tenant, self._endpoint))
            )
        except (ObjectNotFound, ValidationError):
            return EndpointState()

    async def note(self, state: EndpointState) -> None:
        """Note how it has answered."""
        await self._store.write(
            endpoint_state_path(self._tenant, self._endpoint), state.model_dump_json(exclude_defaults=True).encode()
        )

    def _record(self, delivery: Delivery) -> str:
        return index_path(self._tenant, delivery.id)

    def _due(self, delivery: Delivery) -> str:
        return delivery_path(self._tenant, self._endpoint, delivery.next_ms, delivery.id)
