"""The long run: batches wave upon wave at both protocols, and something disturbed every few seconds.

    python tests/chaos/soak.py --disturbances 200 --seed 1

Workers are killed, stopped and paused, servers are killed, workflows are reset, activities are paused and reset, until
there was enough of it; network faults come on top and are not counted. Prints one JSON object of figures. Exits with 1
if any promise was broken, and says which, with the seed and the batch; the lab's folder, with the logs and the
histories of these batches, then stays. The seed decides what is ordered, what is disturbed and in which order; the
moments themselves depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError

from chaos.check import Tally, audit
from chaos.lab import Crew, Lab, open_lab
from chaos.orders import ENDS, LIVE, Order
from chaos.processes import Held
from chaos.scenarios import Ended
from durabatch.contract import LedgerView
from durabatch.contract.ledger import LEDGER_WORKFLOW
from durabatch.workflows import LedgerWorkflow
from support.operator import (
    pause_activity,
    pending_activity,
    reset_activity,
    reset_points,
    reset_workflow,
    unpause_activity,
)

STEPS = (
    "plan",
    "upload",
    "upload",
    "find",
    "create",
    "create",
    "create",
    "poll",
    "fetch",
    "settle",
    "tidy",
    "apply",
    "finish",
)
DIRECT_STEPS = ("plan", "run_rows", "run_rows", "run_rows", "collect", "settle", "apply", "finish")
OPS = (
    "files.create",
    "files.list",
    "files.retrieve",
    "files.content",
    "files.delete",
    "batches.create",
    "batches.retrieve",
    "batches.list",
    "batches.cancel",
    "batches.results",
)
#: What is done, and how often of a hundred times.
WEIGHTS = {
    "worker_killed": 18,
    "worker_killed_in_calls": 12,
    "workers_killed_while_held": 8,
    "worker_stopped": 8,
    "worker_paused": 10,
    "workflow_reset": 14,
    "activity_paused": 10,
    "activity_reset": 4,
    "server_killed": 4,
    "sandbox_killed": 4,
    "network_fault": 12,
}
#: Batches under way at a time, and workers.
BATCHES_AT_ONCE = 8
WORKERS = 3
#: Tokens that the account may have enqueued: about half of what is ordered concurrently, so that some always wait.
TOKENS = 6_000
#: Seconds between two disturbances, and the longest time that a batch is waited for once they have ended.
PACE = (0.6, 3.0)
PATIENCE = 300.0


class Soak:
    """One run."""

    def __init__(self, lab: Lab, disturbances: int, batches: int, seed: int) -> None:
        self.lab = lab
        self.wanted = disturbances
        self.least = batches
        self.seed = seed
        self.dice = random.Random(seed)
        self.orders = random.Random(f"{seed}/orders")  # apart, so that a disturbance more changes no order
        self.done = Counter[str]()
        self.crew: Crew = lab.crew(WORKERS, max_enqueued_tokens=str(TOKENS), max_concurrent_requests="16")
        self.under_way: dict[Order, asyncio.Task[Any]] = {}
        self.ended: Ended = {}
        self.started = 0
        self.all_orders: list[Order] = []
        self.violations: list[str] = []
        self._wakings: dict[int, asyncio.Task[None]] = {}
        self._releases: list[asyncio.Task[Any]] = []

    async def run(self) -> Tally:
        # A listing shows a new batch half a second late: less than `listing_lag`, and as real ones do.
        await self.lab.admin.settings(batch_seconds=2, cancel_polls=1, list_lag_seconds=0.5, live_seconds=0.3)
        buyer = asyncio.create_task(self._buy())
        nurse = asyncio.create_task(self._nurse())
        while self.disturbed < self.wanted and not buyer.done():
            await asyncio.sleep(self.dice.uniform(*PACE))
            await self._hurt()
            self._say()
        await self._heal()
        await self._drain(buyer)
        nurse.cancel()
        for worker in self.crew.workers:
            worker.resume()
        await self._queue_empty()
        tally = await audit(self.lab, self.ended)
        tally.violations += self.violations
        return tally

    @property
    def disturbed(self) -> int:
        """How often something was done to somebody; network faults come on top."""
        for what, kind in (("kill", "worker_killed_at_step"), ("stop", "worker_paused_at_step")):
            self.done[kind] = len(list(self.lab.folder.glob(f"spent-{what}-*")))
        return sum(times for kind, times in self.done.items() if kind != "network_fault")

    def _say(self) -> None:
        batches = f"{len(self.ended)} batches ended, {len(self.under_way)} under way"
        print(f"{self.disturbed}/{self.wanted} disturbances, {batches}", file=sys.stderr, flush=True)

    # --- what is ordered ---

    async def _buy(self) -> None:
        """Keep batches under way for as long as they are disturbed, and until there were enough."""
        while self.disturbed < self.wanted or self.started < self.least:
            if len(self.under_way) < BATCHES_AT_ONCE:
                await self._order()
            await asyncio.sleep(0.1)

    async def _order(self) -> None:
        draw = self.orders
        rows = draw.randint(20, 200)
        # A provider batch in which no row was run at all is asked for its results for minutes: longer than this waits.
        provider, direct = (("sandbox", False), ("claude", False), ("sandbox", True))[self.started % 3]
        worse = [marker for marker in (LIVE if direct else ENDS) if marker not in ("", "[[sandbox:skipped]]")]
        markers = {n: draw.choice(worse) for n in range(rows) if draw.random() < 0.06}
        order = self.crew.order(rows, markers, f"soak-{self.seed}-{self.started:04d}", provider, direct)
        limits = {"max_rows": max(10, rows // 3)} if draw.random() < 0.2 else {}
        if draw.random() < 0.4:
            what = draw.choice(("kill", "kill", "kill", "stop"))
            self.lab.arm(
                order, draw.choice(DIRECT_STEPS if direct else STEPS), draw.choice(("before", "after")), what=what
            )
        cancel_after = draw.uniform(0, 12) if draw.random() < 0.12 else None
        self.started += 1
        self.all_orders.append(order)
        self.under_way[order] = asyncio.create_task(self._follow(order, limits, cancel_after))

    async def _follow(self, order: Order, limits: dict[str, int], cancel_after: float | None) -> None:
        try:
            await self.crew.submit(order, limits=limits)
            if cancel_after is not None:
                await asyncio.sleep(cancel_after)
                with contextlib.suppress(RPCError):  # it has ended already
                    await self.crew.cancel(order)
            self.ended[order] = await self.crew.result(order)
        except Exception as error:
            self.violations.append(f"{order.batch_id}: it ended without a result: {error!r} {error.__cause__!r}")
        finally:
            self.under_way.pop(order, None)

    # --- what is done to it ---

    async def _hurt(self) -> None:
        kind = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if await getattr(self, f"_{kind}")() is not False:  # there was somebody to do it to
            self.done[kind] += 1

    async def _worker_killed(self) -> None:
        while not (fit := self.crew.fit):
            await asyncio.sleep(0.05)
        await self.dice.choice(fit).kill()

    async def _worker_killed_in_calls(self) -> bool:
        """Kill a worker while calls of direct mode are in flight: what was answered just before is to be kept."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not (await self.lab.ask(self.lab.admin.live))["open"] or not self.crew.fit:
                    await asyncio.sleep(0.02)
                await self.dice.choice(self.crew.fit).kill()
                return True
        return False

    async def _worker_stopped(self) -> None:
        """As a deployment does it: asked to end, with its work handed over."""
        while not (fit := self.crew.fit):
            await asyncio.sleep(0.05)
        self.dice.choice(fit).stop()

    async def _workflow_reset(self) -> bool:
        """An operator resets a batch, or one of its shards, to any task of its history, or to the last one."""
        workflow_id = await self._somewhere()
        try:
            points = await reset_points(self.lab.client, workflow_id)
            point = points[-1] if self.dice.random() < 0.3 else self.dice.choice(points)
            await reset_workflow(self.lab.client, workflow_id, point)
        except (RPCError, IndexError):  # it has not begun, has ended, or the server refuses this point
            return False
        return True

    async def _activity_paused(self) -> bool:
        """An operator pauses an activity, and lets it go on some time later."""
        workflow_id = await self._somewhere()
        try:
            activity_id = await pending_activity(self.lab.client, workflow_id, self.dice)
            if activity_id is None:
                return False
            await pause_activity(self.lab.client, workflow_id, activity_id)
        except RPCError:
            return False
        seconds = self.dice.uniform(0.2, 8)

        async def go_on() -> None:
            await asyncio.sleep(seconds)
            with contextlib.suppress(RPCError):  # it has ended meanwhile
                await self.lab.ask(lambda: unpause_activity(self.lab.client, workflow_id, activity_id))

        self._releases.append(asyncio.create_task(go_on()))
        return True

    async def _activity_reset(self) -> bool:
        workflow_id = await self._somewhere()
        try:
            activity_id = await pending_activity(self.lab.client, workflow_id, self.dice)
            if activity_id is None:
                return False
            await reset_activity(self.lab.client, workflow_id, activity_id)
        except RPCError:
            return False
        return True

    async def _somewhere(self) -> str:
        """Return the workflow of a batch that is under way, or of one of its shards."""
        while not self.under_way:
            await asyncio.sleep(0.05)
        batch_id = self.dice.choice(list(self.under_way)).batch_id
        return batch_id if self.dice.random() < 0.6 else f"{batch_id}/shards/{self.dice.randrange(4):05d}"

    async def _worker_paused(self) -> None:
        while not (fit := self.crew.fit):
            await asyncio.sleep(0.05)
        self.dice.choice(fit).pause()

    async def _nurse(self) -> None:
        """Have those who stand still, at a failpoint or anywhere, go on some time later."""

        async def wake(worker: Held, seconds: float) -> None:
            await asyncio.sleep(seconds)
            worker.resume()

        while True:
            for worker in self.crew.workers:
                waking = self._wakings.get(worker.pid)
                if worker.paused and (waking is None or waking.done()):
                    self._wakings[worker.pid] = asyncio.create_task(wake(worker, self.dice.uniform(0.5, 12)))
            await asyncio.sleep(0.1)

    async def _workers_killed_while_held(self) -> None:
        """Kill all workers while the provider holds a request of one of them, and let it go at some time after."""
        op, kind = self.dice.choice(OPS[:-1]), self.dice.choice(("hold", "hold_before"))
        if self.dice.random() < 0.5:
            op = "batches.create"
        seconds = self.dice.uniform(0, 8)
        fault = await self.lab.ask(lambda: self.lab.admin.fault(op, kind, times=1))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.lab.held(fault["id"])
        for worker in self.crew.fit:
            await worker.kill()

        async def release() -> None:
            await asyncio.sleep(seconds)
            await self.lab.ask(lambda: self.lab.admin.clear(fault["id"]))

        self._releases.append(asyncio.create_task(release()))

    async def _server_killed(self) -> None:
        await self.lab.kill_server()
        await asyncio.sleep(self.dice.uniform(0, 2))
        await self.lab.start_server()

    async def _sandbox_killed(self) -> None:
        await self.lab.kill_sandbox()
        await asyncio.sleep(self.dice.uniform(0, 2))
        await self.lab.start_sandbox()

    async def _network_fault(self) -> None:
        op = self.dice.choice(OPS)
        kind = self.dice.choice(("lost_answer", "reset", "status", "lost_answer_status", "truncate"))
        options: dict[str, Any] = {"times": self.dice.randint(1, 2)}
        if kind == "truncate":
            op, options["fraction"] = self.dice.choice(("files.content", "batches.results")), self.dice.random()
        if kind.endswith("status"):
            options["status"] = self.dice.choice((500, 502, 503, 504))
        await self.lab.ask(lambda: self.lab.admin.fault(op, kind, **options))

    # --- the end ---

    async def _heal(self) -> None:
        await asyncio.gather(*self._releases)
        await self.lab.ask(self.lab.admin.clear)

    async def _drain(self, buyer: asyncio.Task[None]) -> None:
        await buyer
        until = time.monotonic() + PATIENCE
        while self.under_way and time.monotonic() < until:
            for order in list(self.under_way):
                with contextlib.suppress(RPCError):
                    await self.crew.handle(order).signal("poll_now")
            self._say()
            await asyncio.sleep(2)
        for order, task in list(self.under_way.items()):
            task.cancel()
            self.violations.append(f"{order.batch_id}: it did not end")

    async def _queue_empty(self) -> None:
        """Everybody has given back the room that it was given in the account's queue."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            views = await self.lab.ask(self._ledgers)
            if views and not any(view.holders or view.waiting for view in views):
                return
            await asyncio.sleep(1)
        self.violations.append(f"the queue is not empty: {views}")

    async def _ledgers(self) -> list[LedgerView]:
        found = self.lab.client.list_workflows(f"WorkflowType = '{LEDGER_WORKFLOW}' AND ExecutionStatus = 'Running'")
        handles = [self.lab.client.get_workflow_handle(one.id) async for one in found]
        return [await handle.query(LedgerWorkflow.ledger) for handle in handles]

    async def keep_histories(self) -> None:
        """Write down what happened to the batches that are named."""
        for order in self.all_orders:
            if any(order.batch_id in words for words in self.violations):
                history = await self.crew.handle(order).fetch_history()
                (self.lab.folder / f"{order.batch_id}.json").write_text(history.to_json())


async def soak(disturbances: int, batches: int, seed: int) -> int:
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="durabatch-soak-"))
    async with open_lab(folder) as lab:
        run = Soak(lab, disturbances, batches, seed)
        tally = await run.run()
        run.violations = tally.violations
        await run.keep_histories()
    figures = {"seed": seed, "disturbances": run.disturbed, "by_kind": dict(run.done), **asdict(tally)}
    figures["violations"] = len(tally.violations)
    figures["seconds"] = round(time.monotonic() - began)
    print(json.dumps(figures))
    for words in tally.violations:
        print(f"seed {seed}: {words}", file=sys.stderr)
    if tally.violations:
        print(f"Everything is in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Disturb things at random and see whether the promises hold.")
    parser.add_argument("--disturbances", type=int, default=200, help="how many, network faults apart")
    parser.add_argument("--batches", type=int, default=60, help="how many batches at least")
    parser.add_argument("--seed", type=int, default=1, help="what decides the orders and the disturbances")
    given = parser.parse_args()
    # The client's core says on stdout that the server is away.
    quiet = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=quiet)))
    return asyncio.run(soak(given.disturbances, given.batches, given.seed))


if __name__ == "__main__":
    sys.exit(main())
