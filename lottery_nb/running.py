"""From what is missing to what is stored: one graph, carried out by this process, by local workers or by a Dask cluster.

Only this process reads and writes the store. A kill of anything at any moment loses what was under way, nothing else.
"""

import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from filelock import Timeout
from tqdm import tqdm

from . import data, ticket_files
from .errors import FailedTrainings, LotteryError, Stopped
from .graph import BATCH, Ancestry, Frontier, Wanted, parents_of, with_ancestors
from .specs import Node
from .store import ROOT, Store

TRIES = 2
ELSEWHERE = 1.0  # seconds between looks at what another process has under its locks


@dataclass(eq=False)
class Batch:
    """Trainings under way together: what is wanted, its locks, and how much of it is done, in trainings."""

    wishes: list[Wanted]
    locks: ExitStack
    ancestries: list = field(default_factory=list)  # `work.Ancestry` of each
    moved: float = 0.0


class Hands(Protocol):
    """Who trains: `Here`, or `cluster.Workers`."""

    def batch_size(self) -> int: ...

    def count(self) -> int:
        """How many batches can be trained side by side."""

    def room(self) -> int:
        """How many more batches may be handed over now."""

    def train(self, batch: Batch, commit: str) -> None: ...

    def finished(self, progress: Callable[[Batch, int], None]) -> list[tuple[Batch, list | Exception]]:
        """What is finished since the last call, results or what went wrong; waits a little for it."""


class Here:
    """This process, one batch at a time."""

    def __init__(self, device: str = "auto"):
        from . import training  # torch is imported only where something is trained

        self._device, self._batch = training.pick_device(device), None

    def batch_size(self) -> int:
        return BATCH["cuda" if self._device.type == "cuda" else "cpu"]

    def count(self) -> int:
        return 1

    def room(self) -> int:
        return self._batch is None

    def train(self, batch: Batch, commit: str) -> None:
        self._batch, self._commit = batch, commit

    def finished(self, progress: Callable[[Batch, int], None]) -> list[tuple[Batch, list | Exception]]:
        from . import work

        batch, self._batch = self._batch, None
        if batch is None:
            return []
        try:
            return [(batch, work.train_batch(batch.wishes, batch.ancestries, self._device, self._commit, lambda steps: progress(batch, steps)))]
        except (LotteryError, Stopped):
            raise
        except Exception as error:  # reported with its traceback, after a second try
            return [(batch, error)]


def train_missing(wanted: dict[str, Wanted], store: Store, hands: Hands | None = None, watch: Callable[[], None] = lambda: None, quiet: bool = False) -> None:
    """Train what is wanted and not stored, and all it stands on.

    Another process may be at work in the same store: what it has under its locks is waited for, not trained twice. A training
    that fails is tried once more, by itself; if it fails again, it is reported and the rest goes on. hands: None for this
    process; watch: called often, and ends the run by raising `Stopped`; quiet: without a bar. Raises FailedTrainings at the end.
    """
    trained: set[str] = set()
    while pending := with_ancestors(wanted, lambda wish: stored(store, wish), ticket_files.given):
        if trained & pending.keys():  # parents that come out anew can send us round once more, but never for the same training
            raise LotteryError(f"store: {', '.join(sorted(trained & pending.keys())[:3])} was trained, but what it stands on has changed meanwhile; run again")
        with _bar(len(pending), quiet) as bar:
            run = _Run(Frontier(pending), store, hands or Here(), bar, watch)
            try:
                while run.frontier:
                    run.hand_over()
                    run.collect()
                    run.look_elsewhere()
            finally:
                for batch in run.under_way:
                    batch.locks.close()
        if run.failed:
            others = f", {sum(run.failed.values())} that stand on them were not begun" if sum(run.failed.values()) else ""
            raise FailedTrainings(f"{len(run.failed)} trainings failed twice{others}; tracebacks are above, all others are stored: {', '.join(run.failed)}")
        trained |= pending.keys()


class _Run:
    """A frontier on its way into the store."""

    def __init__(self, frontier: Frontier, store: Store, hands: Hands, bar: tqdm, watch: Callable[[], None]):
        self.frontier, self._store, self._hands, self._bar, self._watch = frontier, store, hands, bar, watch
        self.under_way: set[Batch] = set()
        self.failed: dict[str, int] = {}  # and how many stand on each
        self._tried: Counter = Counter()
        self._elsewhere: list[str] = []  # under another process's locks
        self._looked = time.monotonic()

    def hand_over(self) -> None:
        """Give out as many batches as there is room for."""
        self._watch()
        while self._hands.room() > 0 and (taken := self.frontier.take(self._hands.batch_size(), self._hands.count())):
            batch = Batch([], ExitStack())
            self.under_way.add(batch)
            for wish in taken:
                self._lock(wish, batch)
            if not batch.wishes:
                self.under_way.remove(batch)
                continue
            batch.ancestries = [self._ancestry(wish.node) for wish in batch.wishes]
            self._hands.train(batch, commit())

    def collect(self) -> None:
        """Store what is finished."""
        for batch, result in self._hands.finished(self._progress):
            if isinstance(result, Exception):
                self._bar.update(-batch.moved)
                for wish in batch.wishes:
                    self._try_again(wish, result)
            else:
                for wish, (record, arrays) in zip(batch.wishes, result):
                    self._store.write(wish.node.key, record, arrays)
                    self._done(wish.node.key, 1 - batch.moved / len(batch.wishes))
            self.under_way.remove(batch)
            batch.locks.close()

    def look_elsewhere(self) -> None:
        """From time to time, try again for what another process had under its locks."""
        if self._elsewhere and not self.under_way:
            time.sleep(ELSEWHERE)
        if self._elsewhere and time.monotonic() - self._looked >= ELSEWHERE:
            self._looked = time.monotonic()
            for key in self._elsewhere:
                self.frontier.put_back(key)
            self._elsewhere.clear()

    def _lock(self, wish: Wanted, batch: Batch) -> None:
        key = wish.node.key
        lock = self._store.lock(key)
        try:
            lock.acquire()
        except Timeout:
            self._elsewhere.append(key)
            return
        if stored(self._store, wish):
            lock.release()
            self._done(key, 1)
        else:
            if other := other_parent(self._store, wish.node, self._store.record(key)):
                self._store.set_aside(key, f"was made from another {other} than is stored now")
            batch.locks.callback(lock.release)
            batch.wishes.append(wish)

    def _ancestry(self, node: Node) -> Ancestry:
        if all(before.key in self._store for before in parents_of(node)):
            return Ancestry(*(before and self._store.needed_arrays(before.key) for before in (node.parent, node.origin)))
        if ticket_files.given(node):
            return ticket_files.ancestry(node)
        raise LotteryError(f"store: what {node.key} stands on was damaged after it was stored; run again to train it anew")

    def _done(self, key: str, share: float) -> None:
        self.frontier.done(key)
        self._bar.update(min(share, self._bar.total - self._bar.n))

    def _progress(self, batch: Batch, steps: int) -> None:
        self._watch()
        share = min(steps * len(batch.wishes) / batch.wishes[0].node.recipe.iterations, len(batch.wishes) - batch.moved)
        batch.moved += share
        self._bar.update(min(share, self._bar.total - self._bar.n))

    def _try_again(self, wish: Wanted, error: Exception) -> None:
        key = wish.node.key
        self._tried[key] += 1
        if self._tried[key] < TRIES:
            self.frontier.put_back(key, alone=True)
        else:
            self.failed[key] = self.frontier.give_up(key)
            self._bar.write(_report(wish, error), file=sys.stderr)


def stored(store: Store, wish: Wanted) -> bool:
    """Whether the store has a training, with all that is wanted of it."""
    record = store.record(wish.node.key)
    if record is None or not wish.needs <= set(record["holds"]) or other_parent(store, wish.node, record):
        return False
    made, here = record["made_of"]["data"], data.digest_at_hand(wish.node.recipe.data)
    if here and made["digest"] != here:
        raise LotteryError(
            f"the store {store.folder} has {wish.node.key} of {made['said']} ({made['digest']}), and the data at hand are "
            f"{data.said(wish.node.recipe.data)} ({here}): the two are never mixed. "
            "Set LOTTERY_STORE to another folder for these data, or LOTTERY_DATA to those"
        )
    return True


def other_parent(store: Store, node: Node, record: dict | None) -> str:
    """The key of a stored parent that is not the one that a training with this record was made from; "" where all are."""
    for parent in parents_of(node) if record else ():
        there = store.record(parent.key)
        if there and record["made_of"]["parents"].get(parent.key) != {"mask": there["mask"], "weights": there["weights"]}:
            return parent.key
    return ""


def processors() -> int:
    """How many processes of one thread train side by side on this machine's processors."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs() -> int:
    """How many processes train here where nobody says: one a processor, and a single one on a CUDA device, whose batches fill it."""
    from . import training

    return 1 if training.pick_device().type == "cuda" else processors()


@cache
def commit() -> str:
    """Of the code that trains, for the records; "unknown" outside a repository, or without git."""
    try:
        said = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return said.stdout.strip() or "unknown"


def _report(wish: Wanted, error: Exception) -> str:
    node = wish.node
    spec = {"strategy": node.strategy, "control": node.control, "trial": node.trial, "round": node.round, "draw": node.draw, **node.recipe.deciding()}
    return f"failed twice: {node.key}\n  {spec}\n{''.join(traceback.format_exception(error))}"


def _bar(total: int, quiet: bool) -> tqdm:
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(
        total=total, disable=quiet, desc="trainings", file=sys.stderr, mininterval=0.5 if watched else 30, smoothing=0.05,
        bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f} of {total} [{elapsed}, {remaining} left]",
    )  # fmt: skip
