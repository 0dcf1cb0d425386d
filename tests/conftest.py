"""What holds for all tests: which come first, and what a busy machine does to the SDK without harm."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

#: Tests against real servers, which wait more than they compute.
SLOW = ("workflows", "chaos", "e2e", "clients", "replay")
#: The files that take longest, some of them in the one run and some in the other.
LONGEST = (
    "e2e/test_benchmarks.py",
    "workflows/test_operators.py",
    "workflows/test_odd_answers.py",
    "e2e/test_other_clients.py",
    "chaos/test_chaos_servers.py",
    "chaos/test_direct_kills.py",
    "e2e/test_run.py",
    "workflows/test_continue.py",
    "workflows/test_fleet.py",
    "workflows/test_submission.py",
    "workflows/test_outages.py",
    "workflows/test_ledger.py",
    "e2e/test_gateway_fuzzed.py",
    "gateway/test_messages.py",
    "chaos/test_chaos_short.py",
    "clients/test_embedded.py",
    "e2e/test_examples.py",
    "e2e/test_try.py",
)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let the SDK interrupt a workflow task wherever it is.

    It does so after two seconds, which a busy machine needs for a task that does nothing wrong, and the server gives
    the task again. Where the interrupt lands in a destructor Python can only report it, and that would fail a test.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # In the background of a shell Ctrl-C is ignored, and every process that a test starts would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    report = sys.unraisablehook

    def unless_interrupted(unraisable: sys.UnraisableHookArgs) -> None:
        if type(unraisable.exc_value).__name__ != "_InterruptDeadlockError":
            report(unraisable)

    sys.unraisablehook = unless_interrupted


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what waits most, so that at the end no process waits alone for the last slow file."""
    tests = config.rootpath / "tests"
    rank = {name: place for place, name in enumerate(LONGEST)}

    def order(item: pytest.Item) -> tuple[int, bool]:
        file = item.path.relative_to(tests)
        return rank.get(file.as_posix(), len(rank)), file.parts[0] not in SLOW

    items.sort(key=order)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files without a slow test where only those are run: each process would load them all for nothing."""
    if config.option.markexpr != "slow" or collection_path.suffix != ".py":
        return None
    return "mark.slow" not in collection_path.read_text() or None
