"""How the CI treats a test that fails: run once more, alone, and named if it passes then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each starts pytest several times over.
pytestmark = pytest.mark.slow

CI = Path(__file__).parents[2] / ".ci"

#: What fails only once, in whatever process that is.
ONCE = """
import os, pathlib, time

import pytest

def first_time(name):
    mark = pathlib.Path(__file__).with_name(name)
    if mark.exists():
        return False
    mark.touch()
    return True
"""
FINE = "def test_fine(): pass\n"


def run(folder: Path, kept: Path | None = None, **tests: str) -> tuple[int, list[str]]:
    """Run tests as the CI does; return the exit code and the lines that were printed."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -ra\ntimeout_method = signal\n")
    for name, source in tests.items():
        (folder / f"test_{name}.py").write_text(source)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "--max-worker-restart", "2"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(CI),
            "PYTEST_ADDOPTS": "-p flaky",
            "FLAKY_NAMES": str(kept or ""),
        },
        capture_output=True,
        text=True,
    )
    return ran.returncode, ran.stdout.splitlines()


def named(lines: list[str]) -> list[str]:
    return sorted(line.removeprefix("FLAKY: ") for line in lines if line.startswith("FLAKY"))


def test_whatever_fails_once_is_run_alone_and_named_and_the_run_goes_on(tmp_path: Path) -> None:
    code, lines = run(
        tmp_path,
        fine=FINE,
        asserts=ONCE + "def test_it(): assert not first_time('asserts')",
        ends=ONCE + "def test_it():\n    if first_time('ends'): os._exit(1)",
        hangs=ONCE + "@pytest.mark.timeout(2)\ndef test_it():\n    if first_time('hangs'): time.sleep(1000)",
        opens=ONCE + "@pytest.fixture\ndef home(): assert not first_time('opens')\ndef test_it(home): pass",
        closes=ONCE + "@pytest.fixture\ndef home():\n    yield\n    assert not first_time('closes')\n"
        "def test_it(home): pass",
    )
    assert code == 0, lines
    assert named(lines) == [f"test_{name}.py::test_it" for name in ("asserts", "closes", "ends", "hangs", "opens")]
    assert "1 passed, 5 flaky" in lines[-1]
    assert all(line.startswith("FLAKY: ") for line in lines[-6:-1])  # where they are seen although a run is long
    assert any("assert not True" in line for line in lines)  # what it failed with


def test_what_fails_twice_fails_the_run_and_the_flaky_ones_are_named_all_the_same(tmp_path: Path) -> None:
    source = "def test_it(): assert not first_time('mark')\ndef test_other(): assert False, 'always'\n"
    code, lines = run(tmp_path, once=ONCE + source, fine=FINE)
    assert code == 1, lines
    assert named(lines) == ["test_once.py::test_it"]
    assert "1 failed, 1 passed, 1 flaky" in lines[-1]
    assert any(line.startswith("FAILED test_once.py::test_other") for line in lines)


def test_the_flaky_ones_of_an_earlier_run_are_named_again_at_the_end_of_the_next_one(tmp_path: Path) -> None:
    kept = tmp_path / "names"
    run(tmp_path, kept, once=ONCE + "def test_it(): assert not first_time('mark')\n")
    code, lines = run(tmp_path, kept, once=FINE)
    assert code == 0, lines
    assert lines[-2] == "FLAKY: test_once.py::test_it"
    assert "1 passed" in lines[-1]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(
            "@pytest.mark.parametrize('n', range(11))\ndef test_it(n): assert not first_time(f'mark{n}')",
            id="more fail than a busy machine explains",
        ),
        pytest.param(
            "@pytest.mark.parametrize('n', range(6))\ndef test_it(n):\n    if first_time(f'mark{n}'): os._exit(1)",
            id="processes crash so often that tests are left out",
        ),
        pytest.param("import nothing_of_that_name", id="a file cannot be imported"),
    ],
)
def test_a_run_that_went_wrong_as_a_whole_has_failed(tmp_path: Path, source: str) -> None:
    code, lines = run(tmp_path, all=ONCE + source, fine=FINE)
    assert code != 0, lines
    assert not any("once more" in line for line in lines)


def test_where_all_pass_nothing_is_run_again(tmp_path: Path) -> None:
    code, lines = run(tmp_path, fine=FINE)
    assert code == 0, lines
    assert "1 passed" in lines[-1] and not any("once more" in line for line in lines)
