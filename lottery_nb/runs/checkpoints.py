"""Where trainings under way stand, in a file each beside the store, so that a kill of a long one
loses minutes. It goes on from there to the same bits, in any process that reaches the folder."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import uuid
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import LotteryError

if TYPE_CHECKING:
    from ..core.training import State  # which imports torch

FOLDER = ".checkpoints"  # in the store's
SECONDS = 600.0  # between two of a training


class Checkpoints:
    """Those of a batch's trainings: a `training.Saved`.

    folder: of a store; None, or one that this machine does not have, keeps none. keys: of the
    trainings; made_of: what each is made of, by which a checkpoint of anything else is told.
    """

    def __init__(self, folder: Path | None, keys: list[str], made_of: list[dict]):
        self._folder = folder / FOLDER if folder and folder.is_dir() else None
        self._keys, self._made_of = keys, [json.dumps(each, sort_keys=True) for each in made_of]
        self._every, self._began = _seconds(), time.monotonic()
        self._last = self._began
        self._before = [0.0] * len(keys)

    def seconds(self, number: int) -> float:
        """What a training has taken, before this batch and as its share of it."""
        return self._before[number] + (time.monotonic() - self._began) / len(self._keys)

    def read(self, number: int) -> State | None:
        """Where a training of the batch stands; None where nothing is known. One that is damaged,
        or of other code, data, parents or machine, is set aside."""
        if not self._folder:
            return None
        path = self._path(number)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                state = {name: file[name] for name in file.files}
            made_of, seconds = str(state.pop("made_of")), float(state.pop("seconds"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
            self._set_aside(path, "is damaged")
            return None
        if made_of != self._made_of[number]:
            ours, theirs = json.loads(self._made_of[number]), json.loads(made_of)
            other = " and ".join(name for name in ours if theirs.get(name) != ours[name])
            self._set_aside(path, f"is of other {other}")
            return None
        self._before[number] = seconds
        return state

    def due(self, after: float | None = None) -> bool:
        """Whether it is time to write; after: so many seconds since the last time."""
        waited = time.monotonic() - self._last
        return self._folder is not None and waited >= min(after or self._every, self._every)

    def write(self, states: dict[int, State]) -> None:
        """Keep where trainings stand, by their numbers in the batch, in place of what was kept
        before. A disk that takes none of it ends no training."""
        self._last = time.monotonic()
        for number, state in states.items():
            path = self._path(number)
            draft = path.with_name(f"{path.stem}-{uuid.uuid4().hex[:8]}.draft")
            try:
                path.parent.mkdir(exist_ok=True)
                with draft.open("wb") as file:
                    told = {
                        "made_of": np.array(self._made_of[number]),
                        "seconds": np.array(self.seconds(number)),
                    }
                    np.savez(file, allow_pickle=False, **told, **state)
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(path)
            except OSError as error:
                draft.unlink(missing_ok=True)
                print(f"no checkpoint of {self._keys[number]}: {error.strerror}", file=sys.stderr)

    def _path(self, number: int) -> Path:
        assert self._folder
        return self._folder / f"{self._keys[number]}.npz"

    def _set_aside(self, path: Path, why: str) -> None:
        path.replace(path.with_suffix(".aside"))
        print(f"the checkpoint of {path.stem} {why}: it begins anew", file=sys.stderr)


def forget(folder: Path, key: str) -> None:
    """Delete the checkpoint of a training that is stored. folder: of the store."""
    (folder / FOLDER / f"{key}.npz").unlink(missing_ok=True)


def sweep(folder: Path, keys: set[str]) -> None:
    """Delete what no training will go on from: what was set aside or half-written, once it is an
    hour old, and checkpoints of trainings that are stored. folder: of the store; keys: of what it
    has."""
    for path in (folder / FOLDER).glob("*"):
        with suppress(FileNotFoundError):  # another process has just finished it
            if path.stem in keys or (
                path.suffix != ".npz" and time.time() - path.stat().st_mtime > 3600
            ):
                path.unlink()


def _seconds() -> float:
    said = os.environ.get("LOTTERY_CHECKPOINTS", "")
    try:
        seconds = float(said) if said else SECONDS
    except ValueError:
        seconds = 0
    if not seconds > 0:
        raise LotteryError(
            f"LOTTERY_CHECKPOINTS is {said!r}: give the seconds between two checkpoints of a "
            f"training, such as {SECONDS:g}"
        )
    return seconds
