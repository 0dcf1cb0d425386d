"""Lists of a tenant with many batches: the first page, one in the middle, and all of them one page after the other.

    python benchmarks/gateway_list.py --batches 100000 --days 90 1

The batches have ended, and are in the store as the product writes them: an index entry for each, spread evenly over the
days that are given, one list after the other. `durabatch gateway` serves them over HTTP from a folder, and one client
asks on one connection. Beside each page's time is the processor time that the gateway spent on it, and what the least
answer of the same process takes (`/healthz`). A page has 20 batches, as by default, or the 100 that a page may have.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from lab import Lab, Process, open_lab
from report import arguments, publish, say, spread

from durabatch.contract.gateway_batch import BatchEntry, GatewayBatch, GatewayStatus, TokenUsage
from durabatch.contract.gateway_layout import DEFAULT_TENANT, Listed, index_path, make_id

#: Milliseconds: the design's goal for a page.
GOAL = 20.0
_PROVIDER = '[providers.none]\nkind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "KEY"\n'


def seed(store: Path, count: int, days: float) -> list[str]:
    """Put ended batches into a store's folder; return their ids, newest first."""
    began, ids = datetime.now(UTC), []
    for number in range(count):
        at = began - timedelta(days=days * number / count)
        ids.append(make_id(Listed.BATCHES, at, secrets.token_hex(8)))
        batch = GatewayBatch(
            tenant=DEFAULT_TENANT,
            id=ids[-1],
            input_file_id=make_id(Listed.FILES, at, secrets.token_hex(8)),
            endpoint="/v1/chat/completions",
            metadata={"team": "search", "night": f"{at:%Y-%m-%d}"},
            created_at=int(at.timestamp()),
        )
        final = batch.beginning().model_copy(update={"status": GatewayStatus.COMPLETED, "usage": TokenUsage()})
        path = store / index_path(DEFAULT_TENANT, ids[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BatchEntry(request=batch, final=final).model_dump_json())
    return ids


async def timed(http: httpx2.AsyncClient, gateway: Process, path: str, times: int, **params: Any) -> dict[str, Any]:
    """Ask for the same page so many times; the first answer, from a cold start, is not counted."""
    await http.get(path, params=params)
    took, used = [], gateway.cpu
    for _ in range(times):
        began = time.perf_counter()
        answer = await http.get(path, params=params)
        took.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise SystemExit(f"The gateway answered {answer.status_code}: {answer.text}")
    return {"ms": spread(took, 2), "processor_ms": round((gateway.cpu - used) / times * 1000, 2)}


async def every_page(http: httpx2.AsyncClient, gateway: Process, ids: list[str]) -> dict[str, Any]:
    """Read the list to its end, and check that each batch is in it once, newest first."""
    found: list[str] = []
    began, used, pages = time.perf_counter(), gateway.cpu, 0
    more = True
    while more:
        params = {"limit": 100, **({"after": found[-1]} if found else {})}
        page = (await http.get("/batches", params=params)).json()
        found += [one["id"] for one in page["data"]]
        more, pages = page["has_more"], pages + 1
    if found != ids:
        raise SystemExit(f"{len(found)} batches were listed, {len(set(found))} different ones, of {len(ids)}")
    seconds = time.perf_counter() - began
    return {
        "pages": pages,
        "seconds": round(seconds, 1),
        "ms_a_page": round(seconds / pages * 1000, 2),
        "processor_ms_a_page": round((gateway.cpu - used) / pages * 1000, 2),
    }


async def run(lab: Lab, count: int, days: float, times: int) -> dict[str, Any]:
    """Measure one list."""
    began = time.perf_counter()
    (lab.folder / "store").mkdir(exist_ok=True)
    ids = await asyncio.to_thread(seed, lab.store, count, days)
    say(f"{count} batches of {days:g} days are there after {time.perf_counter() - began:.0f} s")
    base_url, gateway = await lab.gateway(_PROVIDER, f"list-{uuid.uuid4().hex[:8]}", "none", KEY="sk-bench")
    try:
        async with httpx2.AsyncClient(base_url=base_url, trust_env=False, timeout=60.0) as http:
            middle = ids[count // 2]
            pages = {
                "least": await timed(http, gateway, base_url.removesuffix("v1") + "healthz", times),
                "first_20": await timed(http, gateway, "/batches", times),
                "middle_20": await timed(http, gateway, "/batches", times, after=middle),
                "first_100": await timed(http, gateway, "/batches", times, limit=100),
                "middle_100": await timed(http, gateway, "/batches", times, limit=100, after=middle),
            }
            facts = {"batches": count, "days": days, **pages, "all": await every_page(http, gateway, ids)}
    finally:
        gateway.stop()
    met = all(pages[name]["ms"]["median"] <= GOAL for name in pages)
    say(str(facts))
    return {**facts, "goal": {"ms_a_page_at_most": GOAL, "met": met}}


async def measure(count: int, days: list[float], times: int) -> dict[str, Any]:
    lists = []
    for span in days:
        async with open_lab() as lab:
            lists.append(await run(lab, count, span, times))
    return {"lists": lists}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, default=100_000)
    parser.add_argument("--days", type=float, nargs="+", default=[90.0, 1.0], help="over how many they are spread")
    parser.add_argument("--times", type=int, default=50, help="how often each page is asked for")
    given = parser.parse_args()
    publish("gateway_list", asyncio.run(measure(given.batches, given.days, given.times)), given.out)


if __name__ == "__main__":
    main()
