"""Measure whether the rate of an account holds in direct mode, and how much of it is used, as the provider counts.

    python benchmarks/rate.py [--seconds 190] [--fleets one three changing] [--out]

All cases run at the same time, each as a batch of an account of its own, with 150,000 tokens a minute of rows that
reserve about 600: fleets of one worker and of three, at providers that answer after 0, 2 and 10 seconds; and a fleet
that workers join, leave and are killed in. Workers, providers and Temporal are processes; a sandbox measures what has
arrived at it in the worst sliding minute, and the mean.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import lab
import report
from temporalio.client import WorkflowHandle

from durabatch.contract import BatchSpec
from durabatch.sandbox import SandboxAdmin
from durabatch.workflows import BatchWorkflow

LIMIT = 150_000
#: What the design asks for, as shares of the limit.
MOST, MEAN = 1.02, 0.97
LATENCIES = (0, 2, 10)
#: Output tokens that each row asks for; its input is estimated at some twenty.
CAP = 580
#: Rows of each batch: more than can be sent meanwhile.
ROWS = 3000
#: Seconds after which all workers have begun, on a busy machine, too; less where it does not run for much longer.
SETTLED, SETTLED_SHARE = 40.0, 0.3
#: In so many seconds the first calls of all cases are sent, or something is wrong.
PATIENCE = 120.0
#: How many workers a fleet begins with.
WORKERS = {"one": 1, "three": 3, "changing": 1}
#: When the fleet that changes does so, as shares of the time: a worker joins, another one; one leaves, one is killed.
JOIN, JOIN_TOO, LEAVE, KILL = 0.2, 0.35, 0.55, 0.7


@dataclass
class Fleet:
    """Workers of one account."""

    lab: lab.Lab
    name: str
    providers: dict[int, SandboxAdmin]

    async def worker(self) -> lab.Process:
        sections = (
            f'[providers.after_{latency}]\nkind = "openai"\nbase_url = "{admin.url}/v1"\napi_key_env = "KEY"\n'
            f'mode = "direct"\ntokens_per_minute = {LIMIT}\n'
            for latency, admin in self.providers.items()
        )
        return await self.lab.worker("".join(sections), self.name, KEY=f"sk-{self.name}")

    async def start(self, latency: int) -> WorkflowHandle[Any, Any]:
        name = f"{self.name}-after-{latency}"
        path = self.lab.store / "in" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = (json.dumps({"custom_id": f"r{n}", "input": f"Row {n}. Say something."}) for n in range(ROWS))
        path.write_text("\n".join(rows) + "\n")
        spec = BatchSpec(
            provider=f"after_{latency}",
            input=path.as_uri(),
            model=lab.MODEL,
            params={"max_tokens": CAP},
            # So many that no worker runs out of rows meanwhile, as with shards of the default size: the share of one
            # that waits for its last answers goes to the others, but some seconds late.
            limits={"max_rows": 250},
        )
        return await self.lab.client.start_workflow(BatchWorkflow.run, spec, id=name, task_queue=self.name)


#: The fleet that changes is looked at once.
CASES = {("one", latency) for latency in LATENCIES} | {("three", latency) for latency in LATENCIES} | {("changing", 2)}


async def measure(seconds: float, chosen: Sequence[str]) -> dict[str, Any]:
    cases = [(name, latency) for name, latency in CASES if name in chosen]
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(lab.open_lab())
        providers = {}
        for latency in LATENCIES:
            admin, _ = await stack.enter_async_context(lab.sandbox(opened.folder, live_seconds=latency))
            providers[latency] = admin
        fleets = {name: Fleet(opened, name, providers) for name in chosen}
        running: dict[str, list[lab.Process]] = {name: [] for name in chosen}

        async def join(name: str) -> None:
            running[name].append(await fleets[name].worker())
            stack.callback(running[name][-1].kill)

        for name in chosen:
            for _ in range(WORKERS[name]):
                await join(name)
        report.say("the workers are there")
        begun = [await fleets[name].start(latency) for name, latency in cases]
        await all_sent(providers, cases)
        started = time.monotonic()
        begins = {latency: (await admin.live())["now"] for latency, admin in providers.items()}

        async def at(share: float) -> None:
            await asyncio.sleep(max(0.0, started + share * seconds - time.monotonic()))
            report.say(f"{time.monotonic() - started:.0f} of {seconds:.0f} s")

        if "changing" in chosen:
            for share in (JOIN, JOIN_TOO):
                await at(share)
                await join("changing")
            await at(LEAVE)
            running["changing"][0].stop()
            await at(KILL)
            running["changing"][1].kill()
        await at(1.0)
        settled = min(SETTLED, SETTLED_SHARE * seconds)
        found = await figures(providers, {latency: begin + settled for latency, begin in begins.items()})
        for handle in begun:
            await handle.terminate()
        met = all(
            case["worst_minute"] <= MOST and (case["mean_once_all_run"] >= MEAN or name.startswith("changing"))
            for name, case in found.items()
        )
        return {
            "limit": LIMIT,
            "seconds": seconds,
            "goal": {"worst_minute_at_most": MOST, "mean_at_least_when_nobody_is_killed": MEAN, "met": met},
            "cases": found,
        }


def case_of(account: str, latency: int) -> tuple[str, int]:
    """Return whose calls a sandbox has seen: it names an account by how the digest of its key begins."""
    [name] = [name for name in WORKERS if sha256(f"sk-{name}".encode()).hexdigest().startswith(account)]
    return name, latency


async def all_sent(providers: dict[int, SandboxAdmin], cases: Sequence[tuple[str, int]]) -> None:
    """Wait until a call of each case has arrived."""
    deadline = time.monotonic() + PATIENCE
    seen: set[tuple[str, int]] = set()
    while not seen.issuperset(cases):
        if time.monotonic() > deadline:
            raise SystemExit(f"After {PATIENCE:.0f} s nothing was sent of {sorted(set(cases) - seen)}.")
        await asyncio.sleep(0.2)
        for latency, admin in providers.items():
            seen.update([case_of(rate["account"], latency) for rate in await admin.rates(period=60)])


async def figures(providers: dict[int, SandboxAdmin], settled: dict[int, float]) -> dict[str, Any]:
    """Return the worst minute and the mean of each case as shares of the limit, as its sandbox counted.

    Args:
        providers: the sandboxes, by the seconds that they take.
        settled: when all workers had begun, by each one's clock.
    """
    found: dict[str, Any] = {}
    for latency, admin in providers.items():
        steady = {rate["account"]: rate for rate in await admin.rates(period=60, since=settled[latency])}
        for rate in await admin.rates(period=60):
            tokens = rate["reserved_tokens"]
            name, _ = case_of(rate["account"], latency)
            once = steady.get(rate["account"])
            found[f"{name}, answers after {latency} s"] = {
                "worst_minute": round(tokens["most"] / LIMIT, 4),
                "mean": round(tokens["mean"] / LIMIT, 4),
                "mean_once_all_run": round(once["reserved_tokens"]["mean"] / LIMIT, 4) if once else 0.0,
                "calls": rate["taken"],
                "refused": rate["arrived"] - rate["taken"],
                "seconds": round(rate["seconds"], 1),
            }
    return found


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=190.0, help="how long rows are sent")
    parser.add_argument("--fleets", nargs="+", choices=tuple(WORKERS), default=tuple(WORKERS), help="only these")
    options = parser.parse_args()
    report.publish("rate", asyncio.run(measure(options.seconds, options.fleets)), options.out)


if __name__ == "__main__":
    main()
