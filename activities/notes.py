"""Notes of creates: what the store knows of purchases, for runs that have not seen the history.

Before a create is sent a note of it is written into the attempt's folder: when, to which account, and the
digest of its rows. A later run of the same batch that works for another account finds out by it, instead of buying the
batch a second time there; and one that would choose other rows for the attempt keeps those that it was bought with. And
where nothing can be searched exactly (Anthropic's batches carry no marker until they end) a search without a note need
not look at all.

Notes are numbered from 1, and each number is given out once. A create carries the number that was the newest before the
provider was last searched, and is sent only if it gets the next one. So no other create can have been sent between a
search and the create that relies on it, whoever started that one: a workflow that was reset, or Temporal itself, where
an operator paused or reset the step. The note of a create that the provider refused is *withdrawn*: it no longer counts
as a purchase, and its number stays used.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ..contract import Mode
from ..contract.errors import AnswerLost, ObjectNotFound
from ..contract.layout import note_path, parse_name, withdrawn_path
from ..contract.object_name import Kind
from ..contract.steps import Attempt
from .store import Entry, Store


@dataclass(frozen=True)
class Noted:
    """The creates of an attempt that were about to be sent."""

    newest: int = 0  #: The highest number that was given out; 0 if none was.
    standing: int = 0  #: The highest number of those that may have bought something; 0 if there are none.
    at: datetime | None = None  #: When the earliest of those that may have bought something was noted.
    account: str | None = None  #: Digest of the account that it was for.

    @property
    def may_have_bought(self) -> bool:
        """Whether any of them may have bought something."""
        return self.at is not None


async def notes_below(store: Store, root: str, folder: str) -> list[str]:
    """Return the paths of notes of creates that may have bought something.

    Args:
        root: path of the batch's folder.
        folder: what is looked through, in the batch's folder: that of all its shards, or of one attempt.
    """
    paths = [path for path, _ in await store.list(f"{root}/{folder}")]
    return [path for path in paths if (name := parse_name(path[len(root) + 1 :])) and name.kind is Kind.NOTE]


async def noted_account(store: Store, path: str) -> str | None:
    """Return the digest of the account that the note at a path names; None where it names none any more."""
    try:
        noted = await _read(store, path)
    except ObjectNotFound:  # withdrawn just now
        return None
    return noted.account if noted else None


class _Note(NamedTuple):
    at: datetime
    account: str
    digest: str  #: Of the rows that it was to send.


async def _read(store: Store, path: str) -> _Note | None:
    """Return what a note says; None for one whose writer was killed, so sent nothing."""
    words = (await store.read(path)).decode(errors="replace").split()
    try:
        return _Note(datetime.fromisoformat(words[0]), words[1], words[2])
    except (ValueError, IndexError):
        return None


async def noted_digests(store: Store, attempt: Attempt) -> set[str]:
    """Return the digests of the rows with which an attempt may have been bought, by any run of its batch."""
    found = set[str]()
    for path in await notes_below(store, store.path(attempt.root), attempt.folder):
        with contextlib.suppress(ObjectNotFound):  # withdrawn just now
            noted = await _read(store, path)
            found |= {noted.digest} if noted else set()
    return found


async def noted_mode(store: Store, attempt: Attempt) -> Mode:
    """Return how an attempt was run that was noted: in direct mode its rows were written down before any was sent."""
    root = store.path(attempt.root)
    names = [parse_name(path[len(root) + 1 :]) for path, _ in await store.list(f"{root}/{attempt.folder}")]
    direct = any(name is not None and (name.run is not None or name.kind is Kind.RAN) for name in names)
    return Mode.DIRECT if direct else Mode.BATCH


async def withdraw(store: Store, path: str) -> None:
    """Withdraw the note at a path: its create bought nothing, or what it bought is not to be looked for."""
    await store.write(withdrawn_path(path), b"")  # first, so that the number is in use all the time
    await store.delete(path)


class AttemptNotes:
    """The notes of one attempt.

    Args:
        account: digest of the account that the attempt is submitted to.
    """

    def __init__(self, store: Store, attempt: Attempt, account: str) -> None:
        self._store = store
        self._attempt = attempt
        self._root = store.path(attempt.root)
        self._account = account

    async def read(self) -> Noted:
        """Return what is noted of the attempt's creates."""
        standing, withdrawn = await self._listed()
        newest = max([*standing, *withdrawn], default=0)
        for _, entry in sorted(standing.items()):
            try:
                noted = await _read(self._store, entry.path)
            except ObjectNotFound:  # withdrawn just now
                continue
            at, account = (noted.at, noted.account) if noted else (entry.modified, self._account)
            return Noted(newest, max(standing), at, account)
        return Noted(newest)

    async def write(self, now: datetime, known: int, digest: str) -> int:
        """Note, durably, that a create is about to be sent, and return its number.

        Args:
            known: the newest number before the provider was searched; 0 if there was none.
            digest: of the rows that it sends.

        Raises:
            AnswerLost: another create was noted since. It may have been sent, so this one must not be.
            StoreError: it cannot be noted, so it must not be sent either.
        """
        standing, withdrawn = await self._listed()
        newest = max([*standing, *withdrawn], default=0)
        number = known + 1
        path = self._path(number)
        note = f"{now.isoformat()} {self._account} {digest}"
        if newest >= number or not await self._store.create(path, note.encode()):
            raise _overtaken()
        # Since the first look others may have gone further, and have left the number free: withdrawn, and cleared away.
        standing, withdrawn = await self._listed()
        if max([*standing, *withdrawn]) > number or number in withdrawn:
            await self._store.delete(path)
            raise _overtaken()
        for old in withdrawn.values():
            await self._store.delete(old.path)
        return number

    async def withdraw(self, number: int) -> None:
        """Note that a create bought nothing, as the provider said."""
        await withdraw(self._store, self._path(number))

    def _path(self, number: int) -> str:
        return note_path(self._root, self._attempt.shard, self._attempt.number, number)

    async def _listed(self) -> tuple[dict[int, Entry], dict[int, Entry]]:
        """Return the notes that count, and what is left of those that were withdrawn, by number."""
        standing: dict[int, Entry] = {}
        withdrawn: dict[int, Entry] = {}
        for entry in await self._store.entries(f"{self._root}/{self._attempt.folder}"):
            name = parse_name(entry.path[len(self._root) + 1 :])
            if name is not None and name.kind is Kind.NOTE:
                standing[name.number] = entry
            elif name is not None and name.kind is Kind.WITHDRAWN:
                withdrawn[name.number] = entry
        return standing, withdrawn


def _overtaken() -> AnswerLost:
    return AnswerLost("Another create of this attempt was begun since it was last looked for; this one was not sent.")
