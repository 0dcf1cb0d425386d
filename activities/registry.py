"""All steps together, as a worker registers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .apply import Apply
from .direct.collect import Collect
from .direct.run import RunRows
from .follow import Follow
from .gateway.intake import GatewayIntake
from .gateway.join import GatewayJoin
from .gateway.publish import GatewayPublish
from .gateway.turns import GatewayTurns
from .ledger import LedgerSteps
from .plan import Plan
from .resources import Resources
from .settle import Settle
from .submit import Submit
from .webhooks.deliver import DeliverWebhooks


def all_activities(resources: Resources) -> list[Callable[..., Any]]:
    """Return every step, ready to be registered with a worker."""
    plan, submit, follow = Plan(resources), Submit(resources), Follow(resources)
    settle, apply, ledger = Settle(resources), Apply(resources), LedgerSteps(resources)
    turns = GatewayTurns(resources)
    return [
        plan.plan,
        plan.recall,
        submit.upload,
        submit.find,
        submit.create,
        follow.poll,
        follow.cancel,
        follow.fetch,
        RunRows(resources).run_rows,
        Collect(resources).collect,
        submit.tidy,
        settle.settle,
        apply.apply,
        apply.finish,
        ledger.reserve,
        ledger.release,
        ledger.census,
        GatewayIntake(resources).intake,
        GatewayJoin(resources).join,
        turns.turn,
        turns.leave,
        GatewayPublish(resources).publish,
        DeliverWebhooks(resources).deliver,
    ]
