"""Writes a file of requests from text that every machine has: the docstrings of Python's own standard library.

    python examples/docstrings.py requests.jsonl

One request a module, sorted by name: "Summarise this module in one sentence." and its docstring. Source files are read
and parsed; nothing is imported. The same Python writes the same bytes, so the same file is the same batch.
"""

from __future__ import annotations

import ast
import json
import pkgutil
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

QUESTION = "Summarise this module in one sentence."
#: The library's tests are no part of what it offers.
TESTS = {"test", "tests", "idle_test"}


def modules(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the name and the source file of every module in a folder and below it, sorted by name."""
    for _, name, is_package in sorted(pkgutil.iter_modules([str(folder)]), key=lambda found: found.name):
        file = folder / name / "__init__.py" if is_package else folder / f"{name}.py"
        known = prefix or name in sys.stdlib_module_names  # site-packages lies in the same folder
        if not known or name in TESTS:
            continue
        if file.exists():  # else it is written in C
            yield prefix + name, file
        if is_package:
            yield from modules(folder / name, f"{prefix}{name}.")


def requests() -> Iterator[dict[str, str]]:
    """Yield a request for every module that has a docstring."""
    for name, file in modules(Path(sysconfig.get_path("stdlib"))):
        with tokenize.open(file) as source:  # in the encoding that the file declares
            docstring = ast.get_docstring(ast.parse(source.read()))
        if docstring:
            yield {"custom_id": name, "input": f"{QUESTION}\n\n{docstring}"}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} OUTPUT.jsonl")
    count = 0
    with Path(sys.argv[1]).open("w", encoding="utf-8", newline="\n") as out:
        for request in requests():
            out.write(json.dumps(request, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count} requests are in {sys.argv[1]}")


if __name__ == "__main__":
    main()
