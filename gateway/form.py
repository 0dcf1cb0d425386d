"""A multipart form with a file in it, parsed as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import Request

from .errors import ApiError

#: What a form may have beside its file: OpenAI's has three fields.
_PARTS, _FIELD_BYTES = 16, 4096


@dataclass(kw_only=True)
class Form:
    """What came with the file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None  #: None where there was no file.


async def read_form(request: Request, body: AsyncIterator[bytes], take: Callable[[bytes], Awaitable[None]]) -> Form:
    """Read a form to its end, and hand on the bytes of the part `file` as they come.

    Raises:
        ApiError: the body is no multipart form, is cut off, or holds more than a form may.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise ApiError(400, "The body must be multipart/form-data with a boundary.", code="invalid_content_type")
    reader = _Reader(take)
    try:
        parser = PushMultipartParser(options["boundary"], max_segment_count=_PARTS)
        async for piece in body:
            for event in parser.parse(piece):
                await reader.on(event)
        parser.close()
    except MultipartError as error:
        why = str(error.args[0] if error.args else error).rstrip(".")  # what follows quotes the body
        raise ApiError(400, f"The multipart/form-data body cannot be read: {why[:200]}.") from None
    except UnicodeError:
        raise ApiError(400, "A field of the multipart/form-data body is not UTF-8.") from None
    return reader.form


class _Reader:
    def __init__(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        self.form = Form()
        self._take = take
        self._name = ""
        self._value = bytearray()

    async def on(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """Go on with what the parser found: the head of a part, bytes of it, or (None) its end."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            if self._name != "file":
                self.form.fields[self._name] = self._value.decode()
        elif self._name == "file":
            await self._take(bytes(event))
        else:
            self._value += event
            if len(self._value) > _FIELD_BYTES:
                raise ApiError(400, f"The field {self._name[:100]!r} is too long.", code="invalid_value")

    def _begin(self, part: MultipartSegment) -> None:
        self._name, self._value = part.name or "", bytearray()
        if self._name in self.form.fields or (self._name == "file" and self.form.filename is not None):
            raise ApiError(400, f"The field {self._name[:100]!r} is there twice.", code="invalid_value")
        if self._name == "file":
            self.form.filename = (part.filename or "upload")[:512]
