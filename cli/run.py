"""`run`, `submit` and `try`: from a file of requests to a batch, or to the results of some rows."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .spec_options import SpecOptions, with_spec_options
from .terminal import print_json, print_message, print_output, run_async
from .terminal import settings as read_settings
from .trying import Trying

if TYPE_CHECKING:
    from ..clients.start import Started
    from ..contract import ConfigurationError
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
#: How long `run` waits before the first poll, unless it is said: somebody looks. The sandbox has few rows at once.
_POLL, _POLL_SANDBOX = "1s", "0.1s"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Copy the results here: a file, or a folder that exists.")
]


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    app.command(epilog="Example:  durabatch run requests.jsonl --provider openai --model gpt-4o-mini -o results.jsonl")(
        run
    )
    app.command("try", epilog="Example:  durabatch try requests.jsonl --provider openai --model gpt-4o-mini -n 20")(
        try_
    )
    app.command(epilog="Example:  durabatch submit requests.jsonl --provider openai --id nightly-2026-01-31")(submit)


@with_spec_options
def run(
    input: Input,
    options: SpecOptions,
    output: Output = None,
    try_: Annotated[
        int | None,
        typer.Option("--try", metavar="N", help="Run N rows directly first, show what came of them, and ask."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --try: go on without asking.")] = False,
    json_: Json = False,
) -> None:
    """Run a batch to its end: submit, watch, write results.

    The same command again joins the same batch: one that was interrupted goes on, one that has ended shows its result.
    With no Temporal configured, an embedded one runs for as long as the command does.

    Exit code: 0 if every row succeeded, 3 if some did not, 4 if it was cancelled or not agreed to, 1 on an error.
    """
    _check_output(output)
    trying = None if try_ is None else Trying(count=try_, only=False, yes=yes)
    if trying is not None:
        trying.check()
    with _local(input) as requests:
        raise typer.Exit(run_async(_run(requests, options, output, trying, json_)))


@with_spec_options
def try_(
    input: Input,
    options: SpecOptions,
    count: Annotated[int, typer.Option("--rows", "-n", help="How many rows to try, 1,000 at most.")] = 20,
    first: Annotated[bool, typer.Option("--first", help="The first rows, not rows of all parts of the input.")] = False,
    json_: Json = False,
) -> None:
    """Run some rows now, one by one, and show their answers and what the whole input would cost.

    It leaves nothing behind: `run` with the same options is the batch as if nothing had been tried. Options that
    concern a batch as a whole, such as --id, change nothing here.

    Exit code: 0 if every row succeeded, 3 if some did not, 4 if it was cancelled, 1 on an error.
    """
    trying = Trying(count=count, first=first)
    trying.check()
    with _local(input) as requests:
        raise typer.Exit(run_async(_run(requests, options, None, trying, json_)))


@with_spec_options
def submit(input: Input, options: SpecOptions, json_: Json = False) -> None:
    """Submit a batch and return at once. A worker runs it; `watch` follows it, `results` fetches its rows.

    It needs a Temporal that goes on when this command ends: a configured one, or `durabatch dev` in this folder.
    """
    with _local(input) as requests:
        run_async(_submit(requests, options, json_))


async def _run(
    requests: str | Path, options: SpecOptions, output: Path | None, trying: Trying | None, as_json: bool
) -> int:
    from ..clients.spec_fields import check_fields
    from ..clients.temporal_config import temporal_config
    from ..workers.embedded import embedded
    from . import stand_in
    from .ahead import ahead

    settings = read_settings()
    alone = not temporal_config()
    sandbox = alone and stand_in.wanted(options.provider, settings)
    options = options.polling_first(_POLL_SANDBOX if sandbox else _POLL)
    provider, id, fields = options.provider, options.id, options.fields()
    check_fields({"provider": provider, **fields}, id)
    unusable = _unusable(settings, provider) if alone and not sandbox else None
    async with contextlib.AsyncExitStack() as stack:
        server = knowing = None
        # What is loaded stays, and to look through it again and again takes a tenth of the start.
        stack.callback(gc.enable)
        gc.disable()
        if alone:
            server = await stack.enter_async_context(ahead(embedded(idle=settings.worker.embedded_idle)))
        if sandbox:
            knowing = await stack.enter_async_context(ahead(stand_in.running(settings)))

        # While they start, what a client and a worker need is loaded.
        from ..clients.connection import Embed
        from ..clients.requests import Rows, gathered
        from .results import copy_results, first_failed
        from .session import log_to_file, session
        from .summary import print_result
        from .watching import follow

        if alone:
            from .embedded_worker import load

            log_to_file(settings.worker.log_format)
            if unusable is None:
                load(stand_in.provider_at(1) if sandbox else settings.provider(provider))  # any port is as good
        gc.freeze()
        gc.enable()
        opened = await stack.enter_async_context(session(Embed.ALWAYS, settings, server))
        if unusable:
            only = trying is not None and trying.only
            known = None if only else await opened.client.find(requests, provider=provider, id=id, **fields)
            if known is None or not known.ended:
                raise unusable
        _introduce(opened, sandbox=sandbox)
        works = False
        source: str | Path | Rows = requests
        if trying:
            rows = await stack.enter_async_context(gathered(requests, opened.client.store))
            # Rows of a batch that is bought already add nothing to what it has answered itself.
            if trying.only or await opened.client.find(rows, provider=provider, id=id, **fields) is None:
                await _have_worker(stack, opened, knowing)
                works = True
                code = await trying.go(opened.client, rows, options, works=opened.embedded, as_json=as_json)
                if code is not None:
                    return code
            # Somebody may have thought about it for long. That local files are the same is seen when they are copied.
            source = rows if rows.files else requests
        started = await opened.client.start(source, provider=provider, id=id, **fields)
        print_message(_greeting(started))
        if not (started.ended or works):
            await _have_worker(stack, opened, knowing)
        farewell = _farewell(started.id, kept=opened.embedded)
        result = await follow(opened.client, started.id, farewell, works=opened.embedded)
        failure = await opened.client.failure(started.id)
        copied = await copy_results(opened.client.store, result, output) if output and result.results else None
        example = await first_failed(opened.client.store, result)
        return print_result(result, failure, copied, example=example, as_json=as_json)


async def _have_worker(stack: contextlib.AsyncExitStack, opened: Session, knowing: Awaitable[Settings] | None) -> None:
    """Run a worker beside the embedded Temporal for as long as the command runs; elsewhere say so if there is none."""
    if not opened.embedded:
        await warn_without_worker(opened)
        return
    from .embedded_worker import embedded_worker

    await stack.enter_async_context(embedded_worker(opened, knowing))


def _unusable(settings: Settings, provider: str) -> ConfigurationError | None:
    """Return why this machine cannot call the provider; None if it can.

    Raises:
        ConfigurationError: it cannot, and this folder has no batches yet. One that has ended needs no provider.
    """
    from ..contract import ConfigurationError, UnknownProvider
    from ..workers.embedded import temporal_server

    try:
        check_provider(settings, provider)
    except UnknownProvider:
        raise
    except ConfigurationError as error:
        if not Path(temporal_server().mark).exists():
            raise
        return error
    return None


def check_provider(settings: Settings, name: str) -> None:
    """Check that this machine, where the batch will run, can call its provider at all, without calling it.

    Raises:
        ConfigurationError: there is no such provider, its key is missing or cannot be one, or a proxy, a certificate
            file or the base URL cannot be used.
    """
    from ..activities.providers.http_client import check

    check(settings.provider(name))


def check_known(settings: Settings, name: str) -> None:
    """Check a provider whose rows the worker of this folder will send, as far as that can be done without its key.

    With a configured Temporal the workers' configuration counts, which may be another one.

    Raises:
        ConfigurationError: this folder's configuration has no such provider, or cannot call it.
    """
    from ..clients.temporal_config import temporal_config
    from ..contract import ConfigurationError, MissingKey
    from . import stand_in

    if temporal_config():
        return
    if stand_in.wanted(name, settings) and not stand_in.process().recorded():
        raise ConfigurationError("The sandbox does not run in this folder: `durabatch dev --sandbox` starts it.")
    with contextlib.suppress(MissingKey):  # whoever runs it may have it
        check_provider(stand_in.known(settings), name)


def _introduce(opened: Session, *, sandbox: bool) -> None:
    if opened.connection.embedded:
        print_message(f"Embedded Temporal is running; its Web UI is at {opened.connection.embedded.ui_url}")
    if sandbox:
        print_message("The provider is the sandbox: a stand-in that invents its answers and costs nothing.")


def _farewell(id: str, *, kept: bool) -> str:
    """Return what is said at Ctrl-C."""
    if not kept:
        return f"Left the batch {id}; it goes on: `durabatch watch {id}` follows it, `durabatch cancel {id}` ends it."
    return (
        f"Left the batch {id}; it is kept, with every row that is answered: give the same command again to go on, "
        f"`durabatch cancel {id}` ends it. What is being written is finished first, which takes some seconds."
    )


async def _submit(requests: str | Path, options: SpecOptions, as_json: bool) -> None:
    from ..clients.connection import Embed
    from .session import session

    settings = read_settings()
    check_known(settings, options.provider)
    async with session(Embed.RUNNING, settings) as opened:
        started = await opened.client.start(requests, provider=options.provider, id=options.id, **options.fields())
        if as_json:
            print_json({"batch_id": started.id, "created": started.created})
        else:
            print_output(started.id)
            print_message(_greeting(started))
        await warn_without_worker(opened)


async def warn_without_worker(opened: Session) -> None:
    """Say so if no worker would take the batch."""
    from ..activities.task_queues import worker_polls
    from ..clients.connection import worker_command

    queue = opened.settings.worker.task_queue
    if await worker_polls(opened.connection.client, queue):
        return
    print_message(
        f"No worker polls task queue {queue!r} at {opened.connection.address}, so the batch waits; "
        f"{worker_command(opened.connection.client)} runs one."
    )


def _greeting(started: Started) -> str:
    if started.created:
        return f"Batch {started.id} is submitted."
    return f"Batch {started.id} {'has ended already; nothing is submitted again' if started.ended else 'goes on'}."


@contextlib.contextmanager
def _local(input: str) -> Iterator[str | Path]:
    """Yield the input as the client takes it, after the checks that need no Temporal; stdin becomes a file."""
    import sys
    import tempfile

    from ..clients.local_files import check_files
    from ..contract import InvalidInput

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
        try:
            check_files(file)
            yield file
        except InvalidInput as error:
            # That file is nothing the user knows of, and gone when this is read.
            message = error.message.replace(f"The file {file}", "The input from stdin")
            raise InvalidInput(message, error.problems, error.total) from None


def _check_output(output: Path | None) -> None:
    """Refuse, before anything is bought, a place that results could not be copied to."""
    if output is None:
        return
    folder = output.absolute() if output.is_dir() else output.absolute().parent
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}", param_hint="--output")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"nothing can be written into the folder {folder}", param_hint="--output")
