"""Which files an input takes, by their names: a folder's, or those that a pattern matches.

A module of its own because the command looks at names before it loads what reads the files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..contract import InvalidInput
from ..contract.layout import IDENTITY

#: What a folder's files are called; a pattern takes whatever it matches.
_SUFFIX = re.compile(r".*\.(jsonl|ndjson)(\.(gz|zst|zstd))?", re.IGNORECASE | re.DOTALL)
_WILDCARD = re.compile(r"[*?]")
#: Characters of a file's name that messages and results show.
_SHOWN = 100


class Selection:
    """Which paths a folder or a pattern takes.

    In a pattern `*` matches any characters of one path part and `?` one of them, but not a leading dot. Of a folder
    everything below it is taken, but for parts that begin with a dot or an underscore.
    """

    def __init__(self, path: str) -> None:
        parts = path.split("/")
        fixed = next((number for number, part in enumerate(parts) if _WILDCARD.search(part)), None)
        self.pattern = fixed is not None
        self.folder = "/".join(parts[:fixed])  #: Where all that it takes lies; "" for the whole store.
        self._matches = re.compile("/".join(_regex(part) for part in parts), re.DOTALL).fullmatch

    def takes(self, path: str) -> bool:
        """Return whether a path is taken."""
        if self.pattern:
            return path != IDENTITY and self._matches(path) is not None
        return path.startswith(f"{self.folder}/") and not is_hidden(self.name(path))

    def name(self, path: str) -> str:
        """Return what a path that is taken is called in messages."""
        return path[len(self.folder) + 1 :] if self.folder else path


def _regex(part: str) -> str:
    hidden = r"(?!\.)" if part[:1] in ("*", "?") else ""
    first, *others = re.split(r"\*+", part)
    if not others:
        return hidden + _fixed(first)
    # As in fnmatch: the first match of what is between two stars is the best, so no other place is ever tried.
    *between, last = (_fixed(piece) for piece in others)
    return f"{hidden}{_fixed(first)}{''.join(f'(?>[^/]*?{piece})' for piece in between)}[^/]*{last}"


def _fixed(piece: str) -> str:
    return "".join("[^/]" if character == "?" else re.escape(character) for character in piece)


def has_wildcard(text: str) -> bool:
    """Return whether a path or URI holds a wildcard."""
    return _WILDCARD.search(text) is not None


def is_hidden(name: str) -> bool:
    """Return whether a file's path below a folder says that it is not one of its requests, as _SUCCESS does."""
    return any(part[0] in "._" for part in name.split("/"))


def is_jsonl(name: str) -> bool:
    """Return whether a file is called as a folder's files must be."""
    return _SUFFIX.fullmatch(name) is not None


def check_names(folder: str, names: Iterable[str]) -> None:
    """See that a folder holds files of requests only; none is left out silently.

    Raises:
        InvalidInput: it holds something else.
    """
    for name in names:
        if not is_jsonl(name):
            raise InvalidInput(
                f"The folder {folder} holds {shown(name)}, whose name is not that of a JSONL file: take it out, or "
                f"name a pattern such as {folder.removesuffix('/')}/*.jsonl."
            )


def shown(name: str) -> str:
    """Return a file's name as messages and results show it."""
    return name if len(name) <= _SHOWN else "…" + name[1 - _SHOWN :]
