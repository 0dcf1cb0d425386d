"""Answers of the gateway held against its own OpenAPI document."""

from __future__ import annotations

from typing import Any

import httpx2
from jsonschema import Draft202012Validator


class Document:
    """What `/openapi.json` says; stricter than that in one respect: an answer has no field that is not described."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._closed = {"components": _closed(document["components"])}

    @property
    def operations(self) -> dict[str, dict[str, Any]]:
        """Every operation by method and path, as "GET /v1/files/{file_id}"."""
        return {
            f"{method.upper()} {path}": operation
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
        }

    def check(self, route: str, answer: httpx2.Response) -> None:
        """Assert that an answer is one of those that its route describes."""
        responses = self.operations[route]["responses"]
        described = responses.get(str(answer.status_code)) or responses.get(f"{answer.status_code // 100}XX")
        where = f"{route} answered {answer.status_code}: {answer.text[:500]}"
        assert described is not None, where
        assert answer.headers["x-request-id"], where
        media = answer.headers["content-type"].partition(";")[0]
        assert media in described["content"], f"{where} as {media}"
        if media == "application/json":
            schema = _closed(described["content"][media]["schema"])
            errors = list(Draft202012Validator({**self._closed, **schema}).iter_errors(answer.json()))
            assert not errors, f"{where}\n{errors[0].json_path}: {errors[0].message}"


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no field but those that it names."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found
