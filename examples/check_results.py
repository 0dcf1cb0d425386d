"""Checks that every request has one result, that all succeeded, and that they come in the order of the requests.

    python examples/check_results.py requests.jsonl results.jsonl

Exit code 1, and a sentence, where that is not so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").split("\n") if line]


def problem(requests: list[dict[str, Any]], results: list[dict[str, Any]]) -> str | None:
    """Return what is wrong with the results, None if nothing is."""
    if len(results) != len(requests):
        return f"there are {len(requests)} requests and {len(results)} results"
    for number, (request, result) in enumerate(zip(requests, results, strict=True), 1):
        if result["custom_id"] != request["custom_id"]:
            return f"result {number} is of {result['custom_id']}, and request {number} is {request['custom_id']}"
        if result["status"] != "succeeded":
            return f"{result['custom_id']} is {result['status']}"
    return None


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: python {sys.argv[0]} REQUESTS.jsonl RESULTS.jsonl")
    requests, results = rows(sys.argv[1]), rows(sys.argv[2])
    found = problem(requests, results)
    if found is not None:
        sys.exit(f"The results are wrong: {found}.")
    print(f"Checked: {len(results)} results for {len(requests)} requests, in order, all succeeded.")


if __name__ == "__main__":
    main()
