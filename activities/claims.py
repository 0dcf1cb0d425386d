"""What we write down about provider batches beside Temporal's history, for runs that have not seen it.

**Notes.** Before a create is sent a note of it is written into the attempt's folder: when, to which account, and the
digest of its rows. A later run of the same batch that works for another account finds out by it, instead of buying the
batch a second time there; and one that would choose other rows for the attempt keeps those that it was bought with. And
where nothing can be searched exactly (Anthropic's batches carry no marker until they end) a search needs not look at
all without a note.

Notes are numbered from 1, and each number is given out once. A create is told which number was the newest before the
provider was last searched, and is sent only if it gets the next one. So no other create can have been sent between a
search and the create that relies on it, whoever started that one: a workflow that was reset, or Temporal itself, where
an operator paused or reset the step. The note of a create that the provider refused is *withdrawn*: it does not tell of
a purchase any more, and its number stays used.

**Claims.** Where nothing can be searched exactly, a batch whose create was answered is also *claimed* for its marker,
so that a search by another batch of the same account, from the same store, does not take it for its own. A claim is
deleted when its batch is done with: by then the ids in its results tell whose it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ..contract.errors import AnswerLost, ObjectNotFound
from ..contract.steps import Attempt
from .store import Entry, Store

#: No batch id has a tilde, so this is no batch's folder.
_CLAIMS = "~claims"
#: The name of a note; the first one's, without a number, is what older versions write.
_NOTE = re.compile(r"intent(?:-[0-9]+)?")
#: What keeps the number of a note that was withdrawn.
_WITHDRAWN = re.compile(r"withdrawn-[0-9]+")


@dataclass(frozen=True)
class Notes:
    """The creates of an attempt that were about to be sent."""

    newest: int = 0  #: The highest number that was given out; 0 if none was.
    at: datetime | None = None  #: When the earliest of those that may have bought something was noted.
    account: str | None = None  #: Digest of the account that it was for.

    @property
    def stand(self) -> bool:
        """Whether any of them may have bought something."""
        return self.at is not None


def notes_among(paths: Iterable[str]) -> list[str]:
    """Return the paths of notes of creates that may have bought something."""
    return [path for path in paths if _NOTE.fullmatch(path.rpartition("/")[2])]


async def noted_account(store: Store, path: str) -> str | None:
    """Return the digest of the account that the note at a path names; None where it names none any more."""
    try:
        noted = await _read(store, path)
    except ObjectNotFound:  # withdrawn just now
        return None
    return noted.account if noted else None


class _Noted(NamedTuple):
    at: datetime
    account: str
    digest: str  #: "" in what older versions wrote.


async def _read(store: Store, path: str) -> _Noted | None:
    """Return what a note says; None for one whose writer was killed, so sent nothing."""
    words = (await store.read(path)).decode(errors="replace").split()
    try:
        return _Noted(datetime.fromisoformat(words[0]), words[1], words[2] if len(words) > 2 else "")
    except (ValueError, IndexError):
        return None


async def noted_digests(store: Store, attempt: Attempt) -> set[str]:
    """Return the digests of the rows with which an attempt may have been bought, by any run of its batch."""
    paths = notes_among([path for path, _ in await store.list(f"{store.path(attempt.root)}/{attempt.folder}")])
    found = set[str]()
    for path in paths:
        with contextlib.suppress(ObjectNotFound):  # withdrawn just now
            noted = await _read(store, path)
            found |= {noted.digest} if noted else set()
    return found - {""}


async def withdraw(store: Store, path: str) -> None:
    """Withdraw the note at a path: nothing came of its create, or nobody is to look for what did."""
    folder, _, name = path.rpartition("/")
    await store.write(f"{folder}/withdrawn-{_number(name)}", b"")  # first, so that the number is in use all the time
    await store.delete(path)


class Claims:
    """Notes and claims of one attempt.

    Args:
        account: digest of the account that the attempt is submitted to.
    """

    def __init__(self, store: Store, attempt: Attempt, account: str) -> None:
        self._store = store
        self._place = f"{store.path(attempt.root)}/{attempt.folder}"
        self._account = account
        self._folder = f"{_CLAIMS}/{account}"
        self._mine = hashlib.sha256(attempt.marker.encode()).hexdigest()[:16]

    async def notes(self) -> Notes:
        """Return what is noted of the attempt's creates."""
        standing, withdrawn = await self._listed()
        newest = max([*standing, *withdrawn], default=0)
        for _, entry in sorted(standing.items()):
            try:
                noted = await _read(self._store, entry.path)
            except ObjectNotFound:  # withdrawn just now
                continue
            return Notes(newest, noted.at, noted.account) if noted else Notes(newest, entry.modified, self._account)
        return Notes(newest)

    async def note(self, now: datetime, known: int | None, digest: str = "") -> int:
        """Note, durably, that a create is about to be sent, and return its number.

        Args:
            digest: of the rows that it sends.
            known: the newest number before the provider was searched; None where a version that did not count asks.

        Raises:
            AnswerLost: another create was noted since. It may have been sent, so this one must not be.
            StoreError: it cannot be noted, so it must not be sent either.
        """
        standing, withdrawn = await self._listed()
        newest = max([*standing, *withdrawn], default=0)
        number = 1 + (newest if known is None else known)
        path = self._path(number)
        note = f"{now.isoformat()} {self._account} {digest}".strip()
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
        """Note that nothing came of a create: the provider said so."""
        await withdraw(self._store, self._path(number))

    async def claim(self, provider_batch_id: str) -> None:
        """Note whose a provider batch is."""
        await self._store.write(f"{self._folder}/{provider_batch_id}~{self._mine}", b"")

    async def of_others(self) -> list[str]:
        """Return the provider batches that are claimed for other markers."""
        names = [path.rpartition("/")[2] for path, _ in await self._store.list(self._folder)]
        pairs = [name.rpartition("~") for name in names]
        return [batch_id for batch_id, _, marker in pairs if marker != self._mine]

    async def release(self) -> None:
        """Delete the attempt's claims."""
        for path, _ in await self._store.list(self._folder):
            if path.endswith(f"~{self._mine}"):
                await self._store.delete(path)

    def _path(self, number: int) -> str:
        return f"{self._place}/intent" if number == 1 else f"{self._place}/intent-{number}"

    async def _listed(self) -> tuple[dict[int, Entry], dict[int, Entry]]:
        """Return the notes that stand, and what is left of those that were withdrawn, by number."""
        standing: dict[int, Entry] = {}
        withdrawn: dict[int, Entry] = {}
        for entry in await self._store.entries(self._place):
            name = entry.path[len(self._place) + 1 :]
            if _NOTE.fullmatch(name):
                standing[_number(name)] = entry
            elif _WITHDRAWN.fullmatch(name):
                withdrawn[_number(name)] = entry
        return standing, withdrawn


def _number(name: str) -> int:
    return int(name.rpartition("-")[2]) if "-" in name else 1


def _overtaken() -> AnswerLost:
    return AnswerLost("Another create of this attempt was begun since it was last looked for; this one was not sent.")
