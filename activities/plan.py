"""Plan: read the input once, check every row, find duplicate ids, and cut shards by the provider's limits."""

from __future__ import annotations

import contextlib
import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec

from ..contract import BatchSpec, ConfigurationError, InvalidInput, InvalidSpec, OnInvalidRow
from ..contract.errors import ObjectNotFound
from ..contract.names import check_batch_id
from ..contract.steps import PLAN, RECALL, PlanRequest, PlanSummary, ProviderFacts, Recalled
from ._boundary import Pulse, in_thread, step
from .estimate import estimate_tokens
from .prices import Prices, dollars
from .providers import Provider, RowTokens
from .records import PlanRecord, Refusal, ShardRecord, decode_plan, index_path, plan_path, shard_path
from .resources import Resources
from .rows import Line, Row, RowRefused, lines, parse
from .store import Store

#: How many rows that cannot be sent are told one by one; the others are counted.
MAX_PROBLEMS = 100
#: Ids are told apart by 64-bit hashes in this many sorted pieces: 8 bytes a row, so 10 million rows take 80 MB.
_PIECES = 256

#: The fields of a spec that its plan depends on.
_PLANNED = {"input", "requests", "endpoint", "model", "params", "limits"}
#: What a batch writes into its folder.
_WRITTEN = ("plan.json", "results.jsonl", "errors.jsonl", "result.json")

_encode = msgspec.json.Encoder().encode


class Plan:
    """The step that looks at every row before anything costs."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(PLAN)
    async def plan(self, request: PlanRequest, pulse: Pulse) -> PlanSummary:
        """Write the plan to the store and return its summary; the same request again returns the same plan.

        Raises:
            InvalidSpec: the spec names a place outside the store, or something the provider cannot do.
            InvalidInput: rows are wrong and the spec wants that to stop the batch, or there are none.
        """
        summary = await self._plan(request, pulse, recall=False)
        assert summary is not None  # it is made where there is none
        return summary

    @step(RECALL)
    async def recall(self, request: PlanRequest, pulse: Pulse) -> Recalled:
        """Return the plan that an earlier run of this batch made, for a batch that is to stop before it has one."""
        try:
            return Recalled(plan=await self._plan(request, pulse, recall=True))
        except (InvalidSpec, InvalidInput, ConfigurationError):
            return Recalled(plan=None)  # with such a plan nothing was ever submitted

    async def _plan(self, request: PlanRequest, pulse: Pulse, *, recall: bool) -> PlanSummary | None:
        store, spec = self._resources.store, request.spec
        check_batch_id(request.batch_id)
        settings = self._resources.settings(spec.provider)
        provider = self._resources.provider(spec.provider)
        if spec.endpoint not in provider.capabilities.endpoints:
            raise InvalidSpec(
                f"Provider {spec.provider} cannot batch {spec.endpoint}: choose one of "
                f"{', '.join(sorted(provider.capabilities.endpoints))}."
            )
        _check_params(spec)
        root = store.path(spec.output) if spec.output else request.batch_id
        if not root:
            raise InvalidSpec(f"The output {spec.output} is the whole store: name a folder in it for this batch.")
        facts = ProviderFacts(
            name=spec.provider,
            kind=settings.kind,
            account=settings.fingerprint,
            search=provider.capabilities.search,
            uploads=provider.capabilities.uploads,
            settle=settings.settle,
            heartbeat=self._resources.heartbeat,
            max_parallel_shards=settings.max_parallel_shards,
        )
        source = await self._input(request, root)
        digest = await self._digest(spec, source, settings.kind, provider)
        old = await self._old_plan(root, request)
        if old is None or old.spec_digest != digest:
            if recall:
                return None
            planned_at = old.planned_at if old else request.now.isoformat()
            cut = _Cut(store, provider, spec, root, source, pulse)
            found = await in_thread(pulse, cut.run)
            old = PlanRecord(
                batch_id=request.batch_id,
                spec_digest=digest,
                planned_at=planned_at,
                rows=found.rows,
                invalid_rows=found.invalid,
                shards=found.shards,
                tokens=dict(found.tokens),
                problems=[str(problem) for problem in found.problems],
            )
            await store.write(plan_path(root), _encode(old))
        _check(old, spec, self._resources.prices(spec.provider))
        return PlanSummary(
            root=store.uri(root),
            rows=old.rows,
            invalid_rows=old.invalid_rows,
            shards=old.shards,
            planned_at=datetime.fromisoformat(old.planned_at),
            provider=facts,
        )

    async def _input(self, request: PlanRequest, root: str) -> str:
        """Return the path of the input; rows that came inline are put into the store first."""
        store, spec = self._resources.store, request.spec
        if spec.requests is not None:
            path = f"{root}/input.jsonl"
            # Numbers of any size stay what they are; NaN and infinity are written so that they are refused below.
            await store.write(path, b"".join(json.dumps(row).encode() + b"\n" for row in spec.requests))
            return path
        assert spec.input is not None  # BatchSpec has one of the two
        path = store.path(spec.input)
        if path in {f"{root}/{name}" for name in _WRITTEN} or path.startswith(f"{root}/shards/"):
            raise InvalidSpec(f"The batch would overwrite its own input {spec.input}: give it another output folder.")
        if await store.size(path) is None:
            raise InvalidInput(f"There is no input at {spec.input}: check the URI, or submit the file again.")
        return path

    async def _digest(self, spec: BatchSpec, source: str, kind: str, provider: Provider) -> str:
        """Return what a plan depends on; another value means that it must be made anew."""
        size = await self._resources.store.size(source)
        facts = {
            "spec": spec.model_dump(mode="json", include=_PLANNED),
            "size": size,
            "kind": kind,
            "limits": [provider.capabilities.max_rows, provider.capabilities.max_bytes],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    async def _old_plan(self, root: str, request: PlanRequest) -> PlanRecord | None:
        try:
            data = await self._resources.store.read(plan_path(root))
        except ObjectNotFound:
            return None
        found = decode_plan(data)
        if found.batch_id != request.batch_id:
            raise InvalidSpec(
                f"The output folder belongs to batch {found.batch_id}: give {request.batch_id} a folder of its own."
            )
        return found


def _check_params(spec: BatchSpec) -> None:
    try:
        json.dumps(spec.params, allow_nan=False)
    except ValueError:
        raise InvalidSpec("The params hold a number that JSON cannot tell: NaN, or an infinite one.") from None


def _check(plan: PlanRecord, spec: BatchSpec, prices: Prices) -> None:
    """Stop the batch here if it should not cost anything."""
    if plan.rows == 0:
        raise InvalidInput("The input has no rows: give it at least one request.")
    if plan.invalid_rows and (spec.on_invalid_row is OnInvalidRow.FAIL_BATCH or plan.invalid_rows == plan.rows):
        what = "1 row" if plan.invalid_rows == 1 else f"{plan.invalid_rows:,} rows"
        hint = (
            'mend them, or let them fail alone with on_invalid_row = "fail_row"'
            if plan.invalid_rows < plan.rows
            else "no row is left to send"
        )
        shown = "; ".join(plan.problems[:20])
        more = f"; and {plan.invalid_rows - 20:,} more" if plan.invalid_rows > 20 else ""
        raise InvalidInput(
            f"{what} of {plan.rows:,} cannot be sent, and nothing was submitted: {shown}{more}. To go on, {hint}.",
            plan.problems,
            plan.invalid_rows,
        )
    if spec.max_cost_usd is not None:
        _check_cost(plan, spec.max_cost_usd, prices)


def _check_cost(plan: PlanRecord, limit: Decimal, prices: Prices) -> None:
    total = 0
    for model, tokens in plan.tokens.items():
        # Token by token below the price tiers: the sum of many short prompts is not one long prompt.
        cost = prices.list_cost(model or None, RowTokens(input_tokens=1000))
        if cost is None:
            raise InvalidInput(
                f"The price of model {model[:100] or '(unnamed)'} is unknown, so max_cost_usd cannot be kept: leave it "
                "out, or name a model whose price is known."
            )
        total += prices.paid(cost * tokens // 1000)
    if total > limit * 10**12:
        raise InvalidInput(
            f"The input alone is estimated at {dollars(total)} USD, more than max_cost_usd = {limit}; nothing was "
            "submitted."
        )


@dataclass
class _Found:
    """What a reading of the input found."""

    rows: int = 0
    invalid: int = 0
    shards: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    problems: list[Refusal] = field(default_factory=list)


class _Shard:
    """A shard while it is being cut."""

    def __init__(self, number: int, start: int) -> None:
        self.number = number
        self.start = self.end = start
        self.rows = self.sendable = self.bytes = self.tokens = 0
        self.verbatim = True
        self.hash = hashlib.sha256()


class _Cut:
    """One reading of the input. Blocks: runs in a thread, one line in memory at a time."""

    def __init__(self, store: Store, provider: Provider, spec: BatchSpec, root: str, source: str, pulse: Pulse) -> None:
        self._store = store
        self._provider = provider
        self._spec = spec
        self._root = root
        self._source = source
        self._pulse = pulse
        limits, able = spec.limits, provider.capabilities
        self._max_rows = min(limits.max_rows or able.max_rows, able.max_rows)
        self._max_bytes = min(limits.max_bytes or able.max_bytes, able.max_bytes)
        self._max_tokens = limits.max_tokens
        self._one_model = able.one_model
        self._models: dict[tuple[str, bytes | None], str | None] = {}
        self._first: tuple[int, str | None] | None = None  # the first line that can be sent, and its model

    def run(self) -> _Found:
        """Read the input; read it once more if two rows share an id, now knowing which."""
        found, doubtful = self._read(set(), {})
        if doubtful:
            repeated = self._repeated(doubtful)
            found, _ = self._read(doubtful, repeated)
        return found

    def _lines(self) -> Iterator[Line]:
        return lines(self._store.stream(self._source), self._max_bytes)

    def _read(self, doubtful: set[int], repeated: dict[int, int]) -> tuple[_Found, set[int]]:
        """Cut the shards. `repeated` maps the line of a second id to the line of the first one."""
        found = _Found()
        hashes = [array("q") for _ in range(_PIECES)]
        self._first = None
        shard: _Shard | None = None
        with contextlib.ExitStack() as stack:
            index: Any = None
            for line in self._lines():
                self._pulse.rows += 1
                if not found.rows % 1024:
                    self._pulse.check()
                found.rows += 1
                custom_id, prepared, model, refusal = self._prepare(line, repeated)
                number = hash(custom_id)
                hashes[number % _PIECES].append(number)
                if refusal is not None:
                    found.invalid += 1
                    if len(found.problems) < MAX_PROBLEMS:
                        found.problems.append(refusal)
                tokens = estimate_tokens(len(prepared)) if prepared else 0
                if shard is None or self._full(shard, len(prepared), tokens):
                    if shard is not None:
                        self._close(shard, stack)
                    shard = _Shard(found.shards, line.offset)
                    found.shards += 1
                    opened: AbstractContextManager[Any] = self._store.writer(index_path(self._root, shard.number))
                    index = stack.enter_context(opened)
                row: list[Any] = [custom_id, line.offset, line.length]
                index.write(_encode(row if refusal is None else [*row, refusal]) + b"\n")
                self._add(shard, line, prepared, tokens, refusal is None)
                if refusal is None:
                    found.tokens[model or ""] += tokens
            if shard is not None:
                self._close(shard, stack)
        return found, _twice(hashes) if not doubtful else set()

    def _prepare(self, line: Line, repeated: dict[int, int]) -> tuple[str, bytes, str | None, Refusal | None]:
        """Return the row's id, the row as it is sent, the model it asks for, and why it cannot be sent."""
        try:
            if not line.data:
                raise RowRefused(None, f"has {line.length:,} bytes, more than the {self._max_bytes:,} a batch may have")
            row = parse(line.data)
            if line.number in repeated:
                raise RowRefused("custom_id", f"is the same as on line {repeated[line.number]}", row.custom_id)
            prepared = self._provider.prepare(row, self._spec)
            if len(prepared) + 1 > self._max_bytes:
                raise RowRefused(None, f"has more than the {self._max_bytes:,} bytes a batch may have", row.custom_id)
            model = self._model_of(row, prepared)
            if self._one_model:
                self._same_model(line, model, row.custom_id)
        except RowRefused as refused:
            # Each row has a result, so one without an id of its own is named by its line.
            name = refused.custom_id or f"line:{line.number}"
            return name, b"", None, Refusal(line.number, refused.field, refused.reason)
        return row.custom_id, prepared, model, None

    def _model_of(self, row: Row, prepared: bytes) -> str | None:
        # Rows that name the same model ask for the same one, so few of them are read once more.
        named = row.shape, row.model
        if named not in self._models:
            self._models[named] = self._provider.model_of(prepared)
        return self._models[named]

    def _same_model(self, line: Line, model: str | None, custom_id: str) -> None:
        if self._first is None:
            self._first = line.number, model
        elif model != self._first[1]:
            raise RowRefused(
                "body.model",
                f"differs from that of line {self._first[0]}, and this provider takes one model a batch",
                custom_id,
            )

    def _full(self, shard: _Shard, size: int, tokens: int) -> bool:
        return (
            shard.rows >= self._max_rows
            or shard.bytes + size + 1 > self._max_bytes
            or (self._max_tokens is not None and shard.sendable > 0 and shard.tokens + tokens > self._max_tokens)
        )

    def _add(self, shard: _Shard, line: Line, prepared: bytes, tokens: int, sendable: bool) -> None:
        # Verbatim: the shard's bytes are the rows just as they are sent, each with one line feed between.
        gap = line.offset - shard.end
        if not sendable or prepared is not line.data or gap != (1 if shard.rows else 0):
            shard.verbatim = False
        shard.rows += 1
        shard.end = line.offset + line.length
        if sendable:
            shard.sendable += 1
            shard.bytes += len(prepared) + 1
            shard.tokens += tokens
            shard.hash.update(prepared)
            shard.hash.update(b"\n")

    def _close(self, shard: _Shard, stack: contextlib.ExitStack) -> None:
        stack.close()
        record = ShardRecord(
            shard=shard.number,
            input=self._source,
            rows=shard.rows,
            sendable=shard.sendable,
            start=shard.start,
            end=shard.end,
            bytes=shard.bytes,
            tokens=shard.tokens,
            verbatim=shard.verbatim,
            digest=shard.hash.hexdigest()[:16],
        )
        with self._store.writer(shard_path(self._root, shard.number)) as out:
            out.write(_encode(record))

    def _repeated(self, doubtful: set[int]) -> dict[int, int]:
        """Return for each second and later line of one id the line of the first."""
        first: dict[str, int] = {}
        repeated: dict[int, int] = {}
        for line in self._lines():
            try:
                custom_id = parse(line.data).custom_id if line.data else None
            except RowRefused as refused:
                custom_id = refused.custom_id  # it has a result, too
            if custom_id is None or hash(custom_id) not in doubtful:
                continue
            if custom_id in first:
                repeated[line.number] = first[custom_id]
            else:
                first[custom_id] = line.number
        return repeated


def _twice(pieces: list[array[int]]) -> set[int]:
    """Return the hashes that occur more than once, holding one sorted piece at a time."""
    found: set[int] = set()
    for piece in pieces:
        ordered = sorted(piece)
        found.update(one for one, other in pairwise(ordered) if one == other)
    return found
