"""Direct mode: how long a cancel takes with a thousand calls in flight.

    python benchmarks/cancel.py --in-flight 1000 --times 3

A batch of three times as many rows goes through `durabatch worker` and a real Temporal server to a chat server that
takes 20 s for each. When the first thousand are answered and the second thousand are in flight, it is cancelled by the
client. The clock runs until the server has no call open, by its own books, and until the batch has its result. The
rows that were answered must be in the results, and no call may be open or answered afterwards.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from typing import Any

from lab import FIRST_CORE, LAST_CORE, Lab, live_books, live_server, open_lab
from report import arguments, publish, say, spread
from rows import make_rows

from durabatch import BatchClient
from durabatch.contract import BatchStatus

#: Seconds between two looks into the server's books.
_PAUSE = 0.05


async def cancel(lab: Lab, in_flight: int, url: str) -> dict[str, Any]:
    """Cancel a batch with so many calls in flight; return what it took."""
    name = f"cancel-{uuid.uuid4().hex[:8]}"
    file = lab.store / "in" / f"{name}.jsonl"
    make_rows(file, 3 * in_flight, 600)
    provider = f'[providers.live]\nkind = "openai"\nbase_url = "{url}/v1"\napi_key_env = "KEY"\n'
    provider += f'mode = "direct"\nmax_concurrent_requests = {in_flight}\n'
    worker = await lab.worker(provider, name, FIRST_CORE, KEY="sk-bench")
    try:
        os.sync()  # what was written before must not be paid for here
        user = BatchClient(lab.client, str(lab.store), task_queue=name)
        await user.create(file.as_uri(), provider="live", id=name)
        books = await live_books(url)
        while books["calls"] < in_flight or books["open"] < in_flight:
            await asyncio.sleep(_PAUSE)
            books = await live_books(url)
        ending = asyncio.ensure_future(user.result(name))
        began = time.perf_counter()
        await user.cancel(name)
        books = await live_books(url)
        while books["open"]:
            await asyncio.sleep(_PAUSE)
            books = await live_books(url)
        closed = time.perf_counter() - began
        result = await ending
        ended = time.perf_counter() - began
        after = await live_books(url)
    finally:
        worker.stop()
    right = result.status is BatchStatus.CANCELED and result.counts.succeeded == books["calls"] == after["calls"]
    if not right or after["open"] or after["dropped"] + after["calls"] != after["distinct"]:
        raise SystemExit(f"The server's books: {after}. The result: {result!r}")
    counts = {"answered": after["calls"], "dropped": after["dropped"], "kept": result.counts.succeeded}
    return {"seconds_until_no_call_is_open": closed, "seconds_until_the_result": ended, **counts}


async def measure(in_flight: int, times: int, seconds: float) -> dict[str, Any]:
    found = []
    async with open_lab(core=LAST_CORE) as lab:
        for number in range(times):
            async with live_server(lab.folder, LAST_CORE, seconds=seconds) as url:
                found.append(await cancel(lab, in_flight, url))
            say(f"{number + 1}/{times}: {found[-1]}")
    closed = spread([one["seconds_until_no_call_is_open"] for one in found])
    return {
        "in_flight": in_flight,
        "seconds_until_no_call_is_open": closed,
        "seconds_until_the_result": spread([one["seconds_until_the_result"] for one in found]),
        "goal": {"seconds_until_no_call_is_open_at_most": 5, "met": closed["max"] <= 5},
        "rows": [{name: one[name] for name in ("answered", "dropped", "kept")} for one in found],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--in-flight", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a call takes")
    parser.add_argument("--times", type=int, default=3, help="how often it is cancelled")
    given = parser.parse_args()
    publish("cancel", asyncio.run(measure(given.in_flight, given.times, given.seconds)), given.out)


if __name__ == "__main__":
    main()
