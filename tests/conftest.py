import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lottery_nb.runs.store import ROOT


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Every test has a store of its own, no committed tables, and nobody's data folder."""
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTERY_RESULTS", "")
    monkeypatch.delenv("LOTTERY_DATA", raising=False)
    monkeypatch.delenv("LOTTERY_MISSING", raising=False)
    monkeypatch.delenv("LOTTERY_CHECKPOINTS", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The whole book, built in a copy of the project by the command that a person gives.

    LOTTERY_BUILT names one that is built already, as `make test` has it, and LOTTERY_REHEARSED the
    store with what was trained for it.
    """
    if already := os.environ.get("LOTTERY_BUILT"):
        return Path(already).resolve()
    copy = tmp_path_factory.mktemp("book") / "project"
    shutil.copytree(
        ROOT,
        copy,
        ignore=shutil.ignore_patterns(
            ".venv", ".git", "_build", "results", "figures", "__pycache__", "*.egg-info"
        ),
    )
    if (ROOT / "book" / "results").exists():
        shutil.copytree(ROOT / "book" / "results", copy / "book" / "results")
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "LOTTERY_STORE": os.environ.get("LOTTERY_REHEARSED") or str(copy / "results"),
    }
    for name in ("LOTTERY_RESULTS", "LOTTERY_DATA", "LOTTERY_MISSING"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "lottery_nb", "book"],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert str(copy / "_build" / "html" / "index.html") in done.stdout
    assert "http.server" in done.stdout
    return copy / "_build" / "html"
