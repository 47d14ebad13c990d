"""What several tests use."""

from pathlib import Path

from lottery_nb import Recipe
from lottery_nb.runs.store import ROOT

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


def import_path(test: str) -> str:
    """The PYTHONPATH with which a process of its own imports the package and a test's module."""
    return f"{ROOT}:{ROOT / 'tests'}:{Path(test).parent}"
