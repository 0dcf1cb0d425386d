"""A row of a batch's results as it is read to be written in a tenant's shape; the contract's ResultRow describes it."""

from __future__ import annotations

import re

import msgspec

from ...contract import ErrorClass, RowStatus
from ...contract.gateway import without_key

NULL = msgspec.Raw(b"null")

_LINE = re.compile(r"^line [\d,]+[,:] ")


class ResultResponse(msgspec.Struct):
    status_code: int = 200
    request_id: str | None = None
    body: msgspec.Raw = NULL


class ResultError(msgspec.Struct):
    type: str = ""
    code: str | None = None  #: Of a row that was never sent, its field that is wrong.
    message: str = ""

    @property
    def never_sent(self) -> bool:
        """Whether the plan refused the row."""
        return self.type == ErrorClass.INVALID_ROW

    @property
    def words(self) -> str:
        """What it says to a tenant, without the line's number: a retry's lines are not those of the tenant's file."""
        return _LINE.sub("", self.message) if self.never_sent else without_key(self.message)


class Result(msgspec.Struct):
    custom_id: str
    status: RowStatus
    response: ResultResponse | None = None
    error: ResultError | None = None


#: Raises a ValueError for what is no result row.
decode_result = msgspec.json.Decoder(Result).decode
