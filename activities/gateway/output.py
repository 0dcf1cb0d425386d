"""The lines of a batch's output and error file in OpenAI's shape. Pure, and fast, because every row passes here.

::

    {"id": "batch_req_…", "custom_id": "…",
     "response": {"status_code": 200, "request_id": "…", "body": {…}}, "error": null}

A row without an answer has `"response": null`, and `error` says why (the openai guide to batches, "Batch expiration").
"""

from __future__ import annotations

import hashlib

import msgspec

from ...contract import RowStatus
from .chat_completion import chat_completion

_NULL = msgspec.Raw(b"null")
#: What OpenAI calls the rows that were not run.
_CODES = {
    RowStatus.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    RowStatus.CANCELED: ("batch_cancelled", "This request was not executed before the batch was cancelled."),
}


class _Response(msgspec.Struct):
    status_code: int = 200
    request_id: str | None = None
    body: msgspec.Raw = _NULL


class _Error(msgspec.Struct):
    type: str = ""
    code: str | None = None
    message: str = ""


class _Row(msgspec.Struct):
    """A line of results.jsonl; the contract's ResultRow describes it."""

    custom_id: str
    status: RowStatus
    response: _Response | None = None
    error: _Error | None = None


class _Why(msgspec.Struct):
    code: str
    message: str


class _Line(msgspec.Struct):
    id: str
    custom_id: str
    response: _Response | None
    error: _Why | None


_row = msgspec.json.Decoder(_Row).decode
_encode = msgspec.json.Encoder().encode


class Lines:
    """Turns the results of one batch into lines of its files.

    Args:
        batch_id: the gateway's; lines get ids that follow from it, so that a repeated step writes the same.
        created_at: what a translated answer says of its time, in seconds since 1970.
        translated: whether the answers are in another shape than OpenAI's.
    """

    def __init__(self, batch_id: str, created_at: int, *, translated: bool) -> None:
        self._hash = hashlib.blake2b(batch_id.encode(), digest_size=12)
        self._created_at = created_at
        self._translated = translated
        self._number = 0
        self.answered = 0  #: Rows that the provider answered, whatever it said.

    def line(self, result: bytes) -> tuple[bool, bytes]:
        """Return whether a row succeeded, and its line, its break included.

        Raises:
            ValueError: it is no result row (msgspec's errors are ValueErrors).
        """
        row = _row(result)
        self._number += 1
        digest = self._hash.copy()
        digest.update(b"%d" % self._number)
        request_id = digest.hexdigest()
        succeeded = row.status is RowStatus.SUCCEEDED
        response = row.response
        if response is not None:
            self.answered += 1
            response.request_id = response.request_id or f"req_{request_id}"
            if self._translated and succeeded:
                response.body = chat_completion(response.body, request_id, self._created_at)
        why = None if succeeded else _why(row)
        return succeeded, _encode(_Line(f"batch_req_{request_id}", row.custom_id, response, why)) + b"\n"


def _why(row: _Row) -> _Why | None:
    if row.response is not None and not 200 <= row.response.status_code < 300:
        return None  # the body says it
    if row.status in _CODES:
        return _Why(*_CODES[row.status])
    error = row.error or _Error()
    return _Why(error.code or error.type or "request_failed", error.message or "The request failed.")
