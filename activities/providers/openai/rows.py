"""OpenAI's requests: rows on their way in. Pure, and fast, because every row passes here."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ....contract import BatchSpec
from ...json_shape import elements
from ...rows import Row, RowRefused
from ..raw_json import first_byte
from .messages import translate
from .results import outcome

#: The paths that a batch may ask, and the field that each cannot do without.
REQUIRED = {
    "/v1/chat/completions": "messages",
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/v1/completions": "prompt",
    "/v1/moderations": "input",
}
#: What says what a request is about when that field is not there: a template, or what was said before
#: (https://platform.openai.com/docs/api-reference/responses/create).
_IN_PLACE = {"/v1/responses": ("prompt", "previous_response_id", "conversation")}
#: Moderations name a default model themselves; everything else needs one.
_MODEL_OPTIONAL = {"/v1/moderations"}
#: Where inputs are counted as well as rows, since one row may hold many of them.
EMBEDDINGS = "/v1/embeddings"
CHAT = "/v1/chat/completions"
#: Where Azure lives: its clouds, and its own front for other people's names. Its rows say /chat/completions
#: (https://learn.microsoft.com/azure/ai-services/openai/how-to/batch), while its create takes either form.
_AZURE = re.compile(r".+\.(azure\.(com|us|cn)|azure-api\.net)")


class _Body(msgspec.Struct):
    """What is looked at in a request's body; the rest is passed over unread."""

    model: str | None = None
    stream: bool | None = None
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    previous_response_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    conversation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Wire(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Line(msgspec.Struct):
    body: _Body


class _Input(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"null")


class _Embedding(msgspec.Struct):
    body: _Input


class _Head(msgspec.Struct):
    method: str | None = None


_head = msgspec.json.Decoder(_Head).decode
_body = msgspec.json.Decoder(_Body).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_line = msgspec.json.Decoder(_Line).decode
_embedding = msgspec.json.Decoder(_Embedding).decode
_encode = msgspec.json.Encoder().encode
#: How the first element of an array begins.
_FIRST = re.compile(rb"\[[ \t\r\n]*(.)", re.DOTALL)
#: How nearly every line begins; the others are read once more.
_USUAL = re.compile(rb'\{\s*"custom_id"\s*:\s*"[^"\\]*"\s*,\s*"method"\s*:\s*"')


def is_azure(base_url: str) -> bool:
    """Return whether a server is one of Azure's."""
    return _AZURE.fullmatch(urlsplit(base_url).hostname or "") is not None


def is_openai(base_url: str) -> bool:
    """Return whether a server is OpenAI's own, in any of its regions."""
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")


def prepare(row: Row, spec: BatchSpec, *, azure: bool = False, cap: str = "max_tokens") -> bytes:
    """Return the row as a line of an input file.

    A line that needs nothing added goes through byte for byte.

    Args:
        row: the request.
        spec: the batch's, whose model and params fill the gaps.
        azure: whether the provider is Azure, where a chat's url is /chat/completions.
        cap: what it calls the most tokens of an answer, for rows of Anthropic's.

    Raises:
        RowRefused: it would be refused, or would mean something else than the spec says.
    """
    if row.shape == "anthropic" and spec.endpoint != CHAT:
        raise RowRefused("params", f"is Anthropic's form, which is no request to {spec.endpoint}", row.custom_id)
    # One path has two forms: OpenAI's, and Azure's without /v1. Whichever a row has, the provider gets its own.
    if row.url is not None and row.url != spec.endpoint and f"/v1{row.url}" != spec.endpoint:
        raise RowRefused("url", f"differs from the batch's endpoint {spec.endpoint}", row.custom_id)
    url = CHAT.removeprefix("/v1") if azure and spec.endpoint == CHAT else spec.endpoint
    if row.shape != "openai":
        body = _short(row, spec) if row.shape == "short" else _translated(row, spec, cap)
        return _encode(_Wire(row.custom_id, "POST", url, body))
    found = _checked(row.body, row.custom_id)
    needs_model = found.model is None and spec.model is not None
    body = _merged(_fields(row.body), spec) if needs_model or spec.params else row.body
    _complete(found, row.custom_id, spec)
    if body is row.body and row.url == url and row.plain and (_USUAL.match(row.data) or _head(row.data).method):
        return row.data
    return _encode(_Wire(row.custom_id, "POST", url, body))


def _short(row: Row, spec: BatchSpec) -> msgspec.Raw:
    first = first_byte(row.body)
    if first not in (b'"', b"["):
        raise RowRefused("input", "must be a string or a list of messages", row.custom_id)
    field = REQUIRED[spec.endpoint]
    if field == "messages" and first == b'"':
        content: Any = [{"role": "user", "content": row.body}]
    else:
        content = row.body
    body = _merged({field: msgspec.Raw(_encode(content))}, spec)
    _complete(_checked(body, row.custom_id), row.custom_id, spec)
    return body


def _translated(row: Row, spec: BatchSpec, cap: str) -> msgspec.Raw:
    try:
        body = _merged(translate(row.body, cap), spec)
        _complete(_checked(body, row.custom_id), row.custom_id, spec)
    except RowRefused as refused:
        # What the row says is called so in the row.
        field = re.sub(r"^body\b", "params", refused.field or "") or None
        raise RowRefused(field, refused.reason, row.custom_id) from None
    return body


def _merged(fields: dict[str, msgspec.Raw], spec: BatchSpec) -> msgspec.Raw:
    """Return the body with the spec's defaults under the row's own values, which stay as they were written."""
    merged: dict[str, Any] = {"model": spec.model} if spec.model is not None else {}
    merged.update(spec.params)
    own = {name: value for name, value in fields.items() if not (name == "model" and bytes(value) == b"null")}
    return msgspec.Raw(_encode({**merged, **own}))


def _checked(body: msgspec.Raw, custom_id: str) -> _Body:
    try:
        return _body(body)
    except msgspec.ValidationError as error:
        where = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else ""
        field = f"body.{where}" if where else "body"
        raise RowRefused(field, str(error).partition(" - at")[0].lower(), custom_id) from None


def _complete(body: _Body, custom_id: str, spec: BatchSpec) -> None:
    if body.stream or spec.params.get("stream"):
        raise RowRefused("body.stream", "must not be true: a batch cannot stream", custom_id)
    if body.model is None and spec.model is None and "model" not in spec.params:
        if spec.endpoint not in _MODEL_OPTIONAL:
            raise RowRefused("body.model", "is missing, and the batch names none", custom_id)
    elif body.model == "":
        raise RowRefused("body.model", "is empty", custom_id)
    field = REQUIRED[spec.endpoint]
    value = getattr(body, field)
    others = _IN_PLACE.get(spec.endpoint, ())
    if all(isinstance(getattr(body, name), msgspec.UnsetType) and name not in spec.params for name in (field, *others)):
        raise RowRefused(f"body.{field}", f"is missing, and {spec.endpoint} needs it", custom_id)
    if field == "messages" and not isinstance(value, msgspec.UnsetType) and first_byte(value) != b"[":
        raise RowRefused("body.messages", "must be a list", custom_id)


def model_of(prepared: bytes) -> str | None:
    """Return the model that a prepared row asks for."""
    return _line(prepared).body.model


def inputs_of(prepared: bytes) -> int:
    """Return how many inputs an embedding row holds: a text or a list of tokens is one, a list holds one each."""
    value = _embedding(prepared).body.input
    if first_byte(value) != b"[":
        return 1
    # Not by their values, of which a row may have millions.
    first = _FIRST.match(value)
    return elements(bytes(value)) if first is not None and first[1] in (b'"', b"[") else 1


class OpenAIRows:
    """The row format of OpenAI's Batches.

    Args:
        azure: whether the provider is Azure, where a chat's url is /chat/completions.
        cap: what it calls the most tokens of an answer, for rows of Anthropic's.
    """

    keeps_ids = True  #: Any id is taken here, so rows keep theirs.
    outcome = staticmethod(outcome)
    model_of = staticmethod(model_of)
    inputs_of = staticmethod(inputs_of)

    def __init__(self, *, azure: bool, cap: str) -> None:
        self._azure = azure
        self._cap = cap

    def prepare(self, row: Row, spec: BatchSpec) -> bytes:
        return prepare(row, spec, azure=self._azure, cap=self._cap)

    def sent_id(self, custom_id: str, seal: str, row: int) -> str:
        return custom_id

    def with_id(self, prepared: bytes, custom_id: str) -> bytes:
        return prepared

    def join(self, row: bytes | None, first: bool) -> bytes:
        return b"" if row is None else row + b"\n"

    def owns(self, line: bytes, seal: str) -> bool | None:
        return True  # the metadata said so before it was adopted
