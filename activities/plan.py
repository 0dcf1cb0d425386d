"""Plan: check the spec, have the input cut into shards, and stop here what should not cost anything."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec

from ..contract import ConfigurationError, InvalidInput, InvalidSpec, Mode
from ..contract.errors import ObjectNotFound, StoreError
from ..contract.layout import (
    SHARDS,
    WRITTEN,
    file_list_path,
    inline_path,
    is_written,
    parse_name,
    plan_path,
    result_path,
)
from ..contract.names import batch_of, check_batch_id, scoped
from ..contract.object_name import Kind
from ..contract.steps import PLAN, RECALL, PlanRequest, PlanSummary, ProviderFacts, Recalled
from .batch_folder import check_store, mismatch
from .cut import Cut
from .input import File, find_files, input_location, open_input
from .lease import Lease
from .modes import check_endpoint, check_on_expired, choose_mode
from .notes import noted_account, notes_below, withdraw
from .old_plan import Match, OldPlan, Verdict, judge, match
from .plan_checks import check_params, check_plan, direct_affordable
from .plan_inputs import PlanInputs, plan_inputs, request_digest
from .providers import Provider
from .records import PlanRecord, decode_plan
from .resources import Resources
from .selection import Selection
from .shard_limits import ShardLimits, shard_limits
from .step import in_thread, step
from .store import identify, identity_of

_encode = msgspec.json.Encoder().encode


class Plan:
    """The step that looks at every row before anything costs."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @step(PLAN, long=True)
    async def plan(self, request: PlanRequest, lease: Lease) -> PlanSummary:
        """Write the plan to the store and return its summary; the same request again returns the same plan.

        Raises:
            InvalidSpec: the spec names a place outside the store, or something the provider cannot do.
            InvalidInput: rows are wrong and the spec wants that to stop the batch, or there are none.
        """
        summary = await self._plan(request, lease, recall=False)
        assert summary is not None  # it is made where there is none
        return summary

    @step(RECALL)
    async def recall(self, request: PlanRequest, lease: Lease) -> Recalled:
        """Return the plan that an earlier run of this batch made, for a batch that is to stop before it has one.

        Raises:
            ConfigurationError: something may have been bought by the plan, and this worker cannot reach the provider.
            AccountMismatch: it may have been bought at another account than this worker's.
        """
        try:
            return Recalled(plan=await self._plan(request, lease, recall=True))
        except (InvalidSpec, InvalidInput):
            return Recalled(plan=None)  # with such a plan nothing was ever submitted

    async def _plan(self, request: PlanRequest, lease: Lease, *, recall: bool) -> PlanSummary | None:
        store, spec = self._resources.store, request.spec
        check_batch_id(request.batch_id)
        identity = await identity_of(store)
        if request.store not in ("", identity):
            raise mismatch(store)
        root = self._root(request)
        plan = await self._old_plan(root, request)
        check_store(plan, identity, request, store)
        if recall and plan is None:
            return None
        old = None if plan is None else await self._known_of(plan, root, request.execution)
        try:
            settings = self._resources.settings(spec.provider)
            provider = self._resources.provider(spec.provider)
        except ConfigurationError:
            if recall and not (old and old.may_have_bought):
                return None
            raise
        check_params(spec)
        facts = ProviderFacts(
            name=spec.provider,
            kind=settings.kind,
            account=settings.fingerprint,
            search=provider.capabilities.search,
            uploads=provider.files is not None,
            listing_lag=settings.listing_lag,
            heartbeat=self._resources.heartbeat,
            max_parallel_shards=settings.max_parallel_shards,
            max_enqueued_tokens=settings.max_enqueued_tokens,
            webhook_poll=settings.webhook_poll if settings.webhook_secret_env else None,
        )
        asked = request_digest(spec, settings.kind)
        # Before the input is looked at: what was bought of it is wanted whether or not it is still there.
        so_far = Match.REQUEST if plan is not None and plan.asked == asked else Match.NOTHING
        bought = old is not None and judge(old, so_far) is Verdict.BOUGHT
        reset = old is not None and old.same_start and so_far is Match.REQUEST
        await self._check_kept(request.batch_id, root, again=reset and not recall)
        # What was bought is gone on with in the mode that it was bought in, whatever the configuration says now.
        mode = plan.mode if plan is not None and bought else choose_mode(spec, provider, settings)
        check_endpoint(spec, provider, mode)
        check_on_expired(spec, provider, mode)
        limits = shard_limits(mode, spec, provider, settings)
        if bought:
            await self._check_account(spec.provider, root)
        if plan is None or old is None or not bought:
            files = await self._input(request, root)
            inputs = plan_inputs(asked, files, limits)
            verdict = Verdict.REPLACED
            if plan is not None:  # looked at again: a create of the run before a reset may have been noted since
                verdict = judge(await self._known_of(plan, root, request.execution), match(plan, inputs))
                same = match(plan, inputs) >= Match.FILES
                await self._check_kept(request.batch_id, root, again=same and not recall)
            bought = verdict is Verdict.BOUGHT
            if plan is not None and verdict is Verdict.KEPT:
                check_plan(plan, spec, self._resources.prices(spec.provider))
            elif plan is None or verdict is Verdict.REPLACED:
                if recall:
                    return None
                plan = await self._cut(request, plan, provider, limits, root, files, inputs, lease)
        await self._note_start(plan, request, root, lease)
        return PlanSummary(
            root=store.uri(root),
            rows=plan.rows,
            invalid_rows=plan.invalid_rows,
            shards=plan.shards,
            planned_at=datetime.fromisoformat(plan.planned_at),
            provider=facts.model_copy(update={"mode": plan.mode}),
            bought=bought,
            direct_affordable=direct_affordable(plan, spec, self._resources.prices(spec.provider)),
            store=plan.store,
        )

    async def _note_start(self, plan: PlanRecord, request: PlanRequest, root: str, lease: Lease) -> None:
        """Write into the plan which start uses it, and remove the result of an earlier one."""
        store, known = self._resources.store, request.execution == plan.execution
        if known and await store.size(result_path(root)) is None:
            return
        await lease.hold()
        # While it is there, everything looks accounted for, including what this start may buy.
        await store.delete(result_path(root))
        now = await self._old_plan(root, request)
        if now is None or now.spec_digest != plan.spec_digest:
            raise StoreError(f"The folder of batch {request.batch_id} was cleared up while it was planned.")
        if not known:
            await store.write(plan_path(root), _encode(msgspec.structs.replace(plan, execution=request.execution)))

    async def _cut(
        self,
        request: PlanRequest,
        old: PlanRecord | None,
        provider: Provider,
        limits: ShardLimits,
        root: str,
        files: tuple[File, ...],
        inputs: PlanInputs,
        lease: Lease,
    ) -> PlanRecord:
        """Read the input, and write how it is cut into the store."""
        store = self._resources.store
        identity = await identify(store)  # before anything of the batch is written
        source = await open_input(store, root, files, lease)
        await lease.hold()  # another worker may have finished the plan, and the batch may be under way by it
        if old is not None:
            # Its shards are about to be replaced, so from here on it describes nothing; but since when to search stays.
            await store.write(plan_path(root), _encode(msgspec.structs.replace(old, spec_digest="")))
            await store.delete(result_path(root))
        if len(source.segments) > 1:
            await store.write(file_list_path(root), _encode(source.segments))
        cut = Cut(store, provider, request.spec, limits, root, source, inputs.digest, lease)
        async with self._resources.row_work:
            found = await in_thread(lease, cut.run)
        plan = PlanRecord(
            scoped_id=scoped(request.batch_id, identity),
            spec_digest=inputs.digest,
            planned_at=old.planned_at if old else request.now.isoformat(),
            rows=found.rows,
            invalid_rows=found.invalid,
            shards=found.shards,
            tokens=dict(found.tokens),
            problems=list(found.problems),
            asked=inputs.asked,
            input=inputs.input,
            execution=request.execution,
            store=identity,
            mode=limits.mode,
            batch_share=self._batch_share(request.spec.provider, provider),
            kind=self._resources.settings(request.spec.provider).kind,
            spec=request.spec.model_dump(mode="json", exclude_defaults=True, exclude={"requests"}),
        )
        await lease.hold()
        try:
            check_plan(plan, request.spec, self._resources.prices(request.spec.provider))
        except InvalidInput:
            # Nothing may ever be bought by it, not even when it is planned again beside the notes of an earlier plan.
            # Those notes stay, and so does what they were made for: that plan may be asked for again.
            nothing = msgspec.structs.replace(plan, spec_digest="", asked=(old or plan).asked)
            await store.write(plan_path(root), _encode(nothing))
            raise
        if old is not None and old.asked != plan.asked:
            # They are about other rows. Nothing of these was ever bought, and should they be planned again, they are
            # checked again.
            for path in await self._notes(root):
                await withdraw(store, path)
        await store.write(plan_path(root), _encode(plan))
        return plan

    def _batch_share(self, name: str, provider: Provider) -> str:
        direct = provider.batch_api is None or self._resources.settings(name).mode is Mode.DIRECT
        return "" if direct else str(self._resources.prices(name).share)

    async def _input(self, request: PlanRequest, root: str) -> tuple[File, ...]:
        """Return the files of the input; rows given inline are put into the store first."""
        store, spec = self._resources.store, request.spec
        if spec.requests is not None:
            await identify(store)
            path = inline_path(root)
            # Numbers of any size stay what they are; NaN and infinity are written so that they are refused below.
            data = b"".join(json.dumps(row).encode() + b"\n" for row in spec.requests)
            await store.write(path, data)
            return (File(path, len(data), None),)
        assert spec.input is not None  # BatchSpec has one of the two
        selection = Selection(input_location(store, spec.input))
        # What it would match once the batch has written it counts as well: a later run would find other rows.
        if not any(selection.takes(f"{root}/{name}") for name in WRITTEN):
            files = await find_files(store, spec.input)
            if not any(_is_written(file.path, root) for file in files):
                return files
        raise InvalidSpec(f"The batch would overwrite its own input {spec.input}: give it another output folder.")

    def _root(self, request: PlanRequest) -> str:
        """Return the path of the batch's folder."""
        output = request.spec.output
        root = self._resources.store.path(output) if output else request.batch_id
        if not root:
            raise InvalidSpec(f"The output {output} is the whole store: name a folder in it for this batch.")
        return root

    async def _known_of(self, plan: PlanRecord, root: str, execution: str) -> OldPlan:
        """Return what is known of a plan that an earlier run left, and of what is beside it."""
        whole = plan.spec_digest != ""
        return OldPlan(
            whole=whole,
            same_start=plan.execution == execution,
            accounted=whole and await self._accounted(root),
            noted=whole and bool(await self._notes(root)),
        )

    async def _accounted(self, root: str) -> bool:
        """Return whether a result there accounts for every row; that of a batch that gave up does not."""
        result = await self._result(root)
        return result is not None and not (result.get("status") == "failed" and not result.get("results"))

    async def _check_kept(self, batch_id: str, root: str, *, again: bool) -> None:
        """Refuse rows that a batch has run directly before, where what says which of them have an answer is gone.

        A provider batch is found again at the provider; answers of direct mode are in the store alone.

        Args:
            again: whether the same rows are asked for.

        Raises:
            InvalidSpec: they would be sent, and paid for, again.
        """
        store, result = self._resources.store, (await self._result(root) if again else None) or {}
        direct = result.get("direct")
        if not (isinstance(direct, dict) and direct.get("rows")):
            return
        names = [parse_name(path[len(root) + 1 :]) for path, _ in await store.list(f"{root}/{SHARDS}")]
        if not any(name is not None and (name.kind is Kind.RAN or name.run is not None) for name in names):
            raise InvalidSpec(
                f"The batch {batch_id} has sent its rows before, and gc has removed what says which of them have "
                f"answers: they would be paid for again. Its results are in {store.uri(root)}; to send the rows once "
                "more, give another id."
            )

    async def _result(self, root: str) -> dict[str, Any] | None:
        """Return the result in a batch's folder, as far as it can be read; None if there is none."""
        try:
            result = json.loads(await self._resources.store.read(result_path(root)))
        except ObjectNotFound:
            return None
        except ValueError:
            return {}
        return result if isinstance(result, dict) else {}

    async def _check_account(self, provider: str, root: str) -> None:
        """Raise AccountMismatch where a plan may have bought something at another account than this worker's.

        The batch goes by the account that its plan names: by another one, no key at all could take it further.
        """
        for path in sorted(await self._notes(root))[:1]:  # one speaks for all: there may be thousands
            account = await noted_account(self._resources.store, path)
            if account is not None:
                self._resources.at_account(provider, account)

    async def _notes(self, root: str) -> list[str]:
        """Return the paths of the notes of creates that may have bought something (see `notes`)."""
        return await notes_below(self._resources.store, root, SHARDS)

    async def _old_plan(self, root: str, request: PlanRequest) -> PlanRecord | None:
        try:
            data = await self._resources.store.read(plan_path(root))
        except ObjectNotFound:
            return None
        try:
            found = decode_plan(data)
        except msgspec.MsgspecError:
            raise InvalidSpec(
                f"The plan.json in the output folder is not a plan: give {request.batch_id} a folder of its own."
            ) from None
        if batch_of(found.scoped_id) != request.batch_id:
            raise InvalidSpec(
                f"The output folder belongs to batch {batch_of(found.scoped_id)}: give {request.batch_id} a "
                "folder of its own."
            )
        return found


def _is_written(path: str, root: str) -> bool:
    """Return whether a batch with this folder writes there."""
    name = path.removeprefix(f"{root}/")
    return name != path and is_written(name)
