"""How far our curves lie from the paper's, in units of the paper's own spread."""

import pandas as pd

from ..core.lines import CURVES
from ..runs.plans import Plan
from . import paper

KEYS = ["line", "round", "iteration"]


def points(figure: str, plan: Plan, table: pd.DataFrame) -> pd.DataFrame:
    """What both have, a row a point: line, round, iteration (0 for what is not a curve), metric,
    ours, theirs (means), band.

    table: of `tables.run`; band: the median over a line's points of the paper's maximum less its
    minimum, as one point's may be small by luck. Left out are metrics of which the paper draws no
    band, networks that the scale makes narrower, and what a shorter training cannot show: rounds
    whose early stop the paper has after our last iteration, and values at the end.
    """
    scales = dict(zip(table.line, table.scale))
    shrunk = {
        label: (line.recipe, line.recipe.at(scales[label]))
        for label, line in plan.items()
        if label in scales
    }
    as_wide = [label for label, (full, here) in shrunk.items() if full.width == here.width]
    theirs = _papers(figure)
    both = _means(table[table.metric.isin(theirs.metric)], "value", "ours").merge(
        _means(theirs, "mean", "theirs"), on=[*KEYS, "metric"]
    )
    both = both[both.line.isin(as_wide) & (both.band > 0)]
    if both.empty:
        return both
    last = both.line.map({label: here.iterations for label, (_, here) in shrunk.items()})
    shorter = last < both.line.map({label: full.iterations for label, (full, _) in shrunk.items()})
    stops = (
        both[both.metric.str.startswith("early_stop_iteration")]
        .groupby(["line", "round"])
        .theirs.max()
        .rename("stop")
    )
    late = both[["line", "round"]].merge(stops, "left", on=["line", "round"]).stop.to_numpy() > last
    return both[
        ~(shorter & both.metric.str.endswith("_at_end") | late & ~both.metric.isin(CURVES))
    ].reset_index(drop=True)


def summary(compared: pd.DataFrame) -> pd.DataFrame:
    """A row a metric of `points`, indexed by it: points (how many), and medians over them: distance
    and lean (ours less theirs, without and with its sign, in bands), difference (ours less theirs,
    in the metric's own unit)."""
    compared = compared.assign(difference=compared.ours - compared.theirs)
    compared["lean"] = compared.difference / compared.band
    compared["distance"] = compared.lean.abs()
    by_metric = compared.groupby("metric")
    return by_metric[["distance", "lean", "difference"]].median().assign(points=by_metric.size())


def _papers(figure: str) -> pd.DataFrame:
    theirs = paper.curves(figure).rename(columns={"x": "iteration"})
    theirs["band"] = theirs["max"] - theirs["min"]
    theirs["band"] = theirs.groupby(["line", "metric"]).band.transform("median")
    return theirs


def _means(rows: pd.DataFrame, value: str, name: str) -> pd.DataFrame:
    """The mean of each point, over trials or over a point's places in several panels; the iteration
    only of curves."""
    rows = rows.assign(
        iteration=rows.iteration.where(rows.metric.isin(CURVES), 0).astype(float)
    ).rename(columns={value: name})
    columns = [name, *(["band"] if "band" in rows else [])]
    return rows.groupby([*KEYS, "metric"], as_index=False)[columns].mean()
