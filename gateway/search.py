"""Filters of the list of batches: ours, as OpenAI's has none.

The list is in the order of time, so a range of it is found at once; by status and metadata, entries are read one after
another until the page is full.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

import msgspec
from starlette.requests import Request

from ..contract.gateway_batch import BatchObject, GatewayStatus
from ..contract.gateway_layout import Listed, index_path, last_id_before, made_at_ms
from . import index
from .context import Context
from .described import Param
from .errors import ApiError
from .live import Glance, as_entry
from .order import MAX_KEY, MAX_PAIRS, MAX_VALUE
from .params import own

#: Batches that are asked about at a time.
_PARALLEL = 16
#: The largest second that an id can hold.
_LAST_SECOND = 16**11 // 1000 - 1
_SECONDS = {"type": "integer", "minimum": 0, "maximum": _LAST_SECOND}

FILTERS = [
    Param("status", "Ours: only batches in this state.", {"type": "string", "enum": list(GatewayStatus)}),
    Param("created_after", "Ours: only batches made at this second (since 1970) or later.", _SECONDS),
    Param("created_before", "Ours: only batches made before this second.", _SECONDS),
    Param(
        "metadata",
        "Ours: metadata[KEY]=VALUE, only batches whose metadata say so; several are all to hold.",
        {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
            "propertyNames": {"maxLength": MAX_KEY},
            "maxProperties": MAX_PAIRS,
        },
    ),
]
_NAMES = {one.name for one in FILTERS}
#: Where the name of a filter ends, and something follows that other servers' filters have.
_BASE = re.compile(r"[\[.]")


class _Request(msgspec.Struct):
    metadata: dict[str, str] | None = None


class _Final(msgspec.Struct):
    status: str


class _Entry(msgspec.Struct):
    """What is looked at in an entry that may not be wanted."""

    request: _Request
    final: _Final | None = None


_entry = msgspec.json.Decoder(_Entry).decode


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much one request looks at before its page is what it has."""

    read: int = 10_000  #: Entries.
    asked: int = 500  #: Batches that have not ended, whose workflows are asked.
    at_once: int = 250  #: Entries that are read at a time.


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which batches a list is narrowed to."""

    status: GatewayStatus | None = None
    created_after: int | None = None  #: Seconds since 1970, these included.
    created_before: int | None = None  #: Seconds since 1970, these not included.
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request) -> Wanted | None:
        """Return what a query asks for; None if it narrows nothing.

        Raises:
            ApiError: a filter is wrong.
        """
        metadata: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            base = _BASE.split(name, maxsplit=1)[0]
            if base not in _NAMES or (base == name and base != "metadata"):
                continue  # not ours, or read below
            if base != "metadata" or not name.startswith("metadata[") or not name.endswith("]"):
                form = "metadata[KEY]=VALUE" if base == "metadata" else f"{base}=VALUE"
                message = f"Invalid filter {name[:100]!r}: expected {form}."
                raise ApiError(400, message, param=name[:100], code="invalid_value")
            key = name[len("metadata[") : -1]
            if len(metadata) == MAX_PAIRS or len(key) > MAX_KEY or len(value) > MAX_VALUE:
                raise ApiError(
                    400,
                    f"Invalid filter {name[:100]!r}: no batch has more than {MAX_PAIRS} metadata, keys of more than "
                    f"{MAX_KEY} characters, or values of more than {MAX_VALUE}.",
                    param=name[:100],
                    code="invalid_value",
                )
            if metadata.setdefault(key, value) != value:
                raise ApiError(
                    400, f"The filter {name[:100]!r} is there twice.", param=name[:100], code="invalid_value"
                )
        found = cls(
            status=_status(own(request, "status")),
            created_after=_second(request, "created_after"),
            created_before=_second(request, "created_before"),
            metadata=metadata,
        )
        return None if found == cls() else found

    def start(self, tenant: str, after: str | None) -> str | None:
        """Return the id behind which to begin."""
        if self.created_before is None:
            return after
        latest = last_id_before(Listed.BATCHES, self.created_before * 1000)
        if after is None or latest is None:
            return after or latest
        return max(after, latest, key=lambda id: index_path(tenant, id))  # the older one comes later

    def may_be(self, data: bytes) -> bool:
        """Return whether an entry may be wanted; where it has not ended, its workflow says what its status is."""
        try:
            entry = _entry(data)
        except msgspec.MsgspecError:
            return False
        metadata = entry.request.metadata or {}
        if any(metadata.get(key) != value for key, value in self.metadata.items()):
            return False
        if self.status is None:
            return True
        return entry.final is None or entry.final.status == self.status


async def search(
    context: Context, tenant: str, wanted: Wanted, after: str | None, limit: int, bounds: Bounds = Bounds()
) -> tuple[list[BatchObject], bool]:
    """Return the next batches of a list that are wanted, at most `limit`, and whether there may be more behind them.

    Raises:
        ApiError: none of the many entries that were read is wanted, so there is no page to go on from.
        StoreError: the store failed.
    """
    glance = Glance(context.client)
    found: list[BatchObject] = []
    read = asked = 0
    after = wanted.start(tenant, after)
    if wanted.created_before == 0:
        return [], False
    while True:
        ids = await index.page(context.store, tenant, Listed.BATCHES, after=after, limit=bounds.at_once)
        whole = len(ids) < bounds.at_once
        if wanted.created_after is not None:
            inside = [id for id in ids if made_at_ms(id) >= wanted.created_after * 1000]
            whole, ids = whole or len(inside) < len(ids), inside
        data = await context.store.read_each([index_path(tenant, id) for id in ids])
        kept = [(id, one) for id, one in zip(ids, data, strict=True) if one is not None and wanted.may_be(one)]
        read += len(ids)
        for first in range(0, len(kept), _PARALLEL):
            some = kept[first : first + _PARALLEL]
            entries = [entry for _, one in some if (entry := as_entry(one)) is not None]
            shown = await asyncio.gather(*map(glance.at, entries))
            asked += sum(not one.status.ended for one in shown)
            found += [one for one in shown if wanted.status in (None, one.status)]
            if len(found) > limit:
                return found[:limit], True
            if asked >= bounds.asked and some[-1][0] != (ids[-1] if whole else None):
                return _so_far(found, some[-1][0])
        if whole:
            return found, False
        after = ids[-1]
        if read >= bounds.read:
            return _so_far(found, after)


def _so_far(found: list[BatchObject], last: str) -> tuple[list[BatchObject], bool]:
    if found:
        return found, True
    raise ApiError(
        400,
        f"None of the batches down to {last} is as the filters want it, and no more are searched at once: go on "
        f"with after={last}, or narrow the search with created_after and created_before.",
        param="after",
        code="search_goes_on",
    )


def _status(given: str | None) -> GatewayStatus | None:
    if given is None:
        return None
    if given not in list(GatewayStatus):
        values = ", ".join(f"'{one}'" for one in GatewayStatus)
        message = f"Invalid value: '{given[:100]}'. Supported values are: {values}."
        raise ApiError(400, message, param="status", code="invalid_value")
    return GatewayStatus(given)


def _second(request: Request, name: str) -> int | None:
    given = own(request, name)
    if given is None:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 12 and int(given) <= _LAST_SECOND):
        message = f"Invalid '{name}': expected whole seconds since 1970."
        raise ApiError(400, message, param=name, code="invalid_type")
    return int(given)
