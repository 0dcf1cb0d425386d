"""The rows of a create of Anthropic's, on their way into the store: checked as they pass, one a line.

What Anthropic refuses a create for is refused here, in its words: https://platform.claude.com/docs/en/api/messages/batches
and live captures. What a request itself asks for is its own affair: the batch runs, and that row is an errored one.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from ..activities.gateway.results import NULL
from ..activities.gateway.routing import Router
from ..activities.providers.raw_json import first_byte
from ..activities.rows import RowRefused, parse
from .array import ArrayReader, Malformed
from .errors import ApiError

#: Requests of one batch. Source: the reference of `POST /v1/messages/batches`.
MAX_REQUESTS = 100_000
#: Bytes of one request: the most that Anthropic's own Messages take (https://platform.claude.com/docs/en/api/errors).
MAX_REQUEST_BYTES = 32 * 1024**2
#: Characters of a model's name that a message shows.
_SHOWN = 100
#: Characters of a model's name. Source: the reference of `POST /v1/messages`.
_MAX_MODEL = 256

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class _Params(msgspec.Struct):
    model: msgspec.Raw = NULL  # as it was written: what is no name may be as large as the request


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: str
    params: _Params


_request = msgspec.json.Decoder(_Request).decode
_model = msgspec.json.Decoder(str).decode
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `(.*)`")


class Requests:
    """Turns the pieces of a create's body into lines, `{"custom_id", "params"}` each.

    Args:
        most: requests that a batch of the caller's may have; None for as many as Anthropic's.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = min(most or MAX_REQUESTS, MAX_REQUESTS)
        self._reader = ArrayReader("requests", ("custom_id", "params"), MAX_REQUEST_BYTES)
        self._ids: set[str] = set()
        self._digest = hashlib.sha256()
        self._models: dict[str, int] = {}  #: Where each is named first.

    @property
    def rows(self) -> int:
        """Requests so far."""
        return len(self._ids)

    @property
    def digest(self) -> str:
        """What identifies these requests."""
        return self._digest.hexdigest()

    def feed(self, data: bytes) -> bytes:
        """Return the lines that more of the body completes.

        Raises:
            ApiError: the batch is refused.
        """
        lines = []
        try:
            for element in self._reader.feed(data):
                if self.rows == self._most:
                    raise ApiError(400, f"requests: List should have at most {self._most} items after validation")
                lines.append(self._line(element))
        except Malformed as error:
            raise ApiError(400, str(error)) from None
        made = b"".join(lines)
        self._digest.update(made)
        return made

    def end(self) -> dict[str, Any]:
        """Return what the body says beside its requests.

        Raises:
            ApiError: the batch is refused.
        """
        try:
            around = self._reader.end()
        except Malformed as error:
            raise ApiError(400, str(error)) from None
        if not self.rows:
            raise ApiError(400, "requests: List should have at least 1 item after validation, not 0")
        del around["requests"]
        return around

    def _line(self, element: bytes) -> bytes:
        place = f"requests.{self.rows}"
        try:
            row = parse(element)  # first, as it knows what else no parser on the way would take
            request = _request(element)
        except RowRefused as refused:
            raise ApiError(400, _refusal(place, element, refused)) from None
        except msgspec.ValidationError as error:
            raise ApiError(400, f"{place}{_words(error)}") from None
        custom_id = row.custom_id
        if not _ID.fullmatch(custom_id):
            if len(custom_id) > 64:
                raise ApiError(400, f"{place}.custom_id: String should have at most 64 characters")
            raise ApiError(400, f"{place}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if custom_id in self._ids:
            raise ApiError(400, f"{place}.custom_id: the custom_id {custom_id} is that of an earlier request")
        if first_byte(request.params.model) == b'"':
            model = _model(request.params.model)
            if len(model) > _MAX_MODEL:
                raise ApiError(400, f"{place}.params.model: String should have at most {_MAX_MODEL} characters")
            self._models.setdefault(model, self.rows)
        self._ids.add(custom_id)
        # JSON has line breaks between its parts only; within strings they are escaped.
        return element.translate(_LINE_BREAKS) + b"\n" if b"\n" in element or b"\r" in element else element + b"\n"

    def provider(self, router: Router) -> str:
        """Return who runs these requests.

        Raises:
            ApiError: nobody does, or several would.
        """
        first: tuple[str, str, int] | None = None
        for model, row in self._models.items():
            provider, place = router.provider_of(model), f"requests.{row}.params.model"
            if provider is None:
                raise ApiError(
                    400, f"{place}: the model {_shown(model)} does not exist or you do not have access to it."
                )
            first = first or (model, provider, row)
            if provider != first[1]:
                raise ApiError(
                    400,
                    f"{place}: {_shown(model)} is run by the provider {provider}, and {_shown(first[0])} of "
                    f"requests.{first[2]} by {first[1]}: make a batch for each.",
                )
        if first is None:
            raise ApiError(400, "requests.0.params.model: Field required")
        return first[1]


def _refusal(place: str, element: bytes, refused: RowRefused) -> str:
    """Return why a request cannot be read, in Anthropic's words where it has some."""
    try:
        _request(element)
    except msgspec.ValidationError as error:
        return f"{place}{_words(error)}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    where = f"{place}.{refused.field}" if refused.field else place
    return f"{where}: it {refused.reason}"


def _words(error: msgspec.ValidationError) -> str:
    """Return what msgspec says of a request in pydantic's words, which are Anthropic's."""
    text = str(error)
    found = _PLACE.search(text)
    where = f".{found[1]}" if found and found[1] else ""
    field = _FIELD.search(text)
    if field and "missing required" in text:
        return f"{where}.{field[1]}: Field required"
    if field and "unknown" in text:
        return f"{where}: Extra inputs are not permitted"  # its name may be somebody's text
    return f"{where}: Input should be {'a valid string' if where == '.custom_id' else 'an object'}"


def _shown(model: str) -> str:
    return model if len(model) <= _SHOWN else model[: _SHOWN - 1] + "…"
