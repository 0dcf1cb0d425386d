"""A pytest plugin for the CI: a test that fails is run once more, alone, and the run goes on if it passes then.

On a shared machine a test may fail for once although nothing is wrong. It is named, with what it failed with, as
`FLAKY: name`, so that it can be fixed; a test that fails twice fails the run. A process that crashes and a test that
runs out of time count as failures of their test. Loaded with `-p flaky` where this folder is on PYTHONPATH. Where
FLAKY_NAMES names a file, the names are kept there too, and those of earlier runs are printed again with this run's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: Where more than these fail, something is wrong.
MOST = 10
#: Where the names of several runs are kept, if anywhere.
KEPT = os.environ.get("FLAKY_NAMES", "")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that hears of all tests, not those that run them
        config.pluginmanager.register(Flaky(config), "flaky-tests")


class Flaky:
    """Runs once more, alone, what has failed."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._failed: dict[str, list[pytest.TestReport]] = {}
        self._collected = set[str]()
        self._begun = set[str]()
        self._flaky: list[str] = []
        self._broken = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._broken = self._broken or report.failed

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._begun.add(report.nodeid)
        if report.failed:
            self._failed.setdefault(report.nodeid, []).append(report)

    # The processes that ran the tests have ended by then, and the summary is not printed yet.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus != pytest.ExitCode.TESTS_FAILED or self._broken or not 0 < len(self._failed) <= MOST:
            return
        if self._collected - self._begun:
            return  # the processes crashed so often that the others were given up
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        flaky = [name for name in self._failed if self._passes(reporter, name)]
        for name in flaky:
            reporter.section(f"what {name} failed with")
            for report in self._failed[name]:
                reporter.write_line(report.longreprtext)
                for title, text in report.sections:
                    reporter.write_line(f"--- {title}\n{text}")
            self._count_as_flaky(reporter.stats, name)
        self._flaky += flaky
        if KEPT and flaky:
            with Path(KEPT).open("a") as kept:
                kept.writelines(f"{name}\n" for name in flaky)
        if len(flaky) == len(self._failed):
            session.exitstatus = pytest.ExitCode.OK

    # Around the summary, so that the names stand below it: of a long run often only the last lines are kept.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Iterator[None]:
        yield
        names = Path(KEPT).read_text().splitlines() if KEPT and Path(KEPT).exists() else self._flaky
        for name in names:
            terminalreporter.write_line(f"FLAKY: {name}", yellow=True)

    def _passes(self, reporter: Any, name: str) -> bool:
        reporter.section(f"once more, alone: {name}")
        command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-q", name]
        seed = self._config.getoption("randomly_seed", None)
        if isinstance(seed, int):
            command += [f"--randomly-seed={seed}"]
        sys.stdout.flush()
        environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
        return subprocess.run(command, cwd=self._config.rootpath, env=environment).returncode == 0

    def _count_as_flaky(self, stats: dict[str, list[Any]], name: str) -> None:
        for outcome in ("failed", "error", "passed"):
            kept = [report for report in stats.pop(outcome, ()) if getattr(report, "nodeid", None) != name]
            if kept:  # an empty list of failures would make the closing line red
                stats[outcome] = kept
        stats.setdefault("flaky", []).append(self._failed[name][0])
