"""Parasail's openai-batch, by `base_url` alone: python with_openai_batch.py FOLDER."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from openai_batch import Batch
from openai_batch.providers import Provider

ROWS = 3

folder = Path(sys.argv[1])
provider = Provider(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
rows = folder / "rows.jsonl"
with Batch(submission_input_file=rows, provider=provider) as written:
    for number in range(ROWS):
        written.add_to_batch(model="gpt-4o-mini", messages=[{"role": "user", "content": f"Row {number}."}])
# Version 0.3.4 reads no file that it has written itself before that is closed.
with Batch(str(rows), folder / "output.jsonl", folder / "error.jsonl", provider=provider) as batch:
    ended, output, errors = batch.submit_wait_download(interval=0.5, metadata={"team": "search"})
assert (ended.status, errors) == ("completed", None), ended
answers = [json.loads(line) for line in Path(output).read_text().splitlines()]
assert [one["custom_id"] for one in answers] == [f"line-{number + 1}" for number in range(ROWS)]
assert all(one["response"]["body"]["choices"][0]["message"]["content"] for one in answers)
print(json.dumps({"rows": len(answers)}))
