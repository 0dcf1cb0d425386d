"""The pages say what is so: tables are the models', links lead somewhere, and the tests that they name exist."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from durabatch.activities.rows import parse
from durabatch.cli.app import app
from durabatch.contract import ErrorClass
from durabatch.contract.status import RETRYABLE_CLASSES
from durabatch.workers import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return [found[2] for found in BLOCK.finditer(page) if found[1] == language]


@pages
def test_the_tables_of_fields_are_current(page: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    assert spec
    assert spec.loader
    make_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tables)
    written = page.read_text(encoding="utf-8")
    assert make_tables.fill(written) == written, "run `python docs/make_tables.py`"


@pages
def test_a_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        file = page.parent / place if place else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(file: Path) -> set[str]:
    """Return the names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tests_that_hold_a_promise_exist() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"^(?:async )?def (\w+)\(", code, re.MULTILINE))
    promises = text("guarantees.md").partition("## What cannot be promised")[0]
    named = {name for name in re.findall(r"`(\w+)`", promises) if name.count("_") > 1}
    assert len(named) > 50
    assert sorted(named - defined) == []
    files = re.findall(r"`(tests/[\w/.]+)`", text("guarantees.md"))
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_every_error_class_is_told_with_whether_it_is_tried_again() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", text("rows.md"), re.MULTILINE)
    assert rows == [(kind.value, "yes" if kind in RETRYABLE_CLASSES else "no") for kind in ErrorClass]


@pages
def test_a_configuration_that_is_shown_can_be_read(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        Settings.load(file, {})


def test_requests_that_are_shown_are_requests() -> None:
    requests, result, manifest = blocks(text("rows.md"), "json")
    assert [parse(line.encode()).shape for line in requests.splitlines()] == ["short", "openai", "anthropic"]
    assert json.loads(result)["status"] == "succeeded"
    listed = json.loads(manifest)
    for total in ("rows", "bytes"):
        assert listed[total] == sum(part[total] for part in listed["parts"])


@pages
def test_a_command_that_is_shown_exists(page: Path) -> None:
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups if group.name}
    shown = set(re.findall(r"(?:^|[`$]|\$ )\s*durabatch ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert sorted(shown - known) == []
