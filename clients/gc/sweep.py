"""Looking for what batches have left behind, in the store and at the providers, and removing it.

A look changes nothing. A removal may be killed at any moment and repeated: it goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from temporalio.client import Client

from ...activities.gateway.collecting import collect
from ...activities.gateway.expiry import note_end
from ...activities.providers import MarkedBatch, Provider, ProviderSettings, StoredFile, open_provider
from ...activities.records import decode_plan
from ...activities.store import Entry, Store, identity_of
from ...contract import DurabatchError, Mode, ProviderNotFound
from ...contract.errors import ObjectNotFound
from ...contract.gateway_layout import GATEWAY, find_batch, made_at_ms
from ...contract.gateway_limits import FOR_EVER, Keep
from ...contract.layout import is_record, plan_path, try_path
from ...contract.names import UPLOADS, batch_of, scope_of, scoped
from . import at_providers, decisions, followers
from .at_providers import OpenBatch, Upload
from .decisions import Batch, Execution, Reason, TemporalState
from .evidence import Evidence
from .reporter import Reporter

#: A provider batch lives for a day, at other servers perhaps longer; nothing older is under way.
_LONGEST = timedelta(days=30)
_EVER = datetime(2000, 1, 1, tzinfo=UTC)

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A provider batch under way that nobody follows."""

    provider: str
    batch_id: str
    found: MarkedBatch


@dataclass(frozen=True, kw_only=True)
class Pile:
    """The leftovers of one batch."""

    batch: Batch
    reason: Reason
    removable: list[Entry]


@dataclass(kw_only=True)
class Findings:
    """What one look has found."""

    piles: list[Pile]
    claims: list[Entry]  #: Those that nobody needs.
    uploads: dict[str, dict[Upload, list[StoredFile]]] = field(default_factory=dict)  #: By provider.
    orphans: list[Orphan] = field(default_factory=list)
    elsewhere: dict[str, int] = field(default_factory=dict)  #: Provider batches that are not of this store.
    failures: dict[str, str] = field(default_factory=dict)  #: Providers that could not be asked, and why.


@dataclass(kw_only=True)
class Removed:
    """What a removal did."""

    objects: int = 0
    files: int = 0
    gateway_files: int = 0  #: Of the gateway's tenants, whose time was over.
    gateway_batches: int = 0  #: Of the gateway's, of which something went.
    canceled: list[str] = field(default_factory=list)  #: Provider batches, by their own ids.
    resumed: list[str] = field(default_factory=list)  #: Batches that were started again meanwhile, and left alone.


class Sweep:
    """One clean-up.

    Args:
        providers: those to look at.
        rest: how long ago a batch must have ended.
        results: whether results go too.
        say: is given a message now and then about how far it is.
        keep: how long the gateway keeps batches.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        providers: Iterable[ProviderSettings],
        *,
        rest: timedelta,
        results: bool,
        say: Callable[[str], None],
        keep: Keep = FOR_EVER,
    ) -> None:
        self._store = store
        self._keep = keep
        # Two names of one account show the same files.
        self._providers = {settings.name: settings for settings in {one.fingerprint: one for one in providers}.values()}
        self._rest = rest
        self._results = results
        self._reporter = Reporter(say)
        self._evidence = Evidence(client, store, self._reporter)
        self._scope = ""  #: As in the names of what this store's batches leave at a provider.

    async def look(self) -> Findings:
        """Find what may be removed.

        Raises:
            TemporalUnavailable: Temporal does not say which batches run, so nothing may be touched.
            StoreError: the store failed.
        """
        now = datetime.now(UTC)
        self._scope = scope_of(scoped("", await identity_of(self._store) or ""))
        entries = await self._store.entries()
        self._reporter.now(f"{len(entries):,} objects in {self._store.url}.")
        roots = decisions.record_folders(entries)
        read = await self._reporter.each(roots, self._evidence.records, "Read the records of {} of {} folders.")
        records_of = dict(zip(roots, read, strict=True))
        readable = {root: facts for root, facts in records_of.items() if facts is not None}
        batches = await asyncio.to_thread(decisions.batches, entries, records_of)
        ids = sorted({batch.id for batch in batches} | {facts.batch_id for facts in readable.values()})
        busy = await self._evidence.busy()
        asked = await self._reporter.each(ids, self._evidence.state, "Asked Temporal about {} of {} batches.")
        states = {
            id: TemporalState(Execution.RUNNING) if id in busy else state for id, state in zip(ids, asked, strict=True)
        }
        reasons = {batch.id: decisions.reason(batch, states[batch.id], now, self._rest) for batch in batches}
        ripe = any(reason.ripe(self._results) for reason in reasons.values())
        needed = await self._evidence.needed() if ripe else set()
        findings = await asyncio.to_thread(self._sorted_out, entries, batches, reasons, needed, now)
        ended = {batch.id for batch in batches if batch.ended_at is not None}
        homes = {facts.batch_id: root for root, facts in readable.items()} | {
            batch.id: folder.root for batch in batches for folder in batch.folders if folder.root in readable
        }
        for name in self._providers:
            try:
                async with self._provider(name) as provider:
                    await self._look_at(name, provider, findings, states, ended, homes, now)
            except DurabatchError as error:
                # A server whose rows are sent one by one often has no batches, nor files, and so nothing is left there.
                if not isinstance(error, ProviderNotFound) or self._providers[name].mode is not Mode.DIRECT:
                    findings.failures[name] = error.message
        return findings

    def _sorted_out(
        self, entries: list[Entry], batches: list[Batch], reasons: dict[str, Reason], needed: set[str], now: datetime
    ) -> Findings:
        """Return what may go of the store. Takes a while where there is much: call it from a thread."""
        results = self._results
        return Findings(
            piles=[
                Pile(
                    batch=batch,
                    reason=reasons[batch.id],
                    removable=decisions.removable(batch, reasons[batch.id], results=results, needed=needed),
                )
                for batch in batches
            ],
            claims=[
                *decisions.stale(decisions.claims(entries), batches, reasons, now, self._rest, results=results),
                *followers.unneeded(entries, now),
            ],
        )

    async def _look_at(
        self,
        name: str,
        provider: Provider,
        findings: Findings,
        states: dict[str, TemporalState],
        ended: set[str],
        homes: dict[str, str],
        now: datetime,
    ) -> None:
        listed = await provider.markers.marked(now - _LONGEST) if provider.markers else []
        marked = [one for one in listed if not one.batch.status.ended]
        at_work = {batch_of(one.marker) for one in marked}
        for one in marked:
            batch_id = batch_of(one.marker)
            same = batch_id in homes and await self._evidence.same_rows(one, name, homes[batch_id])
            kind = at_providers.open_batch(states.get(batch_id) if self._ours(one.marker) else None, same)
            if kind is OpenBatch.ORPHAN:
                findings.orphans.append(Orphan(provider=name, batch_id=batch_id, found=one))
            elif kind is OpenBatch.ELSEWHERE:
                findings.elsewhere[name] = findings.elsewhere.get(name, 0) + 1
        sorted_out = findings.uploads.setdefault(name, {})
        for file in await provider.files.find(UPLOADS, _EVER) if provider.files else []:
            owner = at_providers.uploader(file.name)
            if owner is not None:
                state = states.get(batch_of(owner)) if self._ours(owner) else None
                kind_of_file = at_providers.upload(
                    state, batch_of(owner) in ended, batch_of(owner) in at_work, file.created_at, now
                )
                sorted_out.setdefault(kind_of_file, []).append(file)

    def _ours(self, name: str) -> bool:
        """Return whether a marker, or the name of a batch at providers, may be of this store."""
        return scope_of(name) in ("", self._scope)

    async def remove(self, findings: Findings, *, orphans: bool) -> Removed:
        """Remove what was found; with `orphans`, cancel provider batches that nobody follows.

        Raises:
            TemporalUnavailable, StoreError: as `look`; what is done is done, and the next one goes on.
        """
        removed = Removed()
        total = sum(len(pile.removable) for pile in findings.piles) + len(findings.claims)
        for pile in findings.piles:
            if not pile.removable and pile.reason is not Reason.UNFINISHED:
                continue
            if (await self._evidence.state(pile.batch.id)).busy:
                removed.resumed.append(pile.batch.id)
                continue
            await self._remove(pile)
            removed.objects += len(pile.removable)
            self._reporter.maybe(f"Removed {removed.objects:,} of {total:,} objects.")
        await self._reporter.each(findings.claims, lambda claim: self._store.delete(claim.path))
        removed.objects += len(findings.claims)
        await self._note_old_batches()
        removed.gateway_files, removed.gateway_batches = await collect(self._store, self._keep)
        for name in self._providers:
            try:
                await self._remove_at(name, findings, removed, orphans)
            except DurabatchError as error:
                findings.failures[name] = error.message
        return removed

    async def _note_old_batches(self) -> None:
        """Have batches of the gateway's looked at that ended when they were still to be kept for ever."""
        if self._keep.batches is None:
            return
        before = datetime.now(UTC) - self._keep.batches
        listed = [find_batch(entry.path) for entry in await self._store.entries(GATEWAY)]
        old = [one for one in listed if one is not None and made_at_ms(one[1]) < before.timestamp() * 1000]
        await self._reporter.each(old, lambda one: note_end(self._store, *one))

    async def _remove(self, pile: Pile) -> None:
        if pile.removable:  # of others only what killed processes left is cleared away
            for folder in pile.batch.folders:
                await self._unplan(folder.root)
        # Records go last, one by one, so that a folder says whose it is to its end.
        tries = {try_path(folder.root) for folder in pile.batch.folders}
        last = [entry for entry in pile.removable if is_record(entry.path) or entry.path in tries]
        await self._reporter.each([entry for entry in pile.removable if entry not in last], self._delete)
        for entry in last:
            await self._delete(entry)
        for folder in pile.batch.folders:
            await self._store.prune(folder.root)

    async def _delete(self, entry: Entry) -> None:
        await self._store.delete(entry.path)

    async def _unplan(self, root: str) -> None:
        """Have the batch planned again if it is started again; what stays of the plan says since when to search."""
        try:
            plan = decode_plan(await self._store.read(plan_path(root)))
        except ObjectNotFound:
            return
        if plan.spec_digest:
            await self._store.write(plan_path(root), _encode(msgspec.structs.replace(plan, spec_digest="")))

    async def _remove_at(self, name: str, findings: Findings, removed: Removed, orphans: bool) -> None:
        files = findings.uploads.get(name, {}).get(Upload.LEFT, [])
        strays = [orphan for orphan in findings.orphans if orphan.provider == name] if orphans else []
        if not files and not strays:
            return
        async with self._provider(name) as provider:
            for orphan in strays:
                if (await self._evidence.state(orphan.batch_id)).busy:
                    removed.resumed.append(orphan.batch_id)
                    continue
                await provider.batches.cancel(orphan.found.batch.id)
                removed.canceled.append(orphan.found.batch.id)
            for file in files:
                owner = batch_of(at_providers.uploader(file.name) or "")
                if owner and (await self._evidence.state(owner)).busy:
                    if owner not in removed.resumed:
                        removed.resumed.append(owner)
                elif owner and provider.files:
                    await provider.files.delete(file.id)
                    removed.files += 1
                    self._reporter.maybe(f"Removed {removed.files:,} files at {name}.")

    @contextlib.asynccontextmanager
    async def _provider(self, name: str) -> AsyncIterator[Provider]:
        provider = open_provider(self._providers[name])
        try:
            yield provider
        finally:
            await provider.close()
