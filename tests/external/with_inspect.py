"""An evaluation of inspect_ai in its batch mode, by OPENAI_BASE_URL alone: python with_inspect.py FOLDER."""

from __future__ import annotations

import json
import sys

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import BatchConfig, GenerateConfig, get_model
from inspect_ai.scorer import includes

ROWS = 3

rows = 0
for responses in (False, True):  # /v1/chat/completions, and /v1/responses
    batch = BatchConfig(size=ROWS, send_delay=0.5, tick=0.5)
    model = get_model("openai/gpt-4o-mini", responses_api=responses, config=GenerateConfig(batch=batch))
    samples = [Sample(input=f"Row {number}.", target="Row") for number in range(ROWS)]
    (log,) = eval(Task(dataset=samples, scorer=includes()), model=model, log_dir=sys.argv[1], display="none")
    assert log.status == "success", log.error
    assert [sample.output.completion.startswith("You said") for sample in log.samples] == [True] * ROWS
    assert log.stats.model_usage["openai/gpt-4o-mini"].output_tokens > 0
    rows += len(log.samples)
print(json.dumps({"rows": rows}))
