"""Files that hold no JSONL: what they are instead, recognized by how they begin. Pure.

Without this, each line of such a file would be a row that is refused, and no message would name the cause.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..contract import InvalidInput

#: Bytes at a file's beginning that show what it is.
SAMPLE = 64 * 1024

_BOM = b"\xef\xbb\xbf"
_AS_JSONL = "write its rows as JSONL, one JSON object a line"
#: How files of other kinds begin, and what each is and what to do.
_BEGINNINGS = {
    b"PK\x03\x04": ("a zip archive", "unpack it, and give the JSONL file that is in it"),
    b"PK\x05\x06": ("an empty zip archive", "give a JSONL file"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Excel workbook or another Office file", _AS_JSONL),
    b"PAR1": ("a Parquet file", _AS_JSONL),
    b"ARROW1": ("an Arrow file", _AS_JSONL),
    b"ORC": ("an ORC file", _AS_JSONL),
    b"Obj\x01": ("an Avro file", _AS_JSONL),
    b"SQLite format 3\0": ("a SQLite database", _AS_JSONL),
    b"%PDF-": ("a PDF file", _AS_JSONL),
    b"BZh": ("compressed with bzip2", "compress it with gzip or zstd, or not at all"),
    b"\xfd7zXZ\0": ("compressed with xz", "compress it with gzip or zstd, or not at all"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "compress it with gzip or zstd, or not at all"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it, and give the JSONL file that is in it"),
    b"Rar!\x1a\x07": ("a rar archive", "unpack it, and give the JSONL file that is in it"),
    b"\x1f\x8b": ("compressed twice", "compress it once"),
    b"\x28\xb5\x2f\xfd": ("compressed twice", "compress it once"),
}
#: The first member of every Office file, which is a zip archive.
_OFFICE = (b"[Content_Types].xml", b"_rels/.rels", b"xl/", b"docProps/", b"mimetypeapplication/vnd.oasis")
#: Where a tar archive says that it is one, and what it says there.
_TAR = (257, b"ustar")
#: Marks at the beginning of other encodings, the longer ones first: UTF-32's begins as UTF-16's does.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
#: The same without a mark: what JSON begins with is a character of ASCII, so zeros surround it.
_UNMARKED = {
    "UTF-32LE": re.compile(rb"[\t\n\r \[{\"]\0\0\0"),
    "UTF-32BE": re.compile(rb"\0\0\0[\t\n\r \[{\"]"),
    "UTF-16LE": re.compile(rb"[\t\n\r \[{\"]\0[^\0]\0"),
    "UTF-16BE": re.compile(rb"\0[\t\n\r \[{\"]\0[^\0]"),
}
#: A line of a table: fields, and what separates them.
_TABLE = re.compile(rb"[^,;\t|{]+[,;\t|].*")


class _Other(NamedTuple):
    is_: str  #: What the file is.
    advice: str  #: What to do about it.


_ARRAY = _Other("one JSON array", "write each of its elements as one line (jq -c '.[]' does it)")
_SPREAD = _Other("JSON over several lines", "write each object as one line (jq -c . does it)")


def check_format(head: bytes, whole: bool, what: str) -> None:
    """See that what begins so may be JSONL.

    Args:
        head: a file's first bytes, expanded where it is compressed; SAMPLE of them are enough.
        whole: whether they are all of it.
        what: the file, for messages.

    Raises:
        InvalidInput: it is something else.
    """
    other = _binary(head) or _encoded(head) or _text(head.removeprefix(_BOM).lstrip(), whole)
    if other is not None:
        raise InvalidInput(f"{what} is {other.is_}, and not JSONL: {other.advice}.")


def checked(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield a file's bytes as they come, if they may be JSONL.

    Raises:
        InvalidInput: they are something else.
    """
    pieces = iter(chunks)
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > SAMPLE:
            break
    check_format(b"".join(piece[:SAMPLE] for piece in held)[:SAMPLE], size <= SAMPLE, what)
    yield from itertools.chain(held, pieces)


def _binary(head: bytes) -> _Other | None:
    for beginning, (is_, advice) in _BEGINNINGS.items():
        if head.startswith(beginning):
            if beginning == b"PK\x03\x04" and head[30:80].startswith(_OFFICE):
                return _Other("an Excel workbook or another Office file", _AS_JSONL)
            return _Other(is_, advice)
    place, mark = _TAR
    if head.startswith(mark, place):
        return _Other("a tar archive", "unpack it, and give the folder of JSONL files that is in it")
    return None


def _encoded(head: bytes) -> _Other | None:
    found = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    found = found or next((name for name, begins in _UNMARKED.items() if begins.match(head)), None)
    return _Other(f"{found} text", f"save it as UTF-8 (iconv -f {found} -t UTF-8)") if found else None


def _text(head: bytes, whole: bool) -> _Other | None:
    """Return what a text is instead; None wherever a line of it may be a row, which is then refused by its line."""
    lines = [line for line in (line.strip() for line in head.split(b"\n")) if line]
    if not lines:
        return None
    if lines[0].startswith((b"[", b"{")):
        return _document(head, lines, whole)
    if lines[0].startswith(b"<"):
        return _Other("HTML or XML", _AS_JSONL)
    if len(lines) > 1 and _TABLE.fullmatch(lines[0]) and not any(line.startswith((b"[", b"{")) for line in lines):
        return _Other("a table, such as CSV", _AS_JSONL)
    return None


def _document(head: bytes, lines: list[bytes], whole: bool) -> _Other | None:
    """Return what JSON is that does not have one object on each line."""
    array = lines[0].startswith(b"[")
    if whole and _is_json(head):
        return _ARRAY if array else _SPREAD if len(lines) > 1 else None
    # Where one of the first two lines is JSON by itself, there is a row on each, and a wrong one is refused alone.
    if any(map(_is_json, lines[:2])):
        return None
    if array:
        return _ARRAY
    return _SPREAD if lines[1:] and lines[1].startswith(b'"') else None


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
