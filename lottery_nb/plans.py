"""From a plan to a tidy table: what is stored is read, only what is missing is trained.

A table has one row a measurement: `line` (the plan's label), `strategy`, `control`, `trial`, `draw`, `round`, `density`,
`iteration`, `metric`, `x`, `value`, and where it came from: `node` (its key in the store), `commit`, `versions`, `device`,
`started`, `seconds`. Metrics are those of `training.Record.measures`, `early_stop_iteration`, and what a line shows
beside: `val_loss` and `test_accuracy` at every evaluation, early stop by the test set, or a distribution over a layer,
a row a bin, whose middle is `x` and whose probability density is `value`.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import Timeout
from tqdm import tqdm

from .distributions import distribution
from .errors import LotteryError
from .specs import CURVES, RESULTS_VERSION, SCALES, TEST_STOP, Line, Node, shrinking
from .store import ROOT, Store

Plan = dict[str, Line]

# Trainings of Lenet in one batch: 12 are a twentieth to a quarter faster than 6 on two cores. Those of a convolutional
# network take turns anyway, so each is a batch of its own, and a kill loses one.
BATCH = {"cpu": 12, "cuda": 100}
KEPT = ("winning ticket", "continued training")  # controls whose weights are stored, as later rounds stand on them
PROVENANCE = ("commit", "versions", "device", "data", "started", "seconds")
COLUMNS = ("line", "strategy", "control", "trial", "draw", "round", "density", "iteration", "metric", "x", "value", "node", *PROVENANCE)


def run(plan: Plan, scale: str = "smoke", trials: int | None = None, figure: str | None = None, watch: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """The table of a plan at a scale; trains what neither the figure's committed table nor the store holds.

    scale: "smoke" | "laptop" | "paper"; trials: None takes the scale's own; figure: such as "fig04", whose committed
    table may serve; watch: called often while trainings run, and ends them by raising. With LOTTERY_MISSING=skip nothing is
    trained and what is missing is said. Raises LotteryError for bad input and for a store that cannot be used.
    """
    wanted = wanted_nodes([plan], scale, trials)
    store, frozen = Store(), frozen_table(figure, scale)
    held = _held(frozen)
    missing = {key: wish for key, wish in wanted.items() if not (key in held and wish.shows <= held[key]) and not _stored(store, wish)}
    if missing and os.environ.get("LOTTERY_MISSING") != "skip":
        train_missing(missing, store, watch=watch)
        missing = {}
    table = _assemble(plan, scale, trials, store, frozen, skip=missing)
    table.attrs["scale"] = scale
    table.attrs["narrower"] = any(line.recipe.at(scale).width != line.recipe.width for line in plan.values())
    print(_summary(plan, scale, trials, table, missing, figure))
    return table


class Wanted(NamedTuple):
    """A training that is asked for, what its lines show of it beside the usual measures, and what its record must hold
    for that and for those that stand on it: "test looks", "final biases"."""

    node: Node
    shows: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def also(self, other: "Wanted | None") -> "Wanted":
        return Wanted(self.node, self.shows | other.shows, self.needs | other.needs) if other else self


def wanted_nodes(plans: Iterable[Plan], scale: str, trials: int | None = None) -> dict[str, Wanted]:
    """The distinct trainings that plans show, by key; what one line shows of a training is added to what others do."""
    shrinking(scale)
    wanted: dict[str, Wanted] = {}
    for plan in plans:
        for line in plan.values():
            for node in line.nodes(scale, trials):
                needs = frozenset({"test looks"} if line.needs_test_looks else ())
                wanted[node.key] = Wanted(node, frozenset(line.shows), needs).also(wanted.get(node.key))
    return wanted


def train_missing(wanted: dict[str, Wanted], store: Store, device: str = "auto", watch: Callable[[], None] = lambda: None) -> None:
    """Train what is wanted and not stored, and all it stands on, in batches that share a recipe.

    watch: called at every evaluation; it ends the batch, which is lost, by raising.
    Another process may be at work in the same store: what it has under its locks is waited for, not trained twice.
    """
    pending = with_ancestors(wanted, lambda wish: _stored(store, wish))
    if not pending:
        return
    from . import training  # torch is imported only where something is trained

    device = training.pick_device(device)
    size = BATCH["cuda" if device.type == "cuda" else "cpu"]
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    with tqdm(
        total=len(pending), desc="trainings", file=sys.stderr, mininterval=0.5 if watched else 30, smoothing=0.05,
        bar_format="{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f} of {total} [{elapsed}, {remaining} left]",
    ) as bar:  # fmt: skip
        while pending:
            with ExitStack() as locks:
                batch = _lock_batch(_ready(pending, size), store, locks)
                done = [key for key in batch if _stored(store, pending[key])]
                batch = [pending[key] for key in batch if key not in done]
                if batch:
                    _train_batch(batch, store, device, bar, watch)
                    done += [wish.node.key for wish in batch]
            if not done:
                time.sleep(1)  # all that could go on is in the hands of another process
                done = [key for key in pending if _stored(store, pending[key])]
                bar.update(len(done))
            for key in done:
                del pending[key]


def with_ancestors(wanted: dict[str, Wanted], done: Callable[[Wanted], bool] = lambda wish: False) -> dict[str, Wanted]:
    """What is wanted and what it stands on, less what is done."""
    pending: dict[str, Wanted] = {}

    def add(wish: Wanted) -> None:
        node = wish.node
        wish = wish.also(pending.get(node.key)).also(wanted.get(node.key))
        if wish == pending.get(node.key) or done(wish):
            return
        for before in filter(None, (node.parent, node.origin)):
            add(Wanted(before, needs=frozenset({"final biases"} if node.control == "continued training" else ())))
        pending[node.key] = wish

    for wish in wanted.values():
        add(wish)
    return pending


def _ready(pending: dict[str, Wanted], size: int) -> list[str]:
    """Keys of trainings whose parents are done, all of one recipe: at most `size`, winning tickets first, as most stands on them."""
    ready = [wish for wish in pending.values() if not any(before and before.key in pending for before in (wish.node.parent, wish.node.origin))]
    ready.sort(key=lambda wish: (wish.node.control not in KEPT, wish.node.strategy != "iterative", wish.node.round))
    first = _trains_as(ready[0]) if ready else None
    alike = [wish for wish in ready if _trains_as(wish) == first]
    in_turns = bool(alike) and alike[0].node.recipe.network != "lenet"
    return [wish.node.key for wish in alike[: 1 if in_turns else size]]


def _trains_as(wish: Wanted) -> tuple:
    """What trainings of one batch have in common: all that the engine takes beside tickets."""
    return tuple(sorted(wish.node.recipe.deciding().items())), "test looks" in wish.needs


def _lock_batch(keys: list[str], store: Store, locks: ExitStack) -> list[str]:
    held = []
    for key in keys:
        try:
            locks.enter_context(store.lock(key))
            held.append(key)
        except Timeout:
            continue
    return held


def _train_batch(batch: list[Wanted], store: Store, device, bar: tqdm, watch: Callable[[], None] = lambda: None) -> None:
    from . import data, tickets, training

    recipe = batch[0].node.recipe
    loaded = data.load(recipe.data, recipe.scaling, recipe.validation, recipe.split_seed, str(device))
    made = [tickets.make(node, *(_trained(store, other) if other else None for other in (node.parent, node.origin))) for node, *_ in batch]
    started, clock = datetime.now(UTC), time.monotonic()

    def progress(steps: int) -> None:
        bar.update(min(steps * len(batch) / recipe.iterations, bar.total - bar.n))
        watch()

    records = training.train(made, loaded, recipe, device, "test looks" in batch[0].needs, progress)
    seconds = (time.monotonic() - clock) / len(batch)
    for wish, ticket, record in zip(batch, made, records):
        provenance = {"data": loaded.remark or recipe.data} | _provenance(device, started.isoformat(timespec="seconds"), round(seconds, 2))
        store.write(wish.node.key, _as_stored(wish.node, ticket, record) | provenance, _arrays(wish.node, ticket, record))


def _as_stored(node: Node, ticket, record) -> dict:
    from . import masks

    holds = ["final biases"] * (node.control in KEPT) + ["test looks"] * ("test_loss" in record.curves)
    return {
        "strategy": node.strategy, "control": node.control, "trial": node.trial, "round": node.round, "draw": node.draw,
        "recipe": {"version": RESULTS_VERSION, **node.recipe.deciding()},
        "density": masks.density(ticket.mask), "iterations": node.recipe.iterations, "early_stop": record.early_stop,
        "holds": holds, "measures": record.measures,
    } | ({"noise": node.noise} if node.noise else {})  # fmt: skip


def _arrays(node: Node, ticket, record) -> dict[str, np.ndarray]:
    """Curves always; the mask and final parameters where a later round may stand on them; initial ones of round 0."""
    arrays = dict(record.curves)
    if node.control in KEPT:
        arrays |= {f"mask/{name}": np.packbits(mask.numpy()) for name, mask in ticket.mask.items()}
        arrays |= {f"final/{name}": value.numpy() for name, value in record.weights.items()}
        if node.round == 0:
            arrays |= {f"initial/{name}": value.numpy() for name, value in ticket.weights.items()}
    return arrays


def _trained(store: Store, node: Node):
    import torch

    from .tickets import Trained

    arrays = store.arrays(node.key)
    if arrays is None:
        raise LotteryError(f"store: {node.key} was damaged after it was stored; run again to train it anew")
    part = {kind: {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"{kind}/")} for kind in ("mask", "final", "initial")}
    final = {name: torch.from_numpy(array) for name, array in part["final"].items()}
    mask = {name: torch.from_numpy(np.unpackbits(bits, count=final[name].numel())).bool().view(final[name].shape) for name, bits in part["mask"].items()}
    return Trained(mask, final, {name: torch.from_numpy(array) for name, array in part["initial"].items()})


def _stored(store: Store, wish: Wanted) -> bool:
    record = store.record(wish.node.key)
    return record is not None and wish.needs <= set(record.get("holds", ()))


# --- tables ---------------------------------------------------------------------------------------------------------


def _assemble(plan: Plan, scale: str, trials: int | None, store: Store, frozen: pd.DataFrame, skip=()) -> pd.DataFrame:
    """Rows of every line of the plan, from the committed table where it has them, else from the store."""
    held, by_node = _held(frozen), dict(tuple(frozen.groupby("node")))
    parts = []
    for label, line in plan.items():
        for node in line.nodes(scale, trials):
            if node.key in skip:
                continue
            rows = by_node[node.key] if node.key in held and held[node.key].issuperset(line.shows) else _rows(node, store, line.shows)
            parts.append(rows[~_beside(rows) | rows.metric.isin(line.shows)].assign(line=label))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates(["line", "node", "metric", "iteration", "x"], ignore_index=True)[list(COLUMNS)]


def _rows(node: Node, store: Store, shows: tuple[str, ...]) -> pd.DataFrame:
    record = store.record(node.key)
    record.setdefault("data", node.recipe.data)
    stop, end = record["early_stop"], record["iterations"]
    rows = [("early_stop_iteration", stop, np.nan, float(stop))]
    for name, value in sorted(record["measures"].items()):
        rows.append((name, _moment(name, record, node), np.nan, value))
    for metric in shows:
        if metric in CURVES:
            arrays = store.arrays(node.key)
            rows += [(metric, int(iteration), np.nan, float(value)) for iteration, value in zip(arrays["iterations"], arrays[metric])]
        elif metric not in TEST_STOP:
            origin = store.arrays(node.unpruned.key)
            rows += [(metric, end, x, value) for x, value in distribution(metric, store.arrays(node.key), origin)]
    frame = pd.DataFrame(rows, columns=["metric", "iteration", "x", "value"])
    return frame.assign(node=node.key, **{name: record[name] for name in ("strategy", "control", "trial", "draw", "round", "density", *PROVENANCE)})


def _moment(measure: str, record: dict, node: Node) -> int:
    """The iteration at which a measure was taken."""
    if measure in TEST_STOP:
        return int(record["measures"]["early_stop_iteration_test"])
    if "_at_mark_" in measure:
        return node.recipe.marks[int(measure.rpartition("_")[2]) - 1]
    return record["early_stop"] if measure.endswith("_early_stop") else record["iterations"]


def _beside(rows: pd.DataFrame) -> pd.Series:
    """Which rows are shown only by lines that ask for them."""
    return rows.metric.isin((*CURVES, *TEST_STOP)) | rows.x.notna()


def results_folder() -> Path | None:
    """Where the committed tables are: LOTTERY_RESULTS, else `book/results`; none where LOTTERY_RESULTS is empty."""
    folder = os.environ.get("LOTTERY_RESULTS")
    return ROOT / "book" / "results" if folder is None else Path(folder) if folder else None


def frozen_table(figure: str | None, scale: str) -> pd.DataFrame:
    """A figure's committed table, empty where there is none."""
    folder = results_folder()
    path = folder / f"{figure}-{scale}.parquet" if folder else None
    if path is None or not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_parquet(path).reindex(columns=COLUMNS)


def frozen_scales(figure: str) -> list[str]:
    """The scales a figure has committed tables of, best last."""
    folder = results_folder()
    return [scale for scale in SCALES if folder and (folder / f"{figure}-{scale}.parquet").exists()]


def freeze(figure: str, plan: Plan, scale: str, trials: int | None = None) -> tuple[Path, int, int]:
    """Write a figure's table of what the store holds into the committed results: (file, trainings in it, trainings wanted).

    What the committed table has and this store lacks stays in it, so that a figure can be finished on another machine.
    """
    store, folder = Store(), results_folder()
    if folder is None:
        raise LotteryError("LOTTERY_RESULTS is empty: unset it, or name the folder that the table goes to")
    wanted, before = wanted_nodes([plan], scale, trials), frozen_table(figure, scale)
    held = _held(before)
    missing = {key for key, wish in wanted.items() if not _stored(store, wish)}
    if len(missing) == len(wanted):
        raise LotteryError(f"{figure} has no trainings at {scale} scale in {store.folder}: python -m lottery_nb run {figure} --scale {scale}")
    kept = {key for key in missing if key in held and wanted[key].shows <= held[key]}
    missing -= kept
    table = _assemble(plan, scale, trials, store, before[before.node.isin(kept)], skip=missing)
    path = folder / f"{figure}-{scale}.parquet"
    draft = path.with_suffix(".draft")
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(draft, index=False, compression="zstd")
    draft.replace(path)
    return path, len(wanted) - len(missing), len(wanted)


def progress(wanted: dict[str, Wanted], figure: str, scale: str, store: Store) -> tuple[int, float | None]:
    """How many of the wanted trainings are done, in the committed table or the store, and the seconds that the others will
    take: for each network the median of those done; None where one has none."""
    frozen = frozen_table(figure, scale)
    held, seconds = _held(frozen), dict(zip(frozen.node, frozen.seconds))
    took: dict[str, list[float]] = {}
    missing = []
    for key, wish in wanted.items():
        network = wish.node.recipe.network
        if key in held and wish.shows <= held[key]:
            took.setdefault(network, []).append(seconds[key])
        elif _stored(store, wish):
            took.setdefault(network, []).append(store.record(key)["seconds"])
        else:
            missing.append(network)
    left = sum(np.median(took[network]) for network in missing) if set(missing) <= set(took) else None
    return len(wanted) - len(missing), left if left is None else float(left)


def _held(frozen: pd.DataFrame) -> dict[str, set[str]]:
    """What a committed table can serve: {training: the metrics it has of it beside the usual ones}."""
    beside = frozen[_beside(frozen)].groupby("node").metric.unique()
    return {key: set(beside.get(key, ())) for key in frozen.node.unique()}


def _summary(plan: Plan, scale: str, trials: int | None, table: pd.DataFrame, missing: dict, figure: str | None) -> str:
    """What was shrunk, and who computed it when: printed under every figure's `run`, a fact a line."""
    shrank: dict[str, dict[str, None]] = {}
    for line in plan.values():
        shrank.setdefault(line.recipe.network, {}).update(dict.fromkeys(line.what_shrank(scale, trials)))
    said = [f"scale     {scale}: {'shrunk to' if any(shrank.values()) else 'as in the paper'}"]
    for network, facts in shrank.items():
        said += [f"          {fact}{f' ({network})' if len(shrank) > 1 else ''}" for fact in facts]
    if scale == "smoke":
        said.append("          the paper's curves are not drawn: its data are others")
    if len(table):
        nodes = table.drop_duplicates("node")
        said.append(f"trainings {len(nodes)}, {_duration(nodes.seconds.sum())} of computing")
        said.append(f"started   {nodes.started.min()[:16].replace('T', ' ')} to {nodes.started.max()[:16].replace('T', ' ')} UTC")
        for name in ("data", "device", "versions", "commit"):
            said.append(f"{name:10}{', '.join(sorted(set(nodes[name].dropna())))}")
    if missing:
        said += [f"missing   {len(missing)} trainings, not drawn; this makes them:", f"          python -m lottery_nb run {figure or 'FIG'} --scale {scale}"]
    return "\n".join(said)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@cache
def _provenance_of_this_machine() -> dict[str, str]:
    import torch

    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True).stdout.strip()
    return {"commit": commit or "unknown", "versions": f"Python {platform.python_version()}, torch {torch.__version__}"}


def _provenance(device, started: str, seconds: float) -> dict:
    return _provenance_of_this_machine() | {"device": device_name(device.type), "started": started, "seconds": seconds}


@cache
def device_name(kind: str) -> str:
    """The processor of a device ("cpu" | "cuda") and, of a CPU, the threads in use."""
    import torch

    if kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.processor() or platform.machine()} ({threads} thread{'s' if threads > 1 else ''})"
