"""Poll, cancel and fetch: the steps that follow a provider batch to its end and download what it finished."""

from __future__ import annotations

import contextlib
import tempfile
from functools import partial
from typing import BinaryIO

from ..contract import ProviderNotFound, ProviderUnavailable
from ..contract.layout import ERROR, OUTPUT, answers_path
from ..contract.steps import CANCEL, FETCH, POLL, Attempt, BatchRequest, Fetched, FetchRequest, Snapshot
from .attempt_rows import AttemptRows
from .lease import Lease
from .providers import Provider, ResultFile
from .resources import Resources
from .step import in_thread, step
from .store import Store


class Follow:
    """The steps from a provider batch to its results in the store."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(POLL)
    async def poll(self, request: BatchRequest, lease: Lease) -> Snapshot:
        """Return the provider batch as it is now."""
        provider = self._resources.at_account(request.attempt.provider, request.account)
        return await provider.batches.retrieve(request.provider_batch_id)

    @step(CANCEL)
    async def cancel(self, request: BatchRequest, lease: Lease) -> Snapshot:
        """Ask the provider to end a batch; one that has ended already stays as it is."""
        provider = self._resources.at_account(request.attempt.provider, request.account)
        return await provider.batches.cancel(request.provider_batch_id)

    @step(FETCH, long=True)
    async def fetch(self, request: FetchRequest, lease: Lease) -> Fetched:
        """Download what a provider batch ended with, as the provider sent it, into the attempt's folder.

        Raises:
            ProviderUnavailable: the download broke off.
            ProviderNotFound: a file is not there, and whoever asks is not lenient; the other one is in the store.
        """
        provider = self._resources.at_account(request.attempt.provider, request.account)
        await self._resources.batch_folder(request.attempt)  # before a download that would have nowhere to go
        rows = size = 0
        files = await provider.batches.result_files(request.batch)
        if request.provisional and not await self._ours(provider, files, request):
            return Fetched(rows=0, bytes=0, stranger=True)
        gone: list[ProviderNotFound] = []
        stored = set[str]()
        for file in files:
            with tempfile.TemporaryFile(prefix="durabatch-fetch-") as spool:
                try:
                    lines = await _save(provider, file, spool, lease)
                except ProviderNotFound as error:
                    gone.append(error)  # the other file may be there
                    continue
                rows += lines
                size += spool.tell()
                path = _answers(await self._resources.batch_folder(request.attempt), request.attempt, file.name)
                if not await lease.confirm():
                    raise ProviderUnavailable("The worker stood still, and another one fetches the results by now.")
                await in_thread(lease, partial(_store, spool, self._resources.store, path, lease))
                stored.add(file.name)
        if gone and not request.lenient:
            raise gone[0]
        # Only now, and only what this batch does not have: to make room first would leave nothing to settle from if a
        # worker that was believed dead got here late, and died.
        root = self._resources.store.path(request.attempt.root)
        for name in {OUTPUT, ERROR} - stored:
            await self._resources.store.delete(_answers(root, request.attempt, name))
        return Fetched(rows=rows, bytes=size, gone=tuple(error.message for error in gone))

    async def _ours(self, provider: Provider, files: list[ResultFile], request: FetchRequest) -> bool:
        try:
            rows = await AttemptRows.read(self._resources.store, request.attempt)
            return await _ours(provider, files, rows.seal)
        except ProviderNotFound:
            if not request.lenient:
                raise
            return True  # nothing is left to tell by


def _answers(root: str, attempt: Attempt, name: str) -> str:
    return answers_path(root, attempt.shard, attempt.number, name)


async def _ours(provider: Provider, files: list[ResultFile], seal: str) -> bool:
    """Return whether a candidate's results hold this seal's ids, by the first line that shows it; nothing is kept.

    Results that do not show it count as ours: their rows are missing then, and tried again like others that are.
    To let the candidate go would have the same attempt created, and perhaps paid, again.
    """
    for file in files:
        pending = bytearray()
        async with contextlib.aclosing(provider.batches.download(file, 0)) as chunks:
            async for chunk in chunks:
                pending += chunk
                if b"\n" not in chunk:
                    continue
                *whole, pending = pending.split(b"\n")
                for line in whole:
                    if (ours := provider.rows.owns(bytes(line), seal)) is not None:
                        return ours
        if pending and (ours := provider.rows.owns(bytes(pending), seal)) is not None:
            return ours
    return True


async def _save(provider: Provider, file: ResultFile, spool: BinaryIO, lease: Lease) -> int:
    """Download into a file and return its lines; one that breaks off is resumed for as long as each try brings more.

    Raises:
        ProviderUnavailable: it broke off and the next try brought nothing.
    """
    lines = 0
    while True:
        before = spool.tell()
        try:
            async for chunk in provider.batches.download(file, before):
                spool.write(chunk)
                lines += chunk.count(b"\n")
                lease.bytes += len(chunk)
        except ProviderUnavailable:
            if spool.tell() == before:
                raise
        else:
            break
    if spool.tell() and not _ends_with_break(spool):
        lines += 1
    return lines


def _ends_with_break(spool: BinaryIO) -> bool:
    spool.seek(-1, 1)
    return spool.read(1) == b"\n"


def _store(spool: BinaryIO, store: Store, path: str, lease: Lease) -> None:
    end = spool.tell()
    spool.seek(0)
    with store.writer(path) as out:
        while chunk := spool.read(1 << 18):
            lease.check()
            out.write(chunk)
    spool.seek(end)
