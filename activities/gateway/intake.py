"""Intake: the whole input file is read and checked before anything costs, and the provider is found that runs it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError

from ...contract import BatchResult, Mode, NotRetryable, ObjectNotFound
from ...contract.gateway import FileRecord
from ...contract.gateway_batch import (
    INTAKE,
    BatchEntry,
    GatewayBatch,
    Intake,
    IntakeRequest,
    LineError,
    Shape,
    inner_id,
    message_rows_path,
)
from ...contract.gateway_layout import content_path, index_path
from ...contract.layout import brought_folder, result_path, short_digest
from ..lease import Lease
from ..left_rows import LeftRows
from ..lines import split_lines
from ..modes import default_mode
from ..prices import dollars, picodollars
from ..resources import Resources
from ..step import in_thread, step
from ..store import Store, identify
from .checks import shown
from .files import find
from .reading import Reading, read
from .routing import Router
from .spending import reserve
from .tokens import Tokens

#: The kinds of providers whose own rows and answers are in Anthropic's shape; those of the others are in OpenAI's.
_ANTHROPIC = frozenset({"anthropic"})
_CHAT, _MESSAGES = "/v1/chat/completions", "/v1/messages"
_GIVEN_UP = LineError(code="not_started", message="The batch was given up before it was started.")


class GatewayIntake:
    """The step that looks at a batch's input as OpenAI's server does."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(INTAKE, long=True)
    async def intake(self, request: IntakeRequest, lease: Lease) -> Intake:
        """Check the input, and note in the tenant's index what was found, if it is right.

        What an earlier run noted holds: the file may be deleted by now, and something may be bought by it.
        """
        store, batch = self._resources.store, request.batch
        entry = await read_entry(store, batch)
        if entry.final is not None and entry.published:
            return Intake(final=entry.final)
        if (given_up := _given_up(entry)) is not None:
            return given_up
        if entry.intake is not None:
            return entry.intake.model_copy(update={"result": await self._result(batch)})
        found = await self._check(batch, lease)
        if not found.errors:
            await lease.hold()
            entry = await read_entry(store, batch)
            if (given_up := _given_up(entry)) is not None:  # while the file was read
                return given_up
            await store.write(
                index_path(batch.tenant, batch.id),
                entry.model_copy(update={"intake": found}).model_dump_json().encode(),
            )
        return found

    async def _result(self, batch: GatewayBatch) -> BatchResult | None:
        """Return how the batch that runs the rows has ended, if it has."""
        try:
            data = await self._resources.store.read(result_path(inner_id(batch.tenant, batch.id)))
            return BatchResult.model_validate_json(data)
        except (ObjectNotFound, ValidationError):
            return None

    async def _check(self, batch: GatewayBatch, lease: Lease) -> Intake:
        if batch.shape is Shape.ANTHROPIC:
            return await self._check_messages(batch, lease)
        store = self._resources.store
        if batch.left_by is None:
            record = await find(store, batch.tenant, batch.input_file_id)
            wrong, path = _wrong_file(record, batch), content_path(batch.tenant, batch.input_file_id)
        else:
            wrong, path = await self._left(batch, batch.left_by, lease)
        if wrong is not None:
            return _refused(wrong)
        router = Router(self._resources.routes, batch.provider, batch.models)
        async with self._resources.row_work:
            counted = batch.limits.max_cost_usd_per_day is not None
            found = await in_thread(
                lease,
                partial(read, store, path, batch.endpoint, router, lease, batch.limits.max_rows, count=counted),
            )
        if found.errors or found.provider is None:
            return Intake(errors=tuple(found.errors), total_errors=found.total_errors, rows=found.rows)
        if (wrong := self._unable(found, found.provider, batch.endpoint)) is not None:
            return _refused(wrong)
        if (wrong := await self._over_budget(found, found.provider, batch)) is not None:
            return _refused(wrong)
        # A copy, which is no more than a second name where storage can: the file may be deleted, or expire, while rows
        # of it are still to be sent.
        kept = _kept_path(batch)
        await in_thread(lease, partial(store.concat, kept, [path]))
        return Intake(
            rows=found.rows,
            input=store.uri(kept),
            provider=found.provider,
            model=found.model if found.other_model is None else None,
            store=await identify(store),
            translated=self._resources.settings(found.provider).kind in _ANTHROPIC,
        )

    async def _check_messages(self, batch: GatewayBatch, lease: Lease) -> Intake:
        """Look at a message batch, whose rows were read when they came: they are checked, and so is who runs them."""
        store, path = self._resources.store, message_rows_path(batch.tenant, batch.id)
        if batch.provider is None or await store.size(path) is None:
            return _refused(LineError(code="internal_error", message="The batch's requests are not there any more."))
        own = self._resources.settings(batch.provider).kind in _ANTHROPIC
        endpoint = _MESSAGES if own else _CHAT
        if endpoint not in self._resources.provider(batch.provider).capabilities.endpoints:
            message = f"The provider {batch.provider} does not run {endpoint}."
            return _refused(LineError(code="invalid_endpoint", message=message))
        if batch.limits.max_cost_usd_per_day is not None:
            async with self._resources.row_work:
                found = Reading(tokens=await in_thread(lease, partial(_count, store, path, endpoint, lease)))
            if (wrong := await self._over_budget(found, batch.provider, batch)) is not None:
                return _refused(wrong)
        return Intake(
            rows=batch.rows,
            input=store.uri(path),
            provider=batch.provider,
            store=await identify(store),
            translated=not own,
            endpoint=endpoint,
        )

    async def _left(self, batch: GatewayBatch, left_by: str, lease: Lease) -> tuple[LineError | None, str]:
        """Write down the rows that another batch of the tenant's has left over.

        Returns:
            Why they cannot be retried, if they cannot; and their path.
        """
        store, path = self._resources.store, _kept_path(batch)
        try:
            left = await LeftRows.open(store, left_by, inner_id(batch.tenant, left_by))
            async with self._resources.row_work:
                await in_thread(lease, partial(_write_left, store, path, left, lease))
        except NotRetryable as error:
            return LineError(code=error.code, message=error.message), path
        if not left.rows:
            message = f"The batch {left_by} has left no request over that can be run again."
            return LineError(code=NotRetryable.code, message=message), path
        return None, path

    def _unable(self, found: Reading, provider: str, endpoint: str) -> LineError | None:
        """Return why a provider cannot run these rows; None if it can."""
        settings, able = self._resources.settings(provider), self._resources.provider(provider).capabilities
        if endpoint not in able.endpoints:
            message = f"The provider {provider} does not run {endpoint}."
            return LineError(code="invalid_endpoint", message=message, param="endpoint")
        if able.one_model and settings.mode is not Mode.DIRECT and found.other_model is not None:
            message = (
                "The model for this request does not match the rest of the batch. "
                "Each batch must contain requests for a single model."
            )
            return LineError(code="mismatched_model", message=message, param="body.model", line=found.other_model)
        return None

    async def _over_budget(self, found: Reading, provider: str, batch: GatewayBatch) -> LineError | None:
        """Count what a batch may cost, where its tenant has a limit; return why it is not run if that is too much."""
        limit = batch.limits.max_cost_usd_per_day
        if limit is None or found.tokens is None:
            return None
        prices = self._resources.prices(provider)
        listed = found.tokens.cost(prices)
        if isinstance(listed, str):
            message = (
                f"The price of the model '{shown(listed)}' is not known, so max_cost_usd_per_day cannot be kept: name "
                "a model whose price is known."
            )
            return LineError(code="price_unknown", message=message, param="body.model")
        mode = default_mode(self._resources.provider(provider), self._resources.settings(provider))
        cost = prices.paid(listed, mode)
        most = picodollars(limit)
        spent = await reserve(self._resources.store, batch.tenant, batch.id, cost, most, datetime.now(UTC))
        if spent is None:
            return None
        message = (
            f"Billing hard limit has been reached: the batch may cost up to {dollars(cost)} USD, and "
            f"{dollars(max(0, most - spent))} USD are left of the {limit} USD that your batches may cost a day. Days "
            "begin at 00:00 UTC."
        )
        return LineError(code="billing_hard_limit_reached", message=message)


def _kept_path(batch: GatewayBatch) -> str:
    return f"{brought_folder(inner_id(batch.tenant, batch.id), short_digest(batch.input_file_id))}.jsonl"


def _write_left(store: Store, path: str, left: LeftRows, lease: Lease) -> None:
    with store.writer(path) as out:
        for line in left.lines(lease.check):
            out.write(line)
            lease.rows += 1


def _count(store: Store, path: str, endpoint: str, lease: Lease) -> Tokens:
    """Return what the rows of a message batch may take. Blocks."""
    tokens = Tokens(endpoint)
    for line in split_lines(store.stream(path)):
        lease.check()
        tokens.add(line)
        lease.rows += 1
    return tokens


async def read_entry(store: Store, batch: GatewayBatch) -> BatchEntry:
    """Return what a tenant's index holds of a batch.

    Raises:
        StoreError: the store failed.
    """
    try:
        return BatchEntry.model_validate_json(await store.read(index_path(batch.tenant, batch.id)))
    except (ObjectNotFound, ValidationError):  # it was removed; what the workflow was started with is as good
        return BatchEntry(request=batch)


def _given_up(entry: BatchEntry) -> Intake | None:
    """Return why a batch is not run that the gateway gave up: its caller may have created another one."""
    if entry.final is None or entry.published or entry.intake is not None:
        return None
    errors = entry.final.errors.data if entry.final.errors else ()
    return Intake(errors=errors or (_GIVEN_UP,), total_errors=len(errors) or 1)


def _wrong_file(record: FileRecord | None, batch: GatewayBatch) -> LineError | None:
    if record is None:
        message = f"Cannot find file {batch.input_file_id[:100]}."
    elif record.purpose != "batch":
        message = f"Invalid file: expected purpose 'batch', but got '{record.purpose}'."
    else:
        return None
    return LineError(code="invalid_request", message=message, param="file_id")


def _refused(error: LineError) -> Intake:
    return Intake(errors=(error,), total_errors=1)
