"""How `providers` shows the rates of direct mode: what is in use, by worker, and who waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..contract.rates import RatesView, Shares, WorkerView

_HEAD = ("PROVIDER", "MODEL", "REQUESTS/MIN", "TOKENS/MIN", "IN FLIGHT", "WORKERS", "WAIT")


def table(named: Sequence[tuple[str, RatesView]]) -> str:
    """Return a line for each rate, with the name of its provider; empty if there is none."""
    if not named:
        return ""
    rows = [_HEAD, *((name, view.model, *_use(view), f"{len(view.workers):,}", _waiting(view)) for name, view in named)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def lines(view: RatesView) -> list[str]:
    """Return everything about one rate: what is in use, by worker, and who waits."""
    if not view.workers:
        return [f"\n{view.model}, directly: no worker has a share of the rate."]
    requests, tokens, in_flight = _use(view)
    found = [f"\n{view.model}, directly: {requests} requests and {tokens} tokens a minute, {in_flight} calls in flight"]
    if view.factor < 1:
        found.append(f"  After calls that were refused with 429, {view.factor:.0%} of the limits are given out.")
    for worker in view.workers:
        asked = f", asked at {worker.asked_at.astimezone():%H:%M:%S}" if worker.asked_at else ""
        found.append(f"  {worker.label}: {_share(worker.using, worker.amounts, worker)}{asked}")
        for batch in worker.batches:
            waits = f", has waited {batch.waits:,.0f} s for its next call" if batch.waits >= 1 else ""
            found.append(f"    {batch.batch}, priority {batch.priority}{waits}")
    return found


def _use(view: RatesView) -> tuple[str, str, str]:
    requests = sum((worker.using.requests or 0.0) for worker in view.workers) * 60
    tokens = sum((worker.using.tokens or 0.0) for worker in view.workers) * 60
    in_flight = sum(worker.in_flight for worker in view.workers)
    return (
        _of(requests, view.limits.requests_per_minute),
        _of(tokens, view.limits.tokens_per_minute),
        _of(in_flight, view.limits.slots),
    )


def _share(using: Shares, amounts: Shares, worker: WorkerView) -> str:
    requests = _of((using.requests or 0.0) * 60, None if amounts.requests is None else amounts.requests * 60)
    tokens = _of((using.tokens or 0.0) * 60, None if amounts.tokens is None else amounts.tokens * 60)
    return f"{requests} requests, {tokens} tokens, {_of(worker.in_flight, amounts.slots)} in flight"


def _of(used: float, limit: float | None) -> str:
    return f"{used:,.0f}" if limit is None else f"{used:,.0f} of {limit:,.0f}"


def _waiting(view: RatesView) -> str:
    waiting = {batch.batch for worker in view.workers for batch in worker.batches if batch.waits >= 1}
    return f"{len(waiting):,}" if waiting else "0"
