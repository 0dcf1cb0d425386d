"""What is packed: the wheel is built from a copy of the tree, installed where nothing else of ours is, and imported."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: Folders of the repository that are no part of the package.
OUTSIDE = {"benchmarks", "build", "deploy", "dist", "docs", "durabatch-data", "examples", "tests"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # From a copy: setuptools leaves build/ behind, and would pack modules from there that are gone from the tree.
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "durabatch-data"),
    )
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source))
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def packed(wheel: Path) -> list[str]:
    """Return the name of every file in the wheel."""
    return zipfile.ZipFile(wheel).namelist()


def test_every_module_of_the_wheel_imports_from_the_wheel(wheel: Path, packed: list[str], tmp_path: Path) -> None:
    # A line of a .pth file only adds a folder to the path; .pth files in that folder are not obeyed. So the new
    # environment sees the installed dependencies, and not the editable install of this tree beside them.
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"))
    python = str(tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python")
    run(sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-index", str(wheel))
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(dependencies)))

    modules = sorted(module_name(path) for path in packed if path.endswith(".py"))
    code = (
        "import importlib, json, sys\n"
        "names = json.load(sys.stdin)\n"
        "print(json.dumps({name: importlib.import_module(name).__file__ for name in names}))"
    )
    files = json.loads(run(python, "-I", "-c", code, stdin=json.dumps(modules), cwd=tmp_path))

    assert "durabatch" in modules
    assert {name for name, file in files.items() if not Path(file).is_relative_to(site)} == set()
    assert sorted(files) == modules


def test_the_wheel_holds_the_package_and_nothing_else(packed: list[str]) -> None:
    version = settings()["project"]["version"]
    assert {path.split("/")[0] for path in packed} == {"durabatch", f"durabatch-{version}.dist-info"}
    assert "durabatch/py.typed" in packed
    assert f"durabatch-{version}.dist-info/licenses/LICENSE" in packed


def test_every_module_of_the_tree_is_in_the_wheel(packed: list[str]) -> None:
    tree = {"/".join(("durabatch", *file.relative_to(ROOT).parts)) for file in sources()}
    assert {path for path in packed if path.endswith(".py")} == tree


def test_what_the_package_imports_is_declared() -> None:
    # The other tests run where every tool of the developers is installed, and would not miss a dependency.
    project = settings()["project"]
    core = distributions(project["dependencies"])
    extras = {
        folder: core | distributions(project["optional-dependencies"][folder]) for folder in ("gateway", "sandbox")
    }
    owners = packages_distributions()
    undeclared = {
        (file.relative_to(ROOT).as_posix(), name)
        for file in sources()
        for name in imported(file) - sys.stdlib_module_names - {"durabatch"}
        if not distributions(owners.get(name, [name])) & extras.get(file.relative_to(ROOT).parts[0], core)
    }
    assert undeclared == set()


def imported(file: Path) -> set[str]:
    """Return the top-level modules that a file imports by name, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def distributions(requirements: list[str]) -> set[str]:
    """Return the normal form of the names: "GenAI_Prices>=1" is "genai-prices"."""
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in requirements]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def test_the_list_of_packages_names_every_folder_that_is_one() -> None:
    folders = {file.parent.relative_to(ROOT).parts for file in sources() if file.name == "__init__.py"}
    packages = settings()["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted(".".join(("durabatch", *parts)) for parts in folders)
    # A module in a folder without __init__.py would not be packed.
    assert {file.parent.relative_to(ROOT).parts for file in sources()} == folders


def test_the_version_is_the_same_in_both_places() -> None:
    import durabatch

    assert durabatch.__version__ == settings()["project"]["version"]


def test_the_constraints_are_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if line.count("==") != 1 or "/" in line or line.startswith("-")] == []
    assert "temporalio" in {line.split("==")[0] for line in pins}


def sources() -> Iterator[Path]:
    """Yield every module of the package as it is in the tree."""
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).parts
        if parts[0] not in OUTSIDE and not any(part.startswith(".") for part in parts):
            yield file


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str, stdin: str = "", cwd: Path | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{command[:4]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout
