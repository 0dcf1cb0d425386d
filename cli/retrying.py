"""`retry`: the rows of a batch that did not succeed, once more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .batches import Id, Json
from .terminal import print_json, print_message, print_output, run_async

if TYPE_CHECKING:
    from ..clients.retrying import Retried
    from ..clients.spec_fields import SpecFields
    from .session import Session


def register(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command(epilog="Example:  durabatch retry nightly-2026-01-31 --mode direct --watch")(retry)


def retry(
    id: Id,
    provider: Annotated[
        str | None, typer.Option("--provider", "-p", help="Where to run them; the batch's own provider by default.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Another model for rows that name none.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="batch|direct", help="By the provider's batch API, or row by row at the list price."),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long it may take, such as 26h; as the batch by default.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How often a row is submitted at most.")] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(help="Refuse it if its input alone is estimated to cost more.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end, as `durabatch watch` does.")] = False,
    json_: Json = False,
) -> None:
    """Run the rows of a batch that did not succeed once more, as a new batch ID.retry-1, ID.retry-2, …

    Each takes the rows that the one before it has left over; what has succeeded is never bought again. While one runs,
    the same command joins it. `durabatch results ID --with-retries` has the results of all as one.

    Exit code with --watch: 0 if every row succeeded, 3 if some did not, 4 if it was cancelled, 1 on an error.
    """
    given: dict[str, Any] = {
        "model": model,
        "mode": mode,
        "deadline": deadline,
        "retry": None if max_attempts is None else {"max_attempts": max_attempts},
        "max_cost_usd": None if max_cost_usd is None else str(max_cost_usd),
    }
    fields: SpecFields = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]
    raise typer.Exit(run_async(_retry(id, provider, fields, watch, json_)))


async def _retry(id: str, provider: str | None, fields: SpecFields, watch: bool, as_json: bool) -> int:
    from .run import check_known, warn_without_worker
    from .session import log_to_file, session
    from .terminal import settings as read_settings

    settings = read_settings()
    if provider is not None:
        check_known(settings, provider)
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(session(settings=settings))
        started = await opened.client.retry(id, provider=provider, **fields)
        print_message(_greeting(started))
        if watch:
            if opened.embedded:
                log_to_file(opened.settings.worker.log_format)
                await _have_worker(stack, opened)
            return await _followed(opened, started, as_json)
        if as_json:
            print_json(_facts(started))
        else:
            print_output(started.id)
        await warn_without_worker(opened)
    return 0


async def _have_worker(stack: contextlib.AsyncExitStack, opened: Session) -> None:
    """Run a worker beside the embedded Temporal, and the stand-in provider where it was used in this folder."""
    from . import stand_in
    from .embedded_worker import embedded_worker

    if stand_in.NAME not in opened.settings.providers and stand_in.process().recorded():
        await stack.enter_async_context(stand_in.running(opened.settings))
    await stack.enter_async_context(embedded_worker(opened, None))


async def _followed(opened: Session, started: Retried, as_json: bool) -> int:
    from .results import first_failed
    from .summary import print_result
    from .watching import follow

    id, client = started.id, opened.client
    result = await follow(client, id, f"Left the batch {id}; `durabatch cancel {id}` ends it.", works=opened.embedded)
    example = await first_failed(client.store, result)
    return print_result(result, await client.failure(id), example=example, as_json=as_json)


def _facts(started: Retried) -> dict[str, Any]:
    """Return what was started for a program, in which a batch's id has the name that it has everywhere."""
    facts = dict(vars(started))
    return {"batch_id": facts.pop("id"), **facts}


def _greeting(started: Retried) -> str:
    rows = f"{started.rows:,} row{'s' * (started.rows != 1)}"
    if not started.created:
        return f"Batch {started.id} of {rows} {'has ended already' if started.ended else 'goes on'}."
    cost = (
        "what it costs at most is not known, as a price, or a limit of a row's output, is not"
        if started.most_usd is None
        else f"it costs {started.most_usd} USD at most, by the estimate of its input and the limits of its output"
    )
    left = (
        f" {started.refused:,} more cannot be sent, as the results of {started.retry_of} say, and are left out."
        if started.refused
        else ""
    )
    return f"Batch {started.id} of {rows} is submitted; {cost}.{left}"
