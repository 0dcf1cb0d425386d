"""What batches leave behind, and when it may go: decided from facts alone; `sweep` gathers them and acts.

Only objects whose names Durabatch gives are ever removed, and only from folders that say whose they are. Everything
else in a store is somebody's: inputs, other programs' files, copies that were made by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from ...activities.store import Entry
from ...contract import InvalidSpec
from ...contract.claim_names import claim_owner, parse_claim
from ...contract.layout import bought_in, is_record, parse_name, try_path
from ...contract.names import check_batch_id, marker, scoped
from ...contract.object_name import Kind, Name

#: A folder without a result is left alone for at least this long, which is longer than a batch lives with its default
#: deadline: it may belong to a batch of another Temporal that shares the store, or to one that is just being started.
ABANDONED_REST = timedelta(days=10)
#: A try is over after an hour, and nobody comes back for what one that was killed has left.
TRY_REST = timedelta(days=1)
#: In which order what a batch's folder holds goes: records last, so that a removal that is broken off leaves a folder
#: that still says whose it is.
_RANKS = {Kind.RESULTS: 1, Kind.PLAN: 2, Kind.RESULT: 3, Kind.TRY: 4}


class Execution(StrEnum):
    """What Temporal says of a batch id."""

    RUNNING = "running"
    NEEDED = "needed"  #: It does not run, and the gateway has still to read its rows.
    ENDED = "ended"
    UNKNOWN = "unknown"  #: It does not know it, or not any more.
    ANOTHER = "another"  #: The id belongs to a workflow that is not a batch.


class TemporalState(NamedTuple):
    """Where a batch is at Temporal."""

    execution: Execution
    ended_at: datetime | None = None

    @property
    def busy(self) -> bool:
        """Whether nothing of it may be touched."""
        return self.execution in (Execution.RUNNING, Execution.NEEDED)


class FolderRecords(NamedTuple):
    """What the records in a folder say of it."""

    batch_id: str  #: By plan.json, or by result.json.
    ended_at: datetime | None = None  #: By result.json; None where there is none, or it accounts for nothing.
    results: str | None = None  #: Path of the results, by result.json.
    store: str = ""  #: The identity of the store that it was planned in, by plan.json; "" where that knows none.


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder that surely belongs to a batch."""

    root: str
    entries: tuple[Entry, ...]

    def name(self, entry: Entry) -> str:
        """Return an object's name below the folder."""
        return entry.path[len(self.root) + 1 :]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch as the store knows it."""

    id: str
    ended_at: datetime | None  #: By its result.json; None where there is none.
    folders: tuple[Folder, ...]
    bought: bool = False  #: Whether there is any trace of a purchase, be it in a folder that is not surely its own.
    tried: bool = False  #: Whether it is a try of some rows.
    names: tuple[str, ...] = ()  #: Its names at providers, as `contract.names.scoped`.

    @property
    def touched(self) -> datetime:
        """When anything of it was written last."""
        return max(entry.modified for folder in self.folders for entry in folder.entries)

    @property
    def markers(self) -> Iterator[str]:
        """The markers of the attempts that left a folder."""
        found = {
            (name.shard or 0, name.attempt)
            for folder in self.folders
            for entry in folder.entries
            if (name := parse_name(folder.name(entry))) and name.attempt is not None
        }
        return (marker(name, shard, number) for name in self.names or (self.id,) for shard, number in sorted(found))


class Reason(StrEnum):
    """Why a batch's leftovers may go, or must stay."""

    RUNS = "their batch runs"
    NEEDED = "the gateway needs them for files that are not written, or for a retry that has not begun"
    ANOTHERS = "their id belongs to a workflow that is not a batch"
    LATELY = "their batch has ended lately"
    OVER = "their batch ended long ago"
    ABANDONED_LATELY = "their batch left no result, and they are young"
    ABANDONED = "their batch left no result, and they are old"
    TRIED_LATELY = "they are left of a try, and young"
    TRIED = "they are left of a try"
    UNFINISHED = "their batch left no result, and goes on with what it bought if it is started again"

    def ripe(self, results: bool) -> bool:
        """Whether anything may go; `results` says whether results may."""
        return self in (Reason.OVER, Reason.ABANDONED, Reason.TRIED) or (self is Reason.UNFINISHED and results)


def record_folders(entries: Iterable[Entry]) -> list[str]:
    """Return the folders whose records are to be read, to learn whose they are."""
    return sorted({entry.path.rpartition("/")[0] for entry in entries if is_record(entry.path)})


def batches(entries: Iterable[Entry], records_of: Mapping[str, FolderRecords | None]) -> list[Batch]:
    """Return the batches that have something in the store.

    Args:
        entries: all objects of the store.
        records_of: what the records of a folder say, by folder; None where they cannot be read.
    """
    facts_of = {root: facts for root, facts in records_of.items() if facts is not None}
    owners = {root: facts.batch_id for root, facts in facts_of.items() if _owned(root, facts)}
    found: dict[str, list[Entry]] = {}
    bought: set[str] = set()
    tried: set[str] = set()
    for entry in entries:
        if (buyer := bought_in(entry.path)) is not None:
            facts = facts_of.get(buyer)
            bought.add(facts.batch_id if facts else buyer)
        root = _root(entry.path, owners)
        first, _, rest = entry.path.partition("/")
        if root is None and first not in records_of and _is_brought(rest):
            root = first  # rows that a client brought, for a batch that has no plan yet, or has it elsewhere
        if entry.path == try_path(first) and (first not in records_of or first in owners):
            root = first
            tried.add(first)
        if root is not None:
            found.setdefault(root, []).append(entry)
    folders: dict[str, list[Folder]] = {}
    for root, members in found.items():
        if _is_batch_id(batch_id := owners.get(root, root)):
            folders.setdefault(batch_id, []).append(Folder(root=root, entries=tuple(members)))
    return [
        Batch(
            id=batch_id,
            ended_at=max((facts_of[f.root].ended_at for f in own if f.root in facts_of), key=_or_never, default=None),
            folders=tuple(own),
            bought=batch_id in bought,
            tried=batch_id in tried,
            names=tuple({scoped(batch_id, facts_of[f.root].store if f.root in facts_of else "") for f in own}),
        )
        for batch_id, own in sorted(folders.items())
    ]


def _is_brought(name: str) -> bool:
    found = parse_name(name)
    return found is not None and found.kind is Kind.BROUGHT


def _owned(root: str, records: FolderRecords) -> bool:
    """Whether a folder is the one that its batch writes to, rather than somebody's copy of it."""
    return records.batch_id == root or (records.results or "").rpartition("/")[0] == root


def _root(path: str, owners: Collection[str]) -> str | None:
    while path := path.rpartition("/")[0]:
        if path in owners:
            return path
    return None


def _is_batch_id(text: str) -> bool:
    try:
        return bool(check_batch_id(text))
    except InvalidSpec:
        return False


def _or_never(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


def reason(batch: Batch, state: TemporalState, now: datetime, rest: timedelta) -> Reason:
    """Decide whether a batch's leftovers may go, and say why.

    Args:
        rest: how long ago it must have ended.
    """
    if state.execution is Execution.RUNNING:
        return Reason.RUNS
    if state.execution is Execution.NEEDED:
        return Reason.NEEDED
    if state.execution is Execution.ANOTHER:
        return Reason.ANOTHERS
    if batch.tried:
        over = batch.ended_at or state.ended_at
        quiet = now - max(over or batch.touched, batch.touched)
        return Reason.TRIED if quiet >= (min(rest, TRY_REST) if over else TRY_REST) else Reason.TRIED_LATELY
    if batch.ended_at is None:
        since = max(batch.touched, state.ended_at or batch.touched)
        if now - since < max(rest, ABANDONED_REST):
            return Reason.ABANDONED_LATELY
        return Reason.UNFINISHED if batch.bought else Reason.ABANDONED
    since = max(batch.ended_at, state.ended_at or batch.ended_at)
    return Reason.OVER if now - since >= rest else Reason.LATELY


def removable(batch: Batch, reason: Reason, *, results: bool, needed: Collection[str] = ()) -> list[Entry]:
    """Return the objects of a batch that may go, in the order in which they go.

    The records come last: a removal that is broken off leaves a folder that still says whose it is. Of a batch that may
    have bought something and left no result nothing goes: without its plan and the rest it would buy it again.

    Args:
        results: whether its results, and with them the whole folder, may go too.
        needed: paths, or beginnings of paths that end in *, which batches that run read their rows from.
    """
    if not reason.ripe(results):
        return []
    everything = results or reason in (Reason.ABANDONED, Reason.TRIED)
    found = [ranked for folder in batch.folders for ranked in _ranked(folder, everything, needed)]
    return [entry for _, entry in sorted(found, key=lambda item: item[0])]


def _ranked(folder: Folder, everything: bool, needed: Collection[str]) -> Iterator[tuple[int, Entry]]:
    """Yield the objects of a folder that go, each with when it goes."""
    names = [parse_name(folder.name(entry)) for entry in folder.entries]
    parts = not everything and any(name.kind is Kind.RESULTS and name.manifest for name in names if name)
    # Few of those that are needed are near this folder, and each object is compared with all that are left.
    here = f"{folder.root}/"
    begins = tuple(
        begin
        for begin in (one[:-1] for one in needed if one.endswith("*"))
        if begin.startswith(here) or here.startswith(begin)
    )
    for name, entry in zip(names, folder.entries, strict=True):
        rank = _rank(name, everything, parts)
        if rank is not None and entry.path not in needed and not entry.path.startswith(begins):
            yield rank, entry


def _rank(name: Name | None, everything: bool, parts: bool) -> int | None:
    """Return when an object goes, None if it stays.

    Args:
        parts: whether the shards' own results are the batch's, and stay.
    """
    if name is None or name.kind is Kind.INLINE:
        return None
    if name.kind in _RANKS:
        return _RANKS[name.kind] if everything else None
    # Without the notes a batch that comes again would not search at Anthropic, nor know another account's.
    stays = (name.kind is Kind.NOTE and not everything) or (parts and name.kind is Kind.SHARD_RESULTS)
    return None if stays else 0


def claims(entries: Iterable[Entry]) -> list[Entry]:
    """Return the claims among the objects of a store."""
    return [entry for entry in entries if parse_claim(entry.path) is not None]


def stale(
    claimed: Iterable[Entry],
    batches: Iterable[Batch],
    reasons: Mapping[str, Reason],
    now: datetime,
    rest: timedelta,
    *,
    results: bool,
) -> list[Entry]:
    """Return the claims that nobody needs: of batches of which something may go, or of none that is known."""
    owners = {claim_owner(name): batch.id for batch in batches for name in batch.markers}
    found = []
    for claim in claimed:
        _, named = parse_claim(claim.path) or ("", "")
        owner = owners.get(named)
        old = now - claim.modified >= max(rest, ABANDONED_REST)
        if old if owner is None else reasons[owner].ripe(results):
            found.append(claim)
    return found
