"""Rows that are tried before a batch is run: what they were answered, what all would cost, and whether to go on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from .terminal import CANCELED, print_json, print_message, print_output

if TYPE_CHECKING:
    from ..clients.client import BatchClient
    from ..clients.requests import Rows
    from ..clients.tries import Trial
    from .spec_options import SpecOptions


@dataclass(frozen=True, kw_only=True)
class Trying:
    """What the command line says of the rows that are tried first."""

    count: int  #: How many.
    first: bool = False  #: Whether they are the first ones.
    only: bool = True  #: Whether the batch is not to be run at all.
    yes: bool = False  #: Whether it is run without asking.

    def check(self) -> None:
        """Refuse, before anything is started, what could not be gone through with.

        Raises:
            InvalidSpec: so many rows cannot be tried.
            typer.BadParameter: it would ask, and nobody could answer.
        """
        from ..clients.sample import check_count

        check_count(self.count)
        if not (self.only or self.yes or (sys.stdin.isatty() and sys.stderr.isatty())):
            raise typer.BadParameter(
                "asks before the batch is bought, and there is no terminal to ask at; --yes goes on without asking",
                param_hint="--try",
            )

    async def go(
        self, client: BatchClient, requests: Rows, options: SpecOptions, *, works: bool, as_json: bool
    ) -> int | None:
        """Try the rows and show what came of them.

        Args:
            works: whether this command runs the worker.

        Returns:
            The exit code where the command ends with this, None where the batch is to be run now.
        """
        from .summary import exit_code
        from .trial_summary import trial_text
        from .watching import display

        print_message(f"Trying {'up to ' * (self.count > 1)}{self.count:,} row{'s' * (self.count != 1)}.")
        with display(client if works else None) as show:
            trial = await client.try_rows(
                requests,
                provider=options.provider,
                rows=self.count,
                first=self.first,
                report=show,
                say=print_message,
                **options.fields(),
            )
        code = exit_code(trial.result)
        if self.only:
            if as_json:
                print_json(trial.facts())
            else:
                print_output(trial_text(trial))
            return code
        print_message(trial_text(trial))
        if self.yes:
            if trial.result.counts.succeeded:
                return None
            print_message("None of the rows that were tried succeeded, so the batch is not run.")
            return code or 1
        if await _agreed(trial):
            return None
        print_message("The batch is not run, and nothing of it was bought.")
        return CANCELED


async def _agreed(trial: Trial) -> bool:
    sys.stderr.write(f"Run the batch of {trial.total:,} row{'s' * (trial.total != 1)}? [y/N] ")
    sys.stderr.flush()
    import asyncio

    # Not in a thread: at Ctrl-C the process would go on until somebody presses Enter.
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
