"""`/v1/batches/{id}/analytics`: what a batch has used, cost and taken. Ours.

Of a batch that has ended they were written down at its end. Of one that runs they are those of its settled shards.
"""

from __future__ import annotations

from collections import Counter

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from ..activities.model_shares import add_models
from ..activities.prices import dollars, picodollars
from ..activities.so_far import SoFar
from ..contract import ModelShare, ObjectNotFound, Usage
from ..contract.gateway_analytics import Analytics
from ..contract.gateway_batch import BatchEntry, BatchObject, inner_id
from ..contract.gateway_layout import analytics_path
from .batches import NO_BATCH, entry_of
from .context import Context, context_of
from .described import Described
from .live import Glance


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/v1/batches/{batch_id}/analytics", analytics, methods=["GET"])]


@Described(answer=Analytics, errors=NO_BATCH)
async def analytics(request: Request) -> Response:
    """Return what a batch has used, cost and taken, by model and by class of error; while it runs, so far."""
    context, entry = context_of(request), await entry_of(request)
    found = await _written(context, entry)
    if found is None:
        shown = await Glance(context.client, thorough=True).at(entry)
        found = await _so_far(context, entry, shown)
    return JSONResponse(found.model_dump(mode="json"))


async def _written(context: Context, entry: BatchEntry) -> Analytics | None:
    """Return what was written down when the batch ended."""
    batch = entry.request
    if entry.final is None:
        return None
    try:
        return Analytics.model_validate_json(await context.store.read(analytics_path(batch.tenant, batch.id)))
    except (ObjectNotFound, ValidationError):
        return None


async def _so_far(context: Context, entry: BatchEntry, shown: BatchObject) -> Analytics:
    """Add up the shards that are settled: one small read for each."""
    opened = await SoFar.open(context.store, inner_id(entry.request.tenant, entry.request.id))
    usage, unpriced = Usage(), 0
    costs, listed = list[int](), list[int]()
    models: dict[str, ModelShare] = {}
    classes = Counter[str]()
    for shard in await opened.settled() if opened else ():
        usage += shard.usage
        unpriced += shard.unpriced.total
        costs += [picodollars(shard.cost_usd)] if shard.cost_usd is not None else []
        listed += [picodollars(shard.list_cost_usd)] if shard.list_cost_usd is not None else []
        models = add_models(models, shard.models)
        classes.update(shard.classes)
    return Analytics.of(
        shown,
        usage=usage,
        cost_usd=dollars(sum(costs)) if costs else None,
        list_cost_usd=dollars(sum(listed)) if listed else None,
        unpriced=unpriced,
        models=models,
        classes=classes,
    )
