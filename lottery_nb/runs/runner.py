"""From what is missing to what is stored: one graph, carried out by this process, by local workers
or by a Dask cluster.

Only this process reads and writes what the store has of finished trainings. A kill of anything at
any moment loses what was under way, nothing else.
"""

import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING

from filelock import Timeout

from ..core import data
from ..core.errors import FailedTrainings, LotteryError
from ..core.lines import Node
from . import checkpoints, ticket_files
from .executors import Executor, ThisProcess, Work
from .graph import Ancestry, Frontier, parents_of, with_ancestors
from .plans import Request
from .store import ROOT, Store, digests_of

if TYPE_CHECKING:
    from tqdm import tqdm

TRIES = 2
ELSEWHERE = 1.0  # seconds between looks at what another process has under its locks


def train_missing(
    wanted: dict[str, Request],
    store: Store,
    executor: Executor | None = None,
    watch: Callable[[], None] = lambda: None,
    quiet: bool = False,
) -> None:
    """Train what is wanted and not stored, and all it stands on.

    Another process may be at work in the same store: what it has under its locks is waited for, not
    trained twice. A training that fails is tried once more, by itself; if it fails again, it is
    reported and the rest goes on, but for what is refused with a LotteryError, which ends the run.
    executor: None for this process; watch: called often, and ends the run by raising `Stopped`;
    quiet: without a bar. Raises FailedTrainings at the end.
    """
    trained: set[str] = set()
    while pending := with_ancestors(
        wanted, lambda request: stored(store, request), lambda node: given(store, node)
    ):
        # Parents that come out anew can send us round once more, but never for the same training.
        if trained & pending.keys():
            raise LotteryError(
                f"store: {', '.join(sorted(trained & pending.keys())[:3])} was trained, but what "
                "it stands on has changed meanwhile; run again"
            )
        with _bar(len(pending), quiet) as bar:
            run = _Run(Frontier(pending), store, executor or ThisProcess(), bar, watch)
            try:
                while run.frontier:
                    run.hand_over()
                    run.collect()
                    run.look_elsewhere()
            finally:
                for work in run.under_way:
                    work.locks.close()
        if run.failed:
            others = (
                f", {sum(run.failed.values())} that stand on them were not begun"
                if sum(run.failed.values())
                else ""
            )
            raise FailedTrainings(
                f"{len(run.failed)} trainings failed twice{others}; tracebacks are above, all "
                f"others are stored: {', '.join(run.failed)}"
            )
        trained |= pending.keys()


class _Run:
    """A frontier on its way into the store."""

    def __init__(
        self,
        frontier: Frontier,
        store: Store,
        executor: Executor,
        bar: "tqdm",
        watch: Callable[[], None],
    ):
        self.frontier, self._store, self._executor, self._bar, self._watch = (
            frontier,
            store,
            executor,
            bar,
            watch,
        )
        self.under_way: set[Work] = set()
        self.failed: dict[str, int] = {}  # and how many stand on each
        self._tried: Counter = Counter()
        self._refused: LotteryError | None = None
        self._elsewhere: list[str] = []  # under another process's locks
        self._looked = time.monotonic()

    def hand_over(self) -> None:
        """Give out as many batches as there is room for."""
        self._watch()
        while self._executor.room() > 0 and (
            taken := self.frontier.take(self._executor.device(), self._executor.count())
        ):
            work = Work([], ExitStack(), self._store.folder)
            self.under_way.add(work)
            for request in taken:
                self._lock(request, work)
            if not work.requests:
                self.under_way.remove(work)
                continue
            work.ancestries = [ancestry_of(self._store, each.node) for each in work.requests]
            self._executor.train(work, commit())

    def collect(self) -> None:
        """Store what is finished. Raises what a worker refuses twice, a LotteryError, once all else
        that has come is stored."""
        for work, result in self._executor.finished(self._progress):
            if isinstance(result, Exception):
                self._bar.update(-work.moved)
                for request in work.requests:
                    self._try_again(request, result)
            else:
                for request, (record, arrays) in zip(work.requests, result):
                    self._store.write(request.node.key, record, arrays)
                    checkpoints.forget(self._store.folder, request.node.key)
                    self._done(request.node.key, 1 - work.moved / len(work.requests))
            self.under_way.remove(work)
            work.locks.close()
        if self._refused:
            raise self._refused

    def look_elsewhere(self) -> None:
        """From time to time, try again for what another process had under its locks."""
        if self._elsewhere and not self.under_way:
            time.sleep(ELSEWHERE)
        if self._elsewhere and time.monotonic() - self._looked >= ELSEWHERE:
            self._looked = time.monotonic()
            for key in self._elsewhere:
                self.frontier.put_back(key)
            self._elsewhere.clear()

    def _lock(self, request: Request, work: Work) -> None:
        key = request.node.key
        lock = self._store.lock(key)
        try:
            lock.acquire()
        except Timeout:
            self._elsewhere.append(key)
            return
        if stored(self._store, request):
            lock.release()
            self._done(key, 1)
        else:
            if other := other_parent(self._store, request.node, self._store.record(key)):
                self._store.set_aside(key, f"was made from another {other} than is stored now")
            work.locks.callback(lock.release)
            work.requests.append(request)

    def _done(self, key: str, share: float) -> None:
        self.frontier.done(key)
        self._bar.update(min(share, self._bar.total - self._bar.n))

    def _progress(self, work: Work, steps: float) -> None:
        self._watch()
        share = min(
            steps * len(work.requests) / work.requests[0].node.recipe.iterations,
            len(work.requests) - work.moved,
        )
        work.moved += share
        self._bar.update(min(share, self._bar.total - self._bar.n))

    def _try_again(self, request: Request, error: Exception) -> None:
        key = request.node.key
        self._tried[key] += 1
        if self._tried[key] < TRIES:
            self.frontier.put_back(key, alone=True)
        elif isinstance(error, LotteryError):
            self._refused = error
        else:
            self.failed[key] = self.frontier.give_up(key)
            self._bar.write(_report(request, error), file=sys.stderr)


def stored(store: Store, request: Request) -> bool:
    """Whether the store has a training, with all that is wanted of it."""
    record = store.record(request.node.key)
    if (
        record is None
        or not request.needs <= set(record["holds"])
        or other_parent(store, request.node, record)
    ):
        return False
    made, here = record["made_of"]["data"], data.digest_at_hand(request.node.recipe.data)
    if here and made["digest"] != here:
        raise LotteryError(
            f"the store {store.folder} has {request.node.key} of {made['said']} "
            f"({made['digest']}), and the data at hand are "
            f"{data.said(request.node.recipe.data)} ({here}): the two are never mixed. "
            "Set LOTTERY_STORE to another folder for these data, or LOTTERY_DATA to those"
        )
    return True


def ancestry_of(store: Store, node: Node) -> Ancestry:
    """What a node is made from: its parents' outputs in the store, else a committed mask."""
    if all(before.key in store for before in parents_of(node)):
        return Ancestry(
            parent=store.needed_arrays(node.parent.key) if node.parent else None,
            origin=store.needed_arrays(node.origin.key) if node.origin else None,
        )
    if ticket_files.given(node):
        return ticket_files.ancestry(node)
    raise LotteryError(
        f"store: what {node.key} stands on was damaged after it was stored; run again to train it "
        "anew"
    )


def given(store: Store, node: Node) -> bool:
    """Whether a committed file has the mask of a node, found on what the store has of its
    parents."""
    return ticket_files.given(node) and not _another(store, node, ticket_files.parents(node))


def other_parent(store: Store, node: Node, record: dict | None) -> str:
    """The key of a stored parent that is not the one that a training with this record was made
    from; "" where all are."""
    return _another(store, node, record["made_of"]["parents"]) if record else ""


def _another(store: Store, node: Node, told: dict[str, dict[str, str]]) -> str:
    """The key of a stored parent with other digests than are told of it; "" where all have them."""
    for parent in parents_of(node):
        there = store.record(parent.key)
        if there and told.get(parent.key) != digests_of(there):
            return parent.key
    return ""


@cache
def commit() -> str:
    """Of the code that trains, for the records; "unknown" outside a repository, or without git."""
    try:
        said = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return "unknown"
    return said.stdout.strip() or "unknown"


def _report(request: Request, error: Exception) -> str:
    node = request.node
    spec = {
        "strategy": node.strategy,
        "control": node.control,
        "trial": node.trial,
        "round": node.round,
        "draw": node.draw,
        **node.recipe.identity,
    }
    return f"failed twice: {node.key}\n  {spec}\n{''.join(traceback.format_exception(error))}"


def _bar(total: int, quiet: bool) -> "tqdm":
    from tqdm import tqdm  # only what trains needs it

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(
        total=total,
        disable=quiet,
        desc="trainings",
        file=sys.stderr,
        mininterval=0.5 if watched else 30,
        smoothing=0.05,
        bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n:.1f} of {total} "
        "[{elapsed}, {remaining} left]",
    )
