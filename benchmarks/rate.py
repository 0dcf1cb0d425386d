"""Measure whether the rate of an account holds in direct mode, and how much of it is used, as the provider counts.

    python benchmarks/rate.py [--seconds 190] [--out]

All cases run at the same time, each as a batch of an account of its own, with 150,000 tokens a minute of rows that
reserve about 600: fleets of one worker and of three, at providers that answer after 0, 2 and 10 seconds; and a fleet
that workers join, leave and are killed in. Workers, providers and Temporal are processes; a sandbox measures what has
arrived at it in the worst sliding minute, and the mean.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
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
LATENCIES = (0, 2, 10)
#: Output tokens that each row asks for; its input is estimated at some twenty.
CAP = 580
#: Rows of each batch: more than can be sent meanwhile.
ROWS = 1500
#: Seconds after which all workers have begun, on a busy machine, too.
SETTLED = 40.0
#: When the fleet that changes does so, as shares of the time: a worker joins, another one; one leaves, one is killed.
JOIN, JOIN_TOO, LEAVE, KILL = 0.2, 0.35, 0.55, 0.7


@dataclass
class Fleet:
    """Workers of one account."""

    lab: lab.Lab
    name: str
    providers: dict[int, SandboxAdmin]

    async def worker(self) -> lab.Process:
        config = self.lab.folder / f"{self.name}.toml"
        config.write_text(
            f'[store]\nurl = "{self.lab.store}"\n[worker]\ntask_queue = "{self.name}"\n'
            + "".join(
                f'[providers.after_{latency}]\nkind = "openai"\nbase_url = "{admin.url}/v1"\napi_key_env = "KEY"\n'
                f'mode = "direct"\ntokens_per_minute = {LIMIT}\n'
                for latency, admin in self.providers.items()
            )
        )
        environment = {
            "TEMPORAL_ADDRESS": self.lab.address,
            "DURABATCH_CONFIG": str(config),
            "KEY": f"sk-{self.name}",
        }
        command = [sys.executable, "-m", "durabatch", "worker"]
        process = lab.Process(command, self.lab.folder / f"{self.name}-{time.monotonic_ns()}.log", **environment)
        await process.says("Worker polls")
        return process

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
            limits={"max_rows": 100},
        )
        return await self.lab.client.start_workflow(BatchWorkflow.run, spec, id=name, task_queue=self.name)


async def measure(seconds: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(lab.open_lab())
        providers = {}
        for latency in LATENCIES:
            admin, _ = await stack.enter_async_context(lab.sandbox(opened.folder, live_seconds=latency))
            providers[latency] = admin
        fleets = {name: Fleet(opened, name, providers) for name in ("one", "three", "changing")}
        workers = {"one": 1, "three": 3, "changing": 1}
        running: dict[str, list[lab.Process]] = {}
        for name, fleet in fleets.items():
            running[name] = [await fleet.worker() for _ in range(workers[name])]
            for process in running[name]:
                stack.callback(process.kill)
        report.say("the workers are there")
        begun = [
            await fleet.start(latency)
            for name, fleet in fleets.items()
            for latency in LATENCIES
            if (name, latency) in CASES
        ]
        started = time.monotonic()
        begins = {latency: (await admin.live())["now"] for latency, admin in providers.items()}
        changing = running["changing"]

        async def at(share: float) -> None:
            await asyncio.sleep(max(0.0, started + share * seconds - time.monotonic()))
            report.say(f"{time.monotonic() - started:.0f} of {seconds:.0f} s")

        for share in (JOIN, JOIN_TOO):
            await at(share)
            changing.append(await fleets["changing"].worker())
            stack.callback(changing[-1].kill)
        await at(LEAVE)
        changing[0].stop()
        await at(KILL)
        changing[1].kill()
        await at(1.0)
        found = await figures(providers, begins)
        for handle in begun:
            await handle.terminate()
        return {"limit": LIMIT, "seconds": seconds, "cases": found}


#: The fleet that changes is looked at once.
CASES = {("one", latency) for latency in LATENCIES} | {("three", latency) for latency in LATENCIES} | {("changing", 2)}


async def figures(providers: dict[int, SandboxAdmin], begins: dict[int, float]) -> dict[str, Any]:
    """Return the worst minute and the mean of each case as shares of the limit, as its sandbox counted."""
    found: dict[str, Any] = {}
    # The sandbox names an account by how the digest of its key begins.
    names = {sha256(f"sk-{name}".encode()).hexdigest()[:8]: name for name, _ in CASES}
    for latency, admin in providers.items():
        steady = {rate["account"]: rate for rate in await admin.rates(period=60, since=begins[latency] + SETTLED)}
        for rate in await admin.rates(period=60):
            tokens = rate["reserved_tokens"]
            found[f"{names[rate['account']]}, answers after {latency} s"] = {
                "worst_minute": round(tokens["most"] / LIMIT, 4),
                "mean": round(tokens["mean"] / LIMIT, 4),
                "mean_once_all_run": round(steady[rate["account"]]["reserved_tokens"]["mean"] / LIMIT, 4),
                "calls": rate["taken"],
                "refused": rate["arrived"] - rate["taken"],
                "seconds": round(rate["seconds"], 1),
            }
    return found


def main() -> None:
    parser = report.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=190.0, help="how long rows are sent")
    options = parser.parse_args()
    report.publish("rate", asyncio.run(measure(options.seconds)), options.out)


if __name__ == "__main__":
    main()
