"""An endpoint that fails as it is set to, and attempts whose rows are sent to it by real runs, in virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from durabatch.activities.direct.answer import Answer, NoAnswer
from durabatch.activities.direct.calls import Calls
from durabatch.activities.direct.check import Checks
from durabatch.activities.direct.governor import Governor
from durabatch.activities.direct.judgement import Pulse, breaks, given_up
from durabatch.activities.direct.kept import KeptRows
from durabatch.activities.direct.memory import Memory, Share
from durabatch.activities.direct.sender import Sender
from durabatch.activities.direct.source import Call, Source, in_order
from durabatch.activities.lease import Lease
from durabatch.activities.providers import ProviderSettings, open_provider
from durabatch.activities.providers.base import CHECK
from durabatch.contract.object_name import Run
from durabatch.contract.rates import RateAsk, RateLease, RateLimits, Shares
from durabatch.workflows.decisions import outage_delay

#: How a call fails: a status, at once or after so many seconds; or without an answer.
Fault = int | tuple[int, float] | str
REFUSED, BREAKS, HANGS, CRASH = "refused", "breaks", "hangs", "crash"


class World:
    """A server.

    Args:
        fault: returns how a call fails at a time, if it does, by its row; None is a check call.
        down: seconds for which it is gone after a crash.
        then: how calls fail meanwhile.
        rest: for how many seconds it asks to be left alone, by the status that it answers.
    """

    def __init__(
        self,
        fault: Callable[[float, int | None], Fault | None],
        *,
        down: float = 10.0,
        then: Fault = REFUSED,
        rest: Mapping[int, float] | None = None,
    ) -> None:
        self._fault = fault
        self._rest = rest or {}
        self._down = down
        self._then = then
        self._down_until = 0.0
        self._open = set[asyncio.Future[None]]()
        self.calls = Counter[int]()
        self.checks = 0
        self.crashes = 0
        self.memory = Memory()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, share: Share | None = None) -> Answer:
        text = json.loads(body)["messages"][0]["content"]
        row = None if text == CHECK else int(text)
        if row is None:
            self.checks += 1
        else:
            self.calls[row] += 1
        loop = asyncio.get_running_loop()
        now = loop.time()
        fault = self._then if now < self._down_until else self._fault(now, row)
        if fault == REFUSED:
            raise NoAnswer("Nobody listens.", unreached=True)
        if fault == CRASH:
            self.crashes += 1
            self._down_until = now + self._down
            for one in self._open:
                if not one.done():
                    one.set_result(None)
        if fault in (CRASH, BREAKS):
            await asyncio.sleep(0.01)
            raise NoAnswer("The connection broke.", unreached=False)
        status, seconds = fault if isinstance(fault, tuple) else (fault or 200, 0.2)
        crashed: asyncio.Future[None] = loop.create_future()
        self._open.add(crashed)
        try:
            await asyncio.wait([crashed], timeout=1e6 if status == HANGS else seconds)
        finally:
            self._open.discard(crashed)
        if crashed.done():
            raise NoAnswer("The connection broke.", unreached=False)
        assert isinstance(status, int)
        headers = {"retry-after": f"{self._rest[status]:g}"} if status in self._rest else {}
        return Answer(status, headers, b'{"error": {"message": "as set"}}' if status >= 300 else b"{}")


@dataclass
class Ended:
    """How an attempt ended."""

    statuses: dict[int, int]  #: By row.
    seconds: float
    longest: float  #: Seconds that a run took.

    def good(self) -> set[int]:
        return {row for row, status in self.statuses.items() if status == 200}


class _Kept:
    """What is kept of an attempt, in memory."""

    def __init__(self, doubts: Mapping[int, int]) -> None:
        self.statuses: dict[int, int] = {}
        self.doubts = Counter[int](doubts)
        self.away = False
        self.marks = Counter[Run]()

    async def mark(self, run: Run, count: int) -> None:
        self.marks[run] = count

    async def keep(self, run: Run, number: int, lines: Sequence[tuple[int, int, bytes]]) -> None:
        self.statuses.update({row: status for row, status, _ in lines})

    async def sync(self, run: Run, numbers: Sequence[int]) -> None:
        pass

    async def end(self, run: Run, rows: Sequence[int], doubts: Mapping[int, int], *, away: bool) -> None:
        assert len(rows) <= self.marks[run], "of rows that may have been sent no more are counted than the mark says"
        self.doubts.update(doubts)
        self.away = away


class _Rows:
    def __init__(self, rows: Sequence[int], doubts: Mapping[int, int]) -> None:
        self._rows = rows
        self._doubts = doubts

    async def pieces(self) -> AsyncGenerator[list[Call], None]:
        for row in self._rows:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": str(row)}]}).encode()
            doubts = self._doubts.get(row, 0)
            call = Call(row, str(row), str(row), body, 10, 10, broke=breaks(doubts), given_up=given_up(doubts))
            yield [call]


class _Ledger:
    async def lease(self, ask: RateAsk) -> RateLease:
        return RateLease(seq=ask.obeys + 1, ttl=ask.ttl, renew_in=ask.ttl / 3, amounts=Shares(slots=ask.limits.slots))

    async def release(self, worker: str) -> None:
        pass


async def run_attempt(
    world: World,
    rows: int,
    *,
    slots: int = 64,
    timeout: float = 60.0,
    runs: int = 1000,
    pulse: Pulse | None = None,
    lease: Lease | None = None,
    doubts: Mapping[int, int] | None = None,
    kind: type[Governor] = Governor,
    check_calls: bool = True,
) -> Ended:
    """Run an attempt until each row has an answer, as the step and its workflow do."""
    random.seed(1)
    settings = ProviderSettings(
        name="p", kind="openai", mode="direct", base_url="http://p/v1", timeout=timedelta(seconds=timeout),
        max_concurrent_requests=slots, check_calls=check_calls,
    )  # fmt: skip
    provider = open_provider(settings)
    live = provider.live
    assert live is not None
    kept, pulse, vain, longest = _Kept(doubts or {}), pulse or Pulse(), 0, 0.0
    loop = asyncio.get_running_loop()
    limits = RateLimits(slots=slots)
    governor = kind(_Ledger(), limits, used=False, ttl=30.0, label="w", what="provider p, model m")
    calls = cast(Calls, world)
    for number in range(1, runs + 1):
        lane = governor.join(priority=3, fairness_key="", batch="b")
        before = len(kept.statuses)
        checks = Checks(calls, live, "u", "/v1/chat/completions", settings, lane)
        sender = Sender(
            calls, live, "u", settings, lane, cast(KeptRows, kept), Run(number, "0"), lease or Lease(), pulse, checks,
            doubtful=kept.away, succeeded=bool(pulse.good),
        )  # fmt: skip
        left = in_order((row for row in range(rows) if row not in kept.statuses), kept.doubts)
        began = loop.time()
        await sender.send(cast(Source, cast(Any, _Rows(left, kept.doubts))))
        longest = max(longest, loop.time() - began)
        governor.leave(lane)
        if sender.error is not None:
            raise sender.error
        if sender.reason is None:
            break
        vain = 1 if len(kept.statuses) > before else vain + 1
        await asyncio.sleep(outage_delay(vain, None).total_seconds())
    await governor.close()
    await provider.close()
    return Ended(kept.statuses, loop.time(), longest)
