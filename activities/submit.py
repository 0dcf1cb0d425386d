"""Upload, find, create: the steps that spend money. Each acts once; who repeats what is the workflow's decision."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime

from ..contract import (
    AccountingError,
    AnswerLost,
    AuthenticationFailed,
    DurabatchError,
    Mode,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    QueueFull,
    QuotaExhausted,
    RateLimited,
    StoreError,
    WorkerBusy,
)
from ..contract.layout import result_path
from ..contract.steps import (
    CREATE,
    FIND,
    TIDY,
    UPLOAD,
    CreateAnswer,
    Created,
    CreateRequest,
    FindRequest,
    Found,
    Search,
    TidyRequest,
    Uploaded,
    UploadRequest,
)
from .attempt_rows import AttemptRows
from .content import file_generation, file_name, file_prefix, open_content
from .followers import forget_follower, note_follower
from .lease import Lease
from .notes import AttemptNotes, noted_digests, noted_mode
from .owners import Owners
from .providers import Creation, Wanted
from .resources import Resources
from .step import step

#: What a create's failure means. Anything else that goes wrong is a fault of ours, and means nothing was sent.
_ANSWERS: dict[type[DurabatchError], CreateAnswer] = {
    AnswerLost: CreateAnswer.LOST,
    QueueFull: CreateAnswer.DEFERRED,
    RateLimited: CreateAnswer.DEFERRED,
    ProviderUnavailable: CreateAnswer.DEFERRED,
    AuthenticationFailed: CreateAnswer.REFUSED,
    QuotaExhausted: CreateAnswer.REFUSED,
    ProviderNotFound: CreateAnswer.REFUSED,
    ProviderRefused: CreateAnswer.REFUSED,
    WorkerBusy: CreateAnswer.DEFERRED,
    AccountingError: CreateAnswer.REFUSED,  # the input has changed, so the rows were not sent, or not to their end
}


class Submit:
    """The steps from rows to a provider batch, and the step that clears up after it."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(UPLOAD, long=True)
    async def upload(self, request: UploadRequest, lease: Lease) -> Uploaded:
        """Upload an attempt's rows as a file, or find the file if it is there already.

        Files of earlier generations are deleted first: a create that names one of them, and is still on its way, can
        then no longer succeed. Files of later ones stay: it is this step that is late then, and a batch may need them.
        To fence, a newer file is made than any that is there, since a lost create may name any of them.
        """
        provider = self._resources.at_account(request.attempt.provider, request.account)
        await self._resources.batch_folder(request.attempt)
        rows = await AttemptRows.read(self._resources.store, request.attempt)
        if provider.files is None or not rows.count:
            return Uploaded(file_id=None, rows=rows.count, bytes=rows.shard.bytes)
        found = await provider.files.find(file_prefix(request.attempt), request.since, whole=request.fence)
        generation = request.generation
        if request.fence:
            generation = max([generation, *(file_generation(file.name, rows.digest) + 1 for file in found)])
            await _must_be_ours(lease)  # its heir may have made one by now, which a create names
        name = file_name(request.attempt, rows.digest, generation)
        same = [file.id for file in found if file.name == name]
        for file in found:
            if file.id not in same[:1] and file_generation(file.name, rows.digest) <= generation:
                await provider.files.delete(file.id)
        if same:
            return Uploaded(file_id=same[0], generation=generation, rows=rows.count, bytes=rows.shard.bytes)
        async with open_content(self._resources, provider, rows, request.spec, generation, lease) as content:
            await _must_be_ours(lease)  # a file that comes when the attempt is over would never be deleted
            file_id = await provider.files.upload(content)
            return Uploaded(file_id=file_id, generation=generation, rows=rows.count, bytes=content.size)

    @step(FIND)
    async def find(self, request: FindRequest, lease: Lease) -> Found:
        """Look for the provider batch that an earlier create of this attempt may have made.

        Where there is none, an earlier run may have sent the attempt's rows one by one, as a deadline came near.
        """
        provider = self._resources.at_account(request.attempt.provider, request.account)
        await self._resources.batch_folder(request.attempt)
        rows = await AttemptRows.read(self._resources.store, request.attempt)
        store, attempt = self._resources.store, request.attempt
        # Before the provider is asked: what is noted from now on may not be found.
        notes = await AttemptNotes(store, attempt, request.account).read()
        if notes.account is not None:
            # An earlier run of this batch may have bought it at another account: there it would have to be looked for.
            provider = self._resources.at_account(request.attempt.provider, notes.account)
        since, strangers = request.since, list(request.strangers)
        provisional = provider.capabilities.search is Search.PROVISIONAL
        if provisional:
            if notes.at is None:
                return Found(batch=None, noted=notes.newest)
            since = max(since, notes.at)
            strangers += await Owners(store, attempt, request.account).of_others()
        batch = await provider.batches.find(
            Wanted(
                marker=request.attempt.marker,
                digest=rows.digest,
                rows=rows.count,
                since=since,
                strangers=strangers,
                sent=request.sent or notes.newest > 0,
            )
        )
        if batch is not None and not batch.status.ended:
            await note_follower(store, self._resources.settings(attempt.provider), batch.id)
        direct = (
            batch is None
            and notes.may_have_bought
            and await noted_mode(store, attempt) is Mode.DIRECT
            and rows.digest in await noted_digests(store, attempt)
        )
        return Found(
            batch=batch,
            provisional=provisional,
            noted=notes.newest,
            standing=notes.standing,
            direct=direct,
        )

    @step(CREATE)
    async def create(self, request: CreateRequest, lease: Lease) -> Created:
        """Create the provider batch. The call is sent once; its outcome is the answer, not an exception.

        It is not sent, and counts as lost, where another create was begun since the provider was searched: by a run
        before a reset, or by this very step, which an operator paused, reset or allowed more tries.
        """
        provider = self._resources.at_account(request.attempt.provider, request.account)
        await self._resources.batch_folder(request.attempt)
        rows = await AttemptRows.read(self._resources.store, request.attempt)
        creation = Creation(
            marker=request.attempt.marker,
            digest=rows.digest,
            endpoint=request.spec.endpoint,
            completion_window=request.spec.completion_window,
            model=rows.shard.model or None,
            file_id=request.file_id,
        )
        try:
            if provider.files is not None:
                return await self._create_once(request, creation, lease)
            with self._resources.long_steps.one():  # the rows go inline, which may take as long as an upload
                async with open_content(self._resources, provider, rows, request.spec, 1, lease) as content:
                    return await self._create_once(request, replace(creation, content=content), lease)
        except (ProviderError, AccountingError, WorkerBusy) as error:
            answer = _ANSWERS.get(type(error))
            if answer is None:
                raise
            wait = error.retry_after if isinstance(error, ProviderError) else None
            return Created(answer=answer, reason=error.message, code=error.code, retry_after=wait)

    async def _create_once(self, request: CreateRequest, creation: Creation, lease: Lease) -> Created:
        """Send the create: with a note written before it, and a claim after it where nobody can search exactly."""
        provider = self._resources.at_account(request.attempt.provider, request.account)
        store, attempt = self._resources.store, request.attempt
        # Once more, as a spool may have taken its time: a note in an empty folder would not be found by the next look.
        result = result_path(await self._resources.batch_folder(attempt))
        notes = AttemptNotes(store, attempt, request.account)
        if await store.size(result) is not None:
            # A run that was reset goes on beside the result of the one before, by which all looks accounted for.
            await _must_be_ours(lease)
            await store.delete(result)
        number = await notes.write(datetime.now(UTC), request.noted, creation.digest)
        try:
            await _must_be_ours(lease)
            batch = await provider.batches.create(creation)
        except AnswerLost:
            raise
        except ProviderError:
            await notes.withdraw(number)  # it bought nothing; what others may have bought has notes of its own
            raise
        if provider.capabilities.search is Search.PROVISIONAL:
            # Whatever the store says now, the batch exists, and who does not hear of it buys it again.
            with contextlib.suppress(StoreError):
                await Owners(store, attempt, request.account).claim(batch.id)
        await note_follower(store, self._resources.settings(attempt.provider), batch.id)
        return Created(answer=CreateAnswer.CREATED, batch=batch)

    @step(TIDY)
    async def tidy(self, request: TidyRequest, lease: Lease) -> None:
        """Delete the files that an attempt uploaded, and its claims; the results are the provider's to expire."""
        provider = self._resources.at_account(request.attempt.provider, request.account)
        await self._resources.batch_folder(request.attempt)
        await Owners(self._resources.store, request.attempt, request.account).release()
        settings = self._resources.settings(request.attempt.provider)
        await forget_follower(self._resources.store, settings, request.provider_batch_id)
        if provider.files is not None:
            found = await provider.files.find(file_prefix(request.attempt), request.since)
            known = [request.file_id] if request.file_id else []
            for file_id in dict.fromkeys([*known, *(file.id for file in found)]):
                await provider.files.delete(file_id)


async def _must_be_ours(lease: Lease) -> None:
    """Send nothing new when this worker stood still for so long that another one may have taken over."""
    if not await lease.confirm():
        raise ProviderUnavailable("The worker stood still before it could submit; nothing was sent.")
