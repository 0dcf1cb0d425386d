"""RUN_ROWS: the rows of an attempt, sent one by one until each has an answer."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

from temporalio import activity

from ...contract import (
    AnswerLost,
    AuthenticationFailed,
    ConfigurationError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    QuotaExhausted,
    WorkerBusy,
)
from ...contract.layout import result_path
from ...contract.names import batch_of
from ...contract.steps import RUN_ROWS, Ran, RunRequest
from ..attempt_rows import AttemptRows
from ..lease import Lease, rows_so_far
from ..notes import AttemptNotes
from ..providers.base import LiveCalls, Provider
from ..resources import Resources
from ..step import in_thread, step
from .check import Checks
from .kept import KeptRows
from .sender import Sender
from .source import Source, in_order

#: What a provider says to every row alike. Where it said nothing else, nothing was bought.
_REFUSALS = (AuthenticationFailed, ProviderNotFound, ProviderRefused, QuotaExhausted)
#: Seconds between heartbeats, at most, and the share of the time after which silence means that the worker is lost. The
#: SDK's own heartbeats are further apart, and a cancel is heard by one.
_BEAT_SECONDS, _BEAT_SHARE = 2.0, 0.2


class RunRows:
    """The step that is an attempt in direct mode."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(RUN_ROWS, long=True)
    async def run_rows(self, request: RunRequest, lease: Lease) -> Ran:
        """Send the attempt's rows that have no answer yet, and keep the answers.

        It ends early where the endpoint is dead or the rate cannot be had, and says why; and when it is cancelled, with
        what was answered kept.

        Raises:
            ProviderError: the provider refuses every row, for the key or the route; or the step is another worker's.
            StoreError: the store failed.
            AccountingError: the input is not what was planned.
        """
        lease.rows = rows_so_far()  # a heartbeat that counts none would take back what is known of the run before
        resources, attempt = self._resources, request.attempt
        provider = resources.at_account(attempt.provider, request.account)
        live = _live(provider)
        root = await resources.batch_folder(attempt)
        rows = await AttemptRows.read(resources.store, attempt)
        kept = KeptRows(resources.store, attempt, rows.digest)
        found = await kept.find()
        sendable = rows.read_sent(resources.store)
        left = await in_thread(lease, lambda: [number for number, _ in sendable if number not in found.answered])
        answered = rows.count - len(left)
        if not left:
            return Ran(rows=rows.count, kept=answered)
        lease.rows = answered
        await lease.hold()
        await resources.store.delete(result_path(root))  # of a run before a reset: it no longer accounts for all
        notes = AttemptNotes(resources.store, attempt, request.account)
        noted = await _note(notes, rows.digest)
        doubts, away = await kept.doubts(found)
        run = await kept.begin(found.newest, in_order(left, doubts))
        settings = resources.settings(attempt.provider)
        url = live.url(request.spec.endpoint)
        calls = resources.calls(attempt.provider)
        pulse = resources.pulse(attempt.provider, url, rows.shard.model)
        async with resources.governors.lane(
            settings,
            request.account,
            rows.shard.model,
            priority=request.spec.priority,
            fairness_key=request.spec.fairness_key or "",
            batch=batch_of(attempt.scoped_id),
        ) as lane:
            if request.at_once:
                lane.resume()
            sender = Sender(
                calls,
                live,
                url,
                settings,
                lane,
                kept,
                run,
                lease,
                pulse,
                Checks(calls, live, url, request.spec.endpoint, settings, lane),
                doubtful=away,
                succeeded=found.succeeded,
            )
            source = Source(resources.store, provider, live, rows, request.spec, found.answered, doubts)
            try:
                await _to_the_end(sender, source, lease)
            finally:
                kept.close()
        if sender.error is not None:
            if noted is not None and not sender.reached and isinstance(sender.error, _REFUSALS):
                await notes.withdraw(noted)  # as of a create that was refused: then the batch fails at once
            raise sender.error
        if lease.held and answered + sender.kept < rows.count:
            # Answered, it would be over, and the workflow would begin another one that is not paused.
            raise ProviderUnavailable("An operator paused or reset the step; it goes on with the rows that are left.")
        wait = sender.retry_after if sender.reason else None
        return Ran(
            rows=rows.count,
            kept=answered + sender.kept,
            reason=sender.reason,
            waits=sender.waits,
            retry_after=None if wait is None else timedelta(seconds=wait),
        )


async def _note(notes: AttemptNotes, digest: str) -> int | None:
    """Note that something is bought, as a create does: the plan and the rows are kept from then on.

    Returns:
        The note's number; None where there was one already.
    """
    noted = await notes.read()
    if noted.may_have_bought:
        return None
    with contextlib.suppress(AnswerLost):  # another run has noted it meanwhile, which is as good
        return await notes.write(datetime.now(UTC), noted.newest, digest)
    return None


def _live(provider: Provider) -> LiveCalls:
    if provider.live is None:
        raise ConfigurationError(f"Provider {provider.name} has no direct mode: run the batch in mode batch.")
    return provider.live


async def _to_the_end(sender: Sender, source: Source, lease: Lease) -> None:
    """Send, and see to it that a cancel, a worker that stops and the loss of the step are heard within seconds."""
    sending = asyncio.create_task(sender.send(source))
    others = [asyncio.create_task(_beat(lease)), asyncio.create_task(_until_shutdown(sender))]
    interrupted = False
    try:
        while not sending.done():
            try:
                await asyncio.wait([sending])
            except asyncio.CancelledError:
                interrupted = lease.unwanted = True
                sender.stop(reason="The step was interrupted.")
        if interrupted:
            if not sending.cancelled():
                sending.exception()  # nobody wants it any more, and asyncio would report it as overlooked
            raise asyncio.CancelledError
        sending.result()
    finally:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _beat(lease: Lease) -> None:
    pause = min(_BEAT_SECONDS, _BEAT_SHARE * lease.timeout) if lease.timeout else _BEAT_SECONDS
    while True:
        await asyncio.sleep(pause)
        await lease.confirm()


async def _until_shutdown(sender: Sender) -> None:
    await activity.wait_for_worker_shutdown()
    sender.stop(error=WorkerBusy("The worker stops, and another one goes on with the rows that are left."))
