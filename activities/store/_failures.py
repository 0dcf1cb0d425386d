"""Turns what the operating system and obstore raise into a StoreError: one sentence, no credentials.

The messages of object stores quote the whole answer (S3's names the access key and what was signed), so a StoreError
takes only the status and the error code from them. The original stays chained, for whoever debugs the process itself.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from ...contract import ObjectNotFound, StoreError

_DENIED = "permission denied; the user that Durabatch runs as must be able to read and write there"
_FULL = "the disk is full; free some space"
_NO_FOLDER = "a file is where a folder should be"
_WORDS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "the disk is read-only",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "a folder is where the object should be",
    errno.ENAMETOOLONG: "the name is too long",
}

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,80})</Code>")
_CONTAINER_MISSING = {"NoSuchBucket", "ContainerNotFound"}


@contextmanager
def disk(verb: str, uri: str) -> Iterator[None]:
    """Translate what the operating system raises while Durabatch tries to read, write, … uri."""
    try:
        yield
    except OSError as error:
        if verb == "read" and isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            raise ObjectNotFound(f"The store has no object {uri}.") from error
        cause = _WORDS.get(error.errno or 0) or error.strerror or type(error).__name__
        raise StoreError(f"The store cannot {verb} {uri}: {cause}.") from error


@contextmanager
def cloud(verb: str, uri: str) -> Iterator[None]:
    """Translate what obstore raises while Durabatch tries to read, write, … uri."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        code = _CODE.search(str(error))
        if isinstance(error, FileNotFoundError) and not (code and code[1] in _CONTAINER_MISSING):
            raise ObjectNotFound(f"The store has no object {uri}.") from error
        raise StoreError(f"The store cannot {verb} {uri}: {_cause(error)}.") from error


def _cause(error: Exception) -> str:
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if code and code[1] in _CONTAINER_MISSING:
        return "the bucket does not exist; create it, or correct the store's URL"
    if isinstance(error, PreconditionError):
        return "it changed while it was being read"
    answer = ", ".join(found[1] for found in (status, code) if found)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return f"permission denied ({answer}); check the credentials in the environment and the bucket's policy"
    if "169.254." in text:
        # The address of a cloud machine's own credentials: obstore asks it when the environment holds none.
        return "no credentials; set the storage service's usual environment variables"
    if status and status[1] == "501":
        return f"the storage service does not offer what Durabatch needs, such as If-None-Match on a write ({answer})"
    if status:
        return f"the storage service answered {answer}"
    if "Connection refused" in text or "HTTP error" in text:
        return "the storage service cannot be reached; check the endpoint and the network"
    return f"the storage service failed ({type(error).__name__})"
