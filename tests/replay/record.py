"""Records one history of every path that a batch can take, for the replay tests.

    PYTHONPATH=tests python tests/replay/record.py [NAME …]

Run it only for new paths, or when a release is made: a recorded history is a promise to the workflows that are running.
Histories of released versions stay; a change that they do not replay with needs `workflow.patched`.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowHandle

from durabatch.activities.gateway.intake import read_entry
from durabatch.contract import Phase
from durabatch.contract.gateway_batch import GatewayBatch, GatewayStatus, Shape, inner_id, message_rows_path
from durabatch.contract.gateway_layout import Listed, index_path
from durabatch.contract.gateway_limits import TURN, TenantLimits, TurnLedger
from durabatch.contract.ledger import ledger_id
from durabatch.contract.rates import rates_id
from durabatch.contract.webhooks import webhook_workflow_id
from durabatch.workers import Settings
from durabatch.workflows import GatewayBatchWorkflow
from durabatch.workflows.decisions import MAX_CHILDREN
from durabatch.workflows.gateway_state import GatewayStart
from support.gateway import TENANT, Desk, jsonl, line, new_id
from support.house import KEY, House, asked, connect, dev_server, open_house
from support.webhooks import SECRET, receiving

STACK_TRACE = re.compile(r'"stackTrace":"(?:[^"\\]|\\.)*"')
HISTORIES = Path(__file__).parent / "histories"
Handle = WorkflowHandle[Any, Any]
TASK_COMPLETED = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
SLOW = {"finish_after_polls": 100_000, "cancel_fraction": 0.34}


async def completed(house: House) -> Handle:
    return await house.start(3)


async def completed_with_failed_rows(house: House) -> Handle:
    return await house.start(["fine", "[[sandbox:invalid_request]]", "[[sandbox:content_filtered]]"])


async def retried_rows(house: House) -> Handle:
    return await house.start(["fine", "[[sandbox:server_error times=1]]", "[[sandbox:skipped times=1]]"])


async def no_row_succeeded(house: House) -> Handle:
    return await house.start(["[[sandbox:invalid_request]]"])


async def expired_with_partials(house: House) -> Handle:
    await house.admin.fault("batches.create", "batch_outcome", outcome="expired", fraction=0.5, times=1)
    return await house.start(6)


async def deadline(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    return await house.start(6, deadline="3s")


async def deadline_and_again(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(6, deadline="3s", retry={"max_attempts": 2, "after_deadline": True})
    await house.until(handle, lambda p: p.attempt == 2)
    await house.admin.settings(finish_after_polls=0)
    return handle


async def deadline_before_the_submit(house: House) -> Handle:
    outage = await house.admin.fault("batches.create", "reset")
    handle = await house.start(6, deadline="3s", retry={"max_attempts": 20, "after_deadline": True})
    first = (await house.progress(handle)).deadline_at
    await house.until(handle, lambda p: p.deadline_at != first)
    await house.admin.clear(outage["id"])
    return handle


async def canceled_while_polling(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(6)
    await house.until(handle, lambda p: p.next_poll_at)
    await handle.signal("cancel", {"reason": "recorded"})
    return handle


async def canceled_by_temporal(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(6)
    await house.until(handle, lambda p: p.next_poll_at)
    await handle.cancel()
    return handle


async def canceled_while_uploading(house: House) -> Handle:
    await house.admin.fault("files.create", "hold_before", times=1)
    handle = await house.start(3)
    await _asked(house, "files.create")
    await handle.signal("cancel")
    return handle


async def canceled_while_submitting(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    await house.admin.fault("batches.create", "hold", times=1)
    handle = await house.start(3)
    await _asked(house, "batches.create")
    await handle.signal("cancel")
    await house.admin.clear()
    return handle


async def canceled_while_fetching(house: House) -> Handle:
    await house.admin.fault("files.content", "hold_before", times=1)
    handle = await house.start(3)
    await _asked(house, "files.content")
    await handle.signal("cancel")
    await house.admin.clear()
    return handle


async def adopted_after_a_lost_answer(house: House) -> Handle:
    await house.admin.fault("batches.create", "lost_answer", times=1)
    return await house.start(3)


async def fenced_and_created_again(house: House) -> Handle:
    await house.admin.fault("batches.create", "reset", times=1)
    return await house.start(3)


async def queue_full(house: House) -> Handle:
    await house.admin.settings(enqueued_token_limit=1)
    handle = await house.start(3)
    await house.until(handle, lambda p: p.waiting_for and "no room" in p.waiting_for)
    await house.admin.settings(enqueued_token_limit=None)
    await handle.signal("poll_now")
    return handle


async def outage(house: House) -> Handle:
    await house.admin.fault("batches.retrieve", "outage", times=5)
    return await house.start(3)


async def key_refused_and_fixed(house: House) -> Handle:
    await house.admin.settings(finish_after_polls=1000)
    handle = await house.start(3)
    await house.until(handle, lambda p: p.provider_batch_id)
    await house.admin.revoke(KEY)
    await house.until(handle, lambda p: p.waiting_for and "refuses the key" in p.waiting_for)
    await house.admin.restore(KEY)
    await house.admin.settings(finish_after_polls=0)
    return handle


async def not_found_in_mid_batch(house: House) -> Handle:
    await house.admin.settings(finish_after_polls=2)
    await house.admin.fault("batches.retrieve", "status", status=404, times=2, skip=1)
    return await house.start(3)


async def results_that_come_late(house: House) -> Handle:
    await house.admin.fault("batches.retrieve", "override", put={"/output_file_id": None}, times=1)
    await house.admin.fault("files.content", "status", status=404, times=1)
    return await house.start(3)


async def canceled_at_the_second_try(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    await house.admin.fault("batches.cancel", "status", status=404, times=1)
    return await canceled_while_polling(house)


async def continued_as_new(house: House) -> Handle:
    # The last run of a chain; 300 polls fill the first one.
    await house.admin.settings(finish_after_polls=300)
    return await house.start(3, poll={"first": "0.1s", "factor": 1, "maximum": "0.1s"})


async def failed_at_start(house: House) -> Handle:
    return await house.client.start_workflow("BatchWorkflow", {}, id=house.name or "", task_queue=house.task_queue)


async def failed_in_the_plan(house: House) -> Handle:
    return await house.start(["fine", 7])


async def refused_by_the_provider(house: House) -> Handle:
    await house.admin.fault("batches.create", "status", status=400)
    return await house.start(3)


async def several_shards(house: House) -> Handle:
    return await house.start(6, limits={"max_rows": 2})


async def several_shards_canceled(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(6, limits={"max_rows": 2})
    while len(await house.batches()) < 3:
        await asyncio.sleep(0.05)
    await handle.signal("cancel")
    return handle


async def several_shards_refused_at_first(house: House) -> Handle:
    await house.admin.fault("batches.list", "status", status=403, times=1)
    await house.admin.fault("batches.create", "hold_before")
    handle = await house.start(6, limits={"max_rows": 2})
    await house.until(handle, lambda p: p.waiting_for and "were refused" in p.waiting_for)
    await house.admin.clear()
    return handle


async def several_shards_reset_and_canceled(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(6, limits={"max_rows": 2})
    while len(await house.batches()) < 3:
        await asyncio.sleep(0.05)
    tasks = [event.event_id async for event in handle.fetch_history_events() if event.event_type == TASK_COMPLETED]
    await house.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=house.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            reason="recorded",
            workflow_task_finish_event_id=tasks[-1],
            request_id="recorded-last",
        )
    )
    again = house.client.get_workflow_handle(handle.id)
    await again.signal("cancel")
    return again


async def store_away_while_applying(house: House) -> Handle:
    (house.store / str(house.name) / "results.jsonl").mkdir(parents=True)
    handle = await house.start(3)
    await house.until(handle, lambda p: p.phase is Phase.APPLYING and p.waiting_for)
    await handle.signal("cancel")
    await house.until(handle, lambda p: p.waiting_for and "Another cancel" in p.waiting_for)
    await handle.signal("cancel")
    return handle


async def shard_terminated(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(4, limits={"max_rows": 2})
    while len(await house.batches()) < 2:
        await asyncio.sleep(0.05)
    await house.client.get_workflow_handle(f"{handle.id}/shards/00001").terminate("recorded")
    while (await house.client.get_workflow_handle(f"{handle.id}/shards/00001").describe()).close_time is not None:
        await asyncio.sleep(0.2)
    await house.admin.settings(finish_after_polls=0)
    return handle


async def reset_with_children(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    handle = await house.start(4, limits={"max_rows": 2})
    while len(await house.batches()) < 2:
        await asyncio.sleep(0.05)
    await house.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=house.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            reason="recorded",
            workflow_task_finish_event_id=4,
            request_id="recorded",
        )
    )
    await asyncio.sleep(8)  # the old children have retired, and new ones have begun
    await house.admin.settings(finish_after_polls=0)
    return house.client.get_workflow_handle(handle.id)


async def more_shards_than_children(house: House) -> Handle:
    return await house.start(MAX_CHILDREN + 1, limits={"max_rows": 1})


async def waited_for_its_turn(house: House) -> Handle:
    await house.admin.settings(finish_after_polls=3)
    first = await house.start([LONG, LONG], id="recorded-first")
    await house.until(first, lambda p: p.provider_batch_id)
    handle = await house.start([LONG, LONG])
    await house.until(handle, lambda p: p.waiting_for and "its turn" in p.waiting_for)
    await first.result()
    return handle


async def canceled_before_its_turn(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    first = await house.start([LONG, LONG], id="recorded-first")
    await house.until(first, lambda p: p.provider_batch_id)
    handle = await house.start([LONG, LONG])
    await house.until(handle, lambda p: p.waiting_for and "its turn" in p.waiting_for)
    await handle.signal("cancel")
    await handle.result()
    await first.signal("cancel")
    await first.result()
    return handle


async def direct_completed(house: House) -> Handle:
    return await house.start(["fine", "[[sandbox:invalid_request]]", "fine too"], mode="direct")


async def direct_canceled(house: House) -> Handle:
    handle = await house.start(["fine", "[[sandbox:hang]]"], mode="direct")
    await _asked(house, "chat")
    await handle.signal("cancel", {"reason": "recorded"})
    return handle


async def direct_deadline_and_again(house: House) -> Handle:
    hangs = "[[sandbox:hang times=1]]"
    retry = {"max_attempts": 5, "after_deadline": True}
    return await house.start(["fine", hangs], mode="direct", deadline="4s", retry=retry)


async def direct_outage(house: House) -> Handle:
    outage = await house.admin.fault("chat", "status", status=503)
    handle = await house.start(3, mode="direct")
    await house.until(handle, lambda p: p.waiting_for)
    await house.admin.clear(outage["id"])
    await handle.signal("poll_now")
    return handle


async def direct_key_refused_and_fixed(house: House) -> Handle:
    await house.admin.settings(live_seconds=1)
    handle = await house.start(1500, mode="direct")
    while (await house.admin.live())["how"].get("answered", 0) < 10:
        await asyncio.sleep(0.05)
    await house.admin.revoke(KEY)
    await house.until(handle, lambda p: p.waiting_for and "refuses the key" in p.waiting_for)
    await house.admin.restore(KEY)
    await handle.signal("poll_now")
    return handle


async def direct_key_refused_at_first(house: House) -> Handle:
    await house.admin.revoke(KEY)
    return await house.start(3, mode="direct")


async def several_shards_direct(house: House) -> Handle:
    return await house.start(6, mode="direct", limits={"max_rows": 2})


async def expired_and_finished_directly(house: House) -> Handle:
    await house.admin.fault("batches.create", "batch_outcome", outcome="expired", fraction=0.5, times=1)
    return await house.start(6, retry={"on_expired": "direct"})


async def ended_early_and_finished_directly(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    return await house.start(6, deadline="20s", retry={"on_expired": "direct"})


async def not_submitted_and_run_directly(house: House) -> Handle:
    await house.admin.fault("batches.create", "status", status=429)
    return await house.start(6, deadline="20s", retry={"on_expired": "direct"})


async def rate_leased(house: House) -> Handle:
    await house.admin.settings(live_seconds=6)  # longer than a lease of workers that are believed for 3 s
    return await house.start(2, mode="direct")


async def _gateway(
    house: House, rows: list[dict[str, Any]], tenant: str = TENANT, **fields: Any
) -> tuple[Desk, GatewayBatch]:
    desk = Desk(house, tenant)
    return desk, desk.batch(await desk.upload(rows), **fields)


async def gateway_completed(house: House) -> Handle:
    desk, batch = await _gateway(house, [line("good"), line("bad", "[[sandbox:invalid_request]]")])
    return await desk.start(batch, house.name)


async def gateway_messages(house: House) -> Handle:
    desk = Desk(house)
    messages = {"messages": [{"role": "user", "content": "Say something."}], "max_tokens": 9}
    rows = [{"custom_id": f"r{n}", "params": {"model": "gpt-4o-mini", **messages}} for n in range(2)]
    shape = {"endpoint": "/v1/messages", "shape": Shape.ANTHROPIC, "rows": len(rows)}
    batch = desk.batch("", id=new_id(Listed.MESSAGES), **shape)
    await desk.store.write(message_rows_path(batch.tenant, batch.id), jsonl(rows))
    return await desk.start(batch, house.name)


async def gateway_refused(house: House) -> Handle:
    desk, batch = await _gateway(house, [line("r0"), line("r0"), {}])
    return await desk.start(batch, house.name)


async def gateway_canceled(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    desk, batch = await _gateway(house, [line(f"r{n}") for n in range(6)])
    handle = await desk.start(batch, house.name)
    await _asked(house, "batches.create")
    await handle.signal("poll_now")
    await handle.signal("cancel", {"reason": "recorded"})
    return handle


async def gateway_that_joined_its_batch(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    desk, batch = await _gateway(house, [line(f"r{n}") for n in range(3)])
    first = await desk.start(batch, house.name)
    await _asked(house, "batches.create")
    await first.terminate("recorded")
    second = await desk.start(batch, house.name)
    await asyncio.sleep(3)  # it has found that the batch runs
    await house.admin.settings(finish_after_polls=0)
    return second


async def gateway_whose_batch_was_terminated(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    desk, batch = await _gateway(house, [line(f"r{n}") for n in range(3)])
    handle = await desk.start(batch, house.name)
    await _asked(house, "batches.create")
    await house.client.get_workflow_handle(inner_id(batch.tenant, batch.id)).terminate("recorded")
    await house.admin.settings(finish_after_polls=0)
    return handle


async def gateway_canceled_when_it_was_started_again(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    desk, batch = await _gateway(house, [line(f"r{n}") for n in range(6)])
    first = await desk.start(batch, house.name)
    await _asked(house, "batches.create")
    await first.terminate("recorded")
    return await house.client.start_workflow(
        GatewayBatchWorkflow.run,
        GatewayStart(batch=batch),
        id=house.name or "",
        task_queue=house.task_queue,
        start_signal="cancel",
    )


async def gateway_unwritten(house: House) -> Handle:
    desk, batch = await _gateway(house, [line(f"r{n}") for n in range(3)])
    await (await desk.start(batch, house.name)).result()
    entry = (await read_entry(desk.store, batch)).model_copy(update={"final": None, "published": False})
    await desk.store.write(index_path(batch.tenant, batch.id), entry.model_dump_json().encode())
    results = house.store / inner_id(batch.tenant, batch.id) / "results.jsonl"
    results.write_bytes(b"".join(results.read_bytes().splitlines(keepends=True)[:2]))
    return await desk.start(batch, house.name)


async def gateway_waited_for_its_turn(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    limits = TenantLimits(max_batches=1, max_batches_in_all=5)
    desk, batch = await _gateway(house, [line("r0")], limits=limits)
    first = await desk.start(batch)
    await _asked(house, "batches.create")
    handle = await desk.start(desk.batch(await desk.upload([line("r0")]), limits=limits), house.name)
    while "Waiting for its turn" not in str(await asked(lambda: handle.query("__temporal_workflow_metadata"))):
        await asyncio.sleep(0.1)
    await house.admin.settings(finish_after_polls=0)
    await first.result()
    return handle


async def gateway_that_had_its_turn(house: House) -> Handle:
    limits = TenantLimits(max_batches=1)
    desk, batch = await _gateway(house, [line("r0")], "had", limits=limits)
    return await desk.start(batch, house.name)


async def gateway_canceled_before_its_turn(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    limits = TenantLimits(max_batches=1)
    desk, batch = await _gateway(house, [line("r0")], "canceled", limits=limits)
    first = await desk.start(batch)
    await _asked(house, "batches.create")
    handle = await desk.start(desk.batch(await desk.upload([line("r0")]), limits=limits), house.name)
    while "Waiting for its turn" not in str(await asked(lambda: handle.query("__temporal_workflow_metadata"))):
        await asyncio.sleep(0.1)
    await handle.signal("cancel")
    await handle.result()
    await first.signal("cancel")
    await first.result()
    return handle


async def gateway_canceled_while_no_turn_could_be_had(house: House) -> Handle:
    await house.admin.settings(**SLOW)
    house.task_queue = f"{house.task_queue}-older"
    rows, limits = [line(f"r{n}") for n in range(6)], TenantLimits(max_batches=1)
    desk, batch = await _gateway(house, rows, "older", limits=limits)
    async with house.worker(identity="recorder"):
        first = await desk.start(batch, house.name)
        await _asked(house, "batches.create")
        await first.terminate("recorded")
    async with house.worker(without={TURN.name}, identity="recorder"):
        second = await desk.start(batch, house.name)
        while (await desk.shown(second)).status is GatewayStatus.VALIDATING:
            await asyncio.sleep(0.1)
        await second.signal("cancel")
        await second.result()
    return second


async def webhook_delivered(house: House) -> Handle:
    answers = iter((503, 410))
    async with receiving() as receiver:
        receiver.answers = lambda message: next(answers, 200)
        await _told(house, receiver.url)
    return house.client.get_workflow_handle(webhook_workflow_id(TENANT, "hook"))


async def _told(house: House, url: str) -> None:
    """Run a batch of a tenant that has a webhook, by a worker that knows it."""
    config = house.settings.source
    assert config is not None
    hook = f'[[gateway.webhooks]]\ntenant = "{TENANT}"\nname = "hook"\nurl = "{url}"\nsecret_env = "HOOK"\n'
    config.write_text(f"{config.read_text()}{hook}allow_private = true\n")
    house.settings, house.task_queue = Settings.load(config, {"KEY": KEY, "HOOK": SECRET}), f"{house.task_queue}-told"
    desk, batch = await _gateway(house, [line("good")])
    async with house.worker(identity="recorder"):
        await (await desk.start(batch, house.name)).result()
        webhook = house.client.get_workflow_handle(webhook_workflow_id(TENANT, "hook"))
        while (await webhook.describe()).close_time is None:
            await asyncio.sleep(0.1)


PATHS: list[Callable[[House], Awaitable[Handle]]] = [
    completed,
    completed_with_failed_rows,
    retried_rows,
    no_row_succeeded,
    expired_with_partials,
    deadline,
    deadline_and_again,
    deadline_before_the_submit,
    canceled_while_polling,
    canceled_by_temporal,
    canceled_while_uploading,
    canceled_while_submitting,
    canceled_while_fetching,
    adopted_after_a_lost_answer,
    fenced_and_created_again,
    queue_full,
    outage,
    key_refused_and_fixed,
    not_found_in_mid_batch,
    results_that_come_late,
    canceled_at_the_second_try,
    continued_as_new,
    failed_at_start,
    failed_in_the_plan,
    refused_by_the_provider,
    several_shards,
    several_shards_canceled,
    several_shards_refused_at_first,
    several_shards_reset_and_canceled,
    store_away_while_applying,
    shard_terminated,
    reset_with_children,
    more_shards_than_children,
    waited_for_its_turn,
    canceled_before_its_turn,
    direct_completed,
    direct_canceled,
    direct_deadline_and_again,
    direct_outage,
    direct_key_refused_and_fixed,
    direct_key_refused_at_first,
    several_shards_direct,
    expired_and_finished_directly,
    ended_early_and_finished_directly,
    not_submitted_and_run_directly,
    rate_leased,
    gateway_completed,
    gateway_messages,
    webhook_delivered,
    gateway_refused,
    gateway_canceled,
    gateway_that_joined_its_batch,
    gateway_whose_batch_was_terminated,
    gateway_canceled_when_it_was_started_again,
    gateway_unwritten,
    gateway_waited_for_its_turn,
    gateway_that_had_its_turn,
    gateway_canceled_before_its_turn,
    gateway_canceled_while_no_turn_could_be_had,
]
#: Paths of a provider whose account may have 1,000 tokens enqueued, which two long rows are most of.
BOUNDED = {"waited_for_its_turn", "canceled_before_its_turn"}
LONG = "word " * 200


async def _asked(house: House, op: str) -> None:
    while not (await house.admin.books(summary=True))["requests"].get(op):
        await asyncio.sleep(0.05)


async def _record(name: str, path: Callable[[House], Awaitable[Handle]], address: str, scratch: Path) -> None:
    client = await connect(address)
    provider = {"listing_lag": "1s", "timeout": "5s"} | ({"max_enqueued_tokens": "1000"} if name in BOUNDED else {})
    async with (
        open_house(client, scratch / name, provider) as house,
        house.worker(identity="recorder"),
    ):
        house.name = f"recorded-{name}"
        handle = await path(house)
        while (await handle.describe()).close_time is None:
            await asyncio.sleep(0.1)
        for workflow_id, what in await _workflows(house, name, handle):
            last = await client.get_workflow_handle(workflow_id).describe()
            # Every run of a chain is a history of its own.
            runs = {last.run_id}
            if name == "continued_as_new":
                runs.add(str(handle.first_execution_run_id))
            if name == "reset_with_children" and what:  # the child that retired, and the one that followed
                async for found in client.list_workflows(f"WorkflowId = '{workflow_id}'"):
                    runs.add(str(found.run_id))
            for run, run_id in enumerate(sorted(runs, key=lambda found: found != handle.first_execution_run_id)):
                history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
                suffix = what + (f"-run-{run + 1}" if len(runs) > 1 else "")
                text = json.dumps(history.to_json_dict(), separators=(",", ":"))
                # Stack traces show where somebody's checkout lies, and no replay reads them.
                text = STACK_TRACE.sub('"stackTrace":""', text)
                (HISTORIES / f"{name}{suffix}.json").write_text(text + "\n")


async def _workflows(house: House, name: str, handle: Handle) -> list[tuple[str, str]]:
    """Return the workflows whose histories are kept, and how their files' names end."""
    found = [(handle.id, "")]
    if name == "reset_with_children":
        found.append((f"{handle.id}/shards/00000", "-child"))
    if name.startswith("several_shards"):
        found += [(f"{handle.id}/shards/{n:05d}", f"-shard-{n}") for n in range(3)]
    if name == "more_shards_than_children":  # the batch's own history is like the others', only long
        found = [(f"{handle.id}/shards/00000-00001", "-child")]
    if name == "rate_leased":
        rates = rates_id(house.settings.provider("sandbox").fingerprint, "gpt-4o-mini")
        kept = house.client.get_workflow_handle(rates)
        while (await asked(lambda: kept.query("rates")))["workers"]:  # until they have given their shares back
            await asyncio.sleep(0.1)
        return [(rates, "-ledger")]
    if name == "gateway_waited_for_its_turn":
        turns = TurnLedger(name=Desk(house).tenant, limit=1).id
        kept = house.client.get_workflow_handle(turns)
        while (await asked(lambda: kept.query("ledger")))["holders"]:
            await asyncio.sleep(0.1)
        found.append((turns, "-ledger"))
    if name in BOUNDED:
        ledger = ledger_id(house.settings.provider("sandbox").fingerprint, "gpt-4o-mini")
        kept = house.client.get_workflow_handle(ledger)
        while (await asked(lambda: kept.query("ledger")))["holders"]:
            await asyncio.sleep(0.1)
        found.append((ledger, "-ledger"))
    return found


async def main(wanted: list[str]) -> None:
    HISTORIES.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="durabatch-record-"))
    try:
        with dev_server() as address:
            for path in PATHS:
                if not wanted or path.__name__ in wanted:
                    began = time.monotonic()
                    (scratch / path.__name__).mkdir()
                    await _record(path.__name__, path, address, scratch)
                    print(f"{path.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
