"""From a table of `run` and the paper's points to what a panel draws, in its units."""

import numpy as np
import pandas as pd

from ...analysis import paper as papers

# Percent: a network of ten classes below it has learnt nothing, and no axis makes room for it
LEARNED = 20


def factor_of(metric: str) -> float:
    """From a metric to the units that pictures have: thousands of iterations, percent."""
    if metric.startswith("early_stop_iteration"):
        return 1e-3
    as_it_is = any(each in metric for each in ("inputs", "similarity", "loss"))
    return 1 if as_it_is else 100


def spread_of(rows: pd.DataFrame, by: str, factor: float) -> pd.DataFrame:
    """Mean, min and max of a line's values at each round or iteration, over trials and draws."""
    groups = rows.groupby(by)
    value = groups.value
    spread = pd.DataFrame(
        {
            "density": groups.density.mean(),
            "mean": factor * value.mean(),
            "min": factor * value.min(),
            "max": factor * value.max(),
            "trained": groups.node.nunique(),
        }
    ).reset_index()
    return spread.sort_values("density", ascending=False) if by == "round" else spread


def bars_of(spread: pd.DataFrame) -> list[pd.Series]:
    """From the mean down to the lowest and up to the highest; the mean of equal numbers may lie a
    rounding beside them."""
    down, up = spread["mean"] - spread["min"], spread["max"] - spread["mean"]
    return [down.clip(lower=0), up.clip(lower=0)]


def with_gaps(ours: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A line's points by round with a row of no number where rounds that others have are missing
    between two of its own, for no line leads across what is not trained."""
    rounds = ours["round"].to_numpy()
    if len(rounds) < 3:
        return ours
    steps = np.diff(rounds)
    known = table["round"].unique()
    breaks = [
        (a + b) / 2
        for a, b, step in zip(rounds, rounds[1:], steps)
        if step > steps.min() and ((known > a) & (known < b)).any()
    ]
    gaps = pd.DataFrame({"round": breaks}, dtype=float)
    return pd.concat([ours, gaps]).sort_values("round", ignore_index=True)


def papers_of(table: pd.DataFrame, figure: str | None, metric: str) -> pd.DataFrame:
    """The paper's points of a metric; none at smoke scale, whose data are others."""
    if figure is None or table.attrs["scale"] == "smoke":
        return pd.DataFrame(columns=["line", "round", "x", "density", "mean", "min", "max"])
    points = papers.curves(figure)
    return points[points.metric == metric]


def in_units(points: pd.DataFrame, unit: float, factor: float) -> pd.DataFrame:
    """The paper's points over density as a panel shows them, `x` in `unit` a density of 1."""
    scaled = {name: factor * points[name] for name in ("mean", "min", "max")}
    return points.assign(x=unit * points.density, **scaled)


def at_scale(table: pd.DataFrame, line: str) -> str:
    """What to add to a line's name: its scale, where a figure has lines at several."""
    scales = table.drop_duplicates("line").set_index("line").scale
    return f" ({scales[line]} scale)" if line in scales and scales.nunique() > 1 else ""


def is_of(line: str, network: str) -> bool:
    """Whether a line's name begins with a network's; all do with ""."""
    return not network or line == network or line.startswith(f"{network} ")


def lines_of(table: pd.DataFrame, network: str = "") -> list[str]:
    """The plan's lines and those of the table, in their order, of a network."""
    known = dict.fromkeys([*table.attrs.get("lines", ()), *table.line.unique()])
    return [name for name in known if is_of(name, network)]


def networks_shown(table: pd.DataFrame, networks: list[str]) -> list[str]:
    """Those of which anything is trained; all, where nothing is."""
    trained = table.line.unique()
    return [n for n in networks if any(is_of(line, n) for line in trained)] or networks


def edges_of(densities: np.ndarray) -> np.ndarray:
    """Where the cells of two ascending densities or more begin and end: half-way between them on a
    logarithmic axis."""
    at = np.log(densities)
    middles = (at[1:] + at[:-1]) / 2
    return np.exp([2 * at[0] - middles[0], *middles, 2 * at[-1] - middles[-1]])
