"""From a provider batch that has ended to its results in the store, all of them."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from ..contract import Phase
from ..contract.steps import FETCH, Fetched, FetchRequest, Snapshot
from .attempt import AttemptContext
from .decisions import GONE, LATE, answered_rows, lengthened, results_patience, streak_delay
from .failures import StepFailed
from .polling import NOT_FOUND, Polling
from .steering import LONG, PATIENCE


class Fetching:
    """The results of one attempt's provider batch."""

    def __init__(self, context: AttemptContext) -> None:
        self._context = context
        self._state = context.state
        self._steering = context.steering

    async def run(self) -> None:
        """Download what is finished, whatever the batch ended as; let the batch go if it is somebody else's.

        If more results are expected it waits, polls the batch once more, and returns with `state.stage` unchanged: then
        it is to be called again, by a new run of the workflow perhaps.
        """
        state, batch = self._state, self._state.batch
        assert batch is not None
        fetched: Fetched | None = Fetched(rows=0, bytes=0)
        if _names_results(batch):
            self._context.changed(Phase.FETCHING)
            fetched = await self._fetch_or_wait(batch)
        if fetched is None:
            return
        if fetched.stranger:
            state.let_go()
            return
        if _names_results(batch):
            state.lines = fetched.rows
        state.answered = answered_rows(batch, rows=state.rows, gone=bool(fetched.gone))
        state.unreturned = _gone_words(batch, fetched)
        if not fetched.gone and await self._waits_for_more(batch, fetched.rows):
            return
        state.end_fetch()

    async def _fetch_or_wait(self, batch: Snapshot) -> Fetched | None:
        """Fetch; None where results are not found, and another try is due."""
        state = self._state
        try:
            return await self._fetch(batch)
        except StepFailed as error:
            if error.code != NOT_FOUND:
                raise
            message = error.message
        state.gone = lengthened(state.gone, workflow.now())
        if state.gone.length < (LATE if self._stopping() else GONE) and not self._out_of_time():
            self._steering.report(message)
            await self._ask_again(streak_delay(state.gone), f"{message} These results are paid for: asking again.")
            return None
        return await self._fetch(batch, lenient=True)

    async def _fetch(self, batch: Snapshot, *, lenient: bool = False) -> Fetched:
        request = FetchRequest(
            attempt=self._context.attempt,
            account=self._context.provider.account,
            batch=batch,
            provisional=self._state.provisional,
            lenient=lenient,
        )
        return await self._steering.call(
            FETCH,
            request,
            summary=f"fetch {batch.id}",
            timeout=LONG,
            submitted=True,
            passes=frozenset({NOT_FOUND}),
            give_up_at=max(workflow.now(), self._steering.deadline_at) + PATIENCE,
        )

    async def _waits_for_more(self, batch: Snapshot, lines: int) -> bool:
        """Wait where the provider says that more is finished than came; return whether to fetch once more."""
        state = self._state
        patience = results_patience(batch, rows=state.rows, lines=lines, stopped=self._stopping())
        if not patience:
            return False
        state.short = lengthened(state.short, workflow.now())
        words = _short_words(self._context.spec.provider, batch, lines)
        if state.short.length >= patience or self._out_of_time():
            state.unreturned = f"{words}; what it may have billed is not bought again."
            self._steering.report(state.unreturned)
            return False
        await self._ask_again(streak_delay(state.short), f"{words}; asking again.")
        return True

    async def _ask_again(self, delay: timedelta, why: str) -> None:
        """Wait, and see whether the batch names more results by now."""
        state, before = self._state, self._state.batch
        assert before is not None
        # A stop ends this wait only if it comes during it.
        await self._steering.pause(delay, why, until_stop=self._steering.stop() is None)
        try:
            await Polling(self._context).poll()
        except StepFailed as error:
            if error.code != NOT_FOUND:
                raise
            return  # it has ended, so its last answer holds
        assert state.batch is not None
        # A server that is behind may name less than another one did before.
        named = {"output": state.batch.output or before.output, "errors": state.batch.errors or before.errors}
        state.batch = state.batch.model_copy(update=named)

    def _stopping(self) -> bool:
        return self._state.stopped is not None or self._steering.stop() is not None

    def _out_of_time(self) -> bool:
        return workflow.now() >= self._steering.deadline_at + PATIENCE


def _names_results(batch: Snapshot) -> bool:
    return batch.output is not None or batch.errors is not None


def _gone_words(batch: Snapshot, fetched: Fetched) -> str:
    if not fetched.gone:
        return ""
    return f"Results of batch {batch.id} were not found: {'; '.join(fetched.gone)} What is paid is not bought again."


def _short_words(provider: str, batch: Snapshot, lines: int) -> str:
    counted = f", counts {batch.completed + batch.failed:,} finished rows" if batch.completed + batch.failed else ""
    sent = f"has sent {lines:,} lines of results" if lines else "names no results yet"
    return f"{provider} has ended the batch {batch.id} ({batch.raw_status}){counted} and {sent}"
