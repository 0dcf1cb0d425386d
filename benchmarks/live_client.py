"""One way to send the rows of a file to a chat endpoint; `direct.py` runs several beside each other.

    python benchmarks/live_client.py bare|openai|step FILE URL --in-flight 256

`bare` is a loop on aiohttp, `openai` a gather of AsyncOpenAI behind a semaphore; neither keeps anything. `step` is what
Durabatch's worker does in direct mode: plan, run, collect, settle and apply, without Temporal. Prints seconds,
processor seconds, peak memory, and the longest stall of the event loop: by the clock, and (`busy`) by what its thread
worked meanwhile, which is the one to read on a machine that others use. All in one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

#: Seconds between two looks at the event loop.
_LOOK = 0.005


class Watch:
    """Measures a stretch of work."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._stall = self._busy = 0.0

    async def look(self) -> None:
        before, worked = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_LOOK)
            now, work = time.perf_counter(), time.thread_time()
            self._stall = max(self._stall, now - before - _LOOK)
            self._busy = max(self._busy, work - worked)
            before, worked = now, work

    async def measure(self, name: str, work: Awaitable[Any]) -> Any:
        looking = asyncio.create_task(self.look())
        began, used = time.perf_counter(), time.process_time()
        self._stall = self._busy = 0.0
        try:
            answer = await work
        finally:
            looking.cancel()
        known = self.facts.setdefault(name, {"seconds": 0.0, "cpu": 0.0, "stall": 0.0, "busy": 0.0})
        known["seconds"] = round(known["seconds"] + time.perf_counter() - began, 3)
        known["cpu"] = round(known["cpu"] + time.process_time() - used, 3)
        known["stall"] = round(max(known["stall"], self._stall), 3)
        known["busy"] = round(max(known["busy"], self._busy), 3)
        known["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)  # until then
        return answer


class _Row(msgspec.Struct):
    body: msgspec.Raw


def bodies(file: Path) -> Iterator[bytes]:
    decode = msgspec.json.Decoder(_Row).decode
    with file.open("rb") as lines:
        for line in lines:
            yield bytes(decode(line).body)


async def bare(file: Path, url: str, in_flight: int) -> int:
    import aiohttp

    rows = bodies(file)
    size = 0
    headers = {"Authorization": "Bearer sk-bench", "Content-Type": "application/json"}

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal size
        for body in rows:
            async with session.post(f"{url}/v1/chat/completions", data=body) as response:
                size += len(await response.read())

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session, asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(worker(session))
    return size


async def openai(file: Path, url: str, in_flight: int) -> int:
    from openai import AsyncOpenAI

    room = asyncio.Semaphore(in_flight)

    async with AsyncOpenAI(api_key="sk-bench", base_url=f"{url}/v1", max_retries=0, timeout=3600) as client:

        async def one(body: dict[str, Any]) -> None:
            async with room:
                await client.chat.completions.create(**body)

        rows = [json.loads(body) for body in bodies(file)]
        await asyncio.gather(*(one(row) for row in rows))
    return len(rows)


async def step(file: Path, url: str, in_flight: int, shards: int, watch: Watch) -> int:
    """Take a file through the steps, as a worker does."""
    from pydantic import SecretStr
    from temporalio.testing import ActivityEnvironment

    from durabatch.activities.apply import Apply
    from durabatch.activities.direct.collect import Collect
    from durabatch.activities.direct.governors import Governors
    from durabatch.activities.direct.run import RunRows
    from durabatch.activities.plan import Plan
    from durabatch.activities.providers import ProviderSettings
    from durabatch.activities.resources import Resources
    from durabatch.activities.settle import Settle
    from durabatch.activities.store import Store
    from durabatch.contract import BatchSpec, Mode, RetryPolicy
    from durabatch.contract import steps as of
    from durabatch.contract.rates import RateAsk, RateLease, RatesStart, Shares

    class Everything:
        """A rate ledger that leases the slots of the configuration."""

        label = "benchmark"

        def __init__(self, start: RatesStart) -> None:
            pass

        async def lease(self, ask: RateAsk) -> RateLease:
            amounts = Shares(slots=ask.limits.slots)
            return RateLease(seq=ask.obeys + 1, ttl=ask.ttl, renew_in=ask.ttl / 3, amounts=amounts)

        async def release(self, worker: str) -> None:
            pass

    def settings(name: str) -> ProviderSettings:
        return ProviderSettings(
            name=name,
            kind="openai",
            base_url=f"{url}/v1",
            api_key=SecretStr("sk-bench"),
            max_concurrent_requests=in_flight,
            max_parallel_shards=shards,
        )

    def inside() -> ActivityEnvironment:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=20))
        return environment

    async def run(name: str, step: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
        return await watch.measure(name, inside().run(step, request))

    with tempfile.TemporaryDirectory(prefix="durabatch-bench-", dir=os.environ.get("DURABATCH_BENCH")) as folder:
        store = Store.open(folder)
        resources = Resources(store, settings, governors=Governors(timedelta(seconds=20), Everything))
        os.link(file, Path(folder, "input.jsonl"))
        spec = BatchSpec(provider="live", input=store.uri("input.jsonl"), mode=Mode.DIRECT, limits={"max_rows": 2000})
        ask = of.PlanRequest(batch_id="b", spec=spec, now=datetime.now(UTC), execution="run")
        plan = await run("plan", Plan(resources).plan, ask)
        room = asyncio.Semaphore(plan.provider.max_parallel_shards)

        async def send(shard: int) -> Any:
            async with room:
                attempt = of.RunRequest(attempt=plan.attempt("b", shard, 1), account=plan.provider.account, spec=spec)
                return await inside().run(RunRows(resources).run_rows, attempt)

        async def send_all() -> list[Any]:
            return await asyncio.gather(*(send(shard) for shard in range(plan.shards)))

        for shard, ran in enumerate(await watch.measure("run", send_all())):
            attempt = plan.attempt("b", shard, 1)
            joined = of.CollectRequest(attempt=attempt, account=plan.provider.account)
            collected = await run("collect", Collect(resources).collect, joined)
            assert ran.kept == ran.rows == collected.lines == collected.succeeded, (ran, collected)
            record = of.AttemptRecord(number=1, lines=collected.lines, mode=Mode.DIRECT)
            settle = of.SettleRequest(attempt=attempt, attempts=(record,), retry=RetryPolicy())
            settled = await run("settle", Settle(resources).settle, settle)
            assert settled.counts.succeeded == ran.rows, settled
        facts = plan.model_dump(include={"root", "shards", "rows", "store"})
        await run("apply", Apply(resources).apply, of.ApplyRequest(batch_id="b", **facts))
        await resources.close()
    return plan.rows


async def measured(how: str, file: Path, url: str, in_flight: int, shards: int) -> dict[str, Any]:
    import aiohttp  # noqa: F401 (the time that imports take is not what is measured)

    import durabatch.activities.direct.calls
    import durabatch.activities.registry
    import durabatch.activities.store  # noqa: F401

    gc.collect()
    gc.freeze()
    watch = Watch()
    if how == "step":
        await watch.measure("all", step(file, url, in_flight, shards, watch))
    else:
        await watch.measure("all", (bare if how == "bare" else openai)(file, url, in_flight))
    return {**watch.facts, "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=("bare", "openai", "step"))
    parser.add_argument("file", type=Path)
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--shards", type=int, default=8, help="shards under way at a time")
    parser.add_argument("--profile", type=Path, help="write a profile for pstats")
    given = parser.parse_args()
    work = measured(given.how, given.file, given.url, given.in_flight, given.shards)
    if given.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
        facts = asyncio.run(work)
        profile.disable()
        profile.dump_stats(given.profile)
    else:
        facts = asyncio.run(work)
    print(json.dumps(facts), flush=True)
    sys.exit()


if __name__ == "__main__":
    main()
