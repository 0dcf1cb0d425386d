"""What a batch of the gateway's has used, cost and taken: the answer of `GET /v1/batches/{id}/analytics`. Ours."""

from __future__ import annotations

from collections.abc import Mapping

from ._base import LenientModel
from .gateway_batch import BatchObject, CachedTokens, GatewayStatus, ReasoningTokens, RequestCounts, TokenUsage
from .result import ModelShare, Usage


class ModelAnalytics(LenientModel):
    """What one model answered."""

    model: str  #: As the provider names it; "others" where there are too many.
    answers: int  #: Those of failed attempts included.
    usage: TokenUsage
    cost_usd: str | None = None  #: As far as it is known; null where it is of no answer.
    list_cost_usd: str | None = None  #: The same without the batch discount.


class ErrorAnalytics(LenientModel):
    """Requests that did not succeed for one reason."""

    type: str  #: The class, in one vocabulary for all providers.
    requests: int


class Durations(LenientModel):
    """How long a batch was in each state, in seconds; null for one that it has not left yet, or never was in."""

    validating: int | None = None
    in_progress: int | None = None
    finalizing: int | None = None
    total: int | None = None


class Analytics(LenientModel):
    """A batch in figures."""

    object: str = "batch.analytics"
    batch_id: str
    status: GatewayStatus
    final: bool  #: Whether they will change no more; else they are those of the parts that are finished.
    request_counts: RequestCounts
    usage: TokenUsage
    cost_usd: str | None = None  #: Null where it is not known.
    list_cost_usd: str | None = None  #: What it would have cost without the batch discount.
    cost_is_lower_bound: bool = False  #: Whether the cost of some answers is not known.
    models: tuple[ModelAnalytics, ...] = ()
    errors: tuple[ErrorAnalytics, ...] = ()  #: The most frequent first.
    durations: Durations

    @classmethod
    def of(
        cls,
        batch: BatchObject,
        *,
        usage: Usage | None = None,
        cost_usd: str | None = None,
        list_cost_usd: str | None = None,
        unpriced: int = 0,
        models: Mapping[str, ModelShare] = {},
        classes: Mapping[str, int] = {},
    ) -> Analytics:
        """Return the figures of a batch.

        Args:
            unpriced: answers whose cost is not known.
            classes: requests that did not succeed, by the class of their error.
        """
        return cls(
            batch_id=batch.id,
            status=batch.status,
            final=batch.status.ended,
            request_counts=batch.request_counts,
            usage=batch.usage or token_usage(usage or Usage()),
            cost_usd=cost_usd,
            list_cost_usd=list_cost_usd,
            cost_is_lower_bound=cost_usd is not None and unpriced > 0,
            models=tuple(
                ModelAnalytics(
                    model=name,
                    answers=share.answers,
                    usage=token_usage(share.usage),
                    cost_usd=share.cost_usd,
                    list_cost_usd=share.list_cost_usd,
                )
                for name, share in models.items()
            ),
            errors=tuple(
                ErrorAnalytics(type=name, requests=rows)
                for name, rows in sorted(classes.items(), key=lambda found: (-found[1], found[0]))
            ),
            durations=_durations(batch),
        )


def token_usage(usage: Usage) -> TokenUsage:
    """Return tokens as OpenAI writes them."""
    return TokenUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=CachedTokens(cached_tokens=usage.cached_input_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=ReasoningTokens(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )


def _durations(batch: BatchObject) -> Durations:
    began, finalized, ended = batch.in_progress_at, batch.finalizing_at, batch.ended_at
    return Durations(
        validating=_between(batch.created_at, began or ended),
        in_progress=_between(began, finalized or ended),
        finalizing=_between(finalized, ended),
        total=_between(batch.created_at, ended),
    )


def _between(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None else max(0, last - first)
