"""Anthropic's Messages as OpenAI's chat: what a chat has too is translated, the rest is refused by name.

Leaving a field out would make another request of it. `cache_control` alone is left out, which only asks for a lower
price. Sources: the anthropic package, `MessageCreateParams`, and the openai package, `CompletionCreateParams`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ...json_shape import MAX_VALUES, has_many_values
from ...rows import RowRefused
from ..raw_json import is_null

#: Fields that mean the same at both.
_SAME = {"model", "temperature", "top_p", "top_k"}
#: Fields that a chat lacks, with the values that ask for nothing.
_ASKS_NOTHING: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "tools": ([],),
    "thinking": ({"type": "disabled"},),
    "service_tier": ("auto", "standard_only"),
}
_SOURCE = {"type", "media_type", "data", "url"}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
#: A field's name is reported if it looks like one: it may be somebody's text instead.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def translate(params: msgspec.Raw, cap: str) -> dict[str, msgspec.Raw]:
    """Return a message's params as the fields of a chat.

    Args:
        cap: what the provider calls the most tokens of an answer: `max_completion_tokens` or `max_tokens`.

    Raises:
        RowRefused: a chat has nothing that means the same.
    """
    if has_many_values(params):
        raise RowRefused("params", f"has more than {MAX_VALUES:,} values, too many to be translated for this provider")
    try:
        fields = _fields(params)
    except msgspec.ValidationError:
        raise RowRefused("params", "must be an object") from None
    chat: dict[str, Any] = {}
    try:
        for name, value in fields.items():
            if not is_null(fields, name) and name not in ("system", "messages"):
                chat.update(_field(name, value, cap))
        if "messages" in fields:
            system = _decode(fields["system"]) if "system" in fields else None
            said = [] if system is None else [{"role": "system", "content": _texts(system, "params.system")}]
            chat["messages"] = [*said, *_conversation(_decode(fields["messages"]))]
    except msgspec.DecodeError:
        raise RowRefused("params", "holds a number of too many digits") from None
    return {name: msgspec.Raw(_encode(value)) for name, value in chat.items()}


def _field(name: str, value: msgspec.Raw, cap: str) -> dict[str, Any]:
    if name in _SAME:
        return {name: value}
    if name == "max_tokens":
        return {cap: value}
    if name == "stop_sequences":
        return {"stop": value}
    if name == "cache_control":
        return {}
    found = _decode(value)
    if name == "metadata":
        user = _only(found, {"user_id"}, "params.metadata").get("user_id")
        return {} if user is None else {"user": user}
    if name == "tool_choice":
        return _tool_choice(found)
    if found in _ASKS_NOTHING.get(name, ()):
        return {}
    if name == "tools" and isinstance(found, list):
        return {"tools": [_tool(one, f"params.tools[{number}]") for number, one in enumerate(found)]}
    raise _untranslated(_place("params", name))


def _tool(tool: Any, place: str) -> dict[str, Any]:
    given = _only(tool, {"type", "name", "description", "input_schema", "strict"}, place)
    if given.get("type", "custom") != "custom":
        raise _untranslated(f"{place}.type")
    names = {"name": "name", "description": "description", "input_schema": "parameters", "strict": "strict"}
    function = {ours: given[name] for name, ours in names.items() if given.get(name) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> dict[str, Any]:
    given = _only(choice, {"type", "name", "disable_parallel_tool_use"}, "params.tool_choice")
    kind = given.get("type")
    found: dict[str, Any] = {"parallel_tool_calls": False} if given.get("disable_parallel_tool_use") else {}
    if kind == "tool":
        return {**found, "tool_choice": {"type": "function", "function": {"name": given.get("name")}}}
    if kind not in _CHOICES:
        raise _untranslated("params.tool_choice.type")
    return {**found, "tool_choice": _CHOICES[kind]}


def _conversation(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list):
        raise RowRefused("params.messages", "must be a list")
    chat: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        place = f"params.messages[{number}]"
        given = _only(message, {"role", "content"}, place)
        role, content = given.get("role"), given.get("content")
        if role not in ("user", "assistant", "system"):
            raise RowRefused(f"{place}.role", "must be user, assistant or system")
        if isinstance(content, str):
            chat.append({"role": role, "content": content})
        elif isinstance(content, list):
            chat += _turn(role, content, f"{place}.content")
        else:
            raise RowRefused(f"{place}.content", "must be text, or a list of blocks")
    return chat


def _turn(role: str, blocks: list[Any], place: str) -> list[dict[str, Any]]:
    """Return one turn, which may be several messages of a chat: the results of tools are messages of their own."""
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        here = f"{place}[{number}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            parts.append(_text(block, here))
        elif kind == "image" and role == "user":
            parts.append(_image(block, here))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_call(block, here))
        elif kind == "tool_result" and role == "user":
            if parts:
                raise RowRefused(here, "is behind what the user says, and results of tools come first")
            results.append(_result(block, here))
        else:
            raise _untranslated(here)
    said: dict[str, Any] = {"role": role, "content": parts or None}
    if calls:
        said["tool_calls"] = calls
    # Servers of fewer skills take an answer of theirs only as one text.
    if role == "assistant" and len(parts) == 1:
        said["content"] = parts[0]["text"]
    return [*results, said] if parts or calls else results


def _text(block: dict[str, Any], place: str) -> dict[str, Any]:
    given = _only(block, {"type", "text"}, place)
    if not isinstance(given.get("text"), str):
        raise RowRefused(f"{place}.text", "must be a string")
    return {"type": "text", "text": given["text"]}


def _texts(content: Any, place: str) -> Any:
    """Return text as a chat has it: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowRefused(place, "must be text, or a list of text blocks")
    for number, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise _untranslated(f"{place}[{number}]")
    return [_text(block, f"{place}[{number}]") for number, block in enumerate(content)]


def _image(block: dict[str, Any], place: str) -> dict[str, Any]:
    source = _only(_only(block, {"type", "source"}, place).get("source"), _SOURCE, f"{place}.source")
    kind = source.get("type")
    if kind == "base64":
        url: Any = f"data:{source.get('media_type')};base64,{source.get('data')}"
    elif kind == "url":
        url = source.get("url")
    else:
        raise _untranslated(f"{place}.source")
    return {"type": "image_url", "image_url": {"url": url}}


def _call(block: dict[str, Any], place: str) -> dict[str, Any]:
    given = _only(block, {"type", "id", "name", "input"}, place)
    function = {"name": given.get("name"), "arguments": _encode(given.get("input") or {}).decode()}
    return {"id": given.get("id"), "type": "function", "function": function}


def _result(block: dict[str, Any], place: str) -> dict[str, Any]:
    given = _only(block, {"type", "tool_use_id", "content", "is_error"}, place)
    if given.get("is_error"):
        raise _untranslated(f"{place}.is_error")
    content = given.get("content")
    text = "" if content is None else _texts(content, f"{place}.content")
    return {"role": "tool", "tool_call_id": given.get("tool_use_id"), "content": text}


def _only(value: Any, known: set[str], place: str) -> dict[str, Any]:
    """Return an object's fields, if it asks for nothing but these."""
    if not isinstance(value, dict):
        raise RowRefused(place, "must be an object")
    for name, given in value.items():
        if name not in known and name != "cache_control" and given is not None:
            raise _untranslated(_place(place, name))
    return value


def _untranslated(place: str) -> RowRefused:
    return RowRefused(place, "cannot be translated for a provider of OpenAI's shape")


def _place(place: str, name: str) -> str:
    """Return where a field is, by its own name if it may be reported."""
    return f"{place}.{name}" if _NAME.fullmatch(name) else place
