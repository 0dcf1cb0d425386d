"""The stages alone: what each step costs a row, without Temporal and without anything beside it.

    python benchmarks/stages.py --rows 50000 --hot 8

Each step runs in this process as a worker runs it, one after another, in a real store and against the sandbox in a
process of its own. It reports microseconds per row: wall time, and this process's processor time. Upload and fetch
wait for the sandbox, the others for the disk. With --hot, a profiler shows in which functions plan, settle and a
rewriting upload spend their time; it makes small functions look more expensive than they are.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lab import MODEL, sandbox, scratch
from pydantic import SecretStr
from report import MIB, arguments, publish, say, spread
from rows import make_rows, wrong_rows
from temporalio.testing import ActivityEnvironment

from durabatch.activities.apply import Apply
from durabatch.activities.follow import Follow
from durabatch.activities.plan import Plan
from durabatch.activities.providers import ProviderSettings
from durabatch.activities.resources import Resources
from durabatch.activities.settle import Settle
from durabatch.activities.store import Store
from durabatch.activities.submit import Submit
from durabatch.contract import BatchSpec, RetryPolicy
from durabatch.contract.steps import (
    ApplyRequest,
    AttemptRecord,
    BatchRequest,
    CreateRequest,
    FetchRequest,
    PlanRequest,
    SettleRequest,
    UploadRequest,
)

Answer = TypeVar("Answer")


class Watch:
    """Times steps, or profiles the threads that they run in."""

    def __init__(self, rows: int, profile: bool) -> None:
        self._rows = rows
        self._profile = profile
        self.steps: dict[str, dict[str, float]] = {}
        self.profiles: dict[str, cProfile.Profile] = {}

    async def run(self, name: str, step: Callable[[Any], Awaitable[Answer]], request: Any) -> Answer:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_timeout=timedelta(minutes=1))
        if self._profile:
            threading.setprofile(partial(_enable, self.profiles.setdefault(name, cProfile.Profile())))
        began, used = time.perf_counter(), time.process_time()
        try:
            answer: Answer = await environment.run(step, request)
        finally:
            wall, cpu = time.perf_counter() - began, time.process_time() - used
            threading.setprofile(None)
        self.steps[name] = {"wall": wall / self._rows * 1e6, "cpu": cpu / self._rows * 1e6}
        return answer


def _enable(profile: cProfile.Profile, *event: object) -> None:
    """Called at a new thread's first event: have the profiler take this function's place if it is a step's thread."""
    sys.setprofile(None)
    if threading.current_thread().name == "durabatch-step":
        profile.enable()


async def through(folder: Path, url: str, rows: int, row_bytes: int, short: bool, watch: Watch) -> dict[str, int]:
    """Take a batch of one shard through every step, as a worker does; return its sizes in bytes."""
    folder.mkdir()
    source = folder / "input.jsonl"
    make_rows(source, rows, row_bytes, short=short)
    os.sync()
    store = Store.open(str(folder))
    settings = ProviderSettings(name="sandbox", kind="openai", base_url=f"{url}/v1", api_key=SecretStr("bench"))
    resources = Resources(store, lambda name: settings)
    now = datetime.now(UTC)
    spec = BatchSpec(provider="sandbox", input=store.uri("input.jsonl"), model=MODEL)
    try:
        submit, follow = Submit(resources), Follow(resources)
        plan = await watch.run(
            "plan", Plan(resources).plan, PlanRequest(batch_id="b", spec=spec, now=now, execution="run")
        )
        if plan.shards != 1:
            raise SystemExit("Take fewer rows: the stages are measured on one shard.")
        here = plan.attempt("b", 0, 1)
        where: dict[str, Any] = {"attempt": here, "account": plan.provider.account}
        upload = UploadRequest(**where, generation=1, since=now, spec=spec)
        uploaded = await watch.run("upload", submit.upload, upload)
        create = CreateRequest(**where, file_id=uploaded.file_id, rows=rows, spec=spec, noted=0)
        batch = (await watch.run("create", submit.create, create)).batch
        assert batch is not None
        while not batch.status.ended:
            await asyncio.sleep(0.05)
            batch = await watch.run("poll", follow.poll, BatchRequest(**where, provider_batch_id=batch.id))
        fetched = await watch.run("fetch", follow.fetch, FetchRequest(**where, batch=batch))
        past = AttemptRecord(number=1, provider_batch_id=batch.id, lines=fetched.rows)
        settle = SettleRequest(attempt=here, attempts=(past,), retry=RetryPolicy())
        await watch.run("settle", Settle(resources).settle, settle)
        apply = ApplyRequest(batch_id="b", root=plan.root, shards=1, rows=rows, store=plan.store)
        await watch.run("apply", Apply(resources).apply, apply)
    finally:
        await resources.close()
    if wrong := wrong_rows(folder / "b" / "results.jsonl", rows):
        raise SystemExit("\n".join(wrong))
    results = (folder / "b" / "results.jsonl").stat().st_size
    return {"input": source.stat().st_size, "fetched": fetched.bytes, "results": results}


async def measure(rows: int, row_bytes: int, times: int, hot: int) -> dict[str, Any]:
    watches: dict[str, list[Watch]] = {"openai": [], "short": []}
    sizes: dict[str, dict[str, int]] = {}
    with scratch() as folder:
        for number in range(times):
            for form, found in watches.items():
                async with sandbox(folder) as (provider, _):
                    watch = Watch(rows, profile=False)
                    place = folder / f"{form}-{number}"
                    sizes[form] = await through(place, provider.url, rows, row_bytes, form == "short", watch)
                    found.append(watch)
                say(f"{number + 1}/{times} {form}: {sum(step['wall'] for step in watch.steps.values()):.1f} µs a row")
        profiled: dict[str, Watch] = {}
        for form in watches if hot else ():
            async with sandbox(folder) as (provider, _):
                profiled[form] = Watch(rows, profile=True)
                await through(folder / f"{form}-hot", provider.url, rows, row_bytes, form == "short", profiled[form])
    return {
        "rows": rows,
        "unit": "microseconds per row",
        "forms": {
            form: {
                "bytes": sizes[form],
                "steps": {
                    name: {kind: spread([watch.steps[name][kind] for watch in found], 2) for kind in ("wall", "cpu")}
                    for name in found[0].steps
                    if name in ("plan", "upload", "fetch", "settle", "apply")
                },
                **({"hot": _hottest(profiled[form], hot)} if hot else {}),
            }
            for form, found in watches.items()
        },
        "peak_mib": round(_peak() / MIB, 1),
    }


def _hottest(watch: Watch, most: int) -> dict[str, dict[str, float]]:
    """Return for each step that has a thread of its own the shares of the functions that took most of its time."""
    found = {}
    for name, profile in watch.profiles.items():
        times = pstats.Stats(profile).stats if profile.getstats() else {}  # type: ignore[attr-defined]
        total = sum(own for _, _, own, _, _ in times.values())
        dearest = sorted(times.items(), key=lambda item: -item[1][2])[:most]
        if name in ("plan", "upload", "settle") and total:
            found[name] = {
                f"{Path(file).name}:{function}": round(own / total, 3)
                for (file, _, function), (_, _, own, _, _) in dearest
            }
    return found


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    parser = arguments(__doc__)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--rows", type=int, default=50_000, help="of one shard")
    parser.add_argument("--row-bytes", type=int, default=2_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--hot", type=int, default=0, metavar="N", help="tell the N dearest functions of each step")
    given = parser.parse_args()
    publish("stages", asyncio.run(measure(given.rows, given.row_bytes, given.times, given.hot)), given.out)


if __name__ == "__main__":
    main()
