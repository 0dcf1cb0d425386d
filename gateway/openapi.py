"""`/openapi.json`: what all routes say of themselves (`described.py`), as one OpenAPI 3.1 document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from .context import context_of
from .described import JSON, Described, Param
from .order import providers_of, windows_of
from .shapes import AnyObject

_REF = "#/components/schemas/{model}"
_ABOUT = (
    "Files and batches in OpenAI's shape, over any configured provider, durable on Temporal. What is beyond OpenAI's "
    "API says that it is ours."
)


def routes() -> list[BaseRoute]:
    """Return the routes."""
    return [Route("/openapi.json", openapi, methods=["GET"])]


@Described(answer=AnyObject)
async def openapi(request: Request) -> Response:
    """Answer with this document."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = json.dumps(_here(request)).encode()
    return Response(state.openapi, media_type=JSON)


def _here(request: Request) -> dict[str, Any]:
    """Return the document with what this gateway's configuration decides."""
    context = context_of(request)
    found = document(request.app.routes, keyed=bool(context.settings.gateway.keys))
    decided = {"completion_window": [*windows_of(context), None], "provider": [*providers_of(context), None]}
    for name, schema in found["components"]["schemas"].items():
        if name.endswith("Order"):
            for field in schema["properties"].keys() & decided:
                schema["properties"][field]["enum"] = decided[field]
    return found


def document(routes: Iterable[BaseRoute], *, keyed: bool) -> dict[str, Any]:
    """Return the document of these routes; one that does not describe itself is left out.

    Args:
        keyed: whether callers need a key.
    """
    found = [
        (route, description)
        for route in routes
        if isinstance(route, Route) and (description := Described.of(route.endpoint)) is not None
    ]
    schemas, definitions = _schemas([description for _, description in found])
    paths: dict[str, dict[str, Any]] = {}
    for route, description in found:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route, description, schemas, keyed)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Durabatch gateway", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "headers": {"RequestId": {"description": "Identifies this request.", "schema": {"type": "string"}}},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


class _Whole(GenerateJsonSchema):
    """Schemas by which an answer has all of its fields: none is left out for having its default.

    They are called Batch, File and so on, as at OpenAI; ours have other names only where that word is taken.
    """

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name).removesuffix("Object")

    def field_is_required(self, field: Any, total: bool) -> bool:
        written = self.mode == "serialization" and field["type"] == "model-field"
        return written or super().field_is_required(field, total)


_Schemas = Mapping[tuple[int, JsonSchemaMode], dict[str, Any]]


def _schemas(found: Iterable[Described]) -> tuple[_Schemas, dict[str, Any]]:
    """Return the schema of each type, by its identity and whether it is read or written, and what they refer to."""
    types: dict[tuple[int, JsonSchemaMode], Any] = {}
    for description in found:
        for kind in (description.answer, description.error):
            types[id(kind), "serialization"] = kind
        types[id(description.body), "validation"] = description.body
    inputs = [(key, key[1], TypeAdapter(kind)) for key, kind in types.items() if kind is not None]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF, schema_generator=_Whole)
    return {key: schema for (key, _), schema in schemas.items()}, definitions.get("$defs", {})


def _operation(route: Route, description: Described, schemas: _Schemas, keyed: bool) -> dict[str, Any]:
    module = route.endpoint.__module__.rpartition(".")[2]
    responses = {
        str(status): _response(text, _answer(description, schemas)) for status, text in description.statuses.items()
    }
    error = {JSON: {"schema": schemas[id(description.error), "serialization"]}}
    for status, text in description.errors.items():
        responses[str(status)] = _response(text, error)
    responses["4XX"] = _response("The request is wrong, or comes at a wrong time: the error says how.", error)
    responses["5XX"] = _response("The gateway cannot answer it now.", error)
    operation: dict[str, Any] = {
        "operationId": f"{module}.{route.endpoint.__name__}",
        "tags": [module],
        "summary": (route.endpoint.__doc__ or "").partition("\n")[0],
        "parameters": [*map(_path_param, route.param_convertors), *map(_param, description.takes)],
        "responses": responses,
        "security": [{"bearer": []}, {"key": []}] if keyed and not description.keyless else [],
    }
    if description.body is not None:
        content = {description.body_media: {"schema": schemas[id(description.body), "validation"]}}
        operation["requestBody"] = {"required": not description.body_optional, "content": content}
    return operation


def _answer(description: Described, schemas: _Schemas) -> dict[str, Any]:
    if description.answer is not None:
        return {description.media: {"schema": schemas[id(description.answer), "serialization"]}}
    return {description.media: {"schema": {"type": "string"}} if description.media.startswith("text/") else {}}


def _response(text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": text,
        "headers": {"x-request-id": {"$ref": "#/components/headers/RequestId"}},
        "content": content,
    }


def _path_param(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _param(param: Param) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": param.where,
        "required": param.required,
        "description": param.text,
        "schema": dict(param.schema),
    }
