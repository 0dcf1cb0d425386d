"""A batch by OpenAI's own client, at Durabatch's gateway.

Run `durabatch gateway --provider sandbox`, and set OPENAI_BASE_URL as it prints. The client needs a key in
OPENAI_API_KEY; without keys in its configuration, the gateway takes any.
"""

import time
from pathlib import Path

from openai import OpenAI

client = OpenAI()
rows = client.files.create(file=Path("requests.jsonl"), purpose="batch")
batch = client.batches.create(input_file_id=rows.id, endpoint="/v1/chat/completions", completion_window="24h")
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)
print(client.files.content(batch.output_file_id).text, end="")
