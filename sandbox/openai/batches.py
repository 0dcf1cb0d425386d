"""OpenAI's Batch API."""

from __future__ import annotations

import re
import time
from typing import Any

from aiohttp import web

from ..batch import Batch, Status, decode_batch
from ..errors import Refusal, missing, wrong_type
from ..lifecycle import accept, begin_cancel, polled
from ..provider import account_of, answer, int_param, json_body, new_id, provider_of
from ..settings import Settings
from .endpoints import ENDPOINTS, NAME
from .files import lifetime, page

_WINDOW_SECONDS = 24 * 3600
#: From this share of a batch's time on it is shown as finalizing.
_FINALIZING = 0.9
_FILE_ID = re.compile(r"[A-Za-z0-9_-]+")
#: Metadata limits. Source: the openai package, Batch.metadata.
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512


async def create(request: web.Request) -> web.Response:
    """POST /v1/batches."""
    body = await json_body(request)
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            raise missing(name)
        if not isinstance(body[name], str):
            raise wrong_type(name, "a string", body[name])
    if not _FILE_ID.fullmatch(body["input_file_id"]):
        message = "Invalid 'input_file_id': it is not the id of a file."
        raise Refusal(400, message, code="invalid_value", param="input_file_id")
    _check_value(body, "endpoint", tuple(ENDPOINTS))
    _check_value(body, "completion_window", ("24h",))
    _check_metadata(body.get("metadata"))
    expires_after = body.get("output_expires_after")
    batch = Batch(
        id=new_id("batch_"),
        protocol=NAME,
        account=account_of(request),
        created_at=time.time(),
        endpoint=body["endpoint"],
        input_file_id=body["input_file_id"],
        metadata=body.get("metadata"),
        output_expires_seconds=lifetime(expires_after, "output_expires_after") if expires_after else None,
    )
    accept(provider_of(request), batch)
    return answer(wire(batch, provider_of(request).settings))


def _check_value(body: dict[str, Any], name: str, known: tuple[str, ...]) -> None:
    if body[name] not in known:
        values = ", ".join(f"'{value}'" for value in known)
        message = f"Invalid value: '{body[name]}'. Supported values are: {values}."
        raise Refusal(400, message, code="invalid_value", param=name)


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > _MAX_PAIRS:
        message = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {_MAX_PAIRS} properties, "
            f"but got an object with {len(metadata)} properties instead."
        )
        raise Refusal(400, message, code="object_above_max_properties", param="metadata")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{key}", "a string", value)
        for text, most in ((key, _MAX_KEY), (value, _MAX_VALUE)):
            if len(text) > most:
                message = (
                    f"Invalid 'metadata.{key}': string too long. Expected a string with maximum length {most}, "
                    f"but got a string with length {len(text)} instead."
                )
                raise Refusal(400, message, code="string_above_max_length", param=f"metadata.{key}")


async def retrieve(request: web.Request) -> web.Response:
    """GET /v1/batches/{batch_id}."""
    batch = _batch(request)
    batch = await polled(provider_of(request), batch)
    return answer(wire(batch, provider_of(request).settings))


async def listing(request: web.Request) -> web.Response:
    """GET /v1/batches."""
    provider, account = provider_of(request), account_of(request)
    limit = int_param(request, "limit", 20, 1, 100)
    place = None
    if after := request.query.get("after"):
        place = provider.state.place("batches", after, account)
        if place is None:
            raise _not_found(after)
    found = provider.state.page("batches", account, purpose=NAME, older_than=place, limit=limit + 1)
    batches = [decode_batch(data) for data in found[:limit]]
    return answer(page([wire(batch, provider.settings) for batch in batches], len(found) > limit))


async def cancel(request: web.Request) -> web.Response:
    """POST /v1/batches/{batch_id}/cancel."""
    provider = provider_of(request)
    with provider.state.transaction():
        batch = _batch(request)
        if batch.status is Status.CANCELLED:
            return answer(wire(batch, provider.settings))
        if batch.status.ended:
            raise Refusal(409, f"Cannot cancel a batch with status '{batch.status}'.")
        begin_cancel(provider, batch)
    return answer(wire(batch, provider.settings))


def _batch(request: web.Request) -> Batch:
    batch_id = request.match_info["batch_id"]
    batch = provider_of(request).state.batch(batch_id)
    if batch is None or batch.account != account_of(request) or batch.protocol != NAME:
        raise _not_found(batch_id)
    return batch


def _not_found(batch_id: str) -> Refusal:
    return Refusal(404, f"No batch found with id '{batch_id}'.")


def wire(batch: Batch, settings: Settings) -> dict[str, Any]:
    """OpenAI's batch object as it looks now."""
    share = 1.0 if batch.status.ended else batch.progress(settings, time.time())
    status, finalizing_at = batch.status, batch.finalizing_at
    if status is Status.IN_PROGRESS and settings.batch_seconds and share >= _FINALIZING:
        status, finalizing_at = Status.FINALIZING, batch.created_at + _FINALIZING * settings.batch_seconds
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _errors(batch),
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "in_progress_at": _instant(batch.in_progress_at),
        "expires_at": int(batch.created_at) + _WINDOW_SECONDS,
        "finalizing_at": _instant(finalizing_at),
        "completed_at": _ended_as(batch, Status.COMPLETED),
        "failed_at": _ended_as(batch, Status.FAILED),
        "expired_at": _ended_as(batch, Status.EXPIRED),
        "cancelling_at": _instant(batch.cancelling_at),
        "cancelled_at": _ended_as(batch, Status.CANCELLED),
        "request_counts": _counts(batch, share),
        "usage": _usage(batch),
        "metadata": batch.metadata,
    }


def _instant(instant: float | None) -> int | None:
    return None if instant is None else int(instant)


def _ended_as(batch: Batch, status: Status) -> int | None:
    return _instant(batch.ended_at) if batch.status is status else None


def _errors(batch: Batch) -> dict[str, Any] | None:
    return {"object": "list", "data": batch.errors} if batch.errors else None


def _counts(batch: Batch, share: float) -> dict[str, int]:
    if not batch.status.ended:
        return {"total": batch.rows, "completed": int(batch.rows * share) if batch.staged else 0, "failed": 0}
    tally = batch.tally
    failed = tally.errored + tally.expired + tally.canceled
    return {"total": batch.rows, "completed": tally.succeeded, "failed": failed}


def _usage(batch: Batch) -> dict[str, Any] | None:
    if not batch.status.ended:
        return None
    tally = batch.tally
    return {
        "input_tokens": tally.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tally.output_tokens,
        "output_tokens_details": {"reasoning_tokens": tally.reasoning_tokens},
        "total_tokens": tally.input_tokens + tally.output_tokens,
    }
