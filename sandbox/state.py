"""Everything the sandbox remembers: one SQLite file and a folder of files, whole after a kill -9."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from .batch import Batch, File, decode_batch, decode_file
from .errors import SandboxError
from .settings import Settings

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL, purpose TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, visible_at REAL NOT NULL, lists_left INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, account TEXT NOT NULL, purpose TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, visible_at REAL NOT NULL, lists_left INTEGER NOT NULL, data BLOB NOT NULL,
    ended INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS files_by_account ON files (account, seq);
CREATE INDEX IF NOT EXISTS batches_by_account ON batches (account, purpose, seq);
CREATE INDEX IF NOT EXISTS batches_under_way ON batches (ended) WHERE ended = 0;
CREATE TABLE IF NOT EXISTS submissions (
    account TEXT NOT NULL, custom_id TEXT NOT NULL, submission TEXT NOT NULL,
    PRIMARY KEY (account, custom_id, submission));
CREATE TABLE IF NOT EXISTS counts (
    kind TEXT NOT NULL, key TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS faults (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""
_TABLES = ("meta", "files", "batches", "submissions", "counts", "faults")

#: How the id of a batch's inline input ends; such an input is no file of the Files API.
INLINE_INPUT = "-input"


class State:
    """The sandbox's memory, safe to use from the event loop and from the worker's thread.

    Args:
        folder: Holds `sandbox.db`, `files/` (contents), `stage/` (answers of batches that have not ended),
            `billed/` (the ids that each batch billed) and `lock`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._make_folders()
            self._lock_file = (folder / "lock").open("w")
        except OSError as error:
            raise SandboxError(f"The state folder {folder} is not writable: {error.strerror}.") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock_file.close()
            raise SandboxError(f"The state folder {folder} is used by another sandbox.") from error
        self._lock = threading.RLock()
        try:
            # isolation_level None: transactions are opened by hand, so that a read-modify-write is one of them.
            self._db = sqlite3.connect(folder / "sandbox.db", check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            # NORMAL survives the death of the process, which is all that is promised; only a power cut may lose.
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._lock_file.close()
            raise SandboxError(f"The state in {folder} cannot be opened: {error}.") from error

    def _make_folders(self) -> None:
        for name in ("files", "stage", "billed"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Let go of the database and of the folder."""
        with self._lock:
            self._db.close()
            self._lock_file.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and no other thread in between; may be nested."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def wipe(self) -> None:
        """Forget everything."""
        with self.transaction() as db:
            for table in _TABLES:
                db.execute(f"DELETE FROM {table}")
        for name in ("files", "stage", "billed"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._make_folders()

    # -- values ---------------------------------------------------------------------------------------------

    def value(self, key: str) -> Any:
        """A value stored under a key, or None."""
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0])

    def set_value(self, key: str, value: Any) -> None:
        """Store a value under a key."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, msgspec.json.encode(value)))

    # -- files ----------------------------------------------------------------------------------------------

    def file_path(self, file_id: str) -> Path:
        """Where a file's content lies."""
        return self.folder / "files" / file_id

    def add_file(self, file: File, settings: Settings) -> None:
        """Remember a file whose content is already in its place."""
        self._add("files", file.id, file.account, file.purpose, file.created_at, settings, file)

    def file(self, file_id: str, account: str) -> File | None:
        """A file of the account, unless it was deleted or has expired."""
        with self._lock:
            row = self._db.execute(
                "SELECT data FROM files WHERE id = ? AND account = ? AND deleted = 0", (file_id, account)
            ).fetchone()
        if row is None:
            return None
        file = decode_file(row[0])
        return None if file.expires_at is not None and file.expires_at <= time.time() else file

    def delete_file(self, file: File) -> None:
        """Delete a file; its bytes stay for as long as a batch under way needs them."""
        file.deleted = True
        with self.transaction() as db:
            db.execute("UPDATE files SET deleted = 1, data = ? WHERE id = ?", (msgspec.json.encode(file), file.id))
        self.drop_content(file.id)

    def drop_content(self, file_id: str) -> None:
        """Remove the bytes of a file that is deleted, or that came inline, once no batch under way reads them."""
        with self.transaction() as db:
            row = db.execute("SELECT deleted FROM files WHERE id = ?", (file_id,)).fetchone()
            gone = file_id.endswith(INLINE_INPUT) if row is None else bool(row[0])
            if gone and all(batch.input_file_id != file_id for batch in self.batches_under_way()):
                self.file_path(file_id).unlink(missing_ok=True)

    def files(self) -> Iterator[File]:
        """Every file there ever was, oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT data FROM files ORDER BY seq").fetchall()
        return (decode_file(data) for (data,) in rows)

    # -- batches --------------------------------------------------------------------------------------------

    def add_batch(self, batch: Batch, settings: Settings) -> None:
        """Remember a new batch."""
        self._add("batches", batch.id, batch.account, batch.protocol, batch.created_at, settings, batch)

    def batch(self, batch_id: str) -> Batch | None:
        """A batch, of whatever account."""
        with self._lock:
            row = self._db.execute("SELECT data FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return None if row is None else decode_batch(row[0])

    def save_batch(self, batch: Batch) -> None:
        """Replace what is known of a batch; call it in the transaction in which the batch was read."""
        with self.transaction() as db:
            db.execute(
                "UPDATE batches SET data = ?, ended = ?, deleted = ? WHERE id = ?",
                (msgspec.json.encode(batch), batch.status.ended, batch.deleted, batch.id),
            )

    def batches(self) -> Iterator[Batch]:
        """Every batch there ever was, oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT data FROM batches ORDER BY seq").fetchall()
        return (decode_batch(data) for (data,) in rows)

    def batches_under_way(self, account: str | None = None) -> list[Batch]:
        """The batches that have not ended, oldest first."""
        with self._lock:
            rows = self._db.execute("SELECT data FROM batches WHERE ended = 0 ORDER BY seq").fetchall()
        found = [decode_batch(data) for (data,) in rows]
        return [batch for batch in found if account in (None, batch.account)]

    # -- listings -------------------------------------------------------------------------------------------

    def _add(
        self, table: str, id: str, account: str, purpose: str, created_at: float, settings: Settings, item: Any
    ) -> None:
        with self.transaction() as db:
            db.execute(
                f"INSERT INTO {table} (id, account, purpose, visible_at, lists_left, data) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    id,
                    account,
                    purpose,
                    created_at + settings.list_lag_seconds,
                    settings.list_lag_lists,
                    msgspec.json.encode(item),
                ),
            )

    def place(self, table: str, id: str, account: str) -> int | None:
        """An item's place in the order of creation, or None when the account has no such item."""
        with self._lock:
            row = self._db.execute(f"SELECT seq FROM {table} WHERE id = ? AND account = ?", (id, account)).fetchone()
        return None if row is None else int(row[0])

    def page(
        self,
        table: str,
        account: str,
        *,
        purpose: str | None,
        older_than: int | None = None,
        newer_than: int | None = None,
        oldest_first: bool = False,
        limit: int,
    ) -> list[bytes]:
        """The stored JSON of up to `limit` listed items; a call without a bound counts as one listing."""
        where = "account = ? AND deleted = 0 AND visible_at <= ? AND lists_left <= 0"
        values: list[Any] = [account, time.time()]
        for condition, value in (("purpose = ?", purpose), ("seq < ?", older_than), ("seq > ?", newer_than)):
            if value is not None:
                where += f" AND {condition}"
                values.append(value)
        order = "ASC" if oldest_first else "DESC"
        with self.transaction() as db:
            rows = db.execute(
                f"SELECT data FROM {table} WHERE {where} ORDER BY seq {order} LIMIT ?", (*values, limit)
            ).fetchall()
            if older_than is None and newer_than is None:
                db.execute(
                    f"UPDATE {table} SET lists_left = lists_left - 1"
                    " WHERE account = ? AND lists_left > 0 AND (? IS NULL OR purpose = ?)",
                    (account, purpose, purpose),
                )
        return [data for (data,) in rows]

    # -- submissions and counts -----------------------------------------------------------------------------

    def submit(self, account: str, custom_id: str, submission: str) -> int:
        """Count a row's submission once, however often it is reported; return its number among its id's, from 1."""
        key = (account, custom_id, submission)
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO submissions VALUES (?, ?, ?)", key)
            (number,) = db.execute(
                "SELECT count(*) FROM submissions WHERE account = ?1 AND custom_id = ?2 AND rowid <="
                " (SELECT rowid FROM submissions WHERE account = ?1 AND custom_id = ?2 AND submission = ?3)",
                key,
            ).fetchone()
        return int(number)

    def add_counts(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add to the counts of (kind, key)."""
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                [(kind, key, n) for (kind, key), n in counts.items()],
            )

    def counts(self, kind: str) -> Counter[str]:
        """All counts of a kind."""
        with self._lock:
            return Counter(dict(self._db.execute("SELECT key, n FROM counts WHERE kind = ?", (kind,))))

    # -- faults ---------------------------------------------------------------------------------------------

    def save_fault(self, fault_id: int, data: bytes) -> None:
        """Remember a fault as it is now."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO faults VALUES (?, ?)", (fault_id, data))

    def drop_faults(self, fault_ids: Iterable[int]) -> None:
        """Forget faults."""
        with self.transaction() as db:
            db.executemany("DELETE FROM faults WHERE id = ?", [(fault_id,) for fault_id in fault_ids])

    def faults(self) -> list[bytes]:
        """The stored faults, oldest first."""
        with self._lock:
            return [data for (data,) in self._db.execute("SELECT data FROM faults ORDER BY id")]
