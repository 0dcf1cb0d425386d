"""What went wrong with a row at OpenAI, and at servers like it: the class of an error. Pure."""

from __future__ import annotations

from ....contract import ErrorClass
from ..error_details import ErrorDetails, no_reason
from ..outcome import RowFailure

#: Codes and types that OpenAI and servers like it send; more telling than the HTTP status, so looked at first.
_CODES = {
    "batch_expired": ErrorClass.EXPIRED,
    "batch_cancelled": ErrorClass.CANCELED,
    "request_timeout": ErrorClass.TIMEOUT,
    "timeout": ErrorClass.TIMEOUT,
    "rate_limit_exceeded": ErrorClass.RATE_LIMITED,
    "insufficient_quota": ErrorClass.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": ErrorClass.QUOTA_EXHAUSTED,
    "context_length_exceeded": ErrorClass.CONTEXT_LENGTH,
    "string_above_max_length": ErrorClass.CONTEXT_LENGTH,
    "content_filter": ErrorClass.CONTENT_FILTERED,
    "content_policy_violation": ErrorClass.CONTENT_FILTERED,
    "model_not_found": ErrorClass.NOT_FOUND,
    "invalid_api_key": ErrorClass.AUTHENTICATION,
    "server_error": ErrorClass.SERVER_ERROR,
    "internal_error": ErrorClass.SERVER_ERROR,
    "overloaded": ErrorClass.SERVER_ERROR,
}
#: The same for types alone, where neither code nor HTTP status tells more.
_TYPES = {
    "internal_server_error": ErrorClass.SERVER_ERROR,
    "InternalServerError": ErrorClass.SERVER_ERROR,
    "service_unavailable": ErrorClass.SERVER_ERROR,
    "overloaded_error": ErrorClass.SERVER_ERROR,
    "api_error": ErrorClass.SERVER_ERROR,
    "timeout_error": ErrorClass.TIMEOUT,
    "rate_limit_error": ErrorClass.RATE_LIMITED,
    "invalid_request_error": ErrorClass.INVALID_REQUEST,
    "BadRequestError": ErrorClass.INVALID_REQUEST,
    "authentication_error": ErrorClass.AUTHENTICATION,
    "permission_error": ErrorClass.AUTHENTICATION,
    "not_found_error": ErrorClass.NOT_FOUND,
    "NotFoundError": ErrorClass.NOT_FOUND,
}


def error_class(status: int | None, said: ErrorDetails) -> ErrorClass:
    """Return the class of a row's error from its HTTP status, where it has one, and the provider's words."""
    name = said.type if said.code is None or said.code.isdecimal() else said.code
    if name in _CODES:
        return _CODES[name]
    if status is None:
        return _TYPES.get(said.type or "", ErrorClass.OTHER)
    if status == 429:
        return ErrorClass.RATE_LIMITED
    if status in (408, 504):
        return ErrorClass.TIMEOUT
    # A row answered with no HTTP status (0) never reached the model.
    if status == 0 or status >= 500:
        return ErrorClass.SERVER_ERROR
    if status in (401, 403):
        return ErrorClass.AUTHENTICATION
    if status == 404:
        return ErrorClass.NOT_FOUND
    if "maximum context length" in (said.message or ""):
        return ErrorClass.CONTEXT_LENGTH
    return ErrorClass.INVALID_REQUEST


def failure(said: ErrorDetails, otherwise: ErrorClass, code: str = "error", message: str | None = None) -> RowFailure:
    """Return a failure in the provider's words.

    Args:
        otherwise: its class where the words do not tell.
        code: its code where the provider has none.
        message: the same for its message.
    """
    kind = error_class(said.http_status, said)
    return RowFailure(
        type=otherwise if kind is ErrorClass.OTHER else kind,
        code=said.code or said.type or code,
        message=said.message or message or no_reason(None),
    )


def filtered() -> RowFailure:
    """Return the failure of an answer that the content filter ended."""
    message = "The provider's content filter ended it."
    return RowFailure(type=ErrorClass.CONTENT_FILTERED, code="content_filter", message=message)
