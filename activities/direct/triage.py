"""What an answer, or none, means for its row: it is kept, the row is tried again, or the decision is held back.

What speaks of the endpoint rather than of the row costs no row a try, and what speaks of the account ends the run.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from ...contract import ProviderError
from ..providers import ProviderSettings
from ..providers.base import LimitNews, LiveCalls
from .again import Again
from .answer import LONGEST, Answer, NoAnswer
from .breaker import Breaker, may_have_cost
from .judgement import BROKE, MOST_SPENT, SUSPECT, TRIES, Checked, Pulse, next_try
from .keeper import Keeper
from .kept import UNANSWERED, UNSENT
from .lane import Lane, Ticket, settle
from .source import Call
from .verdict import Verdict, error_of

#: What is said of a row about which earlier runs had too many doubts.
_GIVEN_UP = (
    "In each of many runs something ended before this row was answered: its worker was lost, the connection broke, or "
    "the server's time was over. It is not sent again: look into the server's log for the reason."
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
        self._noticed = pulse.signs
        self._outages = 0
        self._checked = True  # whether checks say anything
        self._loop = asyncio.get_running_loop()
        self._timeout = settings.timeout.total_seconds()
        self._succeeded = succeeded
        #: With why it failed, where it may be the endpoint's fault; with nothing, where it was refused.
        self._held_back: list[tuple[Call, str, int, bytes]] = []
        self._refusal: ProviderError | None = None  # of a row that is held back
        self._again = Again()
        self.all_read = False  #: Whether there are no rows but those that were read.
        self.doubts = Counter[int]()  #: What neither a row nor a check has decided, by row.
        self.failing: Call | None = None  #: A row that failed last.
        self.reason: str | None = None  #: Why no more can be found out about the rows that are left.
        self.open = 0  #: Rows that were read, and have no answer.
        self.fates: list[int] = []  #: Rows that were sent, and have an answer or may have had one.
        self.retry_after: float | None = None  #: When to go on, in seconds, as far as the provider says.

    async def next_again(self, ready: Callable[[], Awaitable[None]]) -> Call:
        """Return the next row that is to be sent again, when its time has come.

        Args:
            ready: waits until calls may be begun.
        """
        return await self._again.next(self._others, ready)

    def _others(self) -> int | None:
        return self.open - len(self._held_back) if self.all_read else None

    def look(self) -> None:
        """See whether rows that were to wait for others may be sent."""
        self._again.look()

    def notice(self) -> bool:
        """Take note that the endpoint lives, as far as other runs know; return whether that is news."""
        if self._pulse.signs == self._noticed:
            return False
        self._noticed = self._pulse.signs
        self._breaker.answered()
        return True

    def doubt(self, call: Call, reason: str) -> None:
        """Have it checked whether the endpoint is there, before a row is sent."""
        self.failing = self.failing or call
        self._breaker.doubt(reason, self._loop.time())

    def checked(self, found: Checked) -> None:
        """Take note of what came of a check call."""
        if found.hopeless is not None:
            self._fail(found.hopeless)
        elif found.well:
            if found.soon:
                self._pulse.room.checked()
            self._lives(check=True)
        elif found.away:
            if self._breaker.opened_at is not None:  # else a row was answered meanwhile
                self.retry_after = found.wait
                self._breaker.failed_check(found.reason, self._loop.time(), found.wait)
                self._forgive()
        else:
            self._checked = False
            self._breaker.trust()

    def _lives(self, *, check: bool) -> None:
        self._pulse.signs += 1
        self._noticed = self._pulse.signs
        self._breaker.answered(check=check)
        self._release()

    def settles(self, call: Call) -> bool:
        """Return whether a row that was just read is not to be sent: it has failed too often, or its turn is later."""
        if call.given_up:
            self._give_up(call, _GIVEN_UP, sent=False)
            return True
        if call.broke >= SUSPECT:
            self._again.add(call, 0.0)
            return True
        return False

    def _give_up(self, call: Call, message: str, *, sent: bool = True) -> None:
        self._keep(call, UNANSWERED, self._live.failed_line(call.sent_id, "never_answered", message), sent=sent)

    def conclude(self) -> bool:
        """Return whether there is nothing left to do: every row has an answer, or no more can be found out."""
        if self.open != len(self._held_back):
            return False
        if self._refusal is not None and not self._succeeded:
            self._fail(self._refusal)
            return True
        failed = [(call, why) for call, why, _, _ in self._held_back if why]
        if failed and self._checked:
            self.doubt(*failed[0])
            return False
        for call, why in failed:
            self.reason = why
            self.doubts[call.row] += 1
        if not failed:
            self._release()
        return True

    def unanswered(self, call: Call, ticket: Ticket, error: NoAnswer) -> None:
        """Take note that a call had no answer."""
        self._lane.done(ticket, None, None)
        if not error.unreached:
            if self._again.suspect(call):
                # The next one is not sent to a server that this one may have crashed.
                self.doubt(call, error.reason)
            call.lone += self._again.alone(call)
            call.broke += 1
            self.doubts[call.row] += BROKE
        slow = self._loop.time() - call.due + self._timeout > _SLOW
        self._failed(call, error.reason, slow=slow and not error.unreached)

    def timed_out(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call's time was over."""
        self._lane.done(ticket, None, None)
        if self._pulse.room.crowded(*call.number, call.crowded):
            call.crowded += 1
            self.fates.append(call.row)
            self._again.add(call, 0.0)
            return
        self._failed(call, f"Provider {self._settings.name} exceeded its timeout of {self._timeout:g} s.", slow=True)

    def dropped(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call was given up, and nobody will know its answer."""
        self._lane.done(ticket, None, None)
        self.fates.append(call.row)

    def unsent(self, call: Call, ticket: Ticket) -> None:
        """Take note that a call was not sent after all."""
        self._lane.done(ticket, 0, None)
        self._again.add(call, 0.0)

    def answered(self, call: Call, ticket: Ticket, answer: Answer) -> None:
        """Take an answer."""
        found, news = settle(self._lane, ticket, self._live, answer)
        if found is Verdict.ANSWERED:
            if answer.status < 300:
                self._succeeded = True
                self._pulse.answered(call.number[0], (call.due - self._loop.time()) / self._timeout)
                self._lives(check=False)
            else:
                self._breaker.answered()
            self._keep(call, answer.status, self._line(call, answer))
        elif found is Verdict.HOPELESS:
            self._fail(error_of(self._settings, answer))
        elif found is Verdict.FAILED:
            reason = error_of(self._settings, answer).message
            self._failed(call, reason, slow=may_have_cost(answer.status), answer=answer, news=news)
        elif found is Verdict.REJECTED:
            self._breaker.answered()
            call.rejections += 1
            if call.rejections < _REJECTIONS:
                self._again.add(call, max(news.retry_after or 0.0, random.uniform(0.1, _REJECTED_WAIT)))
            else:
                self._keep(call, answer.status, self._line(call, answer))
        else:
            self._refused(call, answer)

    def _failed(
        self, call: Call, reason: str, *, slow: bool, answer: Answer | None = None, news: LimitNews | None = None
    ) -> None:
        """Hold a failure against its row or the endpoint, and send the row again if that may help.

        Args:
            call: the row.
            reason: what happened, as a sentence.
            slow: whether a server may have worked on it until somebody's patience was over.
            answer: what was answered.
            news: what its headers say.
        """
        wait = news.retry_after if news else None
        self.retry_after = wait
        self._again.over(call)
        self.notice()
        if call.outages != self._outages:
            call.outages, call.tries = self._outages, 0
        if call.first_seen is None:
            call.first_seen = call.seen
        answered = self._pulse.signs > call.signs
        if not answered:
            self.failing = call
            self._breaker.failed(reason, self._loop.time(), wait)
        if not self._breaker.away:
            call.tries += 1
        if slow:
            call.spent += 1
            self.fates.append(call.row)
            self.doubts[call.row] += 1
        if call.lone >= TRIES:
            self._give_up(
                call,
                f"The connection broke each time that this row was sent, also when no other was in flight: {reason}",
            )
            return
        pause = next_try(call.tries, quick=slow or self._pulse.good > call.first_seen)
        spent = call.spent >= MOST_SPENT
        if pause is not None and not spent:
            self._again.add(call, max(wait or 0.0, pause * random.uniform(0.5, 1.0)))
            return
        if answer is not None:
            status, line = answer.status, self._line(call, answer)
        else:
            code = "timeout" if call.timed_out else "connection_error"
            status, line = UNANSWERED, self._live.failed_line(call.sent_id, code, reason)
        if answered or spent:
            self._keep(call, status, line)
        else:
            self._held_back.append((call, reason, status, line))

    def _forgive(self) -> None:
        """Take back what was held against rows: the endpoint is away."""
        self._outages += 1
        failed = [call for call, why, _, _ in self._held_back if why]
        self._held_back = [one for one in self._held_back if not one[1]]
        for call in failed:
            self._again.add(call, 0.0)

    def _refused(self, call: Call, answer: Answer) -> None:
        """Hold back a refusal that may concern all rows, until it shows whether it does."""
        self._again.over(call)
        self._held_back.append((call, "", answer.status, self._line(call, answer)))
        self._refusal = error_of(self._settings, answer)
        if sum(not why for _, why, _, _ in self._held_back) >= _REFUSALS:
            self._fail(self._refusal)

    def _release(self) -> None:
        """Take what was held back as answers: another row was answered well."""
        self._refusal = None
        if self._held_back:
            held_back, self._held_back = self._held_back, []
            for call, _, status, line in held_back:
                self._keep(call, status, line)

    def _keep(self, call: Call, status: int, line: bytes, *, sent: bool = True) -> None:
        self.open -= 1
        self._again.over(call)
        if sent:
            self.fates.append(call.row)
        self._keeper.add(call.row, status, line)

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
        self._keep(call, UNSENT, self._live.failed_line(call.sent_id, "exceeds_rate_limit", message), sent=False)
