"""Bespoke curator's OpenAI batches, by `base_url` alone: python with_curator.py FOLDER."""

from __future__ import annotations

import json
import os
import sys

from bespokelabs import curator

ROWS = 5

llm = curator.LLM(
    model_name="gpt-4o-mini",
    backend="openai",
    batch=True,
    backend_params={
        "base_url": os.environ["OPENAI_BASE_URL"],
        "api_key": os.environ["OPENAI_API_KEY"],
        "batch_check_interval": 1,
        "batch_size": 3,  # so two batches
        "max_retries": 1,
    },
)
answered = llm([f"Row {number}." for number in range(ROWS)], working_dir=sys.argv[1])
texts = [row["response"] for row in answered.dataset.to_list()]
assert all(text.startswith(f"You said: Row {number}.") for number, text in enumerate(texts)), texts
print(json.dumps({"rows": len(texts)}))
