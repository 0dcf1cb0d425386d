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
from ..providers import ProviderSettings
from ..providers.base import LimitNews, LiveCalls
from .answer import LONGEST, Answer, NoAnswer
from .breaker import Breaker, is_clear, may_have_cost
from .keeper import Keeper
from .kept import UNANSWERED, UNSENT
from .lane import Lane, Ticket
from .source import Call
from .verdict import Verdict, error_of, verdict

#: Failures of a row within one run, and answers that there are too many calls, until the last one is its answer.
_TRIES = 3
_REJECTIONS = 50
#: Seconds before a row is tried again, and by how much each wait is longer; a random part of it is taken off.
_FIRST_WAIT, _WAIT_FACTOR, _LAST_WAIT = 0.5, 3.0, 30.0
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
        *,
        succeeded: bool,
    ) -> None:
        self._live = live
        self._settings = settings
        self._lane = lane
        self._keeper = keeper
        self._breaker = breaker
        self._fail = fail
        self._timeout = settings.timeout.total_seconds()
        self._succeeded = succeeded
        self._held_back: list[tuple[Call, Verdict, int, bytes]] = []  # it may be the endpoint's fault, not the row's
        self._refusal: ProviderError | None = None  # of a row that is held back
        self._again: list[tuple[float, int, Call]] = []  # a heap: when, the row, the call
        self._due = asyncio.Event()
        self.open = 0  #: Rows that were read, and have no answer.
        self.fates: list[int] = []  #: Rows that have an answer, or may have had one.
        self.retry_after: float | None = None  #: When to go on, in seconds, as far as the provider says.

    async def next_again(self, ready: Callable[[], Awaitable[None]]) -> Call:
        """Return the next row that is to be sent again, when its time has come.

        Args:
            ready: waits until calls may be begun.
        """
        while True:
            wait = self._again[0][0] - time.monotonic() if self._again else None
            if wait is None or wait > 0:
                self._due.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()
                continue
            await ready()
            return heapq.heappop(self._again)[2]

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
        self._failed(call, error.reason, clear=error.unreached, spent=slow and not error.unreached)

    def timed_out(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call's time was over."""
        self._lane.done(ticket, None, None)
        self._failed(call, f"Provider {self._settings.name} gave no answer within {self._timeout:g} s.", spent=True)

    def dropped(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call was given up, and nobody will know its answer."""
        self._lane.done(ticket, None, None)
        self.fates.append(call.row)

    def unsent(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call was not sent after all."""
        self._lane.done(ticket, 0, None)
        self._again_at(call, 0.0)

    def answered(self, call: Call, ticket: Ticket, answer: Answer) -> None:
        """Take an answer."""
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
            self._keep(call, answer.status, self._line(call, answer))
        elif found is Verdict.HOPELESS:
            self._fail(error_of(self._settings, answer))
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
                self._keep(call, answer.status, self._line(call, answer))
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
            self.fates.append(call.row)
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
            self._keep(call, status, line)
        else:
            self._held_back.append((call, Verdict.FAILED, status, line))

    def _refused(self, call: Call, answer: Answer) -> None:
        """Hold back a refusal that may concern all rows, until it shows whether it does."""
        self._held_back.append((call, Verdict.REFUSED, answer.status, self._line(call, answer)))
        self._refusal = error_of(self._settings, answer)
        if sum(found is Verdict.REFUSED for _, found, _, _ in self._held_back) >= _REFUSALS:
            self._fail(self._refusal)

    def _release(self) -> None:
        """Take what was held back as answers: another row was answered well."""
        self._refusal = None
        if self._held_back:
            held_back, self._held_back = self._held_back, []
            for call, _, status, line in held_back:
                self._keep(call, status, line)

    def _keep(self, call: Call, status: int, line: bytes) -> None:
        self.open -= 1
        self.fates.append(call.row)
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
        self._keep(call, UNSENT, self._live.failed_line(call.sent_id, "exceeds_rate_limit", message))
