"""From a plan to a tidy table: what is stored is read, only what is missing is trained.

A table has one row a measurement: `line` (the plan's label), `strategy`, `control`, `trial`, `draw`, `round`, `density`,
`iteration`, `metric`, `x`, `value`, and where it came from: `node` (its key in the store), `commit`, `versions`, `device`,
`started`, `seconds`. Metrics are those of `training.Record.measures`, `early_stop_iteration`, and what a line shows
beside: `val_loss` and `test_accuracy` at every evaluation, early stop by the test set, or a distribution over a layer,
a row a bin, whose middle is `x` and whose probability density is `value`.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from .distributions import distribution
from .errors import LotteryError
from .graph import Plan, Wanted, wanted_nodes
from .running import stored, train_missing
from .specs import CURVES, SCALES, TEST_STOP, Node
from .store import ROOT, Store

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
    missing = {key: wish for key, wish in wanted.items() if not (key in held and wish.shows <= held[key]) and not stored(store, wish)}
    if missing and os.environ.get("LOTTERY_MISSING") != "skip":
        train_missing(missing, store, watch=watch)
        missing = {}
    table = _assemble(plan, scale, trials, store, frozen, skip=missing)
    table.attrs["scale"] = scale
    table.attrs["lines"] = list(plan)
    table.attrs["narrower"] = any(line.recipe.at(scale).width != line.recipe.width for line in plan.values())
    print(_summary(plan, scale, trials, table, missing, figure))
    return table


# --- tables ---------------------------------------------------------------------------------------------------------


def _assemble(plan: Plan, scale: str, trials: int | None, store: Store, frozen: pd.DataFrame, skip=()) -> pd.DataFrame:
    """Rows of every line of the plan, from the committed table where it has them, else from the store."""
    held, by_node = _held(frozen), dict(tuple(frozen.groupby("node")))
    parts = []
    for label, line in plan.items():
        frames, fresh = [], []
        for node in line.nodes(scale, trials):
            if node.key in held and held[node.key].issuperset(line.shows) and node.key not in skip:
                frames.append(by_node[node.key])
            elif node.key not in skip:
                fresh += _rows(node, store, line.shows)
        for rows in [*frames, pd.DataFrame(fresh, columns=COLUMNS[1:])]:
            parts.append(rows[~_beside(rows) | rows.metric.isin(line.shows)].assign(line=label))
    table = pd.concat([rows for rows in parts if len(rows)], ignore_index=True) if any(map(len, parts)) else pd.DataFrame(columns=COLUMNS)
    return table.drop_duplicates(["line", "node", "metric", "iteration", "x"], ignore_index=True)[list(COLUMNS)]


def _rows(node: Node, store: Store, shows: tuple[str, ...]) -> list[tuple]:
    """The rows of a stored training, each in the order of `COLUMNS` without the line."""
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
    who = tuple(record[name] for name in ("strategy", "control", "trial", "draw", "round", "density"))
    made = (node.key, *(record[name] for name in PROVENANCE))
    return [(*who, iteration, metric, x, value, *made) for metric, iteration, x, value in rows]


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
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise _unusable(path, f"cannot be read ({' '.join(str(error).split())[:100]})") from error
    lacks = [name for name in COLUMNS if name not in table and name not in ("x", "data")]  # which tables of the first days lack
    if lacks:
        raise _unusable(path, f"lacks {', '.join(lacks)}")
    return table.reindex(columns=COLUMNS)


def _unusable(path: Path, why: str) -> LotteryError:
    figure, scale = path.stem.split("-")
    return LotteryError(f"{path} {why}: restore it, or make it anew with python -m lottery_nb run {figure} --scale {scale}, then store freeze")


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
    missing = {key for key, wish in wanted.items() if not stored(store, wish)}
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


def done(wanted: dict[str, Wanted], figure: str, scale: str, store: Store | None) -> dict[str, float]:
    """Which of the wanted trainings are in the figure's committed table, or the store if one is given, with their seconds."""
    frozen = frozen_table(figure, scale)
    held, seconds = _held(frozen), dict(zip(frozen.node, frozen.seconds))
    found = {}
    for key, wish in wanted.items():
        if key in held and wish.shows <= held[key]:
            found[key] = seconds[key]
        elif store and stored(store, wish):
            found[key] = store.record(key)["seconds"]
    return found


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
