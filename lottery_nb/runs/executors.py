"""Who trains: this process here; workers of a cluster in `cluster`."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.errors import LotteryError, Stopped
from .graph import Ancestry, Arrays
from .plans import Request

OTHERS = ("refuse", "record")  # what to do with a worker of other versions
Result = list[tuple[dict, Arrays]] | Exception  # a record and arrays of each training


@dataclass(eq=False)
class Work:
    """Trainings under way in one batch: what is requested, the locks on it, the store's folder,
    what it is made from, and how much of it is done, in trainings."""

    requests: list[Request]
    locks: ExitStack
    folder: Path
    ancestries: list[Ancestry] = field(default_factory=list)
    moved: float = 0.0


def check_others(others: str) -> None:
    """Raises LotteryError for what is none of `OTHERS`."""
    if others not in OTHERS:
        raise LotteryError(f"other versions are to be {others!r}: choose {' or '.join(OTHERS)}")


class Executor(Protocol):
    """Who trains: `ThisProcess`, or `cluster.Workers`."""

    def device(self) -> str:
        """On what batches are trained, "cpu" or "cuda": that decides their size."""

    def count(self) -> int:
        """How many batches can be trained side by side."""

    def room(self) -> int:
        """How many more batches may be handed over now."""

    def train(self, work: Work, commit: str) -> None:
        """Take a batch; commit: of the code, for the records."""

    def finished(self, progress: Callable[[Work, float], None]) -> list[tuple[Work, Result]]:
        """What is finished since the last call, results or what went wrong; waits a little for
        it. progress: called with the iterations done since it was called last."""


class ThisProcess:
    """This process, one batch at a time."""

    def __init__(self, device: str = "auto"):
        from ..core import training  # torch is imported only where something is trained

        self._device = training.pick_device(device)
        self._work: tuple[Work, str] | None = None

    def device(self) -> str:
        return "cuda" if self._device.type == "cuda" else "cpu"

    def count(self) -> int:
        return 1

    def room(self) -> int:
        return self._work is None

    def train(self, work: Work, commit: str) -> None:
        self._work = work, commit

    def finished(self, progress: Callable[[Work, float], None]) -> list[tuple[Work, Result]]:
        from .batch import train_batch

        if self._work is None:
            return []
        (work, commit), self._work = self._work, None
        try:
            result = train_batch(
                work.requests,
                work.ancestries,
                self._device,
                commit,
                lambda steps: progress(work, steps),
                work.folder,
            )
        except (LotteryError, Stopped):
            raise
        except Exception as error:  # reported with its traceback, after a second try
            return [(work, error)]
        return [(work, result)]


def processors() -> int:
    """How many processes of one thread train side by side on this machine's processors."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def jobs() -> int:
    """How many processes train here where nobody says: one a processor, or, as a batch fills one,
    one a CUDA device."""
    import torch

    return torch.cuda.device_count() or processors()
