"""Files of requests on this machine: which ones a path names, and what is known of one that has been read."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..activities.compression import HEAD_BYTES, compression, expanded
from ..activities.formats import checked
from ..activities.selection import Selection, check_names, has_wildcard, is_hidden
from ..contract import InvalidInput

#: Bytes that are read at a time.
PIECE = 1024 * 1024
_SUFFIXES = {None: ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


class Measured(NamedTuple):
    """What is known of a file that has been read once."""

    #: Of what is in it and how that is compressed: two compressions of the same rows may differ in a time. That of a
    #: plain file is SHA-256 of its bytes, hexadecimal.
    digest: str
    raw: str  #: SHA-256 of its bytes, as it is.
    rows: int  #: Lines that are not blank, once it is expanded.
    size: int  #: Bytes, as it is.
    suffix: str  #: What a file of its kind is called.


def local_path(requests: str | Path) -> Path:
    """Return a path, with `~` for the home folder, unless a file is called so or there is no such user."""
    path = Path(requests)
    try:
        return path if os.path.lexists(path) else path.expanduser()
    except (RuntimeError, ValueError):  # no such user, or a name that no file can have: opening it reports that
        return path


def check_files(requests: str | Path) -> None:
    """See that local requests can be read and may be some, before anything is started for them.

    Args:
        requests: the path of a file, a folder or a pattern.

    Raises:
        InvalidInput: they cannot, they are empty, or a file is not JSONL at all.
    """
    path = local_path(requests)
    files, folder = local_files(path)
    filled = False
    for file, _ in files:
        with opened(file) as source:
            what = f"The file {file}"
            for piece in checked(expanded(iter(lambda: source.read(PIECE), b""), what), what):
                filled = filled or bool(piece)
                break
    if not filled:
        raise InvalidInput(f"{'The folder' if folder else 'The file'} {path} is empty: it holds no requests.")


def local_files(path: Path) -> tuple[list[tuple[Path, str]], bool]:
    """Return the local files that a path names, with their names, in order; and whether it names a folder or a pattern.

    Raises:
        InvalidInput: there are none, or a folder holds something else or cannot be read.
    """
    if os.path.isdir(path):
        # followlinks: what a linked folder holds must not be left out without a word.
        walked = os.walk(path, onerror=_unreadable, followlinks=True)
        below = [Path(folder, name) for folder, _, names in walked for name in names]
        found = [(file, file.relative_to(path).as_posix()) for file in below]
        found = [(file, name) for file, name in found if not is_hidden(name)]
        check_names(str(path), sorted(name for _, name in found))
        if not found:
            raise InvalidInput(f"The folder {path} is empty: it holds no files of requests.")
    elif has_wildcard(str(path)) and not os.path.exists(path):
        selection = Selection(path.as_posix())
        # In a pattern only * and ? are wildcards.
        matching = [Path(name) for name in glob.glob(str(path).replace("[", "[[]"))]
        found = [(file, selection.name(file.as_posix())) for file in matching if not file.is_dir()]
        if not found:
            raise InvalidInput(f"No file matches {path}: check the pattern, and put it in quotes in a shell.")
    else:
        return [(path, path.name)], False
    return sorted(found, key=lambda one: one[1]), True


def _unreadable(error: OSError) -> None:
    raise InvalidInput(f"The folder {error.filename} cannot be read: {error.strerror}.") from None


@contextlib.contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a local file to read.

    Raises:
        InvalidInput: it cannot be read, or is not a regular file.
    """
    if file.exists() and not file.is_file():
        # What comes through a pipe can be read once only, and a file is looked at, measured and copied.
        raise InvalidInput(f"The file {file} is no regular file: write the rows into one.")
    try:
        source = file.open("rb")
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {file}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the name is not usable"
        raise InvalidInput(f"The file {file} cannot be read: {reason}.") from None
    with source:
        yield source


def measure_file(file: Path) -> Measured:
    """Read a local file.

    Raises:
        InvalidInput: it cannot be read, its compressed data is cut off or damaged, or it is not JSONL at all.
    """
    with opened(file) as source:
        return measure(iter(lambda: source.read(PIECE), b""), f"The file {file}")


def measure(pieces: Iterable[bytes], what: str) -> Measured:
    """Read a file, expanding it where it is compressed.

    Raises:
        InvalidInput: compressed data is cut off or damaged, or it is not JSONL at all.
    """
    digest, inner, count, size = hashlib.sha256(), hashlib.sha256(), 0, 0
    head = b""

    def noted() -> Iterator[bytes]:
        nonlocal head, size
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            head = head or piece[:HEAD_BYTES]
            yield piece

    begun = False  # whether the line under way holds anything yet
    for piece in checked(expanded(noted(), what), what):
        if compression(head):
            inner.update(piece)
        first, *others = piece.split(b"\n")
        begun = begun or not _blank(first)
        for line in others:
            count += begun
            begun = not _blank(line)
    raw, kind = digest.hexdigest(), compression(head)
    of_rows = hashlib.sha256(f"{kind} {inner.hexdigest()}".encode()).hexdigest() if kind else raw
    return Measured(of_rows, raw, count + begun, size, _SUFFIXES[kind])


def _blank(line: bytes) -> bool:
    return not line or line.isspace()
