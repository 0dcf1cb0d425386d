"""LiteLLM's files and batches, by `api_base` alone."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import litellm

ROWS = 3


def line(number: int) -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Row {number}."}]}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


async def main() -> None:
    where: dict[str, Any] = {
        "custom_llm_provider": "openai",
        "api_base": os.environ["OPENAI_BASE_URL"],
        "api_key": os.environ["OPENAI_API_KEY"],
    }
    rows = "".join(json.dumps(line(number)) + "\n" for number in range(ROWS)).encode()
    uploaded = await litellm.acreate_file(file=("rows.jsonl", rows), purpose="batch", **where)
    assert (await litellm.afile_retrieve(file_id=uploaded.id, **where)).id == uploaded.id
    batch = await litellm.acreate_batch(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"team": "search"},
        **where,
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        await asyncio.sleep(0.5)
        batch = await litellm.aretrieve_batch(batch_id=batch.id, **where)
    assert batch.status == "completed", batch
    assert batch.metadata == {"team": "search"}
    listed = await litellm.alist_batches(limit=10, **where)
    assert batch.id in [one.id for one in listed.data]
    content = await litellm.afile_content(file_id=batch.output_file_id, **where)
    answers = [json.loads(one) for one in content.text.splitlines()]
    assert [one["custom_id"] for one in answers] == [f"r{number}" for number in range(ROWS)]
    files = await litellm.afile_list(purpose="batch", **where)
    assert uploaded.id in [one.id for one in getattr(files, "data", files)]
    await litellm.afile_delete(file_id=uploaded.id, **where)
    print(json.dumps({"rows": len(answers)}))


if __name__ == "__main__":
    asyncio.run(main())
