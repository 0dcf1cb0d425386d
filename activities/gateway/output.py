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
from ..row_pages import PENDING
from .chat_completion import chat_completion
from .results import Result, ResultError, ResultResponse, decode_result

#: What OpenAI calls the rows that were not run.
_CODES = {
    RowStatus.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    RowStatus.CANCELED: ("batch_cancelled", "This request was not executed before the batch was cancelled."),
}


#: What OpenAI would call the statuses of rows.
STATUSES = {status: status.value for status in RowStatus} | {RowStatus.CANCELED: "cancelled"}


class _Why(msgspec.Struct):
    code: str
    message: str


class _Line(msgspec.Struct):
    id: str
    custom_id: str
    response: ResultResponse | None
    error: _Why | None


class _Shown(msgspec.Struct):
    """A row of `GET /v1/batches/{id}/results`."""

    id: str
    custom_id: str
    status: str
    response: ResultResponse | None = None
    error: _Why | None = None


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
        self._number += 1
        row, request_id = self._answer(result, b"%d" % self._number)
        self.answered += row.response is not None
        succeeded = row.status is RowStatus.SUCCEEDED
        why = None if succeeded else _why(row)
        return succeeded, _encode(_Line(f"batch_req_{request_id}", row.custom_id, row.response, why)) + b"\n"

    def shown(self, result: bytes, id: str) -> bytes:
        """Return a row as it is shown while its batch runs, under an id of its own.

        Raises:
            ValueError: as `line`.
        """
        row, _ = self._answer(result, id.encode())
        status = STATUSES[row.status]
        why = None if row.status is RowStatus.SUCCEEDED else _why(row)
        return _encode(_Shown(id, row.custom_id, status, row.response, why))

    def _answer(self, result: bytes, name: bytes) -> tuple[Result, str]:
        """Return a row whose answer is in OpenAI's shape, and the digits that its ids are made of."""
        row = decode_result(result)
        digest = self._hash.copy()
        digest.update(name)
        request_id = digest.hexdigest()
        if row.response is not None:
            row.response.request_id = row.response.request_id or f"req_{request_id}"
            if self._translated and row.status is RowStatus.SUCCEEDED:
                row.response.body = chat_completion(row.response.body, request_id, self._created_at)
        return row, request_id


def pending(id: str, custom_id: str) -> bytes:
    """Return a row that has no result yet, as it is shown."""
    return _encode(_Shown(id, custom_id, PENDING))


def _why(row: Result) -> _Why | None:
    if row.response is not None and not 200 <= row.response.status_code < 300:
        return None  # the body says it
    if row.status in _CODES:
        return _Why(*_CODES[row.status])
    error = row.error or ResultError()
    code = "invalid_request" if error.never_sent else error.code or error.type
    return _Why(code or "request_failed", error.words or "The request failed.")
