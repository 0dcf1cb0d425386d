"""Answers in other words than they should have: what a fault of kind `override` makes of one."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from .faults import Fault


def overridden(fault: Fault, response: web.StreamResponse) -> web.StreamResponse:
    """Return the answer with the fault's values in it; one that is under way already, or is no JSON, only by `body`."""
    if response.prepared:
        return response
    content = fault.body
    if content is None:
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return response
        try:
            answer = msgspec.json.decode(response.body)
        except msgspec.DecodeError:
            return response
        for pointer in fault.drop:
            answer = dropped(answer, pointer)
        for pointer, value in fault.put.items():
            answer = put(answer, pointer, value)
        content = msgspec.json.encode(answer).decode()
    changed = web.Response(status=response.status, text=content, content_type=fault.media)
    for name in ("x-request-id", "request-id"):
        if name in response.headers:
            changed.headers[name] = response.headers[name]
    return changed


def put(answer: Any, pointer: str, value: Any) -> Any:
    """Set what a JSON pointer names; `-` at the end of one appends to an array. A place that is not there is passed."""
    if not pointer:
        return value
    parent, name = _parent(answer, pointer)
    if isinstance(parent, dict):
        parent[name] = value
    elif isinstance(parent, list) and name == "-":
        parent.append(value)
    elif isinstance(parent, list) and name.isdecimal() and int(name) < len(parent):
        parent[int(name)] = value
    return answer


def dropped(answer: Any, pointer: str) -> Any:
    """Take away what a JSON pointer names; a place that is not there is passed."""
    if not pointer:
        return None
    parent, name = _parent(answer, pointer)
    if isinstance(parent, dict):
        parent.pop(name, None)
    elif isinstance(parent, list) and name.isdecimal() and int(name) < len(parent):
        del parent[int(name)]
    return answer


def _parent(answer: Any, pointer: str) -> tuple[Any, str]:
    """Return what holds the place that a pointer names, and the place's name in it."""
    *way, name = (part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/"))
    for part in way:
        if isinstance(answer, dict):
            answer = answer.get(part)
        elif isinstance(answer, list) and part.isdecimal() and int(part) < len(answer):
            answer = answer[int(part)]
        else:
            return None, name
    return answer, name
