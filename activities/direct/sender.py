"""Sends the rows of one run, and ends it when each has an answer, or when there is no use in going on.

A row goes this way: it is read (`Source`), gets the leave of its lane (a slot in flight, and its part of the rate), is
below the mark that says that it may have been sent, is sent, and what comes of it is decided (`Triage`). Marks are
written for groups: rows that have leave gather while the mark before is being written.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ...contract.object_name import Run
from ..lease import Lease, lost_step
from ..providers import ProviderSettings
from ..providers.base import LiveCalls
from .answer import NoAnswer, TooLong
from .breaker import Breaker
from .check import Checks
from .judgement import Pulse
from .keeper import Keeper, patiently
from .kept import KeptRows
from .lane import Lane
from .memory import Share
from .source import Call, Source
from .triage import Triage

if TYPE_CHECKING:
    from .calls import Calls

#: Seconds that the endpoint, or the lease of the rate, is waited for; then the workflow waits, where everybody sees it.
_PATIENCE = 20.0
#: Seconds after which a wait for the rate is reported: its ledger takes some time to start.
_SHOWN_AFTER = 2.0
#: Calls that are begun at a time: thousands at once would keep the event loop from everything else for seconds.
_RAMP = 100
#: Seconds between two looks at the clock.
_TICK = 0.25
#: Seconds between two looks for room, where an endpoint takes long for its answers.
_ROOM_TICK = 0.02
#: Seconds that calls under way are given when a run ends early, and when it is cancelled.
_GRACE, _SHORT_GRACE = 10.0, 2.0


class Sender:
    """One run.

    Args:
        calls: the connections.
        live: what calls of the provider look like.
        url: where the rows are posted.
        settings: the provider's.
        lane: what the run may send.
        kept: where answers are kept.
        run: this run.
        lease: of the step.
        pulse: what all runs of this process know of the endpoint.
        checks: makes check calls.
        doubtful: whether the endpoint was away when the run before ended.
        succeeded: whether an earlier run of the attempt had a good answer, so that the key and the route were right.
    """

    def __init__(
        self,
        calls: Calls,
        live: LiveCalls,
        url: str,
        settings: ProviderSettings,
        lane: Lane,
        kept: KeptRows,
        run: Run,
        lease: Lease,
        pulse: Pulse,
        checks: Checks,
        *,
        doubtful: bool,
        succeeded: bool,
    ) -> None:
        self._calls = calls
        self._url = url
        self._settings = settings
        self._lane = lane
        self._kept = kept
        self._run = run
        self._lease = lease
        self._timeout = settings.timeout.total_seconds()
        self._keeper = Keeper(kept, run, lease, settings.max_concurrent_requests, calls.memory)
        self._breaker = Breaker()
        self._pulse = pulse
        self._checks = checks
        self._doubtful = doubtful
        self._triage = Triage(
            live,
            settings,
            lane,
            self._keeper,
            self._breaker,
            lambda error: self.stop(error=error),
            pulse,
            succeeded=succeeded,
        )
        self._loop = asyncio.get_running_loop()
        self._group: list[Call] = []  # with leave, but not below the mark
        self._grouped = asyncio.Event()
        self._highest = 0  # the mark
        self._under_way: dict[Call, asyncio.Task[None]] = {}  # in the order in which they began
        self._read = False  # whether all were read
        self._over = asyncio.Event()
        self._stuck_since: float | None = None
        self.reason: str | None = None  #: Why the run ended early.
        self.waits = False  #: Whether that is only that its share of the rate cannot be had.
        self.error: BaseException | None = None  #: The error that ended it.
        self._resumes_in: float | None = None

    @property
    def kept(self) -> int:
        """How many answers are in the store."""
        return self._keeper.rows

    @property
    def reached(self) -> bool:
        """Whether any row has an answer, or was dropped when it might have had one."""
        return bool(self._triage.fates)

    @property
    def retry_after(self) -> float | None:
        """When to go on, in seconds, as far as the provider says."""
        return self._triage.retry_after if self._resumes_in is None else self._resumes_in

    def stop(self, reason: str | None = None, error: BaseException | None = None) -> None:
        """Begin no more calls."""
        if not self._over.is_set():
            self.reason, self.error = reason, error
            self._over.set()

    async def send(self, source: Source) -> None:
        """Send rows until each has an answer, or the run is stopped; keep what was answered."""
        works = (self._dispatch(source), self._mark(), self._retry(), self._find_out(), self._watch())
        tasks = [self._start(work) for work in works]
        keeping = self._start(self._keeper.work())
        try:
            await self._over.wait()
        finally:
            await _canceled(*tasks)
            try:
                await self._end()
            finally:
                await _canceled(keeping, *self._under_way.values())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.stop(error=error)

    # --- rows on their way out ---

    async def _dispatch(self, source: Source) -> None:
        place = 0
        async with contextlib.aclosing(source.pieces()) as pieces:
            async for piece in pieces:
                for call in piece:
                    call.place = place
                    place += 1
                    self._triage.open += 1
                    if self._triage.settles(call):
                        continue
                    if self._doubtful:
                        self._doubtful = False
                        self._triage.doubt(call, "The endpoint was away when this step last ended.")
                    await self._ready()
                    most = self._lane.most_tokens
                    if most is not None and call.least > most:
                        self._triage.too_large(call, most)
                        continue
                    call.ticket = await self._lane.take(call.tokens)
                    self._group.append(call)
                    self._grouped.set()
        self._read = self._triage.all_read = True
        self._lane.no_more()
        self._look()

    async def _ready(self) -> None:
        """Wait until calls may be begun: answers are kept in time, the step is ours, and the endpoint is there."""
        if self._keeper.behind:
            await self._keeper.room()
        while not self._lease.sure():  # noqa: ASYNC110 (time is what is waited for)
            await asyncio.sleep(_TICK)
        while self._pulse.room.full(len(self._group)):  # noqa: ASYNC110 (of all runs of the process)
            await asyncio.sleep(_ROOM_TICK)
        if self._breaker.opened_at is not None:
            await self._breaker.closed.wait()

    async def _find_out(self) -> None:
        """Check whether the endpoint is there, whenever that is in doubt."""
        while not self._over.is_set():
            await self._breaker.doubted.wait()
            if wait := self._breaker.delay(self._loop.time()):
                await asyncio.sleep(wait)
            elif self._triage.failing is None or not self._lease.sure():
                await asyncio.sleep(_TICK)
            else:
                found = await self._checks.ask(self._triage.failing.body, self._in_doubt)
                if found is not None:
                    self._triage.checked(found)
                self._look()

    def _in_doubt(self) -> bool:
        return self._breaker.opened_at is not None and self._lease.sure() and not self._over.is_set()

    async def _mark(self) -> None:
        while True:
            await self._grouped.wait()
            self._grouped.clear()
            group, self._group = self._group, []
            try:
                self._highest = max(self._highest, *(call.place + 1 for call in group))
                await patiently(self._lease, partial(self._kept.mark, self._run, self._highest))
            except BaseException:
                self._group = group + self._group
                raise
            for number, call in enumerate(group, 1):
                call.marked = True
                self._begin(call)
                if not number % _RAMP:
                    await asyncio.sleep(0)

    def _begin(self, call: Call) -> None:
        if self._over.is_set() or not self._lease.sure():
            self._triage.unsent(call, call.leave)
            return
        call.due = self._loop.time() + self._timeout
        call.seen, call.signs, call.number = self._pulse.good, self._pulse.signs, self._pulse.room.begin()
        self._under_way[call] = task = self._start(self._send(call))
        task.add_done_callback(lambda _: self._pulse.room.end())  # also where it is cancelled before it began

    async def _retry(self) -> None:
        while True:
            call = await self._triage.next_again(self._ready)
            call.ticket = await self._lane.take(call.tokens)
            if call.marked:
                self._begin(call)
            else:  # it was put off when it was read
                self._group.append(call)
                self._grouped.set()

    async def _send(self, call: Call) -> None:
        ticket = call.leave
        share = call.share = Share(self._calls.memory)
        headers = {"x-client-request-id": call.request_id}
        if self._settings.idempotency_key:
            headers["idempotency-key"] = call.request_id
        try:
            answer = await self._calls.post(self._url, headers, call.body, share)
        except NoAnswer as error:
            self._triage.unanswered(call, ticket, error)
        except TooLong:
            self._triage.too_long(call, ticket)
        except asyncio.CancelledError:
            if not call.timed_out:
                self._triage.dropped(call, ticket)
                raise
            self._triage.timed_out(call, ticket)
        else:
            self._triage.answered(call, ticket, answer)
        finally:
            share.free()
            del self._under_way[call]
            self._look()

    # --- the run as a whole ---

    def _look(self) -> None:
        """End the run if every row has an answer."""
        self._triage.look()
        if self._read and not self._over.is_set() and self._triage.conclude():
            self.stop(reason=self._triage.reason)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self._loop.time()
            if self._triage.notice():
                self._look()  # rows may have waited for a check that nobody needs now
            for call, task in self._under_way.items():
                if call.due > now:
                    break
                if call.share is None or call.due + call.share.waited(now) <= now:
                    call.timed_out = True
                    task.cancel()
            opened_at, rate = self._breaker.opened_at, self._lane.waiting_for
            stuck = self._stuck(now, rate)
            reason = self._breaker.reason if opened_at is not None else f"Waiting for {rate}."
            self._lease.waiting_for = reason if stuck > _SHOWN_AFTER or opened_at is not None else None
            if self._lease.taken or self._lease.lost:
                self.stop(error=lost_step())
            elif self._lease.unwanted:
                self.stop(reason="The step was interrupted.")
            elif stuck > _PATIENCE:
                self.waits, self._resumes_in = opened_at is None, self._lane.resumes_in
                self.stop(reason=reason)
            elif opened_at is not None and now - opened_at > _PATIENCE and not self._on_trial():
                self.stop(reason=reason)

    def _on_trial(self) -> bool:
        """Return whether the first check has no answer yet: a model that is slow is given its time."""
        return self._checks.asking and not self._breaker.away

    def _stuck(self, now: float, rate: str | None) -> float:
        """Return for how many seconds nothing has been under way because the rate cannot be had."""
        if self._under_way or self._checks.sent or rate is None:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        return 0.0 if self._stuck_since is None else now - self._stuck_since

    async def _end(self) -> None:
        """Give calls under way their grace, drop what is left of them, and keep what was answered."""
        until = self._loop.time() + _GRACE
        hurried = False
        while self._under_way and not (self._lease.taken or self._lease.lost):
            now = self._loop.time()
            if self._lease.unwanted and not hurried:
                until, hurried = min(until, now + _SHORT_GRACE), True
            if now >= until:
                break
            await asyncio.wait(self._under_way.values(), timeout=min(_TICK, until - now))
        await _canceled(*self._under_way.values())
        for call in self._group:
            self._lane.done(call.leave, 0, None)
        if self._lease.taken or self._lease.lost:
            return
        await self._keeper.write()
        if self.reason is not None or self.error is not None:
            rows, away = sorted(set(self._triage.fates)), self._breaker.opened_at is not None
            await self._kept.end(self._run, rows, self._triage.doubts, away=away)


async def _canceled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
