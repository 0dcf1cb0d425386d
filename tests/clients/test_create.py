"""What a batch can be created from, and when a create is the same batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus

from durabatch.clients.execution import Ending
from durabatch.clients.start import judge
from durabatch.contract import BatchConflict, BatchResult, BatchStatus, InvalidInput, InvalidSpec, RowProblem

from .conftest import Desk, unique

SECRET = "the-prompt-that-nobody-else-may-read"


async def texts(desk: Desk, id: str) -> dict[str, str | None]:
    await desk.client.result(id)
    return {row.custom_id: row.text async for row in desk.client.retrieve(id)}


async def later() -> AsyncIterator[dict[str, Any]]:
    yield {"custom_id": "a", "input": "Say one."}
    yield {"custom_id": "b", "input": "Say two."}


SHAPES = {
    "prompts by id": {"a": "Say one.", "b": "Say two."},
    "messages by id": {
        "a": [{"role": "user", "content": "Say one."}],
        "b": ({"role": "user", "content": "Say two."},),
    },
    "bodies by id": {
        "a": {"messages": [{"role": "user", "content": "Say one."}]},
        "b": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say two."}]},
    },
    "rows": [{"custom_id": "a", "input": "Say one."}, {"custom_id": "b", "input": "Say two."}],
    "rows as they come": later(),
}


async def test_requests_may_come_in_any_shape_and_results_in_their_order(desk: Desk) -> None:
    ids = {name: await desk.start(requests, id=unique("shape")) for name, requests in SHAPES.items()}
    for name, id in ids.items():
        answers = await texts(desk, id)
        assert list(answers) == ["a", "b"], name
        assert "Say one." in (answers["a"] or ""), name
        assert "Say two." in (answers["b"] or ""), name


async def test_a_file_may_be_given_by_path_or_as_an_object_of_the_store(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "My requests (1).jsonl"
    # A last line without a break, a blank one, and Windows' line ends.
    file.write_bytes(b'{"custom_id":"a","input":"Say one."}\r\n\r\n{"custom_id":"b","input":"Say two."}')
    by_path = await desk.start(file)
    assert by_path.startswith("My-requests-1-")
    assert await desk.start(str(file)) == by_path == await desk.start(file.as_uri())
    stored = f"{desk.client.store.url}/mine/rows.jsonl"
    await desk.client.store.write("mine/rows.jsonl", file.read_bytes())
    by_uri = await desk.start(stored)
    assert by_uri.startswith("rows-")
    assert list(await texts(desk, by_path)) == list(await texts(desk, by_uri)) == ["a", "b"]
    assert await desk.bought() == 2


async def history(desk: Desk, id: str) -> bytes:
    """All that Temporal keeps of a batch; as JSON it would be in base64, where nothing is found."""
    found = await desk.client.temporal.get_workflow_handle(id).fetch_history()
    return b"".join(event.SerializeToString() for event in found.events)


async def test_rows_are_put_into_the_store_by_their_content_and_never_into_history(desk: Desk) -> None:
    id = await desk.start({"a": SECRET}, id=unique("stored"))
    objects = [path for path, _ in await desk.client.store.list(id) if "/input-" in path]
    assert [path.endswith(".jsonl") for path in objects] == [True, False]  # and what is known of it
    assert json.loads(await desk.client.store.read(objects[0])) == {"custom_id": "a", "input": SECRET}
    await desk.client.result(id)
    assert SECRET.encode() not in await history(desk, id)


async def test_a_spec_is_in_the_history_with_its_params_and_labels_as_the_security_page_says(desk: Desk) -> None:
    params = {"stop": "Sesame-params"}
    id = await desk.start({"a": SECRET}, id=unique("said"), params=params, metadata={"team": "Sesame-label"})
    await desk.client.result(id)
    found = await history(desk, id)
    assert b"Sesame-params" in found and b"Sesame-label" in found
    assert SECRET.encode() not in found


async def test_the_same_requests_and_spec_are_the_same_batch(desk: Desk) -> None:
    prompts = {"a": f"Say {unique('one')}."}
    first = await desk.start(prompts)
    assert first.startswith("requests-")
    assert await desk.start(prompts) == first
    await desk.client.result(first)
    assert await desk.start(dict(prompts)) == first
    # How often the provider is asked changes nothing that is bought.
    assert await desk.start(prompts, poll={"first": "2s"}) == first
    assert await desk.start(prompts, params={"temperature": 0}) != first
    assert await desk.start({"a": "Say else."}) != first


def test_an_id_that_is_made_from_content_stays_the_same_for_ever() -> None:
    from durabatch.clients.requests import Rows
    from durabatch.clients.spec_fields import spec_from
    from durabatch.clients.start import _content_id

    rows = Rows(stem="requests", digest="ab" * 32, count=1, size=1)
    spec = spec_from({"provider": "openai", "model": "m", "params": {"b": 1, "a": 2}, "input": "x"})
    # A changed value here would buy batches again that were bought before an upgrade.
    assert _content_id(spec, rows) == "requests-74ede012069c"


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"provider": "openai"}, "provider"),
    ({"params": {"temperature": 1, "prompt": SECRET}}, "params.prompt, params.temperature"),
    ({"retry": {"max_attempts": 5}}, "retry.max_attempts"),
    ({"requests": {"a": SECRET}}, "input"),
]


async def test_an_id_cannot_stand_for_another_batch(desk: Desk) -> None:
    id = await desk.start(id=unique("taken"), params={"temperature": 0})
    for _ in ("while it runs", "when it has ended"):
        for changes, named in CHANGES:
            with pytest.raises(BatchConflict) as caught:
                await desk.start(id=id, **{"params": {"temperature": 0}, **changes})
            assert f"(different: {named})" in caught.value.message
            assert SECRET not in caught.value.message
        await desk.client.result(id)
    assert await desk.bought() == 1


async def test_of_two_starts_at_once_one_batch_comes(desk: Desk) -> None:
    id = unique("race")
    started = await asyncio.gather(*(desk.client.start({"a": "x"}, **desk.fields(id=id)) for _ in range(5)))
    assert {one.id for one in started} == {id}
    await desk.client.result(id)
    assert await desk.bought() == 1


async def test_of_two_different_starts_at_once_one_is_refused(desk: Desk) -> None:
    id = unique("race")
    both = await asyncio.gather(
        desk.start({"a": "x"}, id=id), desk.start({"a": "x"}, id=id, max_cost_usd=1), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in both) == ["BatchConflict", "str"]


async def test_an_id_of_another_workflow_is_refused(desk: Desk) -> None:
    id = unique("other")
    await desk.client.temporal.start_workflow("SomethingElse", id=id, task_queue="nobody")
    with pytest.raises(BatchConflict, match="workflow of type SomethingElse"):
        await desk.start(id=id)


async def test_what_failed_before_anything_was_submitted_may_be_started_anew(desk: Desk) -> None:
    id = unique("again")
    await desk.start([{"custom_id": "a", "input": "x"}, {"input": "y"}, {"custom_id": "a", "input": "z"}], id=id)
    failure = await desk.client.failure(id)
    assert isinstance(failure, InvalidInput)
    assert failure.total == 2
    assert failure.problems == (
        RowProblem(message="line 2, custom_id: is missing", code="invalid_field", line=2, field="custom_id"),
        RowProblem(
            message="line 3, custom_id: is the same as on line 1", code="duplicate_custom_id", line=3, field="custom_id"
        ),
    )
    assert (await desk.client.result(id)).status is BatchStatus.FAILED
    with pytest.raises(InvalidInput):
        [row async for row in desk.client.retrieve(id)]
    await desk.start({"a": "x"}, id=id, max_cost_usd=1)
    assert (await desk.client.result(id)).status is BatchStatus.COMPLETED
    assert await desk.bought() == 1


async def test_what_failed_after_it_was_submitted_is_not_bought_again(desk: Desk) -> None:
    await desk.sandbox.fault("batches.create", "batch_outcome", outcome="failed", fraction=0)
    id = await desk.start(id=unique("refused"), retry={"max_attempts": 1})
    result = await desk.client.result(id)
    assert result.status is BatchStatus.FAILED
    bought = await desk.bought()
    assert bought >= 1
    assert await desk.start(id=id, retry={"max_attempts": 1}) == id
    assert await desk.client.result(id) == result
    assert await desk.bought() == bought
    with pytest.raises(BatchConflict):
        await desk.start(id=id, retry={"max_attempts": 2})


def ended(*, batches: int | None) -> Ending:
    """An ending after so many provider batches; None: terminated, without accounts."""
    result = None if batches is None else BatchResult(batch_id="x", status=BatchStatus.FAILED)
    return Ending(result=result, error=None, submitted=None if batches is None else bool(batches))


S = WorkflowExecutionStatus


@pytest.mark.parametrize(
    ("status", "ending", "same", "other"),
    [
        (S.RUNNING, None, "join", "conflict"),
        (S.COMPLETED, ended(batches=1), "join", "conflict"),
        (S.FAILED, ended(batches=0), "start", "start"),
        (S.FAILED, ended(batches=1), "join", "conflict"),
        (S.FAILED, ended(batches=None), "start", "conflict"),
        (S.TERMINATED, ended(batches=None), "start", "conflict"),
        (S.TIMED_OUT, ended(batches=None), "start", "conflict"),
    ],
)
def test_what_a_start_means_for_a_known_id(status: S, ending: Ending | None, same: str, other: str) -> None:
    assert judge(status, True, ending) == same
    assert judge(status, False, ending) == other


async def test_a_terminated_batch_goes_on_without_being_bought_again(desk: Desk) -> None:
    await desk.sandbox.settings(batch_seconds=3600)
    id = await desk.start(id=unique("killed"))
    async for progress in desk.client.watch(id):
        if progress.provider_batch_id:
            break
    await desk.client.temporal.get_workflow_handle(id).terminate(reason="by mistake")
    with pytest.raises(Exception, match=r"without being asked \(by mistake\).* to go on where it was"):
        await desk.client.result(id)
    await desk.sandbox.settings(batch_seconds=0)
    assert await desk.start(id=id) == id
    assert (await desk.client.result(id)).provider_batches[0].adopted
    assert await desk.bought() == 1


NOT_REQUESTS = {
    "nothing": ({}, "The collection is empty"),
    "no rows": ([], "The collection is empty"),
    "a number": (3, "Requests cannot be of type int"),
    "a prompt that is a number": ({"a": 3}, "The request 'a' cannot be of type int"),
    "a prompt that is missing": ({"a": None}, "The request 'a' cannot be of type NoneType"),
    "no messages": ({"a": []}, "The request 'a' cannot be empty"),
    "messages that are none": ({"a": ["x"]}, "The request 'a' cannot be of type list"),
    "an id that is a number": ({1: "x"}, "The id 1 must be a string"),
    "an empty id": ({" ": "x"}, "The id ' ' must be a string that is not empty"),
    "rows that are none": (["x"], "Row 1 cannot be of type str"),
    "what JSON does not have": ([{"custom_id": "a", "input": {1, 2}}], "Row 1 holds a value that JSON does not have"),
    "half a character": ({"a": "\ud800"}, "The request 'a' holds text that is no Unicode"),
    "a file that is missing": ("nowhere.jsonl", "There is no file nowhere.jsonl"),
    "a folder with other files": (Path(__file__).parent, "whose name is not that of a JSONL file"),
    "a path that cannot be": ("a\0b", "cannot be read"),
}


@pytest.mark.parametrize(("requests", "message"), NOT_REQUESTS.values(), ids=NOT_REQUESTS)
async def test_what_are_no_requests_is_told_before_anything_is_started(idle: Desk, requests: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await idle.client.create(requests, **idle.fields(id="never"))
    assert message in caught.value.message
    assert await idle.client.store.list() == []


async def test_an_empty_file_is_told(idle: Desk, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(InvalidInput, match=r"empty\.jsonl is empty"):
        await idle.start(tmp_path / "empty.jsonl")


NOT_A_SPEC = {
    "an id that is no folder": ({"id": "../x"}, "The batch id '../x' cannot be used"),
    "an unknown field": ({"modle": "x"}, "modle: Extra inputs are not permitted"),
    "no duration": ({"deadline": "soon"}, "deadline: must be a duration"),
    "a file elsewhere": ({"requests": "s3://other/rows.jsonl"}, "outside the store"),
}


@pytest.mark.parametrize(("fields", "message"), NOT_A_SPEC.values(), ids=NOT_A_SPEC)
async def test_a_wrong_spec_is_told_before_anything_is_started(
    idle: Desk, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        await idle.start(**fields)
    assert message in caught.value.message
    assert await idle.client.store.list() == []


async def test_what_a_create_would_join_is_found_and_nothing_is_started(idle: Desk) -> None:
    rows, fields = {"a": "Say one."}, idle.fields(id=unique("found"))
    assert await idle.client.find(rows, **fields) is None
    assert await idle.client.store.list() == []
    id = await idle.client.create(rows, **fields)
    found = await idle.client.find(rows, **fields)
    assert found is not None and (found.id, found.created, found.ended) == (id, False, False)
    with pytest.raises(BatchConflict):
        await idle.client.find({"a": "Say two."}, **fields)
