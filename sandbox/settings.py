"""What can be set: how long a batch takes, how late listings are, and what the limits are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from .errors import SandboxError

_Seconds = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]

_MIB = 1024 * 1024


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One set of values for the whole sandbox; changes apply at once, also to batches that are under way."""

    #: A batch does not end before this many seconds after its creation.
    batch_seconds: _Seconds = 0.0
    #: The first so many retrieves show a batch under way, the next shows it ended; null: polls do not matter.
    finish_after_polls: _Count | None = None
    #: A new file or batch is missing from listings for so many seconds.
    list_lag_seconds: _Seconds = 0.0
    #: A new file or batch is missing from the account's next so many listings (pages after the first are free).
    list_lag_lists: _Count = 0
    #: A cancelled batch shows `cancelling` on so many retrieves.
    cancel_polls: _Count = 0
    #: The share of rows finished when a cancel arrives; null: by the batch's progress in time and polls.
    cancel_fraction: _Fraction | None = None
    #: Every request to a provider's route takes so many seconds longer.
    latency_seconds: _Seconds = 0.0
    #: Downloads as plain as the real ones: no Range, no length, and Anthropic's without type and final newline.
    plain_downloads: bool = False
    #: Every live call takes so many seconds longer.
    live_seconds: _Seconds = 0.0
    #: … and up to so many more, always as many for the same prompt.
    live_spread_seconds: _Seconds = 0.0
    #: Live requests in a period, for each account and model; null: no limit. So are the other rates.
    rate_requests: _Count | None = None
    #: Tokens of live calls in a period.
    rate_tokens: _Count | None = None
    #: Input tokens of live calls in a period.
    rate_input_tokens: _Count | None = None
    #: Output tokens of live calls in a period.
    rate_output_tokens: _Count | None = None
    #: The period of the rates; the real ones' is a minute.
    rate_period_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    #: Output tokens count as what a call asks for when it arrives, or as what it used when it is answered.
    rate_counts: Literal["reserved", "used"] = "reserved"
    #: A bucket that fills continuously, as the real ones' are, or a sliding window, which lets no burst pass.
    rate_window: Literal["bucket", "sliding"] = "bucket"
    #: Live calls in flight, for each account and model; null: no limit.
    max_in_flight: _Count | None = None
    #: Whether a call that is one too many in flight waits for its turn, or is refused.
    in_flight_waits: bool = False
    #: Where an event is sent to when an OpenAI batch ends; null: nowhere.
    webhook_url: str | None = None
    #: What the events are signed with.
    webhook_secret: Annotated[str, msgspec.Meta(pattern="^whsec_[A-Za-z0-9+/]+=*$")] | None = None
    #: Input tokens that an account may have under way per model before a batch fails; null: no limit.
    enqueued_token_limit: _Count | None = None
    #: Batches that an account may have under way before a create is refused with 429; null: no limit.
    max_batches: _Count | None = None
    #: Rows of one OpenAI batch. Source: OpenAI's batch guide.
    openai_max_rows: _Count = 50_000
    #: Bytes of one OpenAI batch input file. Source: OpenAI's batch guide (200 MB).
    openai_max_bytes: _Count = 200 * _MIB
    #: Rows of one Anthropic batch. Source: Anthropic's batch guide.
    anthropic_max_rows: _Count = 100_000
    #: Bytes of one Anthropic batch request. Source: Anthropic's batch guide (256 MB).
    anthropic_max_bytes: _Count = 256 * _MIB

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with some values replaced.

        Raises:
            SandboxError: A name does not exist or a value is out of range.
        """
        try:
            return msgspec.convert({**msgspec.structs.asdict(self), **changes}, Settings)
        except msgspec.ValidationError as error:
            raise SandboxError(f"These settings cannot be used: {error}.") from error
