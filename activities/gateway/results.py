"""A row of a batch's results as it is read to be written in a tenant's shape; the contract's ResultRow describes it."""

from __future__ import annotations

import msgspec

from ...contract import RowStatus

NULL = msgspec.Raw(b"null")


class ResultResponse(msgspec.Struct):
    status_code: int = 200
    request_id: str | None = None
    body: msgspec.Raw = NULL


class ResultError(msgspec.Struct):
    type: str = ""
    code: str | None = None
    message: str = ""


class Result(msgspec.Struct):
    custom_id: str
    status: RowStatus
    response: ResultResponse | None = None
    error: ResultError | None = None


#: Raises a ValueError for what is no result row.
decode_result = msgspec.json.Decoder(Result).decode
