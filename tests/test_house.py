"""The rooms of the house: imports point down only, and no room knows what it may not."""

import ast
import doctest
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from lottery_nb.runs.store import ROOT

PACKAGE = ROOT / "lottery_nb"
ROOMS = ["core", "runs", "analysis", "site", "bench"]  # each may use those before it
# What the method of the paper may use: no tables, no pictures, no notebooks.
OF_CORE = {"__future__", "torch", "torchvision", "numpy", "mlxtend"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports when it runs, with their full names."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1]]
    tree, found = ast.parse(path.read_text()), set()
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    allowed = ROOMS[: ROOMS.index(room) + 1]
    for path in (PACKAGE / room).rglob("*.py"):
        ours = {name.split(".")[1] for name in imports(path) if name.startswith("lottery_nb.")}
        assert ours <= {*allowed, "core"}, f"{path} uses {ours - set(allowed)}"


def test_the_core_needs_torch_and_numpy_alone():
    from sys import stdlib_module_names

    for path in (PACKAGE / "core").glob("*.py"):
        others = {name.split(".")[0] for name in imports(path)} - {"lottery_nb"}
        assert others <= OF_CORE | stdlib_module_names, path


def test_all_rooms_are_installed():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")]
    assert sorted(told) == sorted(".".join(folder.parts) for folder in folders)


def test_no_two_modules_import_each_other():
    modules = [path for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    name = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules}
    uses = {
        module: {n for full in imports(path) for n in (full, full.rpartition(".")[0]) if n in name}
        for module, path in name.items()
    }
    circles = [(one, other) for one in uses for other in uses[one] if one in uses[other]]
    assert not circles


@pytest.mark.parametrize("module", ["core.recipes", "analysis.tables", "runs.ticket_files"])
def test_examples_of_docstrings_run(module, monkeypatch):
    monkeypatch.delenv("LOTTERY_RESULTS")  # they show what is committed
    tried = doctest.testmod(import_module(f"lottery_nb.{module}"))
    assert tried.attempted and not tried.failed
