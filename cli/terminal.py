"""What the command prints, and where: facts to stdout, everything else to stderr; one sentence for an error."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from ..workers.settings import Settings

T = TypeVar("T")

#: Exit codes beside 0 (every row succeeded) and 1 (an error).
SOME_ROWS_FAILED = 3
CANCELED = 4
#: What shells report for a process that Ctrl-C ended.
INTERRUPTED = 128 + signal.SIGINT

#: Lines of wrong input that are printed; the others are counted.
_PROBLEMS = 20


class State:
    """The options before the subcommand."""

    config: str | None = None
    debug: bool = False


def settings() -> Settings:
    """Read the configuration."""
    from ..workers.settings import Settings

    return Settings.load(State.config)


def print_message(text: str) -> None:
    """Print something for the person at the terminal, which is no fact for a program, to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_output(text: str) -> None:
    """Print a fact to stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_json(facts: Mapping[str, Any]) -> None:
    """Print facts to stdout as one JSON object."""
    print_output(json.dumps(facts, ensure_ascii=False, indent=2))


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a subcommand's work. Ctrl-C and SIGTERM cancel it, and it cleans up before it ends."""
    import asyncio

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        # asyncio does the same with Ctrl-C by itself.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None


async def until_stopped() -> None:
    """Wait for Ctrl-C or SIGTERM, which is how this process is meant to end."""
    import asyncio

    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print_message("Stopping.")
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()


def print_error(error: BaseException) -> None:
    """Print an error in one sentence, with what to do about it."""
    from ..contract import DurabatchError, InvalidInput

    if isinstance(error, DurabatchError):
        print_message(f"error: {error.message}")
        if isinstance(error, InvalidInput):
            print_problems(error.problems, error.total)
        if (hint := _hint(error)) is not None:
            print_message(f"hint: {hint}")
        return
    said = str(error).strip().splitlines()
    print_message(f"error: {type(error).__name__}{f': {said[0]}' if said else ''}")
    print_message("hint: `durabatch --debug …` shows where it comes from.")


def print_problems(problems: Sequence[object], total: int) -> None:
    """Print which rows are wrong: the first of them, then how many more there are."""
    for problem in problems[:_PROBLEMS]:
        print_message(f"  {problem}")
    if (more := total - min(len(problems), _PROBLEMS)) > 0:
        print_message(f"  … and {more:,} more")


#: What is wrong with every row of a file whose command lacks an option, and that option.
_COMMON = {
    "model: is missing, and the batch names none": "give the model of all rows that name none by --model.",
    "(tokens_per_minute)": "raise tokens_per_minute of the provider, or have the rows ask for less output.",
    "url: differs from the batch's endpoint": "give the rows' endpoint by --endpoint; a batch asks one endpoint.",
}


def _hint(error: BaseException) -> str | None:
    from ..clients.connection import TemporalUnavailable
    from ..contract import BatchNotFinished, BatchNotFound, InvalidInput, MissingKey, ObjectNotFound, UnknownProvider

    if isinstance(error, InvalidInput) and error.problems:
        # Where all rows lack the same, it is the command that lacks it.
        for problem, advice in _COMMON.items():
            if len(error.problems) == error.total and all(problem in one.message for one in error.problems):
                return advice
        return "correct these lines; --skip-invalid lets them fail alone, where others are right."
    if isinstance(error, BatchNotFound):
        return "`durabatch list` shows the batches there are."
    if isinstance(error, BatchNotFinished):
        return "`durabatch watch ID` follows it to its end."
    if isinstance(error, MissingKey | UnknownProvider):
        advice = (
            "`--provider sandbox` tries everything without an account; `durabatch doctor` checks the configuration."
        )
        # In one folder, the worker of a `gateway` or `dev` may take the steps of a `run` that has the key.
        where = " Each worker needs the key: also a `dev`, `gateway` or `worker` that was started without it."
        return advice + where if isinstance(error, MissingKey) else advice
    if isinstance(error, TemporalUnavailable):
        return "`durabatch doctor` checks what is wrong."
    if isinstance(error, ObjectNotFound):
        return (
            "is the store mounted, and is its url right? `durabatch doctor` checks it; `gc --results` removes results."
        )
    return None


def interactive() -> bool:
    """Return whether somebody is looking at stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def plain_path(uri: str) -> str:
    """Return a URI as a person would type it: the path of a local file."""
    from urllib.parse import unquote

    return unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri
