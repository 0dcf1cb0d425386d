"""What holds for all tests: which come first, and what a busy machine does to the SDK without harm."""

from __future__ import annotations

import signal
import sys

import pytest

#: Tests against real servers, which wait more than they compute.
SLOW = ("workflows", "chaos", "e2e", "clients", "replay")


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
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in SLOW)
