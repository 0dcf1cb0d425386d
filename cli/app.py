"""The command's frame: its subcommands, what holds for all of them, and how it ends.

Nothing heavy is imported before a subcommand runs, so that --help and shell completion answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from . import batches, doctor, gateway, gc, providers, retrying, run, serve, webhooks
from .terminal import State, print_error

app = typer.Typer(
    name="durabatch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Durable LLM batches: one result for every request, paid once, whatever crashes on the way.",
    epilog="Try it without an account:  durabatch run requests.jsonl --provider sandbox --model gpt-4o-mini",
)


def _version(wanted: bool) -> None:
    if wanted:
        from durabatch import __version__

        typer.echo(f"durabatch {__version__}")
        raise typer.Exit()


@app.callback()
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(envvar="DURABATCH_CONFIG", metavar="FILE", help="The configuration; ./durabatch.toml by default."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="DURABATCH_DEBUG", help="Show the traceback of an error, and all logs.")
    ] = False,
) -> None:
    State.config, State.debug = config, debug


for module in (run, batches, retrying, gc, serve, gateway, providers, webhooks, doctor):
    module.register(app)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    code = run_command()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            code = code or 1
    # Not sys.exit: threads of Temporal's core may still be on their way back into an interpreter that is being torn
    # down, which aborts the process and loses the exit code. Everything that has to be closed is closed by now.
    os._exit(code)


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's own, and return its exit code; an error is printed."""
    try:
        app(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:
        if State.debug:
            traceback.print_exc()
        else:
            print_error(error)
        return 1
    return 0
