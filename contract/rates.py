"""The rate of an account and a model in direct mode: what worker processes ask of its ledger, and what it answers.

Providers bound the requests and the tokens of a minute, and servers the calls in flight. The rate ledger is a workflow
that leases shares of these to worker processes: never more than there is, and each for some seconds only, so that the
share of a worker that is gone comes back. What is leased is a *rate*, a number a second, so that what is given out at
one moment never exceeds the limit, however many workers come and go.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from ._base import LenientModel
from .ledger import name_in_id

#: The workflow type of a rate ledger. Update: `lease` (a RateAsk) -> RateLease. Signal: `release` (a worker's name).
#: Query: `rates` -> RatesView.
RATES_WORKFLOW = "DurabatchRates"
#: Worker processes that one ledger serves at a time, so that what it knows of them fits into one payload (promise G6).
MAX_WORKERS = 100
#: Batches of one worker that an ask and a view name.
SHOWN = 5

#: A number a second, or a number; no limit of a provider is anywhere near this.
_Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


def rates_id(account: str, model: str) -> str:
    """Return the workflow id of the rate ledger of an account and a model. No batch id has a slash."""
    return f"durabatch-rates/{account}/{name_in_id(model)}"


class RateLimits(LenientModel):
    """What an account may use of one model."""

    requests_per_minute: Annotated[float | None, Field(gt=0, description="Null: no limit.")] = None
    tokens_per_minute: Annotated[float | None, Field(gt=0, description="Null: no limit.")] = None
    slots: Annotated[int | None, Field(ge=1, description="Calls in flight; null: nothing is known.")] = None


class Shares(LenientModel):
    """Amounts of what is leased; null: no limit, or as much as can be had."""

    requests: Annotated[_Amount | None, Field(description="A second.")] = None
    tokens: Annotated[_Amount | None, Field(description="A second.")] = None
    slots: Annotated[_Amount | None, Field(description="Calls in flight.")] = None


class RunningBatch(LenientModel):
    """A batch whose rows a worker sends."""

    batch: Annotated[str, Field(max_length=300, description="Its id.")] = ""
    priority: Annotated[int, Field(description="1 comes first, 5 last.")] = 3
    waits: Annotated[float, Field(description="Seconds that its next call has waited for its turn; 0: none waits.")] = 0


class RateAsk(LenientModel):
    """What a worker process asks of a rate ledger, every few seconds."""

    worker: Annotated[str, Field(min_length=1, max_length=64, description="A random name of the process's governor.")]
    label: Annotated[str, Field(max_length=200, description="What people know the process by.")] = ""
    obeys: Annotated[int, Field(ge=0, description="The number of the lease that it keeps to; 0: none.")] = 0
    ttl: Annotated[float, Field(ge=1, le=600, description="Seconds that a lease is to last.")] = 30.0
    limits: Annotated[RateLimits, Field(description="As its configuration has them.")] = RateLimits()
    seen: Annotated[RateLimits, Field(description="As the provider's latest answers say, where they do.")] = (
        RateLimits()
    )
    wants: Annotated[Shares, Field(description="Null: as much as it can get.")] = Shares()
    weight: Annotated[float, Field(gt=0, le=1e6, description="Its part in a division, by its batches' priority.")] = 1.0
    in_flight: Annotated[int, Field(ge=0, le=10_000_000, description="Calls that it has in flight.")] = 0
    using: Annotated[Shares, Field(description="What it has used of late; slots: the most at a time.")] = Shares()
    rejections: Annotated[int, Field(ge=0, description="Calls that were refused with 429 since it asked last.")] = 0
    batches: Annotated[tuple[RunningBatch, ...], Field(max_length=SHOWN, description="What it runs, the first 5.")] = ()


class RateLease(LenientModel):
    """What a worker process may use, for a while."""

    seq: Annotated[int, Field(ge=1, description="Its number; the next ask says that it is obeyed.")]
    amounts: Annotated[Shares, Field(description="Null: no limit. Slots are a whole number.")] = Shares()
    ttl: Annotated[float, Field(gt=0, description="Seconds that it lasts, from the moment the ask was sent.")]
    renew_in: Annotated[float, Field(gt=0, description="Seconds until the worker should ask again.")]
    limits: Annotated[RateLimits, Field(description="What holds at present for all workers together.")] = RateLimits()
    most_tokens: Annotated[float | None, Field(description="A call that needs more can never be sent.")] = None
    workers: Annotated[int, Field(description="Worker processes that have a lease.")] = 1


class RatesStart(LenientModel):
    """What a rate ledger is of: its first argument, the second being what the run before it passes on."""

    account: Annotated[str, Field(description="Digest of the provider's account.")] = ""
    provider: Annotated[str, Field(description="The provider's name in the configuration.")] = ""
    model: Annotated[str, Field(description="The model.")] = ""
    ended_at: Annotated[
        datetime | None,
        Field(description="When the ledger before it was ended from outside, whose leases may still be in use; UTC."),
    ] = None


class Given(LenientModel):
    """A lease that may still be in use."""

    seq: int
    until: Annotated[float, Field(description="When it ends by the ledger's clock, seconds since 1970.")]
    amounts: Shares = Shares()


class RateWorker(LenientModel):
    """What a ledger passes on to its next run about one worker process."""

    ask: RateAsk
    heard_at: Annotated[float, Field(description="When it asked last, as `until` of a lease.")] = 0.0
    given: tuple[Given, ...] = ()


class RatesCarried(LenientModel):
    """What a rate ledger passes on to its next run."""

    workers: tuple[RateWorker, ...] = ()
    seen: RateLimits = RateLimits()
    factor: Annotated[float, Field(description="Share of the limits that is given out since the last 429.")] = 1.0
    cut_at: Annotated[float, Field(description="When that was set, seconds since 1970 by the ledger's clock.")] = 0.0
    quiet_until: Annotated[float, Field(description="Until when nothing is given out, as `cut_at`.")] = 0.0
    heard_at: Annotated[float, Field(description="When it was asked last, as `cut_at`.")] = 0.0
    heard_since: Annotated[float, Field(description="Since when it is asked without a break, as `cut_at`.")] = 0.0


class WorkerView(LenientModel):
    """One worker process, as a rate ledger knows it."""

    label: Annotated[str, Field(description="What people know the process by.")] = ""
    amounts: Annotated[Shares, Field(description="What it may use; null: no limit.")] = Shares()
    using: Annotated[Shares, Field(description="What it has used of late; slots: the most at a time.")] = Shares()
    in_flight: Annotated[int, Field(description="Calls that it had in flight when it asked last.")] = 0
    batches: Annotated[tuple[RunningBatch, ...], Field(description="Batches that it runs, the first 5.")] = ()
    asked_at: Annotated[datetime | None, Field(description="When it asked last, UTC.")] = None
    until: Annotated[datetime | None, Field(description="When its lease ends unless it asks again, UTC.")] = None


class RatesView(LenientModel):
    """The answer of a rate ledger's `rates` query."""

    account: Annotated[str, Field(description="Digest of the provider's account.")] = ""
    provider: Annotated[str, Field(description="The provider's name in the configuration.")] = ""
    model: Annotated[str, Field(description='The model; "*" for rows that name several.')] = ""
    limits: Annotated[RateLimits, Field(description="What may be given out at present.")] = RateLimits()
    configured: Annotated[RateLimits, Field(description="The limits as the workers' configuration has them.")] = (
        RateLimits()
    )
    factor: Annotated[float, Field(description="Share of the limits that is given out since the last 429.")] = 1.0
    workers: Annotated[
        tuple[WorkerView, ...], Field(description="Worker processes that have a lease, as of the last ask.")
    ] = ()
