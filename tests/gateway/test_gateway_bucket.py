"""The gateway whose store is a bucket: files, turns, a day's cost, webhooks and a retry."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

import pytest

from support.bucket import open_bucket
from support.gateway import jsonl, line, open_gateway
from support.house import House
from support.webhooks import receiving

from .test_limits import until_ended
from .test_tenant_webhooks import SECRETS, deliveries, webhook

pytestmark = pytest.mark.slow
ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def test_batches_of_a_gateway_over_a_bucket(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, key = f"tenant-{secrets.token_hex(4)}", hashlib.sha256(b"key").hexdigest()
    with open_bucket(monkeypatch) as url:
        config = house.settings.source
        assert config is not None
        config.write_text(config.read_text().replace(str(house.store), url))
        async with receiving() as receiver:
            limits = "max_batches = 1\nmax_cost_usd_per_day = 5.0\n"
            lines = f'{limits}[[gateway.keys]]\ntenant = "{tenant}"\nsha256 = "{key}"\n'
            hook = webhook(receiver.url, tenant=tenant, name=f"hook-{secrets.token_hex(4)}")
            async with (
                open_gateway(house, lines + hook, key="key", environ=SECRETS, store=url) as client,
                house.worker(),
            ):
                rows = [line("good"), line("bad", "[[sandbox:invalid_request]]")]
                file = await client.files.create(file=jsonl(rows), purpose="batch")
                again = {"extra_headers": {"Idempotency-Key": "nightly"}}
                made = [await client.batches.create(input_file_id=file.id, **ORDER, **again) for _ in range(2)]
                other = await client.batches.create(input_file_id=file.id, **ORDER)
                assert made[0].id == made[1].id
                for one in (made[0], other):
                    ended = await until_ended(client, one)
                    content = await client.files.content(ended.output_file_id or "")
                    assert [json.loads(row)["custom_id"] for row in content.text.splitlines()] == ["good"]
                assert [batch.id async for batch in client.batches.list()] == [other.id, made[0].id]
                assert len([one async for one in client.files.list()]) == 5
                sent = {message.unwrapped().data.id for message in await receiver.until(2)}
                assert sent == {one["batch_id"] for one in await deliveries(client)} == {made[0].id, other.id}
                retried: Any = await client.post(f"/batches/{other.id}/retry", cast_to=object)
                counts = (await until_ended(client, other.model_copy(update={"id": retried["id"]}))).request_counts
                assert counts and (counts.total, counts.failed) == (1, 1)
        assert not house.store.exists()
