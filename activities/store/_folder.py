"""Storage in a local folder, or one that several machines mount."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from ._backend import BUFFER, RESERVED, Backend, Entry, Writer
from ._failures import disk
from ._paths import file_uri

#: Files that are made safe at a time.
_SYNCS = 16

#: What the system says where a file system has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

#: Bytes that the kernel copies at a time.
_STRETCH = 32 * 1024 * 1024

#: A temporary file that nobody has written to for this long, in seconds, belongs to a process that was killed.
_ABANDONED = 24 * 3600

#: Folders of which it is known what killed processes left in them; beyond that they are looked at once more.
_KNOWN = 10_000


class Folder(Backend):
    """A folder of the file system. Each write makes a new file and renames it; only numbers are changed in place."""

    #: A change to a thread and back takes longer than to read a small file. Not all are read by one thread, as reads of
    #: a folder that is mounted wait for the network.
    reads = 32

    def __init__(self, root: str) -> None:
        self._root = root
        #: Temporary files in folders that were written to, which were too young to be cleared away.
        self._young: dict[Path, list[Path]] = {}

    def _file(self, path: str) -> Path:
        return Path(self._root, path)

    def _uri(self, path: str) -> str:
        return file_uri(f"{self._root}/{path}")

    def read(self, path: str) -> bytes:
        # Not by a Path, nor through a buffer: small objects are read by the hundred, and it takes half of the time.
        with disk("read", self._uri(path)), open(f"{self._root}/{path}", "rb", buffering=0) as file:
            return file.read()

    def write(self, path: str, data: bytes, durable: bool = True) -> None:
        with self._new(path, durable) as file, disk("write", self._uri(path)):
            _write(file, data)

    def in_place(self, path: str, data: bytes) -> FileIO:
        self.write(path, data, durable=False)
        with disk("write", self._uri(path)):
            return self._file(path).open("r+b", buffering=0)

    def create(self, path: str, data: bytes) -> bool:
        target = self._file(path)
        with disk("write", self._uri(path)):
            if target.exists():
                return False
            temporary = self._temporary(target.parent)
            try:
                with temporary.open("xb", buffering=0) as file:
                    _write(file, data)
                    os.fsync(file.fileno())
                made = _named(temporary, target)
                if made:
                    _sync_folder(target.parent)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        return made

    def entry(self, path: str) -> Entry | None:
        file = self._file(path)
        with disk("look at", self._uri(path)):
            return _entry(path, file.stat()) if file.is_file() else None

    def delete(self, path: str) -> None:
        # NotADirectoryError: a parent is a file, so the object is as absent as can be.
        with disk("delete", self._uri(path)), suppress(FileNotFoundError, NotADirectoryError):
            self._file(path).unlink()

    def page(self, folder: str, after: str | None, limit: int, backwards: bool) -> list[str]:
        found: list[str] = []
        # Folders end in a slash here, so that their names are sorted as the paths in them are.
        waiting = [f"{folder}/"]
        while waiting and len(found) < limit:
            at = waiting.pop()
            if not at.endswith("/"):
                found.append(at)
                continue
            with (
                disk("list", self._uri(at.removesuffix("/"))),
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._file(at)) as entries,
            ):
                # No stat of any file: with each name the system says whether it is a folder.
                inside = [
                    f"{at}{entry.name}/" if entry.is_dir() else f"{at}{entry.name}"
                    for entry in entries
                    if not entry.name.startswith(RESERVED)
                ]
                waiting += sorted((path for path in inside if _follows(path, after, backwards)), reverse=not backwards)
        return found

    def list(self, prefix: str) -> list[Entry]:
        found: list[Entry] = []
        waiting = [prefix]
        while waiting:
            folder = waiting.pop()
            with (
                disk("list", self._uri(folder)),
                suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(self._file(folder)) as entries,
            ):
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir():
                        waiting.append(path)
                    else:
                        # FileNotFoundError: deleted since, or a link to nowhere.
                        with suppress(FileNotFoundError):
                            found.append(_entry(path, entry.stat()))
        return found

    def stream(self, path: str, start: int, end: int | None, chunk: int) -> Iterator[bytes]:
        uri = self._uri(path)
        with disk("read", uri):
            file = self._file(path).open("rb", buffering=0)
        with file:
            with disk("read", uri):
                file.seek(start)
            left = chunk if end is None else end - start
            while left > 0:
                with disk("read", uri):
                    data = file.read(min(chunk, left))
                if not data:
                    return
                if end is not None:
                    left -= len(data)
                yield data

    @contextmanager
    def writer(self, path: str, durable: bool) -> Iterator[Writer]:
        with self._new(path, durable) as file:

            def sink(data: bytearray) -> None:
                with disk("write", self._uri(path)):
                    _write(file, data)

            writer = Writer(sink)
            yield writer
            writer.flush()

    def sync(self, paths: Sequence[str]) -> None:
        # At once, so that the file system can make many of them safe by one write to its journal.
        with ThreadPoolExecutor(_SYNCS) as threads:
            for _ in threads.map(self._sync, paths):
                pass
            for _ in threads.map(_sync_folder, {self._file(path).parent for path in paths}):
                pass

    def _sync(self, path: str) -> None:
        with disk("write", self._uri(path)), self._file(path).open("r+b", buffering=0) as file:
            os.fsync(file.fileno())

    def join(self, target: str, sources: Sequence[str], report: Callable[[int], object]) -> int:
        written = 0
        with self._new(target) as out:
            for source in sources:
                with disk("read", self._uri(source)):
                    file = self._file(source).open("rb", buffering=0)
                with file:
                    for count in self._copied(file, out, source, target):
                        written += count
                        report(count)
        return written

    def _copied(self, file: FileIO, out: FileIO, source: str, target: str) -> Iterator[int]:
        """Copy what is left of a file, and yield how many bytes at a time."""
        # In the kernel, at twice the speed, and on some file systems without using any room. Where the system or the
        # file system cannot, or only as far as somewhere, the rest goes through here, which finds errors too.
        with suppress(AttributeError, OSError):
            while count := os.copy_file_range(file.fileno(), out.fileno(), _STRETCH):
                yield count
        while True:
            with disk("read", self._uri(source)):
                data = file.read(BUFFER)
            if not data:
                return
            with disk("write", self._uri(target)):
                _write(out, data)
            yield len(data)

    @contextmanager
    def _new(self, path: str, durable: bool = True) -> Iterator[FileIO]:
        """Open a new file that takes its name when the block ends well, and leaves no trace otherwise."""
        uri, target = self._uri(path), self._file(path)
        with disk("write", uri):
            temporary = self._temporary(target.parent)
            file = temporary.open("xb", buffering=0)
        try:
            with file:
                yield file
                if durable:
                    with disk("write", uri):
                        # Without it, a power cut after the rename can leave the name with no bytes behind it.
                        os.fsync(file.fileno())
            with disk("write", uri):
                temporary.replace(target)
                if durable:
                    _sync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        file = self._file(path)
        with disk("read", self._uri(path)), file.open("rb"):
            pass  # only to find out now, and in our words, that it cannot be read
        yield file

    def duplicate(self, target: str, source: str) -> bool:
        origin, goal = self._file(source), self._file(target)
        with disk("read", self._uri(source)), origin.open("rb"):
            pass
        with disk("write", self._uri(target)):
            temporary = self._temporary(goal.parent)
            if origin.is_symlink():
                return False  # a link to a link would hang on what it points to
            try:
                # A hard link is independent of the other name, and safe because objects are never changed in place.
                os.link(origin, temporary)
            except OSError:
                return False  # another file system, or one without links
            try:
                temporary.replace(goal)
                _sync_folder(goal.parent)
            finally:
                # POSIX leaves both names where they already were links to the same file.
                temporary.unlink(missing_ok=True)
        return True

    def _temporary(self, folder: Path) -> Path:
        """Make the folder where needed, clear away what killed processes left in it, and name a new temporary file."""
        folder.mkdir(parents=True, exist_ok=True)
        # A folder is listed once, as to list it at each write would take the square of the time.
        found = self._young.get(folder)
        left = _clear(_litter(folder) if found is None else found)
        if found is None and len(self._young) >= _KNOWN:
            self._young.clear()
        self._young[folder] = left
        return folder / f"{RESERVED}{secrets.token_hex(8)}"

    def prune(self, prefix: str) -> None:
        with disk("clear", self._uri(prefix)):
            for folder, _, _ in os.walk(self._file(prefix), topdown=False):
                _clear(_litter(Path(folder)))
                with suppress(OSError):  # something is in it, or it is gone already
                    os.rmdir(folder)


def _follows(path: str, after: str | None, backwards: bool) -> bool:
    """Whether a path, or anything in the folder that it is, comes behind another one."""
    if after is None or (path.endswith("/") and after.startswith(path)):
        return True
    return path < after if backwards else path > after


def _write(file: FileIO, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        # A raw write may take less than it is given, for example when the disk is nearly full.
        view = view[file.write(view) :]


def _named(temporary: Path, target: Path) -> bool:
    """Give a whole file its name, unless there is one of that name; return whether it has it now."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Where the file system has no links (FAT, some network shares) a new file is opened by its own name, and a
        # process that is killed in between leaves a part of it.
        try:
            with target.open("xb", buffering=0) as file:
                _write(file, temporary.read_bytes())
                os.fsync(file.fileno())
        except FileExistsError:
            return False
    return True


def _litter(folder: Path) -> list[Path]:
    """Return the temporary files in a folder, whoever writes to them, or did."""
    with suppress(PermissionError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.name.startswith(RESERVED)]
    return []  # one may write into a folder that one may not list


def _clear(litter: list[Path]) -> list[Path]:
    """Clear away what killed processes left, and return what may not have been left."""
    young = []
    for old in litter:
        with suppress(OSError):
            if old.stat().st_mtime < time.time() - _ABANDONED:
                old.unlink()
            else:
                young.append(old)
    return young


def _entry(path: str, facts: os.stat_result) -> Entry:
    return Entry(path, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no fsync of a folder; they write names through by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
