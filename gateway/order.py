"""What a create request asks for, checked, with OpenAI's words for what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from starlette.requests import Request

from ..activities.gateway.checks import REQUIRED
from ..contract.gateway_batch import GatewayBatch
from ..contract.gateway_layout import made_at_ms
from .context import Context
from .errors import ApiError
from .files import lifetime
from .tenants import Tenant

#: Source: the openai package, Batch.metadata.
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
_FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WINDOW = re.compile(r"([1-9]\d{0,3})([hd])")
_HOUR = 3600
MAX_IDEMPOTENCY_KEY = 255


def ordered(body: dict[str, Any], batch_id: str, context: Context, tenant: Tenant) -> GatewayBatch:
    """Return the batch that a create request asks for.

    Args:
        body: the request's.
        batch_id: what it is to be called.

    Raises:
        ApiError: something of it is missing or wrong. Whether its file is there is found out later, as at OpenAI.
    """
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            raise ApiError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
        if not isinstance(body[name], str):
            raise _wrong_type(name, "a string", body[name])
    if not _FILE_ID.fullmatch(body["input_file_id"]):
        raise ApiError(
            400, "Invalid 'input_file_id': it is not the id of a file.", param="input_file_id", code="invalid_value"
        )
    _check_value(body["endpoint"], "endpoint", list(REQUIRED))
    window = body["completion_window"]
    _check_value(window, "completion_window", windows_of(context))
    expires_after = body.get("output_expires_after")
    return GatewayBatch(
        tenant=tenant.name,
        id=batch_id,
        input_file_id=body["input_file_id"],
        endpoint=body["endpoint"],
        completion_window=window,
        window_seconds=_seconds(window),
        metadata=_metadata(body.get("metadata")),
        output_expires_seconds=None if expires_after is None else lifetime(expires_after, "output_expires_after"),
        provider=asked_provider(body.get("provider"), context),
        models=tenant.models,
        limits=tenant.limits,
        created_at=made_at_ms(batch_id) // 1000,
    )


def idempotency_key(request: Request, body: dict[str, Any]) -> str | None:
    """Return the key by which a create may be repeated, None if there is none.

    Raises:
        ApiError: it is no text, or too long.
    """
    given = [body.get("idempotency_key"), request.headers.get("idempotency-key")]
    keys = [key for key in given if key is not None]
    for key in keys:
        if not isinstance(key, str):
            raise _wrong_type("idempotency_key", "a string", key)
        if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY:
            raise ApiError(
                400,
                f"Invalid 'idempotency_key': expected 1 to {MAX_IDEMPOTENCY_KEY} characters.",
                param="idempotency_key",
                code="invalid_value",
            )
    return keys[0] if keys else None  # that of the body, where there are both


def fingerprint(batch: GatewayBatch) -> str:
    """Return a digest of what two creates with one idempotency key must agree on."""
    own = {"tenant", "id", "created_at", "models", "left_by", "limits", "idempotency", "shape", "rows"}
    asked = batch.model_dump(mode="json", exclude=own)
    if batch.retry_of is None:
        del asked["retry_of"]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _seconds(window: str) -> int:
    """Return the length of a completion window in seconds; 0 for what is none."""
    found = _WINDOW.fullmatch(window)
    return int(found[1]) * (_HOUR if found[2] == "h" else 24 * _HOUR) if found else 0


def asked_provider(given: object, context: Context) -> str | None:
    """Return the provider that a request names, or else the gateway's.

    Raises:
        ApiError: no route leads to it, or to any.
    """
    if context.provider is None and not context.settings.gateway.routes:
        raise ApiError(
            400,
            "This gateway has no provider to run batches at: its operator has to add [[gateway.routes]] to "
            "durabatch.toml, or start it with --provider.",
            code="no_route",
        )
    if given is None:
        return context.provider
    if not isinstance(given, str):
        raise _wrong_type("provider", "a string", given)
    _check_value(given, "provider", providers_of(context))
    return given


def windows_of(context: Context) -> list[str]:
    """Return the completion windows that batches may have."""
    return [one for one in context.settings.gateway.completion_windows if _seconds(one)]


def providers_of(context: Context) -> list[str]:
    """Return the providers that a batch may name.

    Those alone that the operator routes to: a tenant is not to choose among everything that is configured.
    """
    routed = {route.provider for route in context.settings.gateway.routes} | {context.provider}
    return sorted(name for name in routed if name)


def _check_value(value: str, name: str, known: list[str]) -> None:
    if value not in known:
        values = ", ".join(f"'{one}'" for one in known)
        message = f"Invalid value: '{value[:100]}'. Supported values are: {values}."
        raise ApiError(400, message, param=name, code="invalid_value")


def _metadata(metadata: object) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise _wrong_type("metadata", "an object", metadata)
    if len(metadata) > MAX_PAIRS:
        raise ApiError(
            400,
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, but "
            f"got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        where = f"metadata.{key[:MAX_KEY]}"
        if not isinstance(value, str):
            raise _wrong_type(where, "a string", value)
        for text, most in ((key, MAX_KEY), (value, MAX_VALUE)):
            if len(text) > most:
                raise ApiError(
                    400,
                    f"Invalid '{where}': string too long. Expected a string with maximum length {most}, but got a "
                    f"string with length {len(text)} instead.",
                    param=where,
                    code="string_above_max_length",
                )
    return metadata


_TYPES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _wrong_type(name: str, wanted: str, value: object) -> ApiError:
    got = "null" if value is None else _TYPES.get(type(value), "something else")
    message = f"Invalid type for '{name}': expected {wanted}, but got {got} instead."
    return ApiError(400, message, param=name, code="invalid_type")
