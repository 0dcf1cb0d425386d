"""A long array within a JSON object, `{"requests": [{…}, {…}], …}`, cut into its elements as the bytes arrive. Pure.

No more is kept than one element and what is around the array. Where an element begins as programs write them, all that
are whole are cut by the JSON parser at once; elsewhere brackets and strings are looked at, each byte once. What is cut
out is not known to be JSON: whoever takes it parses it, and `end` parses what is around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

# Not possessive, although nothing is gained by going back: until Python 3.11.5 such a match ends too late where its
# group was tried in vain. So that what can be gone back to takes little memory, only so many are taken at a time.
_SOME = b"{0,1000}"
#: The rest of a string, to its quote or to the end of what is there, or some of its escapes.
_REST = rb'[^"\\]*(?:\\.[^"\\]*)' + _SOME
_IN_STRING = re.compile(_REST, re.DOTALL)
#: From anywhere outside a string to the next bracket, to the quote of a string, or to the end.
_OUTSIDE = rb'[^"{}\[\]]*(?:"' + _REST + rb'"[^"{}\[\]]*)' + _SOME
_TO_QUOTE = re.compile(_OUTSIDE, re.DOTALL)
_TO_BRACKET = re.compile(_OUTSIDE + rb"[{}\[\]]", re.DOTALL)
_GAP = re.compile(rb"[ \t\r\n]*,[ \t\r\n]*")
_BLANK = re.compile(rb"[ \t\r\n]*")

_OPEN = frozenset(b"{[")
_QUOTE = ord('"')
#: Which level the fields of the object are on, and which the elements of its array.
_FIELDS, _ELEMENTS = 1, 2
#: Brackets deeper than this are no request, and would only take time.
_MAX_DEPTH = 250

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Malformed(Exception):
    """The text is not what it should be; one sentence that begins with the place, and quotes nothing."""


class ArrayReader:
    """Reads one text.

    Args:
        name: of the field that holds the array.
        first: fields of which an element usually begins with one.
        most: bytes of an element.
        around: bytes of all that is around the array.
    """

    def __init__(self, name: str, first: Sequence[str], most: int, around: int = 64 * 1024) -> None:
        self._name = name
        # Within a string no quote follows a bracket, so this is hardly ever anything else.
        self._next = re.compile(
            rb'\}[ \t\r\n]*,[ \t\r\n]*\{[ \t\r\n]*"(?:' + "|".join(first).encode() + rb')"[ \t\r\n]*:'
        )
        self._most = most
        self._most_around = around
        self._ahead = re.compile(rb'[{,]\s*"' + name.encode() + rb'"\s*:\s*')
        self._buffer = bytearray()  #: What is not handed on yet, or thrown away.
        self._position = 0  #: In the buffer: how far it has been looked at.
        self._in_string = False
        self._depth = 0
        self._around = bytearray()  #: The text without the array's elements.
        self._in_array = False
        self._found = False
        #: Elements so far.
        self.count = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Go on with more of the text, and yield the elements that end in it.

        Raises:
            Malformed: it is no such object, or an element, or all that is around the array, is too long.
        """
        self._buffer += data
        tried = self._depth == _ELEMENTS
        if tried:
            yield from self._whole()
        while self._to_bracket():
            bracket = self._buffer[self._position - 1]
            if bracket in _OPEN:
                self._depth += 1
                if self._depth > _MAX_DEPTH:
                    raise Malformed(f"The request body is nested more than {_MAX_DEPTH} levels deep.")
                if self._depth == _FIELDS + 1 and bracket == ord("["):
                    self._begin()
                elif self._in_array and self._depth == _ELEMENTS + 1:
                    self._begin_element()
            else:
                self._depth -= 1
                if self._depth < 0:
                    raise Malformed("The request body is not valid JSON.")
                if self._in_array and self._depth == _ELEMENTS:
                    yield self._element()
                    if not tried:  # once for all the bytes that have come: where it does not help it would cost
                        tried = True
                        yield from self._whole()
                elif self._in_array and self._depth < _ELEMENTS:
                    self._end_array()
        self._check_size()

    def end(self) -> dict[str, Any]:
        """Return the object with an empty array in the field; its elements have been handed out.

        Raises:
            Malformed: it is not a JSON object, ended too early, or has no such array.
        """
        self._around += self._buffer
        try:
            found = msgspec.json.decode(bytes(self._around))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Malformed("The request body is not valid JSON.") from None
        if not isinstance(found, dict):
            raise Malformed("The request body is not a JSON object.")
        if self._name not in found:
            raise Malformed(f"{self._name}: Field required")
        if found[self._name] != [] or not self._found:
            raise Malformed(f"{self._name}: Input should be a valid list")
        return found

    def _to_bracket(self) -> bool:
        """Go behind the next bracket outside of strings; return False where there is none yet."""
        while True:
            if self._in_string:
                self._position = _IN_STRING.match(self._buffer, self._position).end()  # type: ignore[union-attr]
                if self._position >= len(self._buffer):
                    return False  # it goes on
                if self._buffer[self._position] != _QUOTE:  # at an escape: one of very many, or one that is cut off
                    if self._position + 1 >= len(self._buffer):
                        return False
                    continue
                self._in_string = False
                self._position += 1
            if (found := _TO_BRACKET.match(self._buffer, self._position)) is not None:
                self._position = found.end()
                return True
            self._position = _TO_QUOTE.match(self._buffer, self._position).end()  # type: ignore[union-attr]
            if self._position >= len(self._buffer):
                return False
            self._in_string = True
            self._position += 1

    def _begin(self) -> None:
        """Look whether this is the array, at its bracket."""
        self._check_around(self._position)  # before it is looked through, for each bracket anew
        ahead = bytes(self._around + self._buffer[: self._position - 1])
        place = max(ahead.rfind(b"{"), ahead.rfind(b","))
        if place < 0 or self._ahead.fullmatch(ahead, place) is None:
            return
        if self._found:
            raise Malformed(f"{self._name}: the field is there twice")
        self._found = self._in_array = True
        self._around += self._buffer[: self._position]
        self._drop(self._position)

    def _begin_element(self) -> None:
        start = self._position - 1
        gap = _GAP if self.count else _BLANK
        if self._buffer[start] != ord("{") or gap.fullmatch(self._buffer, 0, start) is None:
            raise Malformed(f"{self._name}.{self.count}: Input should be an object")
        self._drop(start)
        self._position = 1

    def _element(self) -> bytes:
        element = bytes(memoryview(self._buffer)[: self._position])
        if len(element) > self._most:
            raise self._too_long()
        self._drop(self._position)
        self.count += 1
        return element

    def _whole(self) -> Iterator[bytes]:
        """Yield the elements that are whole, as far as that is easy to see, from between two elements on."""
        last = next(reversed(list(self._next.finditer(self._buffer))), None)
        gap = _GAP.match(self._buffer) if self.count else _BLANK.match(self._buffer)
        if last is None or gap is None or gap.end() > last.start():
            return
        try:
            found = _elements(b"".join((b"[", memoryview(self._buffer)[gap.end() : last.start() + 1], b"]")))
        except (msgspec.DecodeError, RecursionError):
            return  # what looks like the next element is within one
        if any(memoryview(one)[0] != ord("{") or len(memoryview(one)) > self._most for one in found):
            return
        self._drop(last.start() + 1)
        self._position = 0
        for one in found:
            self.count += 1
            yield bytes(one)

    def _end_array(self) -> None:
        if _BLANK.fullmatch(self._buffer, 0, self._position - 1) is None:
            raise Malformed(f"{self._name}.{self.count}: Input should be an object")
        self._in_array = False
        self._drop(self._position - 1)  # its bracket belongs to what is around

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._position -= size

    def _check_size(self) -> None:
        if not self._in_array:
            # What is around is no more than a few settings, and kept until the end.
            self._check_around(len(self._buffer))
        elif self._depth > _ELEMENTS:
            if len(self._buffer) > self._most:
                raise self._too_long()
        elif len(self._buffer) > self._most_around:
            raise Malformed(f"{self._name}.{self.count}: Input should be an object")

    def _check_around(self, more: int) -> None:
        if len(self._around) + more > self._most_around:
            raise Malformed(f"The request body holds more than {self._most_around:,} bytes beside {self._name}.")

    def _too_long(self) -> Malformed:
        return Malformed(f"{self._name}.{self.count}: the request has more than {self._most:,} bytes")
