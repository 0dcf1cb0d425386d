"""The lines of a message batch's results in Anthropic's shape. Pure, and fast, because every row passes here.

::

    {"custom_id": "…", "result": {"type": "succeeded", "message": {…}}}
    {"custom_id": "…", "result": {"type": "errored", "error": {"type": "error", "error": {"type": "…", "message": …}}}}
    {"custom_id": "…", "result": {"type": "canceled"}}
    {"custom_id": "…", "result": {"type": "expired"}}

Source: the anthropic package, `types/messages/message_batch_individual_response.py`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import msgspec

from ...contract import ErrorClass, RowStatus
from ...contract.gateway_batch import OUTPUT_FAILED, LineError, MessageCounts
from ..providers.raw_json import first_byte
from .message import message
from .results import NULL, Result, decode_result

_INVALID, _SERVER = "invalid_request_error", "api_error"
#: The types that a row's error may have (the anthropic package, `ErrorObject`).
_TYPES = frozenset(
    {
        *(_INVALID, _SERVER, "authentication_error", "billing_error", "permission_error", "not_found_error"),
        *("rate_limit_error", "timeout_error", "overloaded_error"),
    }
)
#: What our own classes are called by Anthropic.
_CLASSES: dict[str, str] = {
    ErrorClass.INVALID_REQUEST: _INVALID,
    ErrorClass.INVALID_ROW: _INVALID,
    ErrorClass.CONTEXT_LENGTH: _INVALID,
    ErrorClass.CONTENT_FILTERED: _INVALID,
    ErrorClass.AUTHENTICATION: "authentication_error",
    ErrorClass.NOT_FOUND: "not_found_error",
    ErrorClass.QUOTA_EXHAUSTED: "billing_error",
    ErrorClass.RATE_LIMITED: "rate_limit_error",
    ErrorClass.TIMEOUT: "timeout_error",
}
#: The same of what a whole batch failed for, where it is not its requests' fault.
_UNRUN_TYPES = {
    "billing_hard_limit_reached": "billing_error",
    "not_started": _SERVER,
    "internal_error": _SERVER,
    OUTPUT_FAILED: _SERVER,
}
_UNRUN = {RowStatus.CANCELED: "canceled", RowStatus.EXPIRED: "expired"}

_encode = msgspec.json.Encoder().encode


class _Id(msgspec.Struct):
    custom_id: str


_id = msgspec.json.Decoder(_Id).decode


class MessageLines:
    """Turns the rows of one batch into lines of its results, and counts them.

    Args:
        batch_id: the gateway's; the ids of what is translated follow from it, so that a repeated step writes the same.
        translated: whether the answers are OpenAI's chat completions.
    """

    def __init__(self, batch_id: str, *, translated: bool) -> None:
        self._hash = hashlib.blake2b(batch_id.encode(), digest_size=12)
        self._translated = translated
        self._counted: Counter[str] = Counter()

    @property
    def counts(self) -> MessageCounts:
        """The rows so far."""
        return MessageCounts(**self._counted)

    def line(self, result: bytes) -> bytes:
        """Return the line of a result row, its break included.

        Raises:
            ValueError: it is no result row (msgspec's errors are ValueErrors).
        """
        row = decode_result(result)
        if row.status in _UNRUN:
            return self._line(row.custom_id, {"type": _UNRUN[row.status]})
        response = row.response
        body = NULL if response is None else response.body
        if response is not None and 200 <= response.status_code < 300 and first_byte(body) == b"{":
            # A refusal is a message to Anthropic's callers, as any other answer is.
            answer = message(body, self._request_id()) if self._translated else _own(body)
            if answer is not None:
                return self._line(row.custom_id, {"type": "succeeded", "message": answer})
        return self._errored(row.custom_id, *_error(row))

    def unrun(self, row: bytes, outcome: str, why: LineError | None) -> bytes:
        """Return the line of a row of a batch that did not run, from the row itself.

        Args:
            outcome: "canceled", "expired" or "errored".
            why: what it says of an error.
        """
        custom_id = _id(row).custom_id
        if outcome != "errored":
            return self._line(custom_id, {"type": outcome})
        found = why or LineError(code=_SERVER, message="The batch could not be run.")
        return self._errored(custom_id, _CLASSES.get(found.code, _UNRUN_TYPES.get(found.code, _INVALID)), found.message)

    def _errored(self, custom_id: str, kind: str, words: str) -> bytes:
        error = {"type": "error", "error": {"type": kind, "message": words}, "request_id": f"req_{self._request_id()}"}
        return self._line(custom_id, {"type": "errored", "error": error})

    def _line(self, custom_id: str, result: dict[str, Any]) -> bytes:
        self._counted[result["type"]] += 1
        return _encode({"custom_id": custom_id, "result": result}) + b"\n"

    def _request_id(self) -> str:
        digest = self._hash.copy()
        digest.update(b"%d" % self._counted.total())
        return digest.hexdigest()


class _Message(msgspec.Struct):
    type: str | None = None
    content: msgspec.Raw = NULL


_message = msgspec.json.Decoder(_Message).decode


def _own(body: msgspec.Raw) -> msgspec.Raw | None:
    """Return what Anthropic answered if it is a message."""
    try:
        found = _message(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return body if found.type in (None, "message") and first_byte(found.content) == b"[" else None


def _error(row: Result) -> tuple[str, str]:
    """Return an error's type, as Anthropic has it, and what it says."""
    error = row.error
    if error is None:
        return _SERVER, "The provider's answer is not a message."
    kind = error.code if error.code in _TYPES else _CLASSES.get(error.type, _SERVER)
    return kind, error.words or "The request failed."
