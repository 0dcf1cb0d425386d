"""What Temporal's histories tell: how long steps took, and what a batch costs there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from durabatch.contract.steps import CREATE, POLL

#: What Temporal Cloud bills: starts, timers, activities, signals, children.
_BILLED = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
    EventType.EVENT_TYPE_TIMER_STARTED,
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED,
}


async def histories(client: Client, workflow_id: str, run_id: str | None = None) -> list[list[HistoryEvent]]:
    """Return the events of a workflow, of the runs that it went on as, and of its children, a list for each run."""
    events = [event async for event in client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events()]
    found = [events]
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
            child = event.child_workflow_execution_started_event_attributes.workflow_execution
            found += await histories(client, child.workflow_id, child.run_id)
        elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
            later = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            found += await histories(client, workflow_id, later)
    return found


def step_seconds(runs: list[list[HistoryEvent]]) -> dict[str, dict[str, float]]:
    """Return for each kind of step how often it ran, and for how long: added up, and until the last one ended.

    The two differ where shards run side by side. Of a step that was tried again only the last try is reported.
    """
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for events in runs:
        names: dict[int, str] = {}
        starts: dict[int, datetime] = {}
        for event in events:
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                name = event.activity_task_scheduled_event_attributes.activity_type.name
                names[event.event_id] = name.rpartition(".")[2]
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                starts[event.activity_task_started_event_attributes.scheduled_event_id] = event.event_time.ToDatetime()
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                number = event.activity_task_completed_event_attributes.scheduled_event_id
                span = starts[number].timestamp(), event.event_time.ToDatetime().timestamp()
                spans[names[number]].append(span)
    return {
        name: {
            "times": len(found),
            "seconds": round(sum(end - start for start, end in found), 3),
            "busy_seconds": round(_covered(found), 3),
        }
        for name, found in spans.items()
    }


def waited(runs: list[list[HistoryEvent]]) -> float:
    """Return the seconds between a batch's first create and its last poll: the provider's part, and the timers'."""
    begin = end = None
    for events in runs:
        names: dict[int, str] = {}
        for event in events:
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                names[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                at = event.event_time.ToDatetime().timestamp()
                name = names[event.activity_task_completed_event_attributes.scheduled_event_id]
                if name == CREATE.name:
                    begin = at if begin is None else min(begin, at)
                elif name == POLL.name:
                    end = at if end is None else max(end, at)
    return 0.0 if begin is None or end is None else end - begin


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasted."""
    covered, until = 0.0, 0.0
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def size(runs: list[list[HistoryEvent]]) -> dict[str, Any]:
    """Return what the histories weigh."""
    events = [event for run in runs for event in run]
    return {
        "runs": len(runs),
        "events": len(events),
        "events_of_the_longest_run": max(map(len, runs)),
        "billable_actions": sum(event.event_type in _BILLED for event in events),
        "bytes": sum(event.ByteSize() for event in events),
        "largest_event_bytes": max(event.ByteSize() for event in events),
        "largest_payload_bytes": max(
            (payload.ByteSize() for event in events for payload in _payloads(event)), default=0
        ),
    }


def _payloads(message: Message) -> Iterator[Payload]:
    """Yield every payload in a message, however deep."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner: Any = [item for item in value.values() if isinstance(item, Message)]
        else:
            inner = [value] if isinstance(value, Message) else value
        for item in inner:
            yield from _payloads(item)
