"""Following a batch to its end: a live display where somebody looks, a line at each change where nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator

from ..clients.client import BatchClient
from ..clients.progress import no_worker
from ..contract import BatchProgress, BatchResult
from .summary import duration, progress_line, seconds_until
from .terminal import interactive, print_message

#: How long something is waited for, which is no news when it is less than before.
_COUNTDOWN = re.compile(r", in \d+ s\b")


async def follow(client: BatchClient, id: str, farewell: str, *, works: bool = False) -> BatchResult:
    """Show a batch's progress until it ends, and return its result.

    Args:
        farewell: said when the command is interrupted: what becomes of the batch.
        works: whether this command runs a worker, so that no other one is missing while that one begins.

    Raises:
        BatchNotFound: there is no such batch.
    """
    try:
        with display(client if works else None) as show:
            async with contextlib.aclosing(client.watch(id)) as progresses:
                async for progress in progresses:
                    show(progress)
    except asyncio.CancelledError:
        print_message(farewell)
        raise
    assert progress.result is not None
    return progress.result


@contextlib.contextmanager
def display(own: BatchClient | None = None) -> Iterator[Callable[[BatchProgress], None]]:
    """Yield what shows where a batch is, for as long as the block lasts.

    Args:
        own: the client whose task queue this command runs a worker on, where it does: then no other one is missing when
            that one has not begun yet, or is too busy to answer.
    """
    unheard = None if own is None else no_worker(own.temporal, own.task_queue)
    with _live() if interactive() else _lines() as show:

        def heard(progress: BatchProgress) -> None:
            silent = progress.waiting_for is not None and progress.waiting_for == unheard
            show(progress.model_copy(update={"waiting_for": None}) if silent else progress)

        yield heard


@contextlib.contextmanager
def _lines() -> Iterator[Callable[[BatchProgress], None]]:
    last = ""

    def show(progress: BatchProgress) -> None:
        nonlocal last
        line = progress_line(progress)
        if (steady := _COUNTDOWN.sub("", line)) != last:
            print_message(line)
            last = steady

    yield show


@contextlib.contextmanager
def _live() -> Iterator[Callable[[BatchProgress], None]]:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.text import Text

    latest: BatchProgress | None = None
    spinner = Spinner("dots")

    def render() -> RenderableType:
        if latest is None:
            return spinner
        line = Text(progress_line(latest))
        if latest.next_poll_at is not None and (left := seconds_until(latest.next_poll_at)) > 0:
            line.append(f" · next poll in {duration(left)}", style="dim")
        spinner.update(text=line)
        if not latest.counts.total or latest.result is not None:
            return spinner
        return Group(spinner, ProgressBar(total=latest.counts.total, completed=latest.counts.settled, width=40))

    # get_renderable is asked at each refresh, so the countdown runs between two looks at the batch.
    with Live(get_renderable=render, console=Console(stderr=True), refresh_per_second=8, transient=True):

        def show(progress: BatchProgress) -> None:
            nonlocal latest
            latest = progress

        yield show
