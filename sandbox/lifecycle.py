"""What happens to a batch by a request, whatever the protocol: it is accepted, polled, and cancelled."""

from __future__ import annotations

import time

from .batch import Batch, Status
from .errors import Refusal
from .faults import BATCH_OUTCOME
from .provider import Provider


def accept(provider: Provider, batch: Batch) -> None:
    """Take a new batch in and start on it.

    Raises:
        Refusal: 429 when the account has too many under way.
    """
    most = provider.settings.max_batches
    if most is not None and len(provider.state.batches_under_way(batch.account)) >= most:
        message = f"Too many batches: at most {most} may be under way at a time. Please try again later."
        raise Refusal(429, message, code="rate_limit_exceeded")
    if fault := provider.faults.take("batches.create", BATCH_OUTCOME):
        batch.outcome = fault.as_outcome()
    provider.state.add_batch(batch, provider.settings)
    provider.worker.submit(batch.id)


async def polled(provider: Provider, batch: Batch) -> Batch:
    """Count a retrieve of a batch and let it end if that was the one it waited for."""
    with provider.state.transaction():
        batch = provider.state.batch(batch.id) or batch
        if batch.status.ended:
            return batch
        batch.polls += 1
        if batch.status is Status.CANCELLING:
            batch.cancelling_polls += 1
        provider.state.save_batch(batch)
    if batch.ends_by_polls(provider.settings) and batch.may_end(provider.settings, time.time()):
        # Answered only when the batch has ended, so that tests can count on the number of polls.
        await provider.worker.advance(batch.id)
    return provider.state.batch(batch.id) or batch


def begin_cancel(provider: Provider, batch: Batch) -> None:
    """Start to cancel a batch that has not ended; a second cancel changes nothing."""
    if batch.status is Status.CANCELLING:
        return
    now, settings = time.time(), provider.settings
    foretold = batch.outcome.fraction if batch.outcome and batch.outcome.status == "cancelled" else None
    if settings.cancel_fraction is not None:
        foretold = settings.cancel_fraction
    batch.cancel_fraction = batch.progress(settings, now) if foretold is None else foretold
    batch.status, batch.cancelling_at, batch.staged = Status.CANCELLING, now, False
    provider.state.save_batch(batch)
    provider.worker.submit(batch.id)
