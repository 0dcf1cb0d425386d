"""One line of an input file, checked as OpenAI's server checks it, in its codes and words. Pure, and fast.

Where OpenAI names one error of a file, all of them are listed here, so that a file has to be corrected only once.
Sources: the openai package (types/batch_error.py), live captures, and the words that clients test for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ...contract.gateway_batch import LineError
from ..providers.raw_json import first_byte, short_value
from ..rows import Problem, RowRefused, parse
from .results import NULL

MODERATIONS = "/v1/moderations"
#: The endpoints that rows may ask, and the fields of which a row needs one.
REQUIRED: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/responses": ("input", "prompt", "previous_response_id"),
    "/v1/embeddings": ("input",),
    "/v1/completions": ("prompt",),
    MODERATIONS: ("input",),
}
#: What a moderation is asked of that names no model (the openai package, ModerationCreateParams.model).
DEFAULT_MODERATION = "omni-moderation-latest"
#: Characters of a row's own text, such as a model's name, that a message shows.
_SHOWN = 100

_STREAMS = {
    "/v1/chat/completions": "Chat Completions: ",
    "/v1/responses": "Responses: ",
    "/v1/completions": "Completions: ",
}
#: What our own codes for a row that cannot be read are called by OpenAI.
_CODES = {
    Problem.JSON: "invalid_json_line",
    Problem.DUPLICATE_ID: "duplicate_custom_id",
    Problem.TOO_LARGE: "request_too_large",
    Problem.MODEL: "mismatched_model",
}


class Checked(NamedTuple):
    """A line that can be sent."""

    custom_id: str
    model: str  #: The one it asks for; a moderation's default where it names none.


class LineRefused(Exception):
    """A line cannot be sent.

    Args:
        errors: why, without their line's number.
        custom_id: its id, where it has one.
    """

    def __init__(self, errors: list[LineError], custom_id: str | None = None) -> None:
        super().__init__(errors[0].message)
        self.errors = errors
        self.custom_id = custom_id


class _Body(msgspec.Struct):
    """What is looked at in a request's body; the rest is passed over unread."""

    model: str | msgspec.UnsetType = msgspec.UNSET
    stream: bool | None = None
    messages: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    prompt: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    previous_response_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Line(msgspec.Struct):
    method: str
    url: str
    body: _Body


class _Fields(msgspec.Struct):
    """What is looked at in a line that is wrong, as it was written: one of a wrong type may be as large as the line."""

    custom_id: msgspec.Raw = NULL
    method: msgspec.Raw = NULL
    url: msgspec.Raw = NULL
    body: msgspec.Raw = NULL


class _BodyFields(msgspec.Struct):
    model: msgspec.Raw = NULL
    stream: msgspec.Raw = NULL
    messages: msgspec.Raw = NULL
    input: msgspec.Raw = NULL
    prompt: msgspec.Raw = NULL
    previous_response_id: msgspec.Raw = NULL


_decode_text = msgspec.json.Decoder(str).decode
_line = msgspec.json.Decoder(_Line).decode
_fields = msgspec.json.Decoder(_Fields).decode
_body_fields = msgspec.json.Decoder(_BodyFields).decode


def check_line(data: bytes, endpoint: str) -> Checked:
    """Return what a batch must know of a line.

    Raises:
        LineRefused: it cannot be sent.
    """
    try:
        row = parse(data)
        found = _line(data)
    except (RowRefused, msgspec.DecodeError) as error:
        raise _explained(data, endpoint, error) from None
    body = found.body
    fine = (
        found.method == "POST"
        and found.url == endpoint
        and not body.stream
        and (bool(body.model) or endpoint == MODERATIONS)
        and any(isinstance(getattr(body, name), msgspec.Raw) for name in REQUIRED[endpoint])
        and (endpoint != "/v1/chat/completions" or first_byte(body.messages) == b"[")  # type: ignore[arg-type]
    )
    if not fine:
        raise _explained(data, endpoint, None, row.custom_id)
    return Checked(row.custom_id, DEFAULT_MODERATION if isinstance(body.model, msgspec.UnsetType) else body.model)


def _explained(
    data: bytes, endpoint: str, error: RowRefused | msgspec.DecodeError | None, custom_id: str | None = None
) -> LineRefused:
    """Return all that is wrong with a line, which is read once more for it."""
    if isinstance(error, RowRefused):
        custom_id = error.custom_id
        if error.code is Problem.JSON and "not a JSON object" not in error.reason:
            message = f"This line is not parseable as valid JSON. It {error.reason}."
            return LineRefused([LineError(code="invalid_json_line", message=message)])
    try:
        found = _fields(data)
    except msgspec.ValidationError:
        return LineRefused([_NO_OBJECT])
    if custom_id is None:
        custom_id = _text(found.custom_id)
    errors = list(_problems(found, endpoint))
    if not errors and isinstance(error, RowRefused):
        what = f"'{error.field}' " if error.field else "This line "
        errors = [
            LineError(
                code=_CODES.get(error.code, "invalid_request"), message=f"{what}{error.reason}.", param=error.field
            )
        ]
    return LineRefused(errors or [_UNREADABLE], custom_id)


_NO_OBJECT = LineError(code="invalid_request", message="Each line must be a JSON object.")
_UNREADABLE = LineError(code="invalid_request", message="This line is not a request.")
#: Fields of a line: the first byte of each, which shows its type, and what that is called.
_FIELDS: tuple[tuple[str, bytes, str], ...] = (
    ("custom_id", b'"', "a string"),
    ("method", b'"', "a string"),
    ("url", b'"', "a string"),
    ("body", b"{", "an object"),
)


def _problems(row: _Fields, endpoint: str) -> Iterator[LineError]:
    for name, first, words in _FIELDS:
        if _absent(value := getattr(row, name)):
            message = f"Missing required parameter: '{name}'."
            yield LineError(code="missing_required_parameter", message=message, param=name)
        elif first_byte(value) != first:
            yield LineError(code="invalid_type", message=f"Invalid type for '{name}': expected {words}.", param=name)
    method, url = _text(row.method), _text(row.url)
    if method is not None and method != "POST":
        message = f"Invalid value: '{shown(method)}'. Supported values are: 'POST'."
        yield LineError(code="invalid_method", message=message, param="method")
    if url is not None and url != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        yield LineError(code="invalid_url", message=message, param="url")
    if first_byte(row.body) == b"{":
        yield from _body_problems(_body_fields(row.body), endpoint)


def _body_problems(body: _BodyFields, endpoint: str) -> Iterator[LineError]:
    if short_value(body.stream):
        message = f"{_STREAMS.get(endpoint, '')}Streaming is not supported in the Batch API."
        yield LineError(code="streaming_unsupported", message=message, param="body.stream")
    if first_byte(body.model) != b'"' and not (_absent(body.model) and endpoint == MODERATIONS):
        message = "Model parameter is required." if _absent(body.model) else "Model must be a string."
        yield LineError(code="invalid_request", message=message, param="body.model")
    elif bytes(body.model) == b'""':
        yield LineError(code="invalid_request", message="Model parameter is required.", param="body.model")
    needed = REQUIRED[endpoint]
    first = needed[0]
    if all(_absent(getattr(body, name)) for name in needed):
        message = f"{first.capitalize()} parameter is required."
        yield LineError(code="invalid_request", message=message, param=f"body.{first}")
    elif first == "messages" and first_byte(body.messages) != b"[":
        yield LineError(code="invalid_request", message="Messages must be an array.", param="body.messages")


def _absent(value: msgspec.Raw) -> bool:
    """Return whether a field is not there; one that is null is as good as that."""
    return first_byte(value) == b"n"


def _text(value: msgspec.Raw) -> str | None:
    return _decode_text(value) if first_byte(value) == b'"' else None


def shown(text: str) -> str:
    """Return a row's own words as a message may show them."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
