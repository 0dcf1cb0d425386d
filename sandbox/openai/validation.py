"""OpenAI's check of a whole input file: one bad line fails the batch, before anything is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..batch import Batch, LineError
from ..errors import Refusal
from ..lines import Lines
from ..prompt import NO_SUCH_MODEL, Prompt
from ..protocol import Check
from ..settings import Settings
from ..state import State
from .endpoints import CHAT, COMPLETIONS, EMBEDDINGS, ENDPOINTS, RESPONSES

#: Embedding inputs over all rows of a batch. Source: the openai package, BatchCreateParams.endpoint.
MAX_EMBEDDING_INPUTS = 50_000

#: Fields without which a row fails its batch.
_NEEDED = ("model", "messages", "input", "prompt")
#: How messages name an endpoint.
_NAMES = {CHAT: "Chat Completions", RESPONSES: "Responses", COMPLETIONS: "Completions"}
_STRINGS = ("custom_id", "method", "url")
_decode = msgspec.json.Decoder().decode


def check(batch: Batch, state: State, settings: Settings, keep_on: Callable[[], None]) -> Check:
    """Check a batch's input file."""
    file = state.file(batch.input_file_id, batch.account)
    problem = None
    if file is None:
        problem = f"Cannot find file {batch.input_file_id}, or organization org-sandbox does not have access to it."
    elif file.purpose != "batch":
        problem = f"Invalid file: expected purpose 'batch', but got '{file.purpose}'."
    if file is None or problem is not None:
        error = LineError(code="invalid_request", message=problem or "", param="file_id")
        return Check([error], 0, None, 0)
    with Lines(state.file_path(batch.input_file_id)) as lines:
        return check_file(lines, file.bytes, batch.endpoint, settings, keep_on)


def check_file(lines: Lines, size: int, endpoint: str, settings: Settings, keep_on: Callable[[], None]) -> Check:
    """Check the lines of an input file, up to the first bad one.

    Args:
        lines: The file's lines.
        size: The file's bytes.
        endpoint: The batch's endpoint, which every line must name.
        settings: The limits.
        keep_on: Called now and then; raises when the sandbox stops.
    """
    whole = _check_whole(lines, size, settings)
    if whole:
        return Check([whole], len(lines), None, 0)
    seen: set[str] = set()
    model: str | None = None
    tokens = inputs = 0
    for index, line in enumerate(lines):
        if index % 256 == 0:
            keep_on()
        try:
            row = _check_row(line, endpoint)
            prompt = _read(endpoint, row["body"])
            model = model or prompt.model
            _check_against_others(row["custom_id"], prompt.model, seen, model)
            tokens += prompt.tokens
            inputs += len(prompt.texts)
        except Refusal as refusal:
            # The first bad line is the only one that is reported, as captures of real batches show.
            code = refusal.code or "invalid_request"
            error = LineError(code=code, message=refusal.message, line=index + 1, param=refusal.param)
            return Check([error], len(lines), None, 0)
    if endpoint == EMBEDDINGS and inputs > MAX_EMBEDDING_INPUTS:
        message = f"The batch has {inputs} embedding inputs; the maximum is {MAX_EMBEDDING_INPUTS}."
        return Check([LineError(code="too_many_tasks", message=message)], len(lines), None, 0)
    return Check([], len(lines), model, tokens)


def _check_whole(lines: Lines, size: int, settings: Settings) -> LineError | None:
    if size > settings.openai_max_bytes:
        message = f"The input file has {size} bytes; the maximum for a batch is {settings.openai_max_bytes}."
        return LineError(code="file_too_large", message=message)
    if len(lines) > settings.openai_max_rows:
        message = f"The batch has {len(lines)} requests; the maximum is {settings.openai_max_rows}."
        return LineError(code="too_many_tasks", message=message)
    return None


def _check_row(line: bytes, endpoint: str) -> dict[str, Any]:
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "This line is not parseable as valid JSON.", code="invalid_json_line") from None
    if not isinstance(row, dict):
        raise Refusal(400, "Each line must be a JSON object.", code="invalid_request")
    for name in (*_STRINGS, "body"):
        if row.get(name) is None:
            raise Refusal(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    for name in _STRINGS:
        if not isinstance(row[name], str):
            raise Refusal(400, f"Invalid type for '{name}': expected a string.", code="invalid_type", param=name)
    body = row["body"]
    if not isinstance(body, dict):
        raise Refusal(400, "Invalid type for 'body': expected an object.", code="invalid_type", param="body")
    if row["method"] != "POST":
        message = f"Invalid value: '{row['method']}'. Supported values are: 'POST'."
        raise Refusal(400, message, code="invalid_method", param="method")
    if row["url"] != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        raise Refusal(400, message, code="invalid_url", param="url")
    if body.get("stream"):
        message = f"{_NAMES.get(endpoint, 'Requests')}: Streaming is not supported in the Batch API."
        raise Refusal(400, message, code="streaming_unsupported", param="body.stream")
    return row


def _read(endpoint: str, body: dict[str, Any]) -> Prompt:
    """The model and the texts of a row; one that a live call would refuse is let in, and becomes an error row."""
    try:
        return ENDPOINTS[endpoint].read(body)
    except Refusal as refusal:
        name = refusal.param or ""
        if body.get(name) is None and name in _NEEDED:
            message = f"{name.capitalize()} parameter is required."
            raise Refusal(400, message, code="invalid_request", param=f"body.{name}") from None
        if not isinstance(body.get("model"), str):
            raise
        return Prompt(body["model"], [""])


def _check_against_others(custom_id: str, model: str, seen: set[str], batch_model: str) -> None:
    if custom_id in seen:
        message = (
            "The custom_id for this request is a duplicate of another request. "
            "The custom_id parameter must be unique for each request in a batch."
        )
        raise Refusal(400, message, code="duplicate_custom_id", param="custom_id")
    seen.add(custom_id)
    if model.startswith(NO_SUCH_MODEL):
        message = f"The provided model '{model}' is not supported by the Batch API."
        raise Refusal(400, message, code="model_not_found", param="body.model")
    if model != batch_model:
        message = (
            f"The model '{model}' for this request does not match the rest of the batch. "
            "Each batch must contain requests for a single model."
        )
        raise Refusal(400, message, code="mismatched_model", param="body.model")
