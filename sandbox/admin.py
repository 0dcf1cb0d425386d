"""The admin routes: settings, faults, keys, the books. They need no key."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
from aiohttp import web

from .errors import Refusal, SandboxError
from .protocol import Handler
from .provider import REQUESTS, Provider, answer, json_body, provider_of
from .state import State

#: The metadata key under which Durabatch writes its marker.
MARKER = "durabatch_marker"


def admin(handler: Handler) -> Handler:
    """An admin route's handler, with mistakes answered in one sentence."""

    async def guard(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except SandboxError as error:
            return answer({"error": {"message": str(error)}}, 400)
        except Refusal as refusal:
            return answer({"error": {"message": refusal.message}}, refusal.status)

    return guard


async def read_settings(request: web.Request) -> web.Response:
    """GET /admin/settings."""
    return answer(provider_of(request).settings)


async def change_settings(request: web.Request) -> web.Response:
    """POST /admin/settings: the values to change; answers with all of them."""
    provider = provider_of(request)
    provider.change(await json_body(request))
    return answer(provider.settings)


async def add_fault(request: web.Request) -> web.Response:
    """POST /admin/faults."""
    return answer(provider_of(request).faults.add(await json_body(request)))


async def read_faults(request: web.Request) -> web.Response:
    """GET /admin/faults: those that can still hit a request or hold one."""
    return answer({"faults": provider_of(request).faults.active()})


async def clear_faults(request: web.Request) -> web.Response:
    """DELETE /admin/faults and /admin/faults/{fault_id}; lets go of what they hold."""
    fault_id = request.match_info.get("fault_id")
    removed = provider_of(request).faults.clear(None if fault_id is None else int(fault_id))
    return answer({"removed": removed})


async def change_key(request: web.Request) -> web.Response:
    """POST /admin/keys with {"revoke": key} or {"restore": key}."""
    body, provider = await json_body(request), provider_of(request)
    match body:
        case {"revoke": str(key)}:
            provider.revoke(key)
        case {"restore": str(key)}:
            provider.restore(key)
        case _:
            raise SandboxError('The body must be {"revoke": key} or {"restore": key}.')
    return answer({})


async def reset(request: web.Request) -> web.Response:
    """POST /admin/reset: as on the first start."""
    await provider_of(request).reset()
    return answer({})


async def books(request: web.Request) -> web.Response:
    """GET /admin/books: what there ever was and what was billed; `?summary=1` leaves the maps of rows out."""
    provider = provider_of(request)
    provider.counts.write()
    summary = request.query.get("summary", "") not in ("", "0", "false")
    return answer(await asyncio.to_thread(_books, provider, summary))


def _books(provider: Provider, summary: bool) -> dict[str, Any]:
    state, calls = provider.state, provider.calls
    live: dict[str, Any] = {
        "billed": calls.billed,
        "distinct": len(calls.billed_rows),
        "most_times": calls.most_billed,
    }
    book: dict[str, Any] = {
        "files": [
            {
                "id": file.id,
                "filename": file.filename,
                "bytes": file.bytes,
                "purpose": file.purpose,
                "account": file.account,
                "deleted": file.deleted,
                "created_at": file.created_at,
            }
            for file in state.files()
        ],
        "batches": _batches(state),
        "requests": state.counts(REQUESTS) + calls.by_op,
        "live": live,
    }
    if not summary:
        book["rows"] = _rows(state)
        live["rows"] = dict(calls.billed_rows)
    return book


def _batches(state: State) -> list[dict[str, Any]]:
    return [
        {
            "id": batch.id,
            "protocol": batch.protocol,
            "account": batch.account,
            "marker": (batch.metadata or {}).get(MARKER),
            "metadata": batch.metadata,
            "status": batch.status,
            "input_file_id": batch.input_file_id,
            "rows": batch.rows,
            "first_row": batch.first_row,
            "rows_billed": batch.tally.succeeded if batch.status.ended else 0,
            "created_at": batch.created_at,
            "cancel_requested": batch.cancel_fraction is not None,
        }
        for batch in state.batches()
    ]


def _rows(state: State) -> Counter[str]:
    rows: Counter[str] = Counter()
    for batch in state.batches():
        billed = state.folder / "billed" / batch.id
        if billed.exists():
            with billed.open("rb") as lines:
                rows.update(f"{batch.account}/{msgspec.json.decode(line)}" for line in lines)
    return rows
