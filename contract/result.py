"""What a user gets: BatchResult, result rows, and the progress on the way there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue

from ._base import LenientModel
from .status import BatchStatus, ErrorClass, Mode, Phase, ProviderStatus, RowStatus

Count = Annotated[int, Field(ge=0)]


class Counts(LenientModel):
    """Rows by how they ended. Always: total = succeeded + failed + canceled + expired, once the batch has ended."""

    total: Annotated[Count, Field(description="Rows of the input.")] = 0
    succeeded: Annotated[Count, Field(description="Rows the provider answered.")] = 0
    failed: Annotated[Count, Field(description="Rows that failed.")] = 0
    canceled: Annotated[Count, Field(description="Rows a cancel left over.")] = 0
    expired: Annotated[Count, Field(description="Rows the deadline left over.")] = 0

    @property
    def settled(self) -> int:
        """Rows that have ended."""
        return self.succeeded + self.failed + self.canceled + self.expired

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in Counts.model_fields})


class Usage(LenientModel):
    """Tokens."""

    input_tokens: Annotated[Count, Field(description="Tokens of the prompts, cached ones included.")] = 0
    cached_input_tokens: Annotated[Count, Field(description="Of those, read from the provider's cache.")] = 0
    output_tokens: Annotated[Count, Field(description="Tokens of the answers, reasoning included.")] = 0
    reasoning_tokens: Annotated[Count, Field(description="Of those, spent on reasoning.")] = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class Strays(LenientModel):
    """Rows from the provider that belong to nothing; kept in shards/…/unmatched.jsonl, never fatal."""

    unknown: Annotated[Count, Field(description="Rows with an id that was never sent.")] = 0
    duplicate: Annotated[Count, Field(description="Second and later rows for one id.")] = 0
    unreadable: Annotated[Count, Field(description="Lines that are not results, or cannot be read.")] = 0

    def __add__(self, other: Strays) -> Strays:
        return Strays(**{name: getattr(self, name) + getattr(other, name) for name in Strays.model_fields})


#: Models without a known price that are named.
_MAX_MODELS = 20


class Unpriced(LenientModel):
    """Answers whose cost is not known; where there are any, the cost is what is known of it, and so a lower bound."""

    without_usage: Annotated[
        Count,
        Field(description="Answers without a count of their tokens, or with one that makes no sense."),
    ] = 0
    without_price: Annotated[Count, Field(description="Answers of models without a known price.")] = 0
    models: Annotated[
        dict[str, int],
        Field(description='Of those, by model ("" where an answer names none); the first 20 models.'),
    ] = {}

    @property
    def total(self) -> int:
        """All of them."""
        return self.without_usage + self.without_price

    def __add__(self, other: Unpriced) -> Unpriced:
        models = dict(self.models)
        for model, answers in other.models.items():
            if model in models or len(models) < _MAX_MODELS:
                models[model] = models.get(model, 0) + answers
        return Unpriced(
            without_usage=self.without_usage + other.without_usage,
            without_price=self.without_price + other.without_price,
            models=models,
        )


class ModelShare(LenientModel):
    """What one model answered."""

    answers: Annotated[
        Count, Field(description="Answers of it, those of failed attempts and second ones included.")
    ] = 0
    usage: Annotated[Usage, Field(description="Their tokens.")] = Usage()
    cost_usd: Annotated[
        str | None, Field(description="What they cost, in USD, as far as that is known; null where it is of none.")
    ] = None
    list_cost_usd: Annotated[str | None, Field(description="The same without the batch discount.")] = None


class DirectShare(LenientModel):
    """What direct mode answered: row by row, at the list price."""

    rows: Annotated[Count, Field(description="Rows whose result comes from the provider's ordinary endpoint.")] = 0
    cost_usd: Annotated[
        str | None, Field(description="What all of its answers cost, in USD, as far as that is known.")
    ] = None


class ProviderBatch(LenientModel):
    """One provider batch: one attempt of one shard."""

    marker: Annotated[str, Field(description='"{batch_id}~{store}/{shard}/{attempt}", by which it is found again.')]
    id: Annotated[str, Field(description="The provider's own id.")]
    status: Annotated[ProviderStatus, Field(description="Its last known state.")]
    rows: Annotated[Count, Field(description="Rows it was given.")]
    adopted: Annotated[
        bool,
        Field(description="Whether it was found again after an answer was lost, rather than created by us."),
    ] = False


class BatchResult(LenientModel):
    """How a batch ended. Also in the store, as result.json."""

    batch_id: Annotated[str, Field(description="The batch, which is the workflow id.")]
    status: Annotated[BatchStatus, Field(description="How it ended.")]
    counts: Annotated[Counts, Field(description="Rows by how they ended.")] = Counts()
    usage: Annotated[Usage, Field(description="Tokens of every provider batch, failed attempts included.")] = Usage()
    cost_usd: Annotated[
        str | None,
        Field(
            description="What it cost, in USD: at the batch price, or in direct mode at the list price. At least this "
            "much where `unpriced` counts any answers, and null where the cost of none is known."
        ),
    ] = None
    list_cost_usd: Annotated[
        str | None, Field(description="What it would have cost without the batch discount, in USD.")
    ] = None
    unpriced: Annotated[Unpriced, Field(description="Answers whose cost is not known.")] = Unpriced()
    results: Annotated[
        str | None,
        Field(
            description="URI of results.jsonl: one row per request, in order. Very large results stay in parts, and "
            "this is the URI of results.manifest.json, which lists them in order."
        ),
    ] = None
    errors: Annotated[
        str | None,
        Field(description="URI of errors.jsonl, or errors.manifest.json: the rows that did not succeed, in order."),
    ] = None
    provider_batches: Annotated[
        tuple[ProviderBatch, ...],
        Field(description="Every provider batch; the first 100 where there are more."),
    ] = ()
    strays: Annotated[Strays, Field(description="Rows from the provider that belong to nothing.")] = Strays()
    repeated: Annotated[
        Count,
        Field(
            description="Calls of direct mode that were sent again because the worker that had sent them first was "
            "lost before it had kept the answer; the provider may have billed both."
        ),
    ] = 0
    direct: Annotated[
        DirectShare | None,
        Field(description="What direct mode answered, and what of the cost that is; null where no row was sent so."),
    ] = None
    models: Annotated[
        dict[str, ModelShare],
        Field(
            description='Tokens and cost by model, as the provider names it ("" where it names none); the first 20, '
            'and under "others" what is left.'
        ),
    ] = {}
    error_classes: Annotated[
        dict[str, int], Field(description="Rows that did not succeed, by the class of their error.")
    ] = {}
    started_at: Annotated[datetime | None, Field(description="When the workflow began, UTC.")] = None
    ended_at: Annotated[datetime | None, Field(description="When the results were complete, UTC.")] = None
    error: Annotated[str | None, Field(description="Why it did not complete, in a sentence.")] = None
    cancel_reason: Annotated[str | None, Field(description="Why it was cancelled, as the canceller said.")] = None
    canceled_by: Annotated[str | None, Field(description="Who cancelled it, as the canceller said.")] = None
    metadata: Annotated[dict[str, str], Field(description="The spec's own labels.")] = {}

    @property
    def cost_is_lower_bound(self) -> bool:
        """Whether it cost at least `cost_usd`, rather than just that."""
        return self.cost_usd is not None and self.unpriced.total > 0


class ShardCounts(LenientModel):
    """Shards by phase."""

    total: Annotated[Count, Field(description="Shards of the plan.")] = 0
    waiting: Annotated[Count, Field(description="Not begun.")] = 0
    running: Annotated[Count, Field(description="Under way.")] = 0
    ended: Annotated[Count, Field(description="Every row of theirs has ended.")] = 0


class BatchProgress(LenientModel):
    """The answer of the `progress` query: where the batch is, and why nothing moves."""

    batch_id: Annotated[str, Field(description="The batch.")]
    phase: Annotated[Phase, Field(description="Where it is in its life.")]
    counts: Annotated[
        Counts,
        Field(description="Rows; succeeded and failed as far as the provider says, until they are settled."),
    ] = Counts()
    shards: Annotated[ShardCounts, Field(description="Shards by phase.")] = ShardCounts()
    attempt: Annotated[Count, Field(description="The attempt under way, from 1; 0 before the first.")] = 0
    provider: Annotated[str, Field(description="The provider's name in the configuration.")] = ""
    provider_status: Annotated[ProviderStatus | None, Field(description="The provider batch's state.")] = None
    provider_status_raw: Annotated[str | None, Field(description="The same in the provider's word.")] = None
    provider_batch_id: Annotated[str | None, Field(description="The provider batch under way.")] = None
    next_poll_at: Annotated[datetime | None, Field(description="When the provider is asked next, UTC.")] = None
    waiting_for: Annotated[str | None, Field(description="Why nothing moves, in a sentence.")] = None
    last_error: Annotated[str | None, Field(description="The last thing that went wrong, in a sentence.")] = None
    cost_usd: Annotated[str | None, Field(description="Cost so far, in USD; null while it is unknown.")] = None
    started_at: Annotated[datetime | None, Field(description="When the workflow began, UTC.")] = None
    deadline_at: Annotated[datetime | None, Field(description="When the batch is ended whatever it does, UTC.")] = None
    cancel_requested: Annotated[bool, Field(description="Whether a cancel is on its way.")] = False
    result: Annotated[BatchResult | None, Field(description="The result, once the batch has ended.")] = None


class RowError(LenientModel):
    """Why a row did not succeed."""

    type: Annotated[ErrorClass, Field(description="The class, in one vocabulary for all providers.")]
    code: Annotated[str | None, Field(description="The provider's own code, or Durabatch's.")] = None
    message: Annotated[
        str, Field(description="The provider's own words; a sentence that says so where it gave none.")
    ] = ""


class RowResponse(LenientModel):
    """What the provider answered."""

    status_code: Annotated[int, Field(description="HTTP status of the row.")]
    request_id: Annotated[str | None, Field(description="The provider's id for the call, for its support.")] = None
    body: Annotated[
        JsonValue, Field(description="The body, as the provider sent it, but for what JSON does not allow.")
    ] = None


class ResultRow(LenientModel):
    """One line of results.jsonl: exactly one per request, in input order."""

    custom_id: Annotated[str, Field(description="The request's own id.")]
    status: Annotated[RowStatus, Field(description="How it ended.")]
    text: Annotated[str | None, Field(description="The answer's text, where it has one.")] = None
    model: Annotated[str | None, Field(description="The model that answered, as the provider names it.")] = None
    usage: Annotated[Usage | None, Field(description="Its tokens.")] = None
    cost_usd: Annotated[str | None, Field(description="Its cost in USD; null where that is unknown.")] = None
    response: Annotated[RowResponse | None, Field(description="The provider's answer.")] = None
    error: Annotated[RowError | None, Field(description="Why it did not succeed.")] = None
    attempts: Annotated[Count, Field(description="How often it was submitted.")] = 0
    provider_batch_id: Annotated[
        str | None, Field(description="The provider batch that had the last word; null in direct mode.")
    ] = None
    mode: Annotated[
        Mode | None,
        Field(description="How it was run, the last time; null where it never was, and in what older versions wrote."),
    ] = None
