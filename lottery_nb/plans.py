"""From a plan to a tidy table: what is stored is read, only what is missing is trained.

A table has one row a measurement: `line` (the plan's label), `strategy`, `control`, `trial`, `draw`, `round`, `density`,
`iteration`, `metric`, `value`, and where it came from: `node` (its key in the store), `commit`, `versions`, `device`,
`started`, `seconds`. Metrics are those of `training.Record.measures`, `early_stop_iteration`, and for lines drawn over
iterations `val_loss` and `test_accuracy` at every evaluation.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import Timeout
from tqdm import tqdm

from .errors import LotteryError
from .specs import RESULTS_VERSION, SCALES, Line, Node, shrinking
from .store import ROOT, Store

Plan = dict[str, Line]

BATCH = {"cpu": 12, "cuda": 100}  # trainings in one batch: 12 are a twentieth to a quarter faster than 6 on two cores
PROVENANCE = ("commit", "versions", "device", "started", "seconds")
COLUMNS = ("line", "strategy", "control", "trial", "draw", "round", "density", "iteration", "metric", "value", "node", *PROVENANCE)


def run(plan: Plan, scale: str = "smoke", trials: int | None = None, figure: str | None = None) -> pd.DataFrame:
    """The table of a plan at a scale; trains what neither the figure's committed table nor the store holds.

    scale: "smoke" | "laptop" | "paper"; trials: None takes the scale's own; figure: such as "fig04", whose committed
    table may serve. With LOTTERY_MISSING=skip nothing is trained and what is missing is said. Raises LotteryError for
    bad input and for a store that cannot be used.
    """
    wanted = wanted_nodes([plan], scale, trials)
    store, frozen = Store(), frozen_table(figure, scale)
    held = _held(frozen)
    missing = {key: wish for key, wish in wanted.items() if (key, wish.curves) not in held and not _stored(store, key, wish.curves)}
    if missing and os.environ.get("LOTTERY_MISSING") != "skip":
        train_missing(missing, store)
        missing = {}
    table = _assemble(plan, scale, trials, store, frozen, skip=missing)
    table.attrs["scale"] = scale
    print(_summary(plan, scale, trials, table, missing, figure))
    return table


class Wanted(NamedTuple):
    """A training that is asked for, and whether its test accuracy is at every evaluation."""

    node: Node
    curves: bool


def wanted_nodes(plans: Iterable[Plan], scale: str, trials: int | None = None) -> dict[str, Wanted]:
    """The distinct trainings that plans show, by key; one that any line wants curves of is wanted with curves."""
    shrinking(scale)
    wanted: dict[str, Wanted] = {}
    for plan in plans:
        for line in plan.values():
            for node in line.nodes(scale, trials):
                before = wanted.get(node.key)
                wanted[node.key] = Wanted(node, line.curves or (before is not None and before.curves))
    return wanted


def train_missing(wanted: dict[str, Wanted], store: Store, device: str = "auto") -> None:
    """Train what is wanted and not stored, and all it stands on, in batches that share a recipe.

    Another process may be at work in the same store: what it has under its locks is waited for, not trained twice.
    """
    pending = _with_ancestors(wanted, store)
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
                done = [key for key in batch if _stored(store, key, pending[key].curves)]
                batch = [pending[key] for key in batch if key not in done]
                if batch:
                    _train_batch(batch, store, device, bar)
                    done += [wish.node.key for wish in batch]
            if not done:
                time.sleep(1)  # all that could go on is in the hands of another process
                done = [key for key in pending if _stored(store, key, pending[key].curves)]
                bar.update(len(done))
            for key in done:
                del pending[key]


def _with_ancestors(wanted: dict[str, Wanted], store: Store) -> dict[str, Wanted]:
    """What is wanted and what it stands on, less what is stored; parents before children."""
    pending: dict[str, Wanted] = {}

    def add(node: Node, curves: bool) -> None:
        if node.key in pending or _stored(store, node.key, curves):
            return
        if node.round:
            add(node.parent, wanted[node.parent.key].curves if node.parent.key in wanted else False)
            add(node.origin, wanted[node.origin.key].curves if node.origin.key in wanted else False)
        pending[node.key] = Wanted(node, curves)

    for wish in wanted.values():
        add(*wish)
    return pending


def _ready(pending: dict[str, Wanted], size: int) -> list[str]:
    """Keys of trainings whose parents are done, all of one recipe: at most `size`, winning tickets first, as most stands on them."""
    ready = [wish for wish in pending.values() if not wish.node.round or (wish.node.parent.key not in pending and wish.node.origin.key not in pending)]
    ready.sort(key=lambda wish: (wish.node.control != "winning ticket", wish.node.strategy != "iterative", wish.node.round))
    alike = [wish for wish in ready if (wish.node.recipe, wish.curves) == (ready[0].node.recipe, ready[0].curves)]
    return [wish.node.key for wish in alike[:size]]


def _lock_batch(keys: list[str], store: Store, locks: ExitStack) -> list[str]:
    held = []
    for key in keys:
        try:
            locks.enter_context(store.lock(key))
            held.append(key)
        except Timeout:
            continue
    return held


def _train_batch(batch: list[Wanted], store: Store, device, bar: tqdm) -> None:
    from . import data, tickets, training

    recipe = batch[0].node.recipe
    loaded = data.load(recipe.data, recipe.scaling, recipe.validation, recipe.split_seed, str(device))
    made = [tickets.make(node, *(_trained(store, other) if node.round else None for other in (node.parent, node.origin))) for node, _ in batch]
    started, clock = datetime.now(UTC), time.monotonic()
    records = training.train(
        made, loaded, recipe, device, batch[0].curves, lambda steps: bar.update(min(steps * len(batch) / recipe.iterations, bar.total - bar.n))
    )
    seconds = (time.monotonic() - clock) / len(batch)
    for (node, curves), ticket, record in zip(batch, made, records):
        provenance = _provenance(device, started.isoformat(timespec="seconds"), round(seconds, 2))
        store.write(node.key, _as_stored(node, ticket, record, curves) | provenance, _arrays(node, ticket, record))


def _as_stored(node: Node, ticket, record, curves: bool) -> dict:
    from . import masks

    return {
        "strategy": node.strategy, "control": node.control, "trial": node.trial, "round": node.round, "draw": node.draw,
        "recipe": {"version": RESULTS_VERSION, **node.recipe.deciding()},
        "density": masks.density(ticket.mask), "iterations": node.recipe.iterations, "early_stop": record.early_stop,
        "curves": curves, "measures": record.measures,
    }  # fmt: skip


def _arrays(node: Node, ticket, record) -> dict[str, np.ndarray]:
    """Curves always; the mask and final weights where a later round may stand on them; initial weights of round 0."""
    arrays = {"iterations": record.iterations, "val_loss": record.val_loss, "val_accuracy": record.val_accuracy}
    if record.test_accuracy is not None:
        arrays["test_accuracy"] = record.test_accuracy
    if node.control == "winning ticket":
        for name, mask in ticket.mask.items():
            arrays[f"mask/{name}"] = np.packbits(mask.numpy())
            arrays[f"final/{name}"] = record.weights[name].numpy()
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


def _stored(store: Store, key: str, curves: bool) -> bool:
    record = store.record(key)
    return record is not None and (record["curves"] or not curves)


# --- tables ---------------------------------------------------------------------------------------------------------


def _assemble(plan: Plan, scale: str, trials: int | None, store: Store, frozen: pd.DataFrame, skip=()) -> pd.DataFrame:
    """Rows of every line of the plan, from the committed table where it has them, else from the store."""
    held, by_node = _held(frozen), dict(tuple(frozen.groupby("node")))
    parts = []
    for label, line in plan.items():
        for node in line.nodes(scale, trials):
            if node.key in skip:
                continue
            rows = by_node[node.key] if (node.key, line.curves) in held else _rows(node.key, store, line.curves)
            if not line.curves:
                rows = rows[~rows.metric.isin(("val_loss", "test_accuracy"))]
            parts.append(rows.assign(line=label))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates(["line", "node", "metric", "iteration"], ignore_index=True)[list(COLUMNS)]


def _rows(key: str, store: Store, curves: bool) -> pd.DataFrame:
    record = store.record(key)
    end = record["iterations"]
    rows = [("early_stop_iteration", record["early_stop"], float(record["early_stop"]))]
    rows += [(name, end if name.endswith("_end") else record["early_stop"], value) for name, value in sorted(record["measures"].items())]
    if curves:
        arrays = store.arrays(key)
        for metric in ("val_loss", "test_accuracy"):
            rows += [(metric, int(iteration), float(value)) for iteration, value in zip(arrays["iterations"], arrays[metric])]
    frame = pd.DataFrame(rows, columns=["metric", "iteration", "value"])
    return frame.assign(node=key, **{name: record[name] for name in ("strategy", "control", "trial", "draw", "round", "density", *PROVENANCE)})


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
    return pd.read_parquet(path)


def frozen_scales(figure: str) -> list[str]:
    """The scales a figure has committed tables of, best last."""
    folder = results_folder()
    return [scale for scale in SCALES if folder and (folder / f"{figure}-{scale}.parquet").exists()]


def freeze(figure: str, plan: Plan, scale: str, trials: int | None = None) -> tuple[Path, int, int]:
    """Write a figure's table of what the store holds into the committed results: (file, trainings in it, trainings wanted)."""
    store, folder = Store(), results_folder()
    if folder is None:
        raise LotteryError("LOTTERY_RESULTS is empty: unset it, or name the folder that the table goes to")
    wanted = wanted_nodes([plan], scale, trials)
    missing = {key for key, wish in wanted.items() if not _stored(store, key, wish.curves)}
    if len(missing) == len(wanted):
        raise LotteryError(f"{figure} has no trainings at {scale} scale in {store.folder}: python -m lottery_nb run {figure} --scale {scale}")
    table = _assemble(plan, scale, trials, store, pd.DataFrame(columns=COLUMNS), skip=missing)
    path = folder / f"{figure}-{scale}.parquet"
    draft = path.with_suffix(".draft")
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(draft, index=False, compression="zstd")
    draft.replace(path)
    return path, len(wanted) - len(missing), len(wanted)


def progress(wanted: dict[str, Wanted], figure: str, scale: str, store: Store) -> tuple[int, float | None]:
    """How many of the wanted trainings are done, in the committed table or the store, and the seconds one took (median)."""
    frozen = frozen_table(figure, scale)
    held = _held(frozen)
    seconds = dict(zip(frozen.node, frozen.seconds))
    done = {key: seconds[key] for key, wish in wanted.items() if (key, wish.curves) in held}
    for key, wish in wanted.items():
        if key not in done and _stored(store, key, wish.curves):
            done[key] = store.record(key)["seconds"]
    return len(done), float(np.median(list(done.values()))) if done else None


def _held(frozen: pd.DataFrame) -> set[tuple[str, bool]]:
    """What a committed table can serve: (key, False) for each training in it, (key, True) where its curves are there too."""
    return {(key, False) for key in frozen.node} | {(key, True) for key in frozen.node[frozen.metric == "test_accuracy"]}


def _summary(plan: Plan, scale: str, trials: int | None, table: pd.DataFrame, missing: dict, figure: str | None) -> str:
    """What was shrunk, and who computed it when: printed under every figure's `run`, a fact a line."""
    shrank = dict.fromkeys(fact for line in plan.values() for fact in line.what_shrank(scale, trials))
    said = [f"scale     {scale}: {'shrunk to' if shrank else 'as in the paper'}", *(f"          {fact}" for fact in shrank)]
    if scale == "smoke":
        said.append("          the paper's curves are not drawn: its data are others")
    if len(table):
        nodes = table.drop_duplicates("node")
        said.append(f"trainings {len(nodes)}, {_duration(nodes.seconds.sum())} of computing")
        said.append(f"started   {nodes.started.min()[:16].replace('T', ' ')} to {nodes.started.max()[:16].replace('T', ' ')} UTC")
        for name in ("device", "versions", "commit"):
            said.append(f"{name:10}{', '.join(sorted(set(nodes[name])))}")
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
