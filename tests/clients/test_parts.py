"""Results in parts, from a worker's setting to a client's rows."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from durabatch.cli.results import Results, copy, copy_results, stream_results
from durabatch.contract import RowStatus, StoreError
from durabatch.workers import open_worker

from .conftest import Desk


def ids(data: bytes) -> list[str]:
    return [json.loads(line)["custom_id"] for line in data.splitlines()]


async def test_results_in_parts_read_like_one_file(
    idle: Desk, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    client, store = idle.client, idle.client.store
    small = idle.settings.store.model_copy(update={"results_file_bytes": 1000})
    settings = idle.settings.model_copy(update={"store": small})
    requests = {f"r-{n}": "[[sandbox:invalid_request]]" if n % 3 == 1 else f"Say {n}." for n in range(10)}
    async with open_worker(client.temporal, settings, task_queue=client.task_queue):
        outcome = await client.invoke(
            requests, **idle.fields(id=f"parts-{uuid.uuid4().hex[:8]}", limits={"max_rows": 3})
        )
    id, results, errors = outcome.result.batch_id, outcome.result.results, outcome.result.errors
    assert results == store.uri(f"{id}/results.manifest.json") == await client.results_uri(id)
    assert errors == store.uri(f"{id}/errors.manifest.json") == await client.results_uri(id, errors=True)

    rows = await outcome.rows()
    assert list(rows) == list(requests)
    failed = [row.custom_id for row in rows.values() if row.status is not RowStatus.SUCCEEDED]
    assert failed == ["r-1", "r-4", "r-7"]
    assert [row async for row in client.retrieve(id)] == list(rows.values())

    await stream_results(Results(store, [results]), text=False)
    printed = capsysbinary.readouterr().out
    assert ids(printed) == list(requests)
    await stream_results(Results(store, [results]), text=True)
    assert [line.split(b"\t")[0].decode() for line in capsysbinary.readouterr().out.splitlines()] == list(requests)
    await stream_results(Results(store, [errors]), text=False)
    assert ids(capsysbinary.readouterr().out) == failed

    folder = tmp_path / "copies"
    folder.mkdir()
    assert await copy_results(store, outcome.result, folder) == folder / "results.jsonl"
    assert (folder / "results.jsonl").read_bytes() == printed
    assert ids((folder / "errors.jsonl").read_bytes()) == failed
    assert await copy_results(store, outcome.result, tmp_path / "one.jsonl") == tmp_path / "one.jsonl"
    assert (tmp_path / "one.jsonl").read_bytes() == printed

    await store.delete(f"{id}/shards/00002/results.jsonl")
    with pytest.raises(StoreError, match=r"shards/00002/results\.jsonl is gone"):
        [row async for row in client.retrieve(id)]
    with pytest.raises(StoreError, match="is gone"):
        await copy(Results(store, [results]), tmp_path / "two.jsonl")
    assert not (tmp_path / "two.jsonl").exists()
