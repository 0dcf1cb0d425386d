"""The gateway's batches: through its door, and by files put into the store and workflows started by hand."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from openai import AsyncOpenAI
from temporalio.client import WorkflowHandle

from durabatch.activities.gateway.files import find, register
from durabatch.activities.gateway.intake import read_entry
from durabatch.activities.store import Store
from durabatch.clients.client import BatchClient
from durabatch.contract.gateway import FileRecord
from durabatch.contract.gateway_batch import BatchEntry, BatchObject, GatewayBatch, workflow_id
from durabatch.contract.gateway_layout import Listed, content_path, index_path, make_id
from durabatch.gateway.app import create_app
from durabatch.gateway.context import Context
from durabatch.gateway.server import serving
from durabatch.workers import Settings
from durabatch.workflows import GatewayBatchWorkflow
from durabatch.workflows.gateway_state import GatewayStart

from .house import KEY, House, asked

TENANT = "search"


def new_id(listed: Listed) -> str:
    return make_id(listed, datetime.now(UTC), secrets.token_hex(7))


def line(custom_id: str, text: str = "Say something.", **fields: Any) -> dict[str, Any]:
    """Return a row as OpenAI's clients write it."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body, **fields}


class Desk:
    """What the door does with a tenant's files and batches."""

    def __init__(self, house: House, tenant: str = TENANT) -> None:
        self.house = house
        self.tenant = tenant
        self.store = Store.open(str(house.store))

    async def upload(self, rows: Sequence[Mapping[str, Any]] | bytes, purpose: str = "batch") -> str:
        """Put a file into the store, and return its id."""
        data = rows if isinstance(rows, bytes) else jsonl(rows)
        file_id = new_id(Listed.FILES)
        await self.store.write(content_path(self.tenant, file_id), data)
        record = FileRecord(id=file_id, bytes=len(data), created_at=0, filename="in.jsonl", purpose=purpose)
        await register(self.store, self.tenant, record)
        return file_id

    def batch(self, file_id: str, **fields: Any) -> GatewayBatch:
        return GatewayBatch(
            **{
                "tenant": self.tenant,
                "id": new_id(Listed.BATCHES),
                "input_file_id": file_id,
                "endpoint": "/v1/chat/completions",
                "provider": "sandbox",
                "created_at": int(datetime.now(UTC).timestamp()),
                **fields,
            }
        )

    async def start(self, batch: GatewayBatch, id: str | None = None) -> WorkflowHandle[Any, BatchObject]:
        """Note a batch in the index, and start its workflow; by its own id if none is given."""
        entry = BatchEntry(request=batch)
        await self.store.create(index_path(batch.tenant, batch.id), entry.model_dump_json().encode())
        return await self.house.client.start_workflow(
            GatewayBatchWorkflow.run,
            GatewayStart(batch=batch),
            id=id or workflow_id(batch.tenant, batch.id),
            task_queue=self.house.task_queue,
        )

    async def run(self, rows: Sequence[Mapping[str, Any]] | bytes, **fields: Any) -> BatchObject:
        """Upload rows, run a batch of them, and return it as it ended."""
        handle = await self.start(self.batch(await self.upload(rows), **fields))
        return await handle.result()

    async def shown(self, handle: WorkflowHandle[Any, Any]) -> BatchObject:
        return await asked(lambda: handle.query(GatewayBatchWorkflow.batch))

    async def final(self, batch: GatewayBatch) -> BatchObject | None:
        """Return what the index says of a batch that has ended."""
        return (await read_entry(self.store, batch)).final

    async def content(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return the lines of a file that is registered."""
        assert file_id is not None
        record = await find(self.store, self.tenant, file_id)
        assert record is not None
        data = await self.store.read(content_path(self.tenant, file_id))
        assert record.bytes == len(data)
        return [json.loads(one) for one in data.splitlines()]


@contextlib.asynccontextmanager
async def open_gateway(
    house: House,
    gateway: str = "",
    *,
    provider: str | None = "sandbox",
    key: str = "any",
    environ: Mapping[str, str] | None = None,
    store: str | None = None,
) -> AsyncIterator[AsyncOpenAI]:
    """Serve a gateway of this house over HTTP; yield an official client that checks every answer strictly.

    Args:
        gateway: lines of `[gateway]`.
        provider: as `durabatch gateway --provider`.
        key: the client's.
        environ: variables that the configuration names, beside the provider's key.
        store: URL of its store; by default the folder of this house.
    """
    config = house.settings.source
    assert config is not None
    config.write_text(f"{config.read_text()}[gateway]\n{gateway}\n")
    house.settings = Settings.load(config, {"KEY": KEY, **(environ or {})})
    client = BatchClient(house.client, store or str(house.store), task_queue=house.task_queue)
    async with (
        serving(create_app(Context(house.settings, client, provider)), "127.0.0.1", 0) as url,
        AsyncOpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60, _strict_response_validation=True
        ) as openai,
    ):
        yield openai


def jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
