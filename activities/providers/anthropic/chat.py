"""OpenAI's chat in Anthropic's words: what Anthropic has too is translated, the rest is refused by name.

Leaving a field out would make another request of it. Compare what Anthropic's own OpenAI-compatible endpoint ignores:
https://platform.claude.com/docs/en/api/openai-sdk.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ...json_shape import MAX_VALUES, has_many_values
from ...rows import RowRefused
from ..raw_json import first_byte, is_null, short_value, value_of

#: Fields that mean the same at both.
_SAME = {"model", "max_tokens", "temperature", "top_p", "top_k"}
#: Fields that Anthropic lacks, with the values that ask for nothing, so that leaving them out changes nothing.
_ASKS_NOTHING: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "n": (1,),
    "logprobs": (False,),
    "store": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
}

#: A field's name is reported if it looks like one: it may be somebody's text instead.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

_list = msgspec.json.Decoder(list[Any]).decode
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def translate(fields: dict[str, msgspec.Raw], place: str) -> dict[str, Any]:
    """Return a chat's fields in Anthropic's words.

    Args:
        fields: the body of a chat, or a part of it. Fields that are null count as left out.
        place: how a report begins the names of the fields, such as "body."; "" for a short row, whose `input` they are.

    Raises:
        RowRefused: Anthropic has nothing that means the same.
    """
    params: dict[str, Any] = {}
    for name in fields:
        if not is_null(fields, name):
            params.update(_field(name, fields[name], place))
    most, also = value_of(fields, "max_tokens"), value_of(fields, "max_completion_tokens")
    if most is not None and also is not None and most != also:
        raise RowRefused(f"{place}max_tokens", "differs from max_completion_tokens")
    # OpenAI goes up to 2, so a number above 1 is meant, and would be another heat here.
    heat = value_of(fields, "temperature")
    if isinstance(heat, int | float) and heat > 1:
        raise RowRefused(f"{place}temperature", "is above 1, the highest that Anthropic takes")
    return params


def _field(name: str, value: msgspec.Raw, place: str) -> dict[str, Any]:
    if name in _SAME:
        return {name: value}
    if name == "messages":
        return _conversation(value, f"{place}messages" if place else "input")
    if name == "max_completion_tokens":
        return {"max_tokens": value}
    if name == "stop":
        return {"stop_sequences": [value] if first_byte(value) == b'"' else value}
    if name == "user":
        return {"metadata": {"user_id": value}}
    if short_value(value) not in _ASKS_NOTHING.get(name, ()):
        why = "cannot be translated for Anthropic: leave it out, or send the request in Anthropic's own shape"
        raise RowRefused(_place(place.rstrip("."), name), why)
    return {}


def _conversation(value: msgspec.Raw, place: str) -> dict[str, Any]:
    """Return `system` and `messages` of a list of chat messages."""
    if has_many_values(value):
        raise RowRefused(place, f"has more than {MAX_VALUES:,} values, too many to be translated for Anthropic")
    try:
        given = _objects(value)
    except msgspec.ValidationError:
        raise RowRefused(place, "must be a list of objects") from None
    system: list[msgspec.Raw] = []
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(given):
        here = f"{place}[{number}]"
        role, content = value_of(message, "role"), _content(message, here)
        if role in ("user", "assistant"):
            messages.append({"role": role, "content": content})
        elif role not in ("system", "developer"):
            raise RowRefused(f"{here}.role", "must be system, developer, user or assistant to be translated")
        elif messages:
            # Only some of Claude's models take one there, and not as a system prompt.
            raise RowRefused(f"{here}.role", "is a system message in mid-conversation, which cannot be translated")
        else:
            system.append(content)
    if not messages:
        raise RowRefused(place, "holds no message of a user")
    return {"system": _joined(system), "messages": messages} if system else {"messages": messages}


def _content(message: dict[str, msgspec.Raw], place: str) -> msgspec.Raw:
    """Return a message's content if it is text, in a string or in parts; both look the same at both."""
    for name in message:
        if name not in ("role", "content") and not is_null(message, name):
            raise RowRefused(_place(place, name), "cannot be translated for Anthropic")
    content = message.get("content", msgspec.Raw(b"null"))
    if first_byte(content) == b"[":
        for number, part in enumerate(_parts(content, place)):
            here = f"{place}.content[{number}]"
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise RowRefused(here, "is not text, and only text can be translated for Anthropic")
            if extra := part.keys() - {"type", "text"}:
                raise RowRefused(_place(here, min(extra)), "cannot be translated for Anthropic")
    elif first_byte(content) != b'"':
        raise RowRefused(f"{place}.content", "must be text, or a list of text parts")
    return content


def _parts(content: msgspec.Raw, place: str) -> list[Any]:
    try:
        return _list(content)
    except msgspec.DecodeError:
        raise RowRefused(f"{place}.content", "holds a number of too many digits") from None


def _joined(system: list[msgspec.Raw]) -> Any:
    """Return one system prompt; several messages become several blocks, so that nothing is put between them."""
    if len(system) == 1:
        return system[0]
    blocks: list[Any] = []
    for content in system:
        blocks += [{"type": "text", "text": content}] if first_byte(content) == b'"' else _list(content)
    return blocks


def _place(place: str, name: str) -> str:
    """Return where a field is, by its own name if it may be reported."""
    return f"{place}.{name}" if _NAME.fullmatch(name) else place
