"""What a provider's results say about one row, in the contract's words. Structs, because each row has one."""

from __future__ import annotations

import msgspec

from ...contract import ErrorClass, RowStatus


class RowTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one row, in the words of the contract's Usage."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class CacheWrites(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row's input tokens, those written to the provider's cache: for the price only, which is higher for them."""

    tokens: int = 0
    hour_tokens: int = 0  #: Of those, the ones kept for an hour, at a price of their own.


class RowFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a row did not succeed, in the words of the contract's RowError."""

    type: ErrorClass
    code: str | None
    message: str


class RowResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider answered for one row; the body as it came, unparsed."""

    status_code: int
    request_id: str | None
    body: msgspec.Raw | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one line of a provider's results says about one row."""

    custom_id: str  #: As it was sent, so possibly not the user's own.
    status: RowStatus
    text: str | None = None
    model: str | None = None
    tokens: RowTokens | None = None
    cache_writes: CacheWrites | None = None
    response: RowResponse | None = None
    failure: RowFailure | None = None
