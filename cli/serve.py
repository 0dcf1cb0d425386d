"""`worker`, `dev` and `sandbox`: processes that stay."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .terminal import print_json, print_message, print_output, run_async, until_stopped
from .terminal import settings as read_settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

#: Pause before Temporal is tried again by a worker that was started before it, in seconds.
_PAUSE = 2.0
#: Pause between two looks whether the worker polls, in seconds: it does so some milliseconds after its start.
_LOOK = 0.02


def register(app: typer.Typer) -> None:
    """Add the subcommands."""
    app.command(epilog="Example:  TEMPORAL_ADDRESS=temporal:7233 durabatch worker")(worker)
    app.command(epilog="Example:  durabatch dev --sandbox")(dev)
    app.command(
        epilog="Example:  durabatch sandbox --port 9000 --batch-seconds 30",
        # The sandbox's own settings are passed on to it.
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(sandbox)


def worker(
    task_queue: Annotated[
        str | None, typer.Option(help="The task queue to poll; the configuration's otherwise.")
    ] = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C.

    It then lets the steps under way end, or hands them on to other workers.
    """
    run_async(_worker(task_queue))


async def _worker(task_queue: str | None) -> None:
    import asyncio

    from ..clients.connection import Embed, TemporalUnavailable
    from ..workers.worker import open_worker
    from . import stand_in
    from .session import log_to_stderr, session

    settings = read_settings()
    log_to_stderr(settings.worker.log_format)
    queue = task_queue or settings.worker.task_queue
    print_message(f"Configuration: {_compact(settings.redacted())}")
    waited = False
    while True:
        try:
            async with session(Embed.RUNNING, settings) as opened:
                if opened.embedded:
                    settings = stand_in.known(settings)
                async with open_worker(opened.connection.client, settings, task_queue=queue):
                    print_message(f"Worker polls task queue {queue!r} at {opened.connection.address}.")
                    gc.freeze()  # what is loaded stays: looking through it took up to 0.2 s of everybody's time
                    await until_stopped()
            return
        except TemporalUnavailable as error:
            # Workers and Temporal may be started at the same time, in any order.
            if not waited:
                print_message(f"{error.message} Trying on.")
            waited = True
            await asyncio.sleep(_PAUSE)


def dev(
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Run the stand-in provider `sandbox` too.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop what a killed command left running in this folder, and do no more.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run an embedded Temporal and a worker here.

    They serve `submit`, `watch` and the Python client in this folder, until Ctrl-C.
    """
    run_async(_stop(json_) if stop else _dev(sandbox, json_))


async def _stop(as_json: bool) -> None:
    from ..workers.embedded import temporal_server
    from . import stand_in

    stopped = [server.name for server in (temporal_server(), stand_in.process()) if await server.stop()]
    if as_json:
        print_json({"stopped": stopped})
    elif stopped:
        print_output(
            f"Stopped: {', '.join(stopped)}. Batches that are under way are kept, and go on with the next command."
        )
    else:
        print_output("No embedded Temporal runs in this folder, so there is nothing to stop.")


async def _dev(sandbox: bool, as_json: bool) -> None:
    import asyncio

    from ..clients.temporal_config import temporal_config
    from ..contract import ConfigurationError
    from ..workers.embedded import embedded
    from . import stand_in
    from .ahead import ahead

    if temporal_config():
        raise ConfigurationError(
            "A Temporal is configured, and `durabatch dev` would run another one: use `durabatch worker`, or unset "
            "TEMPORAL_*."
        )
    settings = read_settings()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ahead(embedded(idle=settings.worker.embedded_idle)))
        provider = await stack.enter_async_context(ahead(stand_in.running(settings))) if sandbox else None

        from temporalio.service import RPCError

        from ..activities.task_queues import worker_polls
        from ..clients.connection import Embed
        from .embedded_worker import embedded_worker
        from .session import log_to_file, session

        log_to_file(settings.worker.log_format)
        opened = await stack.enter_async_context(session(Embed.ALWAYS, settings, server))
        await stack.enter_async_context(embedded_worker(opened, provider))
        client, where = opened.connection.client, await server
        while True:
            # A look that fails, on a machine that is busy just now, is no reason to end.
            with contextlib.suppress(RPCError):
                if await worker_polls(client, settings.worker.task_queue, client.identity):
                    break
            await asyncio.sleep(_LOOK)
        if as_json:
            print_json({"address": where.address, "ui_url": where.ui_url, "store": opened.client.store.url})
        else:
            print_output(f"Temporal  {where.address}\nWeb UI    {where.ui_url}\nStore     {opened.client.store.url}")
        print_message("A worker runs. Ctrl-C ends both; batches that are under way are kept.")
        await until_stopped()


def sandbox(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.")] = 0,
    state: Annotated[Path, typer.Option(help="Folder to remember everything in.")] = Path(".durabatch/sandbox"),
) -> None:
    """Run the stand-in provider until Ctrl-C.

    It prints its URL as one JSON line. Further options are its settings, such as --batch-seconds 30;
    `python -m durabatch.sandbox --help` lists them.
    """
    sys.stdout.flush()
    arguments = ["--state", str(state), "--port", str(port), *context.args]
    os.execv(sys.executable, [sys.executable, "-P", "-m", "durabatch.sandbox", *arguments])


def _compact(facts: object) -> str:
    import json

    return json.dumps(facts, ensure_ascii=False)
