"""`/v1/batches/{id}/results`: the rows of a batch as far as they are known, in input order. Ours."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..activities.gateway.output import STATUSES, Lines, pending
from ..activities.row_pages import PENDING, Place, RowSoFar, page_of_results
from ..activities.so_far import SoFar
from ..contract import ObjectNotFound
from ..contract.gateway_batch import BatchEntry, inner_id
from ..contract.layout import RESULTS, results_path
from .batches import NO_BATCH, entry_of
from .context import context_of
from .described import JSON, Described, Param
from .errors import ApiError, not_found
from .params import limit_of, limit_param, own
from .shapes import BatchRows

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1000
_NAMES = {name: status.value for status, name in STATUSES.items()} | {PENDING: PENDING}
_ONE = f"({'|'.join(_NAMES)})"
_STATUS = Param(
    "status",
    "Only requests in this state; several are separated by commas.",
    {"type": "string", "pattern": f"^({_ONE}(,{_ONE})*)?$", "examples": ["failed,expired", *_NAMES]},
)


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/v1/batches/{batch_id}/results", results, methods=["GET"])]


@Described(
    answer=BatchRows,
    takes=[
        Param("after", "The id behind which the page begins: the last one of the page before."),
        limit_param(_DEFAULT_LIMIT, _MAX_LIMIT),
        _STATUS,
    ],
    errors=NO_BATCH,
)
async def results(request: Request) -> Response:
    """List the requests of a batch in the order of its input, with their answers as far as there are any."""
    context, entry = context_of(request), await entry_of(request)
    limit = limit_of(request, _DEFAULT_LIMIT, _MAX_LIMIT)
    after = own(request, "after") or None
    place = None if after is None else Place.parse(after)
    if after is not None and place is None:
        raise not_found("Row", after, "after")
    wanted = _wanted(own(request, "status"))
    inner = inner_id(entry.request.tenant, entry.request.id)
    so_far = await SoFar.open(context.store, inner)
    async with context.long_reads.one(entry.request.tenant):
        if so_far is not None:
            rows, more = await so_far.page(place, limit, wanted)
        elif entry.final is None or entry.intake is None:
            return _answer([], [], more=False)  # nothing of it has begun
        else:
            try:
                rows, more = await page_of_results(context.store, results_path(inner, RESULTS), place, limit, wanted)
            except ObjectNotFound:
                counts = entry.final.request_counts
                if not counts.completed + counts.failed:  # it ended before there were any
                    return _answer([], [], more=False)
                raise ApiError(404, "The results of this batch were removed.", code="results_removed") from None
        return _answer(rows, await asyncio.to_thread(_lines, entry, rows), more=more)


def _wanted(given: str | None) -> frozenset[str] | None:
    if not given:
        return None
    names = given.split(",")
    if wrong := next((name for name in names if name not in _NAMES), None):
        values = ", ".join(f"'{name}'" for name in _NAMES)
        message = f"Invalid value: '{wrong[:100]}'. Supported values are: {values}."
        raise ApiError(400, message, param="status", code="invalid_value")
    return frozenset(_NAMES[name] for name in names)


def _lines(entry: BatchEntry, rows: list[RowSoFar]) -> list[bytes]:
    batch = entry.request
    made = Lines(batch.id, batch.created_at, translated=entry.intake is not None and entry.intake.translated)
    return [
        pending(str(row.place), row.custom_id) if row.result is None else made.shown(row.result, str(row.place))
        for row in rows
    ]


def _answer(rows: list[RowSoFar], lines: list[bytes], *, more: bool) -> Response:
    ends = {"first_id": str(rows[0].place) if rows else None, "last_id": str(rows[-1].place) if rows else None}
    tail = json.dumps({**ends, "has_more": more})
    return Response(b'{"object": "list", "data": [%b], %b' % (b",".join(lines), tail[1:].encode()), media_type=JSON)
