"""From a plan to a tidy table: what is committed or stored is read, only what is missing is
trained.

A table has one row a measurement: `line` (the plan's label), the columns of `results`, and `scale`.
Metrics are those of `training.Record`'s measures, `early_stop_iteration`, and what a line shows
beside: `val_loss` and `test_accuracy` at every evaluation, early stop by the test set, or a
distribution over a layer, a row a bin, whose middle is `x` and whose probability density is
`value`.
"""

import os
from collections.abc import Callable

import numpy as np
import pandas as pd

from ..core.errors import LotteryError
from ..core.lines import Node
from ..core.networks import kind_of
from ..core.recipes import Recipe
from ..core.scales import SCALES, check_scale
from ..runs.plans import Plan, Request, check, request, requests_of
from ..runs.runner import train_missing
from ..runs.store import Store
from . import results
from .results import Committed, besides, committed, extra, readable, rows_of

BEST = "committed"  # in place of a scale: each line at the best at which it is committed
COUNTED = {"conv": "convolutions", "shortcut": "shortcuts"}
PRUNED = {"conv": "convolutions", "fc": "fully-connected", "output": "output"}
COLUMNS = ("line", *results.COLUMNS, "scale")


def run(
    plan: Plan,
    scale: str = "smoke",
    trials: int | None = None,
    figure: str | None = None,
    watch: Callable[[], None] = lambda: None,
    quiet: bool = False,
) -> pd.DataFrame:
    """The table of a plan at a scale; trains what neither the committed tables nor the store holds.

    Parameters
    ----------
    plan : dict of str to Line
        The lines by their labels, such as ``{"winning ticket": lenet.iterative()}``.
    scale : str
        "smoke" | "laptop" | "paper", or "committed": each line at the best of them at which it is
        committed, and nothing is trained.
    trials : int, optional
        How many; None takes the scale's own, and what is committed beyond them.
    figure : str, optional
        Such as "fig04", to name in messages.
    watch : callable, optional
        Called without arguments often while trainings run; ends them by raising. What is finished
        by then is stored.
    quiet : bool
        Neither a bar nor the summary is printed.

    Returns
    -------
    pandas.DataFrame
        A row a measurement: `line`, `strategy`, `control`, `trial`, `draw`, `round`, `density` (the
        fraction of weights remaining), `iteration`, `metric`, `x`, `value` (accuracies as
        fractions, losses in nats, early stops in iterations), `node` (the training's key), where it
        came from (`commit` to `parents`), and `scale`. `x` is the middle of a bin, for
        distributions over a layer only. The table's ``attrs`` have what `plots` and `claims` need
        beside: "lines", the plan's labels, also of lines without a row; "conditions", the strategy
        and the control of each; "scale", the least of the
        lines' scales; "reduced", of lines whose networks the scale makes reduced ones by what, by
        their labels (see `Recipe.reduced_by`).

    Raises
    ------
    LotteryError
        For bad input, for a store that cannot be used, and for trainings that failed twice; all
        others are stored by then.

    Notes
    -----
    With LOTTERY_MISSING=skip in the environment nothing is trained; what is missing is said, unless
    `quiet`.

    Examples
    --------
    >>> from lottery_nb import lenet, run
    >>> plan = {"winning ticket": lenet.iterative().at_rounds(7)}
    >>> table = run(plan, scale="committed", quiet=True)
    >>> accuracy = table[table.metric == "test_accuracy_at_early_stop"].value
    >>> bool(accuracy.mean() > 0.98)
    True
    """
    if scale == BEST:
        table, missing = of_committed(plan, trials)
    else:
        check_scale(scale)
        table, missing = _of_all(plan, scale, trials, watch, quiet)
    table = table.astype(dict.fromkeys(table.select_dtypes("category"), "str"))
    if not quiet:
        print(_summary(plan, table, missing, figure))
    return table


def of_committed(
    plan: Plan, trials: int | None = None, scale: str | None = None
) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    """A plan's table of committed trainings alone, and the keys of those it lacks, by scale.

    scale: None takes each line's best, "laptop" where there is none.
    """
    check(plan)
    held = committed()
    scales = {label: scale or held.best_scale(line) or "laptop" for label, line in plan.items()}
    nodes = {label: held.nodes(line, scales[label], trials) for label, line in plan.items()}
    missing: dict[str, set[str]] = {}
    for label, line in plan.items():
        lacks = {
            node.key
            for node in nodes[label]
            if not held.serves(Request(node, frozenset(line.shows)))
        }
        if lacks:
            missing.setdefault(scales[label], set()).update(lacks)
    return _assemble(plan, scales, nodes, held), missing


def trains_missing() -> bool:
    """Whether what is missing is trained: LOTTERY_MISSING, "train" or "skip"."""
    named = os.environ.get("LOTTERY_MISSING") or "train"
    if named not in ("train", "skip"):
        raise LotteryError(f"LOTTERY_MISSING is {named!r}: set it to skip or train, or unset it")
    return named == "train"


def _of_all(
    plan: Plan, scale: str, trials: int | None, watch: Callable[[], None], quiet: bool
) -> tuple[pd.DataFrame, dict[str, set[str]]]:
    wanted = requests_of([plan], scale, trials)
    store, held = Store(), committed()
    uncommitted = {key: request for key, request in wanted.items() if not held.serves(request)}
    missing = {key: request for key, request in uncommitted.items() if not readable(store, request)}
    if missing and trains_missing():
        # With what is stored already, as it may stand on what is trained anew.
        train_missing(besides(missing.values()) | uncommitted, store, watch=watch, quiet=quiet)
        missing = {}
    nodes = {label: held.nodes(line, scale, trials) for label, line in plan.items()}
    table = _assemble(plan, dict.fromkeys(plan, scale), nodes, held, store)
    return table, {scale: set(missing)} if missing else {}


def _assemble(
    plan: Plan,
    scales: dict[str, str],
    nodes: dict[str, list[Node]],
    held: Committed,
    store: Store | None = None,
) -> pd.DataFrame:
    """Rows of every line's trainings, from the committed tables where those have them, else from
    the store."""
    places, fresh = [], []
    for label, line in plan.items():
        requests = {node.key: request(node, line) for node in nodes[label]}
        kept = {key for key, each in requests.items() if held.serves(each)}
        places.append(held.places((key for key in requests if key in kept), line.shows))
        for key, each in requests.items():
            if store and key not in kept and readable(store, each):
                rows = rows_of(each.node, store, line.shows)
                rows = rows[~extra(rows) | rows.metric.isin(line.shows)]
                fresh.append(rows.assign(line=label, scale=scales[label]))
    counts = [len(each) for each in places]
    table = held.rows.take(np.concatenate([np.empty(0, int), *places])).assign(
        line=pd.Categorical.from_codes(np.repeat(range(len(plan)), counts), list(plan)),
        scale=pd.Categorical.from_codes(
            np.repeat([list(SCALES).index(scales[label]) for label in plan], counts), list(SCALES)
        ),
    )
    if fresh:
        table = pd.concat([table, *fresh] if len(table) else fresh)
        table["line"] = pd.Categorical(table.line, list(plan))
        table = table.sort_values(["line", "round", "trial", "draw"], kind="stable")
    table = table.reset_index(drop=True)[list(COLUMNS)]
    table.attrs["lines"] = list(plan)
    table.attrs["conditions"] = {
        label: (line.strategy, line.control) for label, line in plan.items()
    }
    table.attrs["scales"] = scales
    present = set(table.scale.unique())
    table.attrs["scale"] = next(
        (scale for scale in SCALES if scale in present),
        min(scales.values(), key=list(SCALES).index, default="smoke"),
    )
    table.attrs["reduced"] = {
        label: by for label, line in plan.items() if (by := line.recipe.reduced_by(scales[label]))
    }
    table.attrs["narrower"] = any(
        line.recipe.at(scales[label]).width != line.recipe.width for label, line in plan.items()
    )
    return table


def architectures(recipes: dict[str, Recipe]) -> pd.DataFrame:
    """The paper's Figure 2, computed: a tidy table (line, metric, value, trial) of every network's
    weights and set-up."""
    rows = []
    for line, recipe in recipes.items():
        deep = kind_of(recipe.network).family == "deep"
        of = {
            kind: sum(layer.count for layer in recipe.layers if layer.kind == kind)
            for kind in ("conv", "shortcut")
        }
        measures = {"weights": recipe.weights} | {
            f"weights, {name}": of[kind] for kind, name in COUNTED.items() if of[kind]
        }
        measures |= {
            f"weights, {layer.name}": layer.count
            for layer in recipe.layers
            if layer.kind == "output" or not deep
        }
        measures |= {
            "iterations": recipe.iterations,
            "batch": recipe.batch,
            f"learning rate, {recipe.optimiser}": recipe.learning_rate,
        }
        measures |= {
            f"pruned a round, {name}": recipe.rates[kind]
            for kind, name in PRUNED.items()
            if recipe.rates[kind] and (of["conv"] or kind != "conv")
        }
        measures |= {
            f"left after {r} rounds, %": round(100 * recipe.remaining(r) / recipe.weights, 2)
            for r in (7, 10, 12)
        }
        rows += [
            {"line": line, "metric": metric, "value": value, "trial": None}
            for metric, value in measures.items()
        ]
    table = pd.DataFrame(rows)
    table["scale"] = table.attrs["scale"] = "paper"  # counting shrinks nothing
    return table


def _summary(
    plan: Plan, table: pd.DataFrame, missing: dict[str, set[str]], figure: str | None
) -> str:
    """What was shrunk, and who computed it when: printed under every figure's `run`, a fact a
    line."""
    said = _what_shrank(plan, table)
    if len(table):
        nodes = table.drop_duplicates("node")
        said.append(f"trainings {len(nodes)}, {_duration(nodes.seconds.sum())} of computing")
        said.append(
            f"started   {nodes.started.min()[:16].replace('T', ' ')} to "
            f"{nodes.started.max()[:16].replace('T', ' ')} UTC"
        )
        for name in ("data", "device", "versions", "commit"):
            said.append(f"{name:10}{', '.join(sorted(set(nodes[name].dropna())))}")
        if former := int(nodes.weights.eq("").sum()):
            said.append(
                f"lineage   not recorded of {former}, which are older: whether controls have"
            )
            said.append("          their tickets' masks cannot be shown of them")
        else:
            said.append("lineage   recorded: controls have their tickets' masks")
    beyond = [label for label, line in plan.items() if not line.nodes(table.attrs["scale"], 1)]
    if beyond and not len(table):
        said.append(f"nothing   of {', '.join(beyond)}: this scale has none of their rounds")
    for scale, keys in missing.items():
        said += [
            f"missing   {len(keys)} trainings, not drawn; this makes them:",
            f"          python -m lottery_nb run {figure or 'FIG'} --scale {scale}",
        ]
    return "\n".join(said)


def _what_shrank(plan: Plan, table: pd.DataFrame) -> list[str]:
    """Of each scale that lines are shown at, what it shrinks and of which networks: a fact a
    line."""
    networks = list(dict.fromkeys(line.recipe.network for line in plan.values()))
    scales = dict(zip(table.line, table.scale))
    trials = table.groupby(["line", "strategy", "round"]).trial.nunique()
    drawn = trials.groupby("line").agg(["min", "max"])
    said = []
    for scale in dict.fromkeys(scales.values()) if scales else [table.attrs["scale"]]:
        lines = {label: line for label, line in plan.items() if scales.get(label, scale) == scale}
        shrank: dict[str, list[str]] = {}  # what is shrunk, and of which networks
        for line in lines.values():
            recipe = line.recipe.network, line.recipe.trials
            alike = [
                label
                for label, other in lines.items()
                if (other.recipe.network, other.recipe.trials) == recipe
            ]
            of_them = drawn[drawn.index.isin(alike)]
            there = (of_them["min"].min(), of_them["max"].max()) if len(of_them) else None
            for fact in line.what_shrank(scale, there):
                shrank.setdefault(fact, []).append(line.recipe.network)
        only = f" ({', '.join(lines)})" if len(set(scales.values())) > 1 else ""
        how = "shrunk to" if shrank else "as in the plan, nothing shrunk"
        said.append(f"scale     {scale}: {how}{only}")
        for fact, of in shrank.items():
            named = ", ".join(network for network in networks if network in of)
            said.append(f"          {fact}" + f" ({named})" * (set(of) < set(networks)))
        if scale == "smoke":
            said.append("          the paper's curves are not drawn: its data are others")
    return said


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
