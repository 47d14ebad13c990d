"""From a plan to a tidy table: what is stored is read, only what is missing is trained.

A table has one row a measurement: `line` (the plan's label), `strategy`, `control`, `trial`, `draw`, `round`, `density`,
`iteration`, `metric`, `x`, `value`, and where it came from: `node` (its key in the store), `commit`, `versions`, `device`,
`started`, `seconds`. Metrics are those of `training.Record.measures`, `early_stop_iteration`, and what a line shows
beside: `val_loss` and `test_accuracy` at every evaluation, early stop by the test set, or a distribution over a layer,
a row a bin, whose middle is `x` and whose probability density is `value`.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from .distributions import distribution
from .errors import LotteryError
from .graph import Plan, Wanted, wanted_nodes
from .running import stored, train_missing
from .specs import CURVES, DEEP, SCALES, TEST_STOP, Line, Node, Recipe, any_distribution
from .store import ROOT, Store

LINEAGE = ("dataset", "mask", "weights", "parents")  # digests; parents: "key mask weights", of each
PROVENANCE = ("commit", "versions", "device", "data", "started", "seconds", *LINEAGE)
COUNTED = {"conv": "convolutions", "shortcut": "shortcuts"}
PRUNED = {"conv": "convolutions", "fc": "fully-connected", "output": "output"}
COLUMNS = ("line", "strategy", "control", "trial", "draw", "round", "density", "iteration", "metric", "x", "value", "node", *PROVENANCE)


def run(plan: Plan, scale: str = "smoke", trials: int | None = None, figure: str | None = None, watch: Callable[[], None] = lambda: None) -> pd.DataFrame:
    """The table of a plan at a scale; trains what neither the figure's committed table nor the store holds.

    scale: "smoke" | "laptop" | "paper"; trials: None takes the scale's own, and what the committed table has beyond them;
    figure: such as "fig04", whose committed table may serve; watch: called often while trainings run, and ends them by
    raising. With LOTTERY_MISSING=skip nothing is trained and what is missing is said. Raises LotteryError for bad input and for a store that cannot be used.
    """
    wanted = wanted_nodes([plan], scale, trials)
    store, frozen = Store(), frozen_table(figure, scale)
    held = _held(frozen)
    missing = {key: wish for key, wish in wanted.items() if not _serves(held, wish) and not _readable(store, wish)}
    if missing and os.environ.get("LOTTERY_MISSING") != "skip":
        origins = {wish.node.unpruned.key: Wanted(wish.node.unpruned) for wish in missing.values() if any_distribution(wish.shows)}
        train_missing(origins | missing, store, watch=watch)
        missing = {}
    table = _assemble(_lines(plan, scale, trials, frozen, trials is None), store, frozen, skip=missing)
    table.attrs["scale"] = scale
    table.attrs["lines"] = list(plan)
    table.attrs["narrower"] = any(line.recipe.at(scale).width != line.recipe.width for line in plan.values())
    print(_summary(plan, scale, table, missing, figure))
    return table


def architectures(recipes: dict[str, Recipe]) -> pd.DataFrame:
    """The paper's Figure 2, computed: a tidy table (line, metric, value, trial) of every network's weights and set-up."""
    rows = []
    for line, recipe in recipes.items():
        deep = recipe.network in DEEP
        of = {kind: sum(layer.count for layer in recipe.layers if layer.kind == kind) for kind in ("conv", "shortcut")}
        measures = {"weights": recipe.weights} | {f"weights, {name}": of[kind] for kind, name in COUNTED.items() if of[kind]}
        measures |= {f"weights, {layer.name}": layer.count for layer in recipe.layers if layer.kind == "output" or not deep}
        measures |= {"iterations": recipe.iterations, "batch": recipe.batch, f"learning rate, {recipe.optimiser}": recipe.learning_rate}
        measures |= {f"pruned a round, {name}": recipe.rates[kind] for kind, name in PRUNED.items() if recipe.rates[kind] and (of["conv"] or kind != "conv")}
        measures |= {f"left after {r} rounds, %": round(100 * recipe.remaining(r) / recipe.weights, 2) for r in (7, 10, 12)}
        rows += [{"line": line, "metric": metric, "value": value, "trial": None} for metric, value in measures.items()]
    table = pd.DataFrame(rows)
    table.attrs["scale"] = "paper"  # counting shrinks nothing
    return table


# --- tables ---------------------------------------------------------------------------------------------------------


def _lines(plan: Plan, scale: str, trials: int | None, frozen: pd.DataFrame, beyond: bool) -> dict[str, tuple[Line, list[Node]]]:
    """Every line of the plan with its trainings; beyond: also those of further trials that the committed table has of it."""
    held, labelled = _held(frozen), set(zip(frozen.line, frozen.node))
    most = int(frozen.trial.max()) + 1 if beyond and len(frozen) else None
    found = {}
    for label, line in plan.items():
        nodes = line.nodes(scale, trials)
        own = {node.key for node in nodes}
        further = line.nodes(scale, most) if most else []
        nodes += [each for each in further if each.key not in own and (label, each.key) in labelled and held[each.key].issuperset(line.shows)]
        found[label] = (line, sorted(nodes, key=lambda node: (node.round, node.trial, node.draw)))
    return found


def _assemble(lines: dict[str, tuple[Line, list[Node]]], store: Store, frozen: pd.DataFrame, skip=()) -> pd.DataFrame:
    """Rows of every line's trainings, from the committed table where it has them, else from the store."""
    held, by_node = _held(frozen), dict(tuple(frozen.groupby("node")))
    parts = []
    for label, (line, nodes) in lines.items():
        frames, fresh = [], []
        for node in nodes:
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
    stop, end = record["early_stop"], record["iterations"]
    rows = [("early_stop_iteration", stop, np.nan, float(stop))]
    for name, value in sorted(record["measures"].items()):
        rows.append((name, _moment(name, record, node), np.nan, value))
    for metric in shows:
        if metric in CURVES:
            arrays = store.needed_arrays(node.key)
            rows += [(metric, int(iteration), np.nan, float(value)) for iteration, value in zip(arrays["iterations"], arrays[metric])]
        elif metric not in TEST_STOP:
            origin = store.needed_arrays(node.unpruned.key)
            rows += [(metric, end, x, value) for x, value in distribution(metric, store.needed_arrays(node.key), origin)]
    who = tuple(record[name] for name in ("strategy", "control", "trial", "draw", "round", "density"))
    made = (node.key, *provenance(record).values())
    return [(*who, iteration, metric, x, value, *made) for metric, iteration, x, value in rows]


def provenance(record: dict) -> dict:
    """What a table tells of where a stored training came from, in the order of `PROVENANCE`."""
    made = record["made_of"]
    parents = "; ".join(f"{key} {parent['mask']} {parent['weights']}" for key, parent in made["parents"].items())
    told = {name: made[name] for name in ("commit", "versions", "device")} | {"data": made["data"]["said"]}
    told |= {name: record[name] for name in ("started", "seconds")}
    return told | {"dataset": made["data"]["digest"], "mask": record["mask"], "weights": record["weights"], "parents": parents}


def _moment(measure: str, record: dict, node: Node) -> int:
    """The iteration at which a measure was taken."""
    if measure in TEST_STOP:
        return int(record["measures"]["early_stop_iteration_test"])
    if measure.endswith("_at_start"):
        return 0
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
    return _read(path, path.stat().st_mtime_ns).copy(deep=False)


@lru_cache(maxsize=100)
def _read(path: Path, changed: int) -> pd.DataFrame:
    """A committed table, read once while the file stays as it is."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise _unusable(path, f"cannot be read ({' '.join(str(error).split())[:100]})") from error
    lacks = [name for name in COLUMNS if name not in table and name not in ("x", "data", *LINEAGE)]  # which tables of the first days lack
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
    """Write a figure's table into the committed results: (file, trainings in it of those wanted, trainings wanted).

    It is made of what the store holds; of what the committed table has, which nothing is ever dropped from; and of what the
    scale's other committed tables have. So a figure can be finished on another machine.
    """
    store, folder = Store(), results_folder()
    if folder is None:
        raise LotteryError("LOTTERY_RESULTS is empty: unset it, or name the folder that the table goes to")
    wanted, own = wanted_nodes([plan], scale, trials), frozen_table(figure, scale)
    fresh = {key for key, wish in wanted.items() if _readable(store, wish)}
    lent = _lent({key: wish for key, wish in wanted.items() if key not in fresh and not _serves(_held(own), wish)}, scale)
    if not fresh and lent.empty:
        raise LotteryError(f"{figure} has no trainings at {scale} scale in {store.folder}: python -m lottery_nb run {figure} --scale {scale}")
    committed = pd.concat([each for each in (own[~own.node.isin([*fresh, *lent.node])], lent) if len(each)] or [own])
    held = _held(committed)
    missing = {key for key, wish in wanted.items() if key not in fresh and not _serves(held, wish)}
    table = _assemble(_lines(plan, scale, trials, own, beyond=True), store, committed, skip=missing)
    path = folder / f"{figure}-{scale}.parquet"
    draft = path.with_suffix(".draft")
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(draft, index=False, compression="zstd")
    draft.replace(path)
    return path, len(wanted) - len(missing), len(wanted)


def _lent(wanted: dict[str, Wanted], scale: str) -> pd.DataFrame:
    """The rows that committed tables of a scale have of wanted trainings, of each training from the first table that serves."""
    found = {}
    for name in committed_at(scale) if wanted else ():
        table = frozen_table(name, scale)
        held = _held(table)
        serves = [key for key, wish in wanted.items() if key not in found and _serves(held, wish)]
        found |= dict(tuple(table[table.node.isin(serves)].groupby("node")))
    return pd.concat(found.values()) if found else pd.DataFrame(columns=COLUMNS)


def committed_at(scale: str) -> list[str]:
    """The figures and studies that have a committed table of a scale."""
    folder = results_folder()
    return sorted(path.stem.rpartition("-")[0] for path in folder.glob(f"*-{scale}.parquet")) if folder else []


def committed(scale: str) -> dict[str, list[tuple[set[str], float]]]:
    """What a scale's committed tables have: {training: of each table with it, the metrics beside the usual ones, and its seconds}."""
    found: dict[str, list[tuple[set[str], float]]] = {}
    for name in committed_at(scale):
        table = frozen_table(name, scale)
        seconds = dict(zip(table.node, table.seconds))
        for key, beside in _held(table).items():
            found.setdefault(key, []).append((beside, seconds[key]))
    return found


def _readable(store: Store, wish: Wanted) -> bool:
    """Whether the store has all that a training's rows are made of: distributions are over what its whole network began as."""
    return stored(store, wish) and (not any_distribution(wish.shows) or wish.node.unpruned.key in store)


def _serves(held: dict[str, set[str]], wish: Wanted) -> bool:
    return wish.node.key in held and wish.shows <= held[wish.node.key]


def _held(frozen: pd.DataFrame) -> dict[str, set[str]]:
    """What a committed table can serve: {training: the metrics it has of it beside the usual ones}."""
    beside = frozen[_beside(frozen)].groupby("node").metric.unique()
    return {key: set(beside.get(key, ())) for key in frozen.node.unique()}


def _summary(plan: Plan, scale: str, table: pd.DataFrame, missing: dict, figure: str | None) -> str:
    """What was shrunk, and who computed it when: printed under every figure's `run`, a fact a line."""
    networks = list(dict.fromkeys(line.recipe.network for line in plan.values()))
    shrank: dict[str, list[str]] = {}  # what is shrunk, and of which networks
    drawn = table.groupby(["line", "strategy", "round"]).trial.nunique().groupby("line").agg(["min", "max"])
    for line in plan.values():
        alike = [label for label, other in plan.items() if (other.recipe.network, other.recipe.trials) == (line.recipe.network, line.recipe.trials)]
        trials = drawn[drawn.index.isin(alike)]
        shrunk = line.what_shrank(scale, (trials["min"].min(), trials["max"].max()) if len(trials) else None)
        for fact in shrunk:
            shrank.setdefault(fact, []).append(line.recipe.network)
    said = [f"scale     {scale}: {'shrunk to' if shrank else 'as in the paper'}"]
    for fact, of in shrank.items():
        of = [network for network in networks if network in of]
        only = f" ({', '.join(of)})" if len(of) < len(networks) else ""
        said.append(f"          {fact}{only}")
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
