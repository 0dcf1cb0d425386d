"""What an answer, or none, means for its row: it is kept, the row is tried again, or the decision is held back.

What speaks of the endpoint rather than of the row costs no row a try, and what speaks of the account ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Awaitable, Callable

from ...contract import ProviderError
from ..estimate import bounded
from ..providers import ProviderSettings
from ..providers.base import LimitNews, LiveCalls
from .answer import LONGEST, Answer, NoAnswer
from .breaker import Breaker, is_clear, may_have_cost
from .judgement import FEW, SUSPECT, TRIES, Against, Fault, Pulse, Sign, judge, next_try
from .keeper import Keeper
from .kept import UNANSWERED, UNSENT
from .lane import Lane, Ticket
from .source import Call
from .verdict import Verdict, error_of, verdict

#: What is said of a row about which earlier runs had too many doubts.
_GIVEN_UP = (
    "The row failed in each of many runs while the endpoint was there, or its worker was lost each time that it was in "
    "flight. It is not sent again: look into the server's log for the reason."
)
#: Answers to a row that there are too many calls, until the last one is its answer.
_REJECTIONS = 50
#: Seconds before a row is sent again that was refused so, at most, where the provider does not say.
_REJECTED_WAIT = 0.5
#: Seconds after which a server may have worked on a call whose connection breaks. Before, it is more likely that
#: nobody is there: what stands before a dead server often takes connections, and closes them.
_SLOW = 5.0
#: Rows, one after another, that are refused as if the key might do nothing, until that counts as a refusal of all. A
#: firewall before an endpoint answers 403 to a prompt that it does not like, and that may be the first one.
_REFUSALS = 5


class Triage:
    """The rows of one run that were sent, or never can be.

    Args:
        live: what calls of the provider look like.
        settings: the provider's.
        lane: what the run may send.
        keeper: takes the answers.
        breaker: whether the endpoint answers at all.
        fail: ends the run with an error.
        pulse: what other runs know of the endpoint.
        succeeded: whether an earlier run of the attempt had a good answer, so that the key and the route were right.
    """

    def __init__(
        self,
        live: LiveCalls,
        settings: ProviderSettings,
        lane: Lane,
        keeper: Keeper,
        breaker: Breaker,
        fail: Callable[[BaseException], None],
        pulse: Pulse,
        *,
        succeeded: bool,
    ) -> None:
        self._live = live
        self._settings = settings
        self._lane = lane
        self._keeper = keeper
        self._breaker = breaker
        self._fail = fail
        self._pulse = pulse
        self._noticed = pulse.good
        self._timeout = settings.timeout.total_seconds()
        self._succeeded = succeeded
        self._held_back: list[tuple[Call, Verdict, int, bytes]] = []  # it may be the endpoint's fault, not the row's
        self._refusal: ProviderError | None = None  # of a row that is held back
        self._again: list[tuple[float, int, Call]] = []  # a heap: when, the row, the call
        self._suspects: list[tuple[int, int, Call]] = []  # a heap: broken connections, the row, the call
        self._few = set[Call]()  # those of them that are in flight
        self._due = asyncio.Event()
        self.all_read = False  #: Whether there are no rows but those that were read.
        self.doubts: dict[int, int] = {}  #: About rows that failed although the endpoint was there.
        self.open = 0  #: Rows that were read, and have no answer.
        self.fates: list[int] = []  #: Rows that have an answer, or may have had one.
        self.retry_after: float | None = None  #: When to go on, in seconds, as far as the provider says.

    async def next_again(self, ready: Callable[[], Awaitable[Sign | None]]) -> Call:
        """Return the next row that is to be sent again, when its time has come.

        Args:
            ready: waits until calls may be begun, and returns the sign of life that precedes this one.
        """
        while True:
            wait = self._again[0][0] - time.monotonic() if self._again else None
            if self._suspects_turn():
                sign = await ready()
                call = heapq.heappop(self._suspects)[2]
                self._few.add(call)
            elif wait is None or wait > 0:
                self._due.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()
                continue
            else:
                sign = await ready()
                call = heapq.heappop(self._again)[2]
            call.sign = sign
            return call

    def _suspects_turn(self) -> bool:
        """Return whether it is the turn of a row that may be what breaks connections: when no other row has any."""
        if not self._suspects or not self.all_read:
            return False
        if self.open > len(self._suspects) + len(self._held_back) + len(self._few):
            return False
        alone = self._suspects[0][0] > SUSPECT or any(call.broke > SUSPECT for call in self._few)
        return len(self._few) < (1 if alone else FEW)

    def look(self) -> None:
        """See whether rows that were to wait for others may be sent."""
        if self._suspects:
            self._due.set()

    def notice(self) -> None:
        """Take note that the endpoint lives, as far as other runs know."""
        if self._pulse.good != self._noticed:
            self._noticed = self._pulse.good
            self._breaker.succeeded()

    def settles(self, call: Call) -> bool:
        """Return whether a row that was just read is not to be sent: it has failed too often, or its turn is later."""
        if call.given_up:
            self._give_up(call, _GIVEN_UP)
            return True
        if call.broke >= SUSPECT:
            self._again_at(call, 0.0)
            return True
        return False

    def _give_up(self, call: Call, message: str) -> None:
        self._keep(call, UNANSWERED, self._live.failed_line(call.sent_id, "never_answered", message))

    def conclude(self) -> bool:
        """Return whether every row that was read has an answer; what is held back counts as one then."""
        if self.open != len(self._held_back):
            return False
        if self._refusal is not None and not self._succeeded:
            self._fail(self._refusal)
        else:
            self._release()
        return True

    def unanswered(self, call: Call, ticket: Ticket, error: NoAnswer) -> None:
        """Take note that a call had no answer."""
        self._lane.done(ticket, None, None)
        slow = time.monotonic() - call.due + self._timeout > _SLOW
        if error.unreached:
            self._failed(call, error.reason, Fault.NOBODY)
        else:
            if call in self._few and call.broke > SUSPECT:
                call.lone += 1
            call.broke += 1
            self._failed(call, error.reason, Fault.SPENT if slow else Fault.BROKEN)

    def timed_out(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call's time was over."""
        self._lane.done(ticket, None, None)
        if self._pulse.room.crowded(*call.number, call.crowded):
            call.crowded += 1
            self.fates.append(call.row)
            self._unknown(call)
            self._again_at(call, 0.0)
            return
        self._failed(call, f"Provider {self._settings.name} exceeded its timeout of {self._timeout:g} s.", Fault.SPENT)

    def dropped(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call was given up, and nobody will know its answer."""
        self._lane.done(ticket, None, None)
        self.fates.append(call.row)

    def unsent(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call was not sent after all."""
        self._lane.done(ticket, 0, None)
        self._unknown(call)
        self._again_at(call, 0.0)

    def answered(self, call: Call, ticket: Ticket, answer: Answer) -> None:
        """Take an answer."""
        news = self._live.limit_news(answer.status, answer.headers)
        found = verdict(answer)
        if found is Verdict.REJECTED:
            self._lane.rejected(ticket, news)
        else:
            used = self._live.used_tokens(answer.body)
            known = used is not None and used == bounded(used)  # else it is no count, as in the bill
            self._lane.done(ticket, used if known else None, news)
        if found is Verdict.ANSWERED:
            if answer.status < 300:
                self._succeeded = True
                self._pulse.answered(call.number[0], (call.due - time.monotonic()) / self._timeout)
                self._noticed = self._pulse.good
                self._release()
            self._breaker.succeeded()
            self._keep(call, answer.status, self._line(call, answer))
        elif found is Verdict.HOPELESS:
            self._fail(error_of(self._settings, answer))
        elif found is Verdict.FAILED:
            reason = error_of(self._settings, answer).message
            if may_have_cost(answer.status):
                fault = Fault.SPENT
            else:
                fault = Fault.NOBODY if is_clear(answer.status) else Fault.PLAIN
            self._failed(call, reason, fault, answer=answer, news=news)
        elif found is Verdict.REJECTED:
            self._breaker.succeeded()
            call.rejections += 1
            if call.rejections < _REJECTIONS:
                self._again_at(call, max(news.retry_after or 0.0, random.uniform(0.1, _REJECTED_WAIT)))
            else:
                self._keep(call, answer.status, self._line(call, answer))
        else:
            self._refused(call, answer)

    def _failed(
        self, call: Call, reason: str, fault: Fault, *, answer: Answer | None = None, news: LimitNews | None = None
    ) -> None:
        """Hold a failure against its row or the endpoint, and send the row again if that may help."""
        wait, now = news.retry_after if news else None, time.monotonic()
        self.retry_after = wait
        self._few.discard(call)
        self.notice()
        sign, call.sign = call.sign, None
        dead, clear = self._breaker.opened_at is not None, fault is Fault.NOBODY
        against = judge(fault, answered=self._pulse.good > call.seen, dead=dead, sign=sign)
        if fault is Fault.SPENT:
            call.spent += 1
            self.fates.append(call.row)
            self._breaker.undecided(now)
        elif dead:
            self._breaker.failed(call.row, reason, now, clear=clear, wait=wait, lives=sign is Sign.WELL)
            if against is Against.ROW and call.broke <= SUSPECT + 1:  # else it is counted already
                call.lone += 1
            elif against is Against.DOUBT and sign:
                self.doubts[call.row] = max(sign, self.doubts.get(call.row, 0))
        elif against is Against.ROW_UNTIL_OPEN and self._breaker.failed(call.row, reason, now, clear=clear, wait=wait):
            self._forgive()
        else:
            call.tries += 1
        if self._breaker.opened_at is not None:
            call.tries = 0
        if call.lone >= TRIES:
            self._give_up(
                call,
                f"The connection broke each time that this row was sent, also when no other was in flight: {reason}",
            )
            return
        if call.first_seen is None:
            call.first_seen = call.seen
        failures = call.tries + call.spent
        quick = fault in (Fault.SPENT, Fault.NOBODY) or self._pulse.good > call.first_seen
        pause = next_try(failures, quick=quick)
        if pause is not None:
            self._again_at(call, max(wait or 0.0, pause * random.uniform(0.5, 1.0)))
            return
        if answer is not None:
            status, line = answer.status, self._line(call, answer)
        else:
            code = "timeout" if call.timed_out else "connection_error"
            status, line = UNANSWERED, self._live.failed_line(call.sent_id, code, reason)
        if against is Against.ROW:
            self._keep(call, status, line)
        else:
            self._held_back.append((call, Verdict.FAILED, status, line))

    def _forgive(self) -> None:
        """Take back what was held against rows: the endpoint is dead."""
        for _, _, other in (*self._again, *self._suspects):
            other.tries = 0
        for other, found, _, _ in self._held_back:
            if found is Verdict.FAILED:
                other.tries = 0
                self._again_at(other, 0.0)
        self._held_back = [one for one in self._held_back if one[1] is not Verdict.FAILED]

    def _refused(self, call: Call, answer: Answer) -> None:
        """Hold back a refusal that may concern all rows, until it shows whether it does."""
        self._few.discard(call)
        self._unknown(call)
        self._held_back.append((call, Verdict.REFUSED, answer.status, self._line(call, answer)))
        self._refusal = error_of(self._settings, answer)
        if sum(found is Verdict.REFUSED for _, found, _, _ in self._held_back) >= _REFUSALS:
            self._fail(self._refusal)

    def _unknown(self, call: Call) -> None:
        """Take note that a row was to show whether the endpoint lives, and does not."""
        if call.sign is not None:
            call.sign = None
            self._breaker.undecided(time.monotonic())

    def _release(self) -> None:
        """Take what was held back as answers: another row was answered well."""
        self._refusal = None
        if self._held_back:
            held_back, self._held_back = self._held_back, []
            for call, _, status, line in held_back:
                self._keep(call, status, line)

    def _keep(self, call: Call, status: int, line: bytes) -> None:
        self.open -= 1
        self._few.discard(call)
        self.fates.append(call.row)
        self._keeper.add(call.row, status, line)

    def _again_at(self, call: Call, wait: float) -> None:
        call.timed_out = False
        self._few.discard(call)
        if call.broke >= SUSPECT:
            heapq.heappush(self._suspects, (call.broke, call.row, call))
            self.doubts.setdefault(call.row, 1)
        else:
            heapq.heappush(self._again, (time.monotonic() + wait, call.row, call))
        self._due.set()

    def _line(self, call: Call, answer: Answer) -> bytes:
        request_id = answer.headers.get("x-request-id") or answer.headers.get("request-id")
        if request_id and not request_id.isascii():  # bytes that are no text come as what no JSON can hold
            request_id = request_id.encode(errors="replace").decode()
        return self._live.line(call.sent_id, answer.status, request_id, answer.body)

    def too_long(self, call: Call, ticket: Ticket) -> None:
        """Fail a row whose answer is too long to be read; sent again, it would most likely be so again."""
        self._lane.done(ticket, None, None)
        message = f"The answer is longer than {LONGEST >> 20:,} MiB, which is more than Durabatch reads of one row."
        self._keep(call, UNANSWERED, self._live.failed_line(call.sent_id, "answer_too_long", message))

    def too_large(self, call: Call, most: int) -> None:
        """Fail a row that needs more than the provider allows a minute: it could never be sent."""
        message = (
            f"The row needs {call.least:,} tokens at least (estimated input and its output limit), and provider "
            f"{self._settings.name} allows {most:,} a minute; it was not sent."
        )
        self._unknown(call)
        self._keep(call, UNSENT, self._live.failed_line(call.sent_id, "exceeds_rate_limit", message))
