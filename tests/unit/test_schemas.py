"""The JSON Schemas in docs/schemas are those of the models, and tell what every field means."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ["BatchProgress", "BatchResult", "BatchSpec", "CancelRequest", "ResultRow"]


def schema(name: str) -> dict[str, Any]:
    return json.loads((DOCS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_schemas_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "make_schemas.py", tmp_path], check=True)
    written = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    kept = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "schemas").iterdir()}
    assert sorted(written) == [f"{name}.json" for name in NAMES]
    assert kept == written, "run `make schemas`"


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_field_says_what_it_is(name: str) -> None:
    assert [field for field, description in fields(schema(name)) if not description] == []


def fields(found: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield every field of a schema and of the models in it, "Counts.total", and what is said about it."""
    models = found.get("$defs", {})
    for model in [found, *models.values()]:
        for field, facts in model.get("properties", {}).items():
            # pydantic leaves a description out where the model that the field refers to says the same.
            referred = models.get(facts.get("$ref", "").rpartition("/")[2], {})
            yield f"{model['title']}.{field}", facts.get("description") or referred.get("description")


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"provider": "openai", "input": "s3://bucket/in.jsonl", "deadline": "24h"}, True),
        ({"provider": "openai", "input": "s3://bucket/in.jsonl", "deadline": 3600, "retry": {"max_attempts": 1}}, True),
        ({"provider": "openai", "requests": [{"custom_id": "a", "input": "Hello"}]}, True),
        ({"input": "s3://bucket/in.jsonl"}, False),
        ({"provider": "openai", "input": "s3://bucket/in.jsonl", "provder": "x"}, False),
        ({"provider": "openai", "retry": {"max_attempts": 0}}, False),
    ],
)
def test_the_schema_of_a_spec_knows_right_from_wrong(spec: dict[str, Any], fits: bool) -> None:
    validator = Draft202012Validator(schema("BatchSpec"))
    if fits:
        validator.validate(spec)
    else:
        with pytest.raises(ValidationError):
            validator.validate(spec)
