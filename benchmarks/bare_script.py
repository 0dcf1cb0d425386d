"""The script that anybody would write: read, upload, create, poll, download, match up, write. It survives nothing.

    python benchmarks/bare_script.py INPUT OUTPUT BASE_URL

`batch_path.py` runs it as the measure of what the work itself costs. It checks no row, holds everything in memory, and
knows neither prices nor errors. Prints how long each part took, in seconds, as a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import httpx2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("base_url")
    parser.add_argument("--poll", type=float, default=0.2)
    given = parser.parse_args()
    marks = [("", time.perf_counter())]

    with given.input.open(encoding="utf-8") as lines:
        ids = [json.loads(line)["custom_id"] for line in lines]
    marks.append(("read", time.perf_counter()))

    with httpx2.Client(base_url=given.base_url, headers={"Authorization": "Bearer bare"}, timeout=600) as client:
        with given.input.open("rb") as file:
            uploaded = client.post("/files", data={"purpose": "batch"}, files={"file": ("rows.jsonl", file)})
        file_id = uploaded.raise_for_status().json()["id"]
        marks.append(("upload", time.perf_counter()))

        order = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = client.post("/batches", json=order).raise_for_status().json()
        while batch["status"] in ("validating", "in_progress", "finalizing"):
            time.sleep(given.poll)
            batch = client.get(f"/batches/{batch['id']}").raise_for_status().json()
        marks.append(("wait", time.perf_counter()))

        content = client.get(f"/files/{batch['output_file_id']}/content").raise_for_status().content
        marks.append(("download", time.perf_counter()))

    found = {}
    for line in content.splitlines():
        row = json.loads(line)
        found[row["custom_id"]] = row
    marks.append(("parse", time.perf_counter()))

    with given.output.open("w", encoding="utf-8") as out:
        for custom_id in ids:
            body = found[custom_id]["response"]["body"]
            row = {
                "custom_id": custom_id,
                "text": body["choices"][0]["message"]["content"],
                "usage": body["usage"],
                "response": body,
            }
            out.write(json.dumps(row) + "\n")
    marks.append(("write", time.perf_counter()))

    parts = {name: round(at - before, 3) for (_, before), (name, at) in pairwise(marks)}
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": round(marks[-1][1] - marks[0][1], 3), "parts": parts, "peak": peak}))


if __name__ == "__main__":
    main()
