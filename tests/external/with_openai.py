"""Everything that OpenAI's own client does with files and batches, by OPENAI_BASE_URL alone.

Every answer is held against the client's types, strictly, and may have no field that they do not have.
"""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pydantic
from openai.types import Batch

ROWS = 3
ORDER: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
client = openai.OpenAI(max_retries=0, _strict_response_validation=True)


def known(answer: Any) -> Any:
    """Return an answer that has no field beyond those of its type, at any depth."""
    if isinstance(answer, pydantic.BaseModel):
        assert not answer.model_extra, f"{type(answer).__name__} has {answer.model_extra}"
        for name in type(answer).model_fields:
            known(getattr(answer, name))
    elif isinstance(answer, list):
        for one in answer:
            known(one)
    return answer


def line(number: int) -> bytes:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Row {number}."}]}
    row = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(row).encode() + b"\n"


def upload(data: bytes) -> str:
    return str(known(client.files.create(file=("rows.jsonl", data), purpose="batch")).id)


def ended(batch: Batch) -> Batch:
    while known(batch).status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.3)
        batch = client.batches.retrieve(batch.id)
    return batch


def refused(kind: type[openai.APIStatusError], call: Any, *arguments: Any, **fields: Any) -> None:
    """Assert that a call raises the class that programs catch."""
    try:
        call(*arguments, **fields)
    except openai.APIStatusError as error:
        assert type(error) is kind, repr(error)
        assert error.request_id and isinstance(error.body, dict) and error.body["message"], repr(error)
    else:
        raise AssertionError(f"{call} raised nothing")


text = b"".join(map(line, range(ROWS)))
file_id = upload(text)
assert known(client.files.wait_for_processing(file_id)).status == "processed"
assert client.files.content(file_id).content == text
others = [upload(line(7)), upload(line(8))]
files = [known(file).id for file in client.files.list(limit=1, purpose="batch")]
assert files[:3] == [others[1], others[0], file_id] and len(set(files)) == len(files)
assert known(client.files.delete(others[0])).deleted
refused(openai.NotFoundError, client.files.retrieve, others[0])
assert "gpt-4o-mini" in [known(model).id for model in client.models.list()]
assert known(client.models.retrieve("gpt-4o-mini")).object == "model"

done = ended(client.batches.create(input_file_id=file_id, metadata={"team": "search"}, **ORDER))
assert done.status == "completed" and done.output_file_id, done
assert done.request_counts and done.usage and done.usage.output_tokens > 0
assert (done.request_counts.completed, done.request_counts.failed, done.model) == (ROWS, 0, "gpt-4o-mini")
answers = [json.loads(one) for one in client.files.content(done.output_file_id).text.splitlines()]
assert [one["custom_id"] for one in answers] == ["r0", "r1", "r2"]
for one in answers:
    openai.types.chat.ChatCompletion.model_validate(one["response"]["body"], strict=True)

broken = ended(client.batches.create(input_file_id=upload(line(1) + b"{}\n"), **ORDER))
assert broken.status == "failed" and broken.errors and broken.errors.data and broken.errors.data[0].line == 2, broken
nothing = ended(client.batches.create(input_file_id="file-none", **ORDER))
assert nothing.errors and nothing.errors.data and nothing.errors.data[0].param == "file_id", nothing
stopped = client.batches.create(input_file_id=others[1], **ORDER)
ended(client.batches.cancel(stopped.id))
batches = [known(batch).id for batch in client.batches.list(limit=1)]
assert batches[:4] == [stopped.id, nothing.id, broken.id, done.id] and len(set(batches)) == len(batches)

refused(openai.ConflictError, client.batches.cancel, done.id)
refused(openai.NotFoundError, client.batches.retrieve, "batch_none")
refused(openai.BadRequestError, client.batches.create, input_file_id=file_id, **{**ORDER, "endpoint": "/v1/nothing"})
refused(openai.BadRequestError, client.files.create, file=b"no JSON", purpose="batch")
refused(openai.BadRequestError, client.batches.list, limit=101)
refused(openai.AuthenticationError, client.with_options(api_key="not-a-key").batches.list)
print(json.dumps({"rows": len(answers)}))
