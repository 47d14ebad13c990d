"""What several tests use."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from lottery_nb import Recipe
from lottery_nb.core.lines import Line
from lottery_nb.runs import runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import ROOT, Store

# A Lenet that trains in a moment, on the embedded digits.
tiny = Recipe(
    network="lenet",
    data="mnist5k",
    sizes=(20, 10),
    iterations=4,
    evaluate_every=2,
    validation=500,
    rounds=3,
    trials=2,
    draws=2,
)


def trained_store(folder: Path | None, *lines: Line) -> Store:
    """A store with the trainings of lines; None: the one at hand. What several tests ask for is
    trained once, and each has a copy."""
    store = Store(folder)
    shutil.copytree(_trained(lines), store.folder, dirs_exist_ok=True)
    return store


@cache
def _trained(lines: tuple[Line, ...]) -> Path:
    folder = Path(mkdtemp(prefix="lottery-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    plan = {str(i): line for i, line in enumerate(lines)}
    runner.train_missing(requests_of([plan], "paper"), Store(folder))
    return folder


def import_path(test: str) -> str:
    """The PYTHONPATH with which a process of its own imports the package and a test's module."""
    return f"{ROOT}:{ROOT / 'tests'}:{Path(test).parent}"
