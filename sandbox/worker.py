"""Brings batches to their end in a thread, one at a time, so that the event loop stays free for requests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from .batch import Batch, LineError, Status
from .protocol import Check, Protocol
from .settings import Settings
from .staging import stage, stage_of
from .state import State


class Stopped(Exception):
    """The sandbox is stopping; the batch goes on when it is started again."""


class Worker:
    """Owns the thread in which batches are checked, answered and ended. Every step may be repeated after a crash."""

    def __init__(self, state: State, settings: Callable[[], Settings], protocols: Mapping[str, Protocol]) -> None:
        self._state = state
        self._protocols = protocols
        self._settings = settings
        self._executor = ThreadPoolExecutor(1, "sandbox-worker")
        self._stopping = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._announcing: set[asyncio.Task[None]] = set()
        for batch in state.batches_under_way():
            self.submit(batch.id)
        self._clock = asyncio.create_task(self._watch_the_clock())

    def submit(self, batch_id: str) -> None:
        """Bring a batch as far as it may go now, in the background."""
        self._executor.submit(self._advance, batch_id)

    async def advance(self, batch_id: str) -> None:
        """Bring a batch as far as it may go now."""
        await self._loop.run_in_executor(self._executor, self._advance, batch_id)

    async def run(self, step: Callable[[], None]) -> None:
        """Run something in the worker's thread: no batch is being worked on meanwhile."""
        await self._loop.run_in_executor(self._executor, step)

    def wake(self) -> None:
        """Look again which batches are due: the settings have changed."""
        self._changed.set()

    async def stop(self) -> None:
        """Stop in the middle of whatever is being done."""
        self._stopping.set()
        self._clock.cancel()
        for task in self._announcing:
            task.cancel()
        await asyncio.gather(*self._announcing, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await self._clock
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    async def _watch_the_clock(self) -> None:
        while True:
            self._changed.clear()
            now, settings, wait = time.time(), self._settings(), None
            for batch in self._state.batches_under_way():
                if not batch.staged:
                    continue
                if batch.due(settings, now):
                    await self.advance(batch.id)
                elif settings.finish_after_polls is None and batch.status is not Status.CANCELLING:
                    left = batch.created_at + settings.batch_seconds - now
                    wait = left if wait is None else min(wait, left)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def _keep_on(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    def _advance(self, batch_id: str) -> None:
        try:
            self._take_steps(batch_id)
        except Stopped:
            return
        except Exception as error:  # a batch must not stay in progress for ever because the sandbox has a bug
            self._fail(batch_id, [LineError(code="internal_error", message=f"{type(error).__name__}: {error}")])
        if not self._stopping.is_set():
            self._loop.call_soon_threadsafe(self._changed.set)

    def _take_steps(self, batch_id: str) -> None:
        batch = self._state.batch(batch_id)
        if batch is not None and batch.in_progress_at is None and not batch.status.ended:
            self._accept(batch)
            batch = self._state.batch(batch_id)
        while batch is not None and not batch.staged and not batch.status.ended:
            self._stage(batch)
            batch = self._state.batch(batch_id)
        if batch is not None and not batch.status.ended and batch.due(self._settings(), time.time()):
            self._end(batch.id)

    # -- the steps ------------------------------------------------------------------------------------------

    def _accept(self, batch: Batch) -> None:
        """Check the input and let the batch in, or fail it."""
        protocol = self._protocols[batch.protocol]
        check = protocol.check(batch, self._state, self._settings(), self._keep_on)
        with self._state.transaction():
            errors = check.errors or self._over_the_limit(batch, check)
            if errors:
                self._fail(batch.id, errors)
                return
            current = self._state.batch(batch.id)
            if current is None:
                return
            if current.status is Status.VALIDATING:
                current.status = Status.IN_PROGRESS
            current.in_progress_at = time.time()
            current.rows, current.model, current.input_tokens = check.rows, check.model, check.input_tokens
            self._state.save_batch(current)

    def _over_the_limit(self, batch: Batch, check: Check) -> list[LineError]:
        limit = self._settings().enqueued_token_limit
        if limit is None:
            return []
        others = self._state.batches_under_way(batch.account)
        queued = sum(other.input_tokens for other in others if other.model == check.model)
        if queued + check.input_tokens <= limit:
            return []
        message = (
            f"Enqueued token limit reached for {check.model} in organization org-sandbox. Limit: {limit:,} "
            "enqueued tokens. Please try again once some in_progress batches have been completed."
        )
        return [LineError(code="token_limit_exceeded", message=message)]

    def _stage(self, batch: Batch) -> None:
        """Answer the rows; if a cancel changes meanwhile how far the batch gets, it is not staged yet."""

        def submission(custom_id: str) -> int:
            return self._state.submit(batch.account, custom_id, batch.id)

        source = self._state.file_path(batch.input_file_id)
        protocol, target = self._protocols[batch.protocol], stage_of(self._state.folder, batch.id)
        tally, first = stage(batch, protocol, source, target, submission, self._keep_on)
        with self._state.transaction():
            current = self._state.batch(batch.id)
            if current and (current.finished_rows, current.end) == (batch.finished_rows, batch.end):
                current.staged, current.tally, current.first_row = True, tally, first
                self._state.save_batch(current)

    def _end(self, batch_id: str) -> None:
        """Put the answers where they can be fetched and end the batch: it bills here, once."""
        with self._state.transaction():
            batch = self._state.batch(batch_id)
            now = time.time()
            # Looked at again under the lock: a cancel may have come in between, and then it is staged again.
            if batch is None or not batch.staged or batch.status.ended or not batch.due(self._settings(), now):
                return
            staged = stage_of(self._state.folder, batch.id)
            batch.output_file_id = self._publish(staged.output, batch, "output", batch.tally.output_bytes)
            batch.error_file_id = self._publish(staged.error, batch, "error", batch.tally.error_bytes)
            _move(staged.billed, self._state.folder / "billed" / batch.id)
            batch.status, batch.ended_at = batch.end, now
            if batch.status is Status.CANCELLED:
                batch.cancelling_at = batch.cancelling_at or now
            elif batch.status is Status.FAILED:
                batch.errors = [LineError(code="internal_error", message="The batch could not be finished.")]
            else:
                batch.finalizing_at = batch.finalizing_at or now
            self._state.save_batch(batch)
            self._protocols[batch.protocol].publish(batch, self._state, self._settings())
        self._ended(batch)

    def _publish(self, staged: Path, batch: Batch, kind: str, size: int) -> str | None:
        file_id = f"file-{blake2b(f'{batch.id}/{kind}'.encode(), digest_size=12).hexdigest()}"
        _move(staged, self._state.file_path(file_id))
        return file_id if size else None

    def _fail(self, batch_id: str, errors: list[LineError]) -> None:
        with self._state.transaction():
            batch = self._state.batch(batch_id)
            if batch is None or batch.status.ended:
                return
            batch.status, batch.ended_at, batch.errors = Status.FAILED, time.time(), errors
            self._state.save_batch(batch)
        self._ended(batch)

    def _ended(self, batch: Batch) -> None:
        self._state.drop_content(batch.input_file_id)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the sandbox has stopped
            self._loop.call_soon_threadsafe(self._announce, batch)

    def _announce(self, batch: Batch) -> None:
        task = self._loop.create_task(self._protocols[batch.protocol].announce(batch, self._settings()))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)


def _move(source: Path, target: Path) -> None:
    """Rename; a crash after the moves and before the commit repeats them, and then there is nothing to move."""
    if source.exists():
        source.replace(target)
