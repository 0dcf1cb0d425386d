"""Anthropic's rows: requests on their way in. Pure, and fast, because every row passes here.

Protocol: https://platform.claude.com/docs/en/api/messages/batches and the types of the `anthropic` package (2026).

- `{custom_id, params}`, and every row of a spec whose endpoint is `/v1/messages`, is Anthropic's own: it goes through
  as it is written, with the spec's model and params in its gaps.
- `{custom_id, method, url, body}` and `{custom_id, input}` under `/v1/chat/completions` are OpenAI's chat, and so are
  the spec's params for them: they are translated as far as Anthropic has the same thing (see `chat`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from ....contract import BatchSpec
from ...rows import Row, RowRefused
from ..raw_json import first_byte, is_null, value_of
from .chat import translate
from .results import outcome

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
#: Anthropic wants a max_tokens in every request, chat rows need none: this is the most that every Claude model takes
#: (Claude 3's is the lowest: https://platform.claude.com/docs/en/about-claude/models/overview).
DEFAULT_MAX_TOKENS = 4096
#: What a create's body has around its rows.
HEAD, TAIL = b'{"requests":[', b"]}"
#: Bytes of the longest id that a row is sent under: 16 of the name, a hyphen, and 5 of 99,999.
MAX_SENT_ID = 22

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Wire(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Model(msgspec.Struct):
    model: str | None = None


class _Line(msgspec.Struct):
    params: _Model


_wire = msgspec.json.Decoder(_Wire).decode
_line = msgspec.json.Decoder(_Line).decode
_RAW_DEFAULT = msgspec.Raw(_encode(DEFAULT_MAX_TOKENS))
_FRAME = len(_encode(_Wire("", msgspec.Raw(b""))))

# --- ids ---

_ID = re.compile(rb'"custom_id"\s*:\s*"([^"\\]*)"')


@lru_cache(maxsize=1024)
def name_of(seal: str) -> str:
    """Return the name that all rows of one provider batch carry in their ids, the only place Anthropic has for it."""
    return sha256(seal.encode()).hexdigest()[:16]


def sent_id(seal: str, row: int) -> str:
    """Return a row's id at Anthropic, which takes 1 to 64 of `a-z A-Z 0-9 _ -`: its batch's name and its number."""
    return f"{name_of(seal)}-{row}"


def name_on(line: bytes) -> str | None:
    """Return the name on a result; "" for an id that was never Durabatch's, None where no id can be read."""
    found = _ID.search(line)
    return found[1].decode(errors="replace").rpartition("-")[0] if found else None


def owns(line: bytes, seal: str) -> bool | None:
    """Return whether a result belongs to the batch with this seal, None where its id does not say."""
    name = name_on(line)
    return None if name is None else name == name_of(seal)


# --- requests ---


def prepare(row: Row, spec: BatchSpec) -> bytes:
    """Return the row as one of a create's `requests`.

    Raises:
        RowRefused: it would be refused, or would mean something else than it says.
    """
    if row.url is not None and row.url != spec.endpoint:
        raise RowRefused("url", f"differs from the batch's endpoint {spec.endpoint}", row.custom_id)
    try:
        native = row.shape == "anthropic" or spec.endpoint == MESSAGES
        params = _native(row, spec) if native else _translated(row, spec)
    except RowRefused as refused:
        raise RowRefused(refused.field, refused.reason, row.custom_id) from None
    # As long as it can be under any id, so that the plan counts the bytes that are sent.
    return _encode(_Wire(row.custom_id, params)).ljust(_FRAME + MAX_SENT_ID + len(memoryview(params)))


def with_id(prepared: bytes, custom_id: str) -> bytes:
    """Return a prepared row under another id."""
    return _encode(_Wire(custom_id, _wire(prepared).params))


def model_of(prepared: bytes) -> str | None:
    """Return the model that a prepared row asks for."""
    return _line(prepared).params.model


def _native(row: Row, spec: BatchSpec) -> msgspec.Raw:
    place, own = _written(row)
    gaps = {name: value for name, value in _defaults(spec).items() if name not in own or is_null(own, name)}
    if row.shape == "short":
        gaps.setdefault("max_tokens", _RAW_DEFAULT)
    params = {**own, **gaps}
    if value_of(params, "stream"):
        raise RowRefused(f"{place}stream", "must not be true: a batch cannot stream")
    if "messages" in params and first_byte(params["messages"]) != b"[":
        raise RowRefused(f"{place}messages", "must be a list")
    _check(params, place)
    return msgspec.Raw(_encode(params)) if gaps or row.shape == "short" else row.body


def _translated(row: Row, spec: BatchSpec) -> msgspec.Raw:
    place, own = _written(row)
    params = {**translate(_defaults(spec), "spec.params."), **translate(own, place)}
    params.setdefault("max_tokens", _RAW_DEFAULT)
    _check(params, place)
    return msgspec.Raw(_encode(params))


def _written(row: Row) -> tuple[str, dict[str, msgspec.Raw]]:
    """Return the row's own fields, and how a report begins their names."""
    if row.shape == "short":
        first = first_byte(row.body)
        if first not in (b'"', b"["):
            raise RowRefused("input", "must be a string or a list of messages")
        content: Any = row.body if first == b"[" else [{"role": "user", "content": row.body}]
        return "", {"messages": msgspec.Raw(_encode(content))}
    place = "params" if row.shape == "anthropic" else "body"
    try:
        return f"{place}.", _fields(row.body)
    except msgspec.ValidationError:
        raise RowRefused(place, "must be an object") from None


def _defaults(spec: BatchSpec) -> dict[str, msgspec.Raw]:
    defaults = {**({} if spec.model is None else {"model": spec.model}), **spec.params}
    return {name: msgspec.Raw(_encode(value)) for name, value in defaults.items()}


def _check(params: dict[str, Any], place: str) -> None:
    """Refuse what cannot succeed, and a max_tokens for which Anthropic refuses the whole batch."""
    model = value_of(params, "model")
    if model is None:
        raise RowRefused(f"{place}model", "is missing, and the batch names none")
    if not isinstance(model, str) or not model:
        raise RowRefused(f"{place}model", "must be a model's name")
    most = value_of(params, "max_tokens")
    if most is None:
        raise RowRefused(f"{place}max_tokens", "is missing, and Anthropic needs it")
    if type(most) is not int or most < 1:
        raise RowRefused(f"{place}max_tokens", "must be a whole number from 1 on")
    if "messages" not in params:
        raise RowRefused(f"{place}messages", "is missing, and Anthropic needs it")


class AnthropicRows:
    """The row format of Message Batches: the rows are an array within the create's body."""

    keeps_ids = False
    prepare = staticmethod(prepare)
    with_id = staticmethod(with_id)
    model_of = staticmethod(model_of)
    outcome = staticmethod(outcome)
    owns = staticmethod(owns)

    def sent_id(self, custom_id: str, seal: str, row: int) -> str:
        return sent_id(seal, row)

    def join(self, row: bytes | None, first: bool) -> bytes:
        if row is None:
            return HEAD + TAIL if first else TAIL
        return (HEAD if first else b",") + row

    def inputs_of(self, prepared: bytes) -> int:
        return 1  # no endpoint of Anthropic's limits them
