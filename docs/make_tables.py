"""Writes the tables of fields in docs/*.md from the models: python docs/make_tables.py [FOLDER].

A table is between `<!-- fields: NAME -->` and `<!-- end -->`, where NAME is one of MODELS.
"""

from __future__ import annotations

import re
import sys
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from durabatch.activities.providers import ProviderSettings
from durabatch.contract import (
    BatchProgress,
    BatchResult,
    BatchSpec,
    Counts,
    DirectShare,
    Limits,
    ModelShare,
    OnComplete,
    PollPolicy,
    ProviderBatch,
    ResultRow,
    RetryPolicy,
    RowError,
    RowResponse,
    ShardCounts,
    Strays,
    Unpriced,
    Usage,
)
from durabatch.workers.gateway_settings import GatewayKey, GatewayRoute, GatewaySettings, GatewayWebhook
from durabatch.workers.settings import StoreSettings, WorkerSettings

#: What users write; its defaults are shown.
INPUTS: tuple[type[BaseModel], ...] = (
    *(BatchSpec, PollPolicy, RetryPolicy, Limits, OnComplete),
    *(StoreSettings, WorkerSettings, ProviderSettings),
    *(GatewaySettings, GatewayKey, GatewayRoute, GatewayWebhook),
)
#: What Durabatch writes; all of its fields are always there.
OUTPUTS: tuple[type[BaseModel], ...] = (
    *(BatchResult, BatchProgress, Counts, ShardCounts, Usage, Unpriced, Strays, ProviderBatch, DirectShare, ModelShare),
    *(ResultRow, RowResponse, RowError),
)
MODELS = {model.__name__: model for model in (*INPUTS, *OUTPUTS)}
#: Fields of a provider that durabatch.toml does not hold.
HIDDEN = {
    (ProviderSettings, "name"),
    (ProviderSettings, "api_key"),
    (ProviderSettings, "webhook_secret"),
    (GatewayWebhook, "secret"),
}

_TABLE = re.compile(r"(<!-- fields: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WORDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Decimal: "amount",
    timedelta: "duration",
    datetime: "time",
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def fill(text: str) -> str:
    """Return a page with its tables as the models have them."""
    return _TABLE.sub(lambda found: f"{found[1]}{table(MODELS[found[2]])}{found[3]}", text)


def table(model: type[BaseModel]) -> str:
    """Return a model's fields as a markdown table."""
    columns = ["field", "value", "default", "meaning"] if model in INPUTS else ["field", "value", "meaning"]
    rows = [columns, ["---"] * len(columns)]
    for name, field in model.model_fields.items():
        if (model, name) not in HIDDEN:
            cells = {"field": f"`{name}`", "value": kind(field), "default": default(field), "meaning": meaning(field)}
            if model in OUTPUTS and field.default is None:
                cells["value"] += " or null"
            rows.append([cells[column] for column in columns])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def kind(field: FieldInfo) -> str:
    """Return what a field's value may be, in words."""
    if field.examples:
        return ", ".join(f"`{value}`" for value in field.examples)
    words = _kind(field.annotation)
    low = next((limit.ge for limit in field.metadata if isinstance(limit, Ge)), None)
    high = next((limit.le for limit in field.metadata if isinstance(limit, Le)), None)
    if high is not None:
        return f"{words}, {low} to {high}"
    return f"{words}, {low} at least" if low else words


def _kind(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(member for member in get_args(annotation) if member is not NoneType)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation)
    if origin is Literal or (isinstance(annotation, type) and issubclass(annotation, StrEnum)):
        values = get_args(annotation) if origin is Literal else list(annotation)
        return ", ".join(f"`{value}`" for value in values)
    if origin in (dict, tuple):
        return {dict: "object", tuple: "list"}[origin]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "object"
    return _WORDS.get(annotation, "anything")


def default(field: FieldInfo) -> str:
    """Return a field's default, in words."""
    value = field.default
    if field.is_required():
        return "required"
    if value is None or value == "":
        return "none"
    if isinstance(value, timedelta):
        return duration(value)
    if isinstance(value, BaseModel):
        return "see below"
    if value and isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return ", ".join(f"`{one}`" for one in value)
    if isinstance(value, tuple | dict):
        return "see below" if value else "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def duration(value: timedelta) -> str:
    """Return a duration in its largest unit that leaves a whole number."""
    seconds = value.total_seconds()
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0 and seconds >= 2 * size)
    return f"{seconds / size:g} {unit}"


def meaning(field: FieldInfo) -> str:
    """Return a field's description, as text that markdown leaves alone."""
    assert field.description, "every field says what it is"
    return field.description.replace("<", r"\<").replace("|", r"\|")


def main(folder: Path) -> None:
    for file in sorted(folder.glob("*.md")):
        file.write_text(fill(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
