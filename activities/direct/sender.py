"""Sends the rows of one run, and decides what an answer, or none, means for its row and for the run.

A row goes this way: it is read (`Source`), gets the leave of its lane (a slot in flight, and its part of the rate), is
below the mark that says that it may have been sent, is sent, and has its answer kept (`Keeper`). Marks are written for
groups: rows that have leave gather while the mark before is being written.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ...contract import ProviderError
from ...contract.object_name import Run
from ..lease import Lease, lost_step
from ..providers import ProviderSettings
from ..providers.base import LimitNews, LiveCalls
from .answer import Answer, NoAnswer
from .breaker import Breaker, is_clear, may_have_cost
from .keeper import Keeper, patiently
from .kept import UNANSWERED, UNSENT, KeptRows
from .lane import Lane, Ticket
from .source import Call, Source
from .verdict import Verdict, error_of, verdict

if TYPE_CHECKING:
    from .calls import Calls

#: Failures of a row within one run, and answers that there are too many calls, until the last one is its answer.
_TRIES = 3
_REJECTIONS = 50
#: Seconds before a row is tried again, and by how much each wait is longer; a random part of it is taken off.
_FIRST_WAIT, _WAIT_FACTOR, _LAST_WAIT = 0.5, 3.0, 30.0
#: Seconds that the endpoint, or the lease of the rate, is waited for; then the workflow waits, where everybody sees it.
_PATIENCE = 20.0
#: Calls that are begun at a time: thousands at once would keep the event loop from everything else for seconds.
_RAMP = 100
#: Seconds after which a server may have worked on a call whose connection breaks. Before, it is more likely that
#: nobody is there: what stands before a dead server often takes connections, and closes them.
_SLOW = 5.0
#: Seconds between two looks at the clock.
_TICK = 0.25
#: Seconds that calls under way are given when a run ends early, and when it is cancelled.
_GRACE, _SHORT_GRACE = 10.0, 2.0
#: Rows, one after another, that are refused as if the key might do nothing, until that counts as a refusal of all. A
#: firewall before an endpoint answers 403 to a prompt that it does not like, and that may be the first one.
_REFUSALS = 5


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
        *,
        succeeded: bool,
    ) -> None:
        self._calls = calls
        self._live = live
        self._url = url
        self._settings = settings
        self._lane = lane
        self._kept = kept
        self._run = run
        self._lease = lease
        self._timeout = settings.timeout.total_seconds()
        self._keeper = Keeper(kept, run, lease, settings.max_concurrent_requests)
        self._breaker = Breaker()
        self._group: list[Call] = []  # with leave, but not below the mark
        self._grouped = asyncio.Event()
        self._under_way: dict[Call, asyncio.Task[None]] = {}  # in the order in which they began
        self._again: list[tuple[float, int, Call]] = []  # a heap: when, the row, the call
        self._due = asyncio.Event()
        self._held_back: list[tuple[Call, Verdict, int, bytes]] = []  # it may be the endpoint's fault, not the row's
        self._open = 0  # rows that were read, and have no answer
        self._read = False  # whether all were read
        self._succeeded = succeeded
        self._refusal: ProviderError | None = None  # of a row that is held back
        self._over = asyncio.Event()
        self._fates: list[int] = []  # rows that have an answer, or may have had one
        self._stuck_since: float | None = None
        self.reason: str | None = None  #: Why the run ended early.
        self.retry_after: float | None = None  #: When to go on, in seconds, as far as the provider says.
        self.error: BaseException | None = None  #: The error that ended it.

    @property
    def kept(self) -> int:
        """How many answers are in the store."""
        return self._keeper.rows

    @property
    def reached(self) -> bool:
        """Whether any row has an answer, or was dropped when it might have had one."""
        return bool(self._fates)

    def stop(self, reason: str | None = None, error: BaseException | None = None) -> None:
        """Begin no more calls."""
        if not self._over.is_set():
            self.reason, self.error = reason, error
            self._over.set()

    async def send(self, source: Source) -> None:
        """Send rows until each has an answer, or the run is stopped; keep what was answered."""
        tasks = [self._start(work) for work in (self._dispatch(source), self._mark(), self._retry(), self._watch())]
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
                    self._open += 1
                    await self._ready()
                    most = self._lane.most_tokens
                    if most is not None and call.least > most:
                        self._answer(call, UNSENT, self._too_large(call, most))
                        continue
                    call.ticket = await self._lane.take(call.tokens)
                    self._group.append(call)
                    self._grouped.set()
        self._read = True
        self._look()

    async def _ready(self) -> None:
        """Wait until calls may be begun: answers are kept in time, the step is ours, and the endpoint is there."""
        if self._keeper.behind:
            await self._keeper.room()
        while wait := self._pause():  # noqa: ASYNC110 (time is what is waited for)
            await asyncio.sleep(wait)

    def _pause(self) -> float:
        """Return for how many seconds no call may be begun."""
        if not self._lease.sure():
            return _TICK
        return 0.0 if self._breaker.opened_at is None else self._breaker.delay(time.monotonic())

    async def _mark(self) -> None:
        while True:
            await self._grouped.wait()
            self._grouped.clear()
            group, self._group = self._group, []
            try:
                place = group[-1].place + 1
                await patiently(self._lease, partial(self._kept.mark, self._run, place))
            except BaseException:
                self._group = group + self._group
                raise
            for number, call in enumerate(group, 1):
                self._begin(call)
                if not number % _RAMP:
                    await asyncio.sleep(0)

    def _begin(self, call: Call) -> None:
        if self._over.is_set() or not self._lease.sure():
            self._lane.done(_ticket(call), 0, None)
            self._again_at(call, 0.0)
            return
        call.due = time.monotonic() + self._timeout
        self._under_way[call] = self._start(self._send(call))

    async def _retry(self) -> None:
        while True:
            wait = self._again[0][0] - time.monotonic() if self._again else None
            if wait is None or wait > 0:
                self._due.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()
                continue
            await self._ready()
            _, _, call = heapq.heappop(self._again)
            call.ticket = await self._lane.take(call.tokens)
            self._begin(call)

    async def _send(self, call: Call) -> None:
        ticket = _ticket(call)
        headers = {"x-client-request-id": call.request_id}
        if self._settings.idempotency_key:
            headers["idempotency-key"] = call.request_id
        try:
            answer = await self._calls.post(self._url, headers, call.body)
        except NoAnswer as error:
            self._lane.done(ticket, None, None)
            slow = time.monotonic() - call.due + self._timeout > _SLOW
            self._failed(call, error.reason, clear=error.unreached, spent=slow and not error.unreached)
        except asyncio.CancelledError:
            self._lane.done(ticket, None, None)
            if not call.timed_out:
                self._fates.append(call.row)
                raise
            why = f"Provider {self._settings.name} gave no answer within {self._timeout:g} s."
            self._failed(call, why, spent=True)
        else:
            self._answered(call, ticket, answer)
        finally:
            del self._under_way[call]
            self._look()

    # --- answers ---

    def _answered(self, call: Call, ticket: Ticket, answer: Answer) -> None:
        news = self._live.limit_news(answer.status, answer.headers)
        found = verdict(answer)
        if found is Verdict.REJECTED:
            self._lane.rejected(ticket, news)
        else:
            self._lane.done(ticket, self._live.used_tokens(answer.body), news)
        if found is Verdict.ANSWERED:
            if answer.status < 300:
                self._succeeded = True
                self._release()
            self._breaker.succeeded()
            self._answer(call, answer.status, self._line(call, answer))
        elif found is Verdict.HOPELESS:
            self.stop(error=error_of(self._settings, answer))
        elif found is Verdict.FAILED:
            reason = error_of(self._settings, answer).message
            clear, spent = is_clear(answer.status), may_have_cost(answer.status)
            self._failed(call, reason, clear=clear, spent=spent, answer=answer, news=news)
        elif found is Verdict.REJECTED:
            self._breaker.succeeded()
            call.rejections += 1
            if call.rejections < _REJECTIONS:
                self._again_at(call, max(news.retry_after or 0.0, random.uniform(0.1, _FIRST_WAIT)))
            else:
                self._answer(call, answer.status, self._line(call, answer))
        else:
            self._refused(call, answer)

    def _failed(
        self,
        call: Call,
        reason: str,
        *,
        clear: bool = False,
        spent: bool = False,
        answer: Answer | None = None,
        news: LimitNews | None = None,
    ) -> None:
        """Try a row again, if that may help; where the endpoint as a whole is dead, no row has used up a try.

        Args:
            clear: whether no row can have caused it.
            spent: whether the server may have worked on the row, and bill it: that uses up a try whatever it says of
                the endpoint.
        """
        wait, now = news.retry_after if news else None, time.monotonic()
        self.retry_after = wait
        if spent:
            call.spent += 1
            self._fates.append(call.row)
            self._breaker.undecided(now)
        elif self._breaker.failed(call.row, reason, now, clear=clear, wait=wait):
            for _, _, other in self._again:
                other.tries = 0
            for other, found, _, _ in self._held_back:
                if found is Verdict.FAILED:
                    other.tries = 0
                    self._again_at(other, 0.0)
            self._held_back = [one for one in self._held_back if one[1] is not Verdict.FAILED]
        elif self._breaker.opened_at is None:
            call.tries += 1
        if self._breaker.opened_at is not None:
            call.tries = 0
        tries = call.tries + call.spent
        if tries < _TRIES:
            pause = min(_FIRST_WAIT * _WAIT_FACTOR ** max(0, tries - 1), _LAST_WAIT)
            self._again_at(call, max(wait or 0.0, pause * random.uniform(0.5, 1.0)))
            return
        if answer is not None:
            status, line = answer.status, self._line(call, answer)
        else:
            code = "timeout" if call.timed_out else "connection_error"
            status, line = UNANSWERED, self._live.failed_line(call.sent_id, code, reason)
        if spent:
            self._answer(call, status, line)
        else:
            self._held_back.append((call, Verdict.FAILED, status, line))

    def _refused(self, call: Call, answer: Answer) -> None:
        """Hold back a refusal that may concern all rows, until it shows whether it does."""
        self._held_back.append((call, Verdict.REFUSED, answer.status, self._line(call, answer)))
        self._refusal = error_of(self._settings, answer)
        if sum(found is Verdict.REFUSED for _, found, _, _ in self._held_back) >= _REFUSALS:
            self.stop(error=self._refusal)

    def _release(self) -> None:
        """Take what was held back as answers: another row was answered well."""
        self._refusal = None
        if self._held_back:
            held_back, self._held_back = self._held_back, []
            for call, _, status, line in held_back:
                self._answer(call, status, line)

    def _answer(self, call: Call, status: int, line: bytes) -> None:
        self._open -= 1
        self._fates.append(call.row)
        self._keeper.add(call.row, status, line)

    def _again_at(self, call: Call, wait: float) -> None:
        call.timed_out = False
        heapq.heappush(self._again, (time.monotonic() + wait, call.row, call))
        self._due.set()

    def _line(self, call: Call, answer: Answer) -> bytes:
        request_id = answer.headers.get("x-request-id") or answer.headers.get("request-id")
        if request_id and not request_id.isascii():  # bytes that are no text come as what no JSON can hold
            request_id = request_id.encode(errors="replace").decode()
        return self._live.line(call.sent_id, answer.status, request_id, answer.body)

    def _too_large(self, call: Call, most: int) -> bytes:
        message = (
            f"The row needs {call.least:,} tokens at least (estimated input and its output limit), and provider "
            f"{self._settings.name} allows {most:,} a minute; it was not sent."
        )
        return self._live.failed_line(call.sent_id, "exceeds_rate_limit", message)

    # --- the run as a whole ---

    def _look(self) -> None:
        """End the run if every row has an answer."""
        if self._read and self._open == len(self._held_back) and not self._over.is_set():
            if self._refusal is not None and not self._succeeded:
                self.stop(error=self._refusal)
                return
            self._release()
            self._over.set()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            for call, task in self._under_way.items():
                if call.due > now:
                    break
                call.timed_out = True
                task.cancel()
            if self._lease.taken or self._lease.lost:
                self.stop(error=lost_step())
            elif self._lease.unwanted:
                self.stop(reason="The step was interrupted.")
            elif (opened_at := self._breaker.opened_at) is not None and now - opened_at > _PATIENCE:
                self.stop(reason=self._breaker.reason)
            elif self._stuck(now):
                self.retry_after = self._lane.resumes_in
                self.stop(reason=f"It waits for {self._lane.waiting_for}.")

    def _stuck(self, now: float) -> bool:
        """Return whether nothing has been under way for long because the rate cannot be had."""
        if self._under_way or self._lane.waiting_for is None:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        return self._stuck_since is not None and now - self._stuck_since > _PATIENCE

    async def _end(self) -> None:
        """Give calls under way their grace, drop what is left of them, and keep what was answered."""
        until = time.monotonic() + _GRACE
        hurried = False
        while self._under_way and not (self._lease.taken or self._lease.lost):
            now = time.monotonic()
            if self._lease.unwanted and not hurried:
                until, hurried = min(until, now + _SHORT_GRACE), True
            if now >= until:
                break
            await asyncio.wait(self._under_way.values(), timeout=min(_TICK, until - now))
        await _canceled(*self._under_way.values())
        for call in self._group:
            self._lane.done(_ticket(call), 0, None)
        if self._lease.taken or self._lease.lost:
            return
        await self._keeper.write()
        if self.reason is not None or self.error is not None:
            await self._kept.end(self._run, sorted(set(self._fates)))


def _ticket(call: Call) -> Ticket:
    assert call.ticket is not None
    return call.ticket


async def _canceled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
