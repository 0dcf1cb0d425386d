"""The house: which floor may know which, what each package shows, and what importing it costs."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import grimp
import pytest

import durabatch

ROOT = Path(__file__).parents[2]
#: The packages that others import from; a leading underscore would make one private.
PACKAGES = sorted(
    f"durabatch.{'.'.join(file.parent.relative_to(ROOT).parts)}"
    for floor in ("contract", "activities", "workflows", "workers", "clients", "gateway", "cli", "sandbox")
    for file in (ROOT / floor).rglob("__init__.py")
    if not any(part.startswith("_") for part in file.parent.relative_to(ROOT).parts)
)


def test_a_floor_imports_only_the_floors_below_it(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-logo", "--cache-dir", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_lists_what_it_shows(name: str) -> None:
    package = importlib.import_module(name)
    listed = list(getattr(package, "__all__", []))
    assert [item for item in listed if not hasattr(package, item)] == []
    assert sorted(own_names(package) - set(listed)) == []
    assert listed == sorted(set(listed), key=kind_and_name)


def own_names(package: ModuleType) -> set[str]:
    """Return the public names that a package's __init__ binds, but for submodules and what it took from others."""
    return {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name not in ("annotations", "TYPE_CHECKING")
        and getattr(value, "__module__", package.__name__).split(".")[0] == "durabatch"
    }


def kind_and_name(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that ruff keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("durabatch", cache_dir=None)
    modules = graph.find_descendants("durabatch")
    circles = [
        (importer, imported)
        for importer in modules
        for imported in graph.find_modules_directly_imported_by(importer) & modules
        if graph.find_shortest_chain(importer=imported, imported=importer)
    ]
    assert len(modules) > 100
    assert circles == []


def test_importing_the_front_door_is_cheap() -> None:
    loaded = modules_after("import durabatch")
    assert loaded & {"temporalio", "pydantic", "httpx2", "aiohttp", "obstore", "typer", "rich", "asyncio"} == set()


def test_the_contract_brings_no_input_or_output() -> None:
    loaded = modules_after("import durabatch.contract")
    assert loaded & {"temporalio", "httpx2", "aiohttp", "obstore", "typer", "rich"} == set()


def test_workflows_bring_no_input_or_output() -> None:
    # Temporal's sandbox imports a workflow's modules anew for every run, so what they bring is paid each time.
    import durabatch.workflows

    names = [found.name for found in pkgutil.walk_packages(durabatch.workflows.__path__, "durabatch.workflows.")]
    loaded = modules_after("\n".join(f"import {name}" for name in ["durabatch.workflows", *names]))
    assert loaded & {"httpx2", "aiohttp", "obstore", "typer", "rich", "requests"} == set()


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after running code."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_front_door_shows_the_contract_and_what_runs_it() -> None:
    shown = dir(durabatch)
    assert shown == sorted(shown)
    assert set(durabatch.contract.__all__) < set(shown)
    for name in durabatch.contract.__all__:
        assert getattr(durabatch, name) is getattr(durabatch.contract, name)
    for name in ("no_such_name", "_private", "error_classes"):
        with pytest.raises(AttributeError, match=name):
            getattr(durabatch, name)
