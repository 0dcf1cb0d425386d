"""What holds for all tests: which come first."""

from __future__ import annotations

import pytest

#: Tests against real servers, which wait more than they compute.
SLOW = ("workflows", "chaos", "e2e", "clients", "replay")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what waits most, so that at the end no process waits alone for the last slow file."""
    tests = config.rootpath / "tests"
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in SLOW)
