"""`run` and `submit`: from a file of requests to a batch."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import carry_out, put, put_json, say
from .terminal import settings as read_settings

if TYPE_CHECKING:
    from ..clients.start import Started
    from ..contract import BatchResult
    from ..workers.settings import Settings
    from .session import Session

Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="JSONL file of requests, a folder of them, or a pattern such as 'data/*.jsonl.gz', in quotes; gzip and "
        "zstd are read as well. Or the URI of such in the store, or - for stdin.",
    ),
]
Provider = Annotated[str, typer.Option("--provider", "-p", help="Name of a provider in the configuration.")]
Id = Annotated[str | None, typer.Option("--id", help="The batch's id; made from the content by default.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Model of the rows that name none.")]
Endpoint = Annotated[str | None, typer.Option(help="Path that the rows ask; /v1/chat/completions by default.")]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="Default for every row's body; VALUE is JSON or text."),
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="Label that is kept in the result.")
]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Let rows that cannot be sent fail alone, and send the others.")
]
Deadline = Annotated[str | None, typer.Option(metavar="DURATION", help="How long it may take, such as 26h.")]
MaxAttempts = Annotated[int | None, typer.Option(help="How often a row is submitted at most.")]
MaxRows = Annotated[int | None, typer.Option("--max-rows-per-shard", help="Rows of one provider batch at most.")]
MaxCost = Annotated[float | None, typer.Option(help="Refuse the batch if its input alone is estimated to cost more.")]
Priority = Annotated[
    int | None,
    typer.Option(help="Whose turn is first where an account's queue is full: 1 first, 5 last; 3 by default."),
]
FairnessKey = Annotated[
    str | None, typer.Option(help="Batches with one key, such as a tenant, share one turn among all keys.")
]
PollFirst = Annotated[str | None, typer.Option(metavar="DURATION", help="Wait before the provider is asked first.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Copy the results here: a file, or a folder that exists.")
]


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    app.command(epilog="Example:  durabatch run requests.jsonl --provider openai --model gpt-4o-mini -o results.jsonl")(
        run
    )
    app.command(epilog="Example:  durabatch submit requests.jsonl --provider openai --id nightly-2026-01-31")(submit)


def run(
    input: Input,
    provider: Provider,
    id: Id = None,
    model: Model = None,
    endpoint: Endpoint = None,
    param: Params = None,
    label: Labels = None,
    output: Output = None,
    skip_invalid: SkipInvalid = False,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = None,
    max_rows_per_shard: MaxRows = None,
    max_cost_usd: MaxCost = None,
    priority: Priority = None,
    fairness_key: FairnessKey = None,
    poll_first: PollFirst = "1s",
    json_: Json = False,
) -> None:
    """Run a batch to its end: submit, watch, write results.

    The same command again joins the same batch: one that was interrupted goes on, one that has ended shows its result.
    With no Temporal configured, an embedded one runs for as long as the command does.

    Exit code: 0 if every row succeeded, 3 if some did not, 4 if it was cancelled, 1 on an error.
    """
    fields = _fields(
        endpoint,
        model,
        param,
        label,
        skip_invalid,
        deadline,
        max_attempts,
        max_rows_per_shard,
        max_cost_usd,
        priority,
        fairness_key,
        poll_first,
    )
    _check_output(output)
    with _local(input) as requests:
        raise typer.Exit(carry_out(_run(requests, provider, id, fields, output, json_)))


def submit(
    input: Input,
    provider: Provider,
    id: Id = None,
    model: Model = None,
    endpoint: Endpoint = None,
    param: Params = None,
    label: Labels = None,
    skip_invalid: SkipInvalid = False,
    deadline: Deadline = None,
    max_attempts: MaxAttempts = None,
    max_rows_per_shard: MaxRows = None,
    max_cost_usd: MaxCost = None,
    priority: Priority = None,
    fairness_key: FairnessKey = None,
    poll_first: PollFirst = None,
    json_: Json = False,
) -> None:
    """Submit a batch and return at once. A worker runs it; `watch` follows it, `results` fetches its rows.

    It needs a Temporal that goes on when this command ends: a configured one, or `durabatch dev` in this folder.
    """
    fields = _fields(
        endpoint,
        model,
        param,
        label,
        skip_invalid,
        deadline,
        max_attempts,
        max_rows_per_shard,
        max_cost_usd,
        priority,
        fairness_key,
        poll_first,
    )
    with _local(input) as requests:
        carry_out(_submit(requests, provider, id, fields, json_))


async def _run(
    requests: str | Path, provider: str, id: str | None, fields: dict[str, Any], output: Path | None, as_json: bool
) -> int:
    from ..clients.connection import Embed, temporal_config
    from ..clients.start import check
    from ..contract import ConfigurationError, UnknownProvider
    from ..workers.embedded import temporal_server
    from . import stand_in
    from .results import copy_results
    from .session import embedded_worker, log_to_file, session
    from .summary import print_result

    check({"provider": provider, **fields}, id)
    settings = read_settings()
    alone = not temporal_config()
    sandbox = alone and stand_in.wanted(provider, settings)
    unusable: ConfigurationError | None = None
    if alone:
        log_to_file(settings.worker.log_format)
        try:
            if not sandbox:
                check_provider(settings, provider)
        except UnknownProvider:
            raise
        except ConfigurationError as error:
            if not Path(temporal_server().mark).exists():
                raise
            unusable = error  # a batch that has ended needs no provider
    async with session(Embed.ALWAYS, settings) as opened:
        if unusable:
            known = await opened.client.find(requests, provider=provider, id=id, **fields)
            if known is None or not known.ended:
                raise unusable
        if opened.connection.embedded:
            say(f"Embedded Temporal is running; its Web UI is at {opened.connection.embedded.ui_url}")
        if sandbox:
            say("The provider is the sandbox: a stand-in that invents its answers and costs nothing.")
        started = await opened.client.start(requests, provider=provider, id=id, **fields)
        say(_greeting(started))
        async with contextlib.AsyncExitStack() as stack:
            if not started.ended:
                if opened.embedded:
                    await stack.enter_async_context(embedded_worker(opened, sandbox=sandbox))
                else:
                    await warn_without_worker(opened)
            result = await _follow(opened, started.id)
            failure = await opened.client.failure(started.id)
            copied = await copy_results(opened.client.store, result, output) if output and result.results else None
            return print_result(result, failure, copied, as_json=as_json)


def check_provider(settings: Settings, name: str) -> None:
    """Check that this machine, where the batch will run, can call its provider at all, without calling it.

    Raises:
        ConfigurationError: there is no such provider, its key is missing or cannot be one, or a proxy, a certificate
            file or the base URL cannot be used.
    """
    from ..activities.providers.http_client import check

    check(settings.provider(name))


async def _follow(opened: Session, id: str) -> BatchResult:
    from .watching import follow

    kept = (
        "it is kept: give the same command again to go on"
        if opened.embedded
        else f"it goes on: `durabatch watch {id}` follows it"
    )
    return await follow(opened.client, id, f"Left the batch {id}; {kept}, `durabatch cancel {id}` ends it.")


async def _submit(requests: str | Path, provider: str, id: str | None, fields: dict[str, Any], as_json: bool) -> None:
    from ..clients.connection import Embed, temporal_config
    from .session import session

    settings = read_settings()
    named = settings.providers.get(provider)
    if not temporal_config() and named is not None and named.api_key:
        check_provider(settings, provider)  # whoever runs it in this folder reads the same file
    async with session(Embed.RUNNING, settings) as opened:
        started = await opened.client.start(requests, provider=provider, id=id, **fields)
        if as_json:
            put_json({"batch_id": started.id, "created": started.created})
        else:
            put(started.id)
            say(_greeting(started))
        await warn_without_worker(opened)


async def warn_without_worker(opened: Session) -> None:
    """Say so if no worker would take the batch."""
    from ..clients.queries import worker_polls

    queue = opened.settings.worker.task_queue
    if await worker_polls(opened.connection.client, queue):
        return
    start = "`durabatch dev` in this folder" if opened.embedded else "`durabatch worker`"
    say(f"No worker polls task queue {queue!r} at {opened.connection.address}, so the batch waits; {start} runs one.")


def _greeting(started: Started) -> str:
    if started.created:
        return f"Batch {started.id} is submitted."
    return f"Batch {started.id} {'has ended already; nothing is submitted again' if started.ended else 'goes on'}."


def _fields(
    endpoint: str | None,
    model: str | None,
    params: list[str] | None,
    labels: list[str] | None,
    skip_invalid: bool,
    deadline: str | None,
    max_attempts: int | None,
    max_rows: int | None,
    max_cost_usd: float | None,
    priority: int | None,
    fairness_key: str | None,
    poll_first: str | None,
) -> dict[str, Any]:
    """Return the fields of the spec that were given; the others keep the spec's own defaults."""
    given = {
        "endpoint": endpoint,
        "model": model,
        "params": {name: _value(value) for name, value in _pairs("--param", params)} or None,
        "metadata": dict(_pairs("--label", labels)) or None,
        "on_invalid_row": "fail_row" if skip_invalid else None,
        "deadline": deadline,
        "retry": None if max_attempts is None else {"max_attempts": max_attempts},
        "limits": None if max_rows is None else {"max_rows": max_rows},
        # By way of text, so that 0.1 stays 0.1.
        "max_cost_usd": None if max_cost_usd is None else str(max_cost_usd),
        "priority": priority,
        "fairness_key": fairness_key,
        "poll": None if poll_first is None else {"first": poll_first},
    }
    return {name: value for name, value in given.items() if value is not None}


def _pairs(option: str, words: list[str] | None) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for word in words or []:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE", param_hint=option)
        pairs.append((name, value))
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextlib.contextmanager
def _local(input: str) -> Iterator[str | Path]:
    """Yield the input as the client takes it, after the checks that need no Temporal; stdin becomes a file."""
    import sys
    import tempfile

    from ..clients.local_files import check_files

    if input != "-":
        if "://" not in input:
            check_files(input)
        yield input
        return
    import shutil

    with tempfile.TemporaryDirectory(prefix="durabatch-") as folder:
        file = Path(folder, "stdin.jsonl")
        with file.open("wb") as out:
            shutil.copyfileobj(sys.stdin.buffer, out)
        check_files(file)
        yield file


def _check_output(output: Path | None) -> None:
    """Refuse, before anything is bought, a place that results could not be copied to."""
    if output is None:
        return
    folder = output.absolute() if output.is_dir() else output.absolute().parent
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}", param_hint="--output")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"nothing can be written into the folder {folder}", param_hint="--output")
