"""Writes the JSON Schemas of what goes into a batch and comes out of it: python docs/make_schemas.py [FOLDER]."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from durabatch.contract import BatchProgress, BatchResult, BatchSpec, CancelRequest, ResultRow

#: What users write is described as they may write it, what Durabatch writes as it writes it.
MODELS: tuple[tuple[type[BaseModel], JsonSchemaMode], ...] = (
    (BatchSpec, "validation"),
    (CancelRequest, "validation"),
    (BatchProgress, "serialization"),
    (BatchResult, "serialization"),
    (ResultRow, "serialization"),
)


def schemas() -> dict[str, str]:
    """Return the text of every schema file by its name; the same models give the same bytes."""
    files = {}
    for model, mode in MODELS:
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(mode=mode)}
        files[f"{model.__name__}.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return files


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "schemas")
    main(parser.parse_args().folder)
