"""`status`, `watch`, `results`, `list` and `cancel`: batches that are there already."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import print_json, print_message, print_output, run_async

if TYPE_CHECKING:
    from ..clients.listing import BatchRecord

Id = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class StatusFilter(StrEnum):
    """What a listing can be narrowed to."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


class RowFormat(StrEnum):
    """How results are printed."""

    JSONL = "jsonl"  #: The result rows as they are.
    TEXT = "text"  #: A row's id, a tab, and its answer on one line.


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    app.command(epilog="Example:  durabatch status nightly-2026-01-31 --json")(status)
    app.command(epilog="Example:  durabatch watch nightly-2026-01-31")(watch)
    app.command(epilog="Example:  durabatch results nightly-2026-01-31 --errors | head")(results)
    app.command("list", epilog="Example:  durabatch list --status running")(list_)
    app.command(epilog='Example:  durabatch cancel nightly-2026-01-31 --reason "wrong prompt"')(cancel)


def status(id: Id, json_: Json = False) -> None:
    """Print where a batch is, and why it waits."""
    run_async(_status(id, json_))


async def _status(id: str, as_json: bool) -> None:
    from .session import session
    from .summary import progress_text

    async with session() as opened:
        progress = await opened.client.status(id)
    if as_json:
        print_json(progress.model_dump(mode="json"))
    else:
        print_output(progress_text(progress))


def watch(id: Id, json_: Json = False) -> None:
    """Follow a batch to its end and print its result.

    Exit code: 0 if every row succeeded, 3 if some did not, 4 if it was cancelled, 1 on an error.
    """
    raise typer.Exit(run_async(_watch(id, json_)))


async def _watch(id: str, as_json: bool) -> int:
    from .results import first_failed
    from .session import session
    from .summary import print_result
    from .watching import follow

    async with session() as opened:
        client = opened.client
        result = await follow(client, id, f"Left the batch {id}; `durabatch cancel {id}` ends it.")
        example = await first_failed(client.store, result)
        return print_result(result, await client.failure(id), example=example, as_json=as_json)


def results(
    id: Id,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them to this file instead of stdout.")
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only the rows that did not succeed.")] = False,
    format: Annotated[
        RowFormat, typer.Option(help="The rows as they are, or each row's id and answer.")
    ] = RowFormat.JSONL,
    with_retries: Annotated[
        bool, typer.Option("--with-retries", help="Each row as its retries have it, where it did not succeed at first.")
    ] = False,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Of a batch that runs: the rows that have a result by now.")
    ] = False,
) -> None:
    """Print the result rows of a batch that has ended.

    They come in the order of its requests, one for each.
    """
    if output is not None and format is RowFormat.TEXT:
        raise typer.BadParameter("writes rows as they are; redirect stdout for text", param_hint="--output")
    if errors and with_retries:
        raise typer.BadParameter("cannot be given with --errors", param_hint="--with-retries")
    if so_far and (output is not None or errors or with_retries or format is RowFormat.TEXT):
        raise typer.BadParameter("prints rows as they are, to stdout", param_hint="--so-far")
    run_async(_so_far(id) if so_far else _results(id, output, errors, format, with_retries))


async def _so_far(id: str) -> None:
    from .results import stream_so_far
    from .session import session

    async with session() as opened:
        rows, total = await stream_so_far(opened.client, id)
    print_message(f"{rows:,} of {total:,} rows have a result so far.")


async def _results(id: str, output: Path | None, errors: bool, format: RowFormat, with_retries: bool) -> None:
    from ..clients.retry_chain import results_of_all
    from .results import Results, copy, stream_results
    from .session import session

    async with session() as opened:
        client = opened.client
        if with_retries:
            uris = await results_of_all(client.temporal, client.store, id)
        else:
            uris = [await client.results_uri(id, errors=errors)]
        found = Results(client.store, uris)
        if output is None:
            await stream_results(found, text=format is RowFormat.TEXT)
            return
        if output.is_dir():
            output /= "errors.jsonl" if errors else "results.jsonl"
        await copy(found, output)
    print_message(f"Written to {output}")


def list_(
    status: Annotated[StatusFilter | None, typer.Option(help="Only batches in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    json_: Json = False,
) -> None:
    """List batches: those that run, the newest first, and then those that have ended, the last one first."""
    run_async(_list(status, limit, json_))


async def _list(status: StatusFilter | None, limit: int, as_json: bool) -> None:
    from .session import session

    async with session() as opened:
        records = [record async for record in opened.client.list(status.value if status else None, limit=limit)]
    if as_json:
        print_json({"batches": [record.model_dump(mode="json") for record in records]})
    elif not records:
        print_message("There are no batches." if status is None else f"There are no batches that are {status.value}.")
    else:
        print_output(_table(records))


def _table(records: list[BatchRecord]) -> str:
    rows = [("BATCH", "STATUS", "PROVIDER", "STARTED")]
    for record in records:
        began = record.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        rows.append((record.batch_id, record.status, record.provider or "?", began))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def cancel(
    id: Id,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept in the result.")] = None,
    requested_by: Annotated[str | None, typer.Option("--by", help="Who; it is kept in the result.")] = None,
    json_: Json = False,
) -> None:
    """End a batch now, at the provider too. It keeps the rows that are finished and ends as canceled."""
    run_async(_cancel(id, reason, requested_by, json_))


async def _cancel(id: str, reason: str | None, requested_by: str | None, as_json: bool) -> None:
    from .run import warn_without_worker
    from .session import session

    async with session() as opened:
        asked = await opened.client.cancel(id, reason=reason, requested_by=requested_by)
        if as_json:
            print_json({"batch_id": id, "cancel_requested": asked})
        else:
            print_output(f"Batch {id} is being cancelled." if asked else f"Batch {id} has ended already.")
        if asked:
            await warn_without_worker(opened)
