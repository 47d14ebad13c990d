"""How far our curves lie from the paper's, in units of the paper's own spread."""

import pandas as pd

from . import paper
from .graph import Plan

KEYS = ["line", "round", "iteration"]
CURVES = ("test_accuracy", "val_accuracy", "val_loss")  # told at every evaluation; of all else a round has one value


def points(figure: str, plan: Plan, table: pd.DataFrame, scale: str) -> pd.DataFrame:
    """What both have, a row a point: line, round, iteration (0 for what is not a curve), metric, ours, theirs (means), band.

    band: the median over a line's points of the paper's maximum less its minimum, as one point's may be small by luck. Left
    out are networks that a scale makes narrower, metrics without a band, and what a shorter training cannot show: early
    stops that the paper has after our last iteration, and values at the end of it. table: of `plans.run`.
    """
    shrunk = {label: (line.recipe, line.recipe.at(scale)) for label, line in plan.items()}
    theirs = paper.curves(figure)
    theirs = theirs[theirs.line.isin([label for label, (full, here) in shrunk.items() if full.width == here.width]) & theirs.metric.isin(table.metric)]
    theirs = theirs.assign(iteration=theirs.x.where(theirs.metric.isin(CURVES), 0), band=theirs["max"] - theirs["min"])
    theirs = theirs.groupby([*KEYS, "metric"], as_index=False)[["mean", "band"]].mean().rename(columns={"mean": "theirs"})
    theirs["band"] = theirs.groupby(["line", "metric"]).band.transform("median")
    ours = table[table.metric.isin(theirs.metric)]
    ours = ours.assign(iteration=ours.iteration.where(ours.metric.isin(CURVES), 0))
    ours = ours.groupby([*KEYS, "metric"], as_index=False).value.mean().rename(columns={"value": "ours"})
    both = ours.merge(theirs, on=[*KEYS, "metric"])
    last = both.line.map({label: here.iterations for label, (_, here) in shrunk.items()})
    shorter = last < both.line.map({label: full.iterations for label, (full, _) in shrunk.items()})
    unseen = both.metric.str.startswith("early_stop_iteration") & (both.theirs > last) | shorter & both.metric.str.endswith("_at_end")
    return both[~unseen & (both.band > 0)].reset_index(drop=True)


def summary(compared: pd.DataFrame) -> pd.DataFrame:
    """A row a metric of `points`: metric, points, distance (median, in bands), lean (median of ours less theirs, in bands),
    difference (median of ours less theirs, in the metric's own unit), band (median)."""
    compared = compared.assign(difference=compared.ours - compared.theirs)
    compared["lean"] = compared.difference / compared.band
    compared["distance"] = compared.lean.abs()
    summed = compared.groupby("metric", as_index=False)[["distance", "lean", "difference", "band"]].median()
    return summed.assign(points=summed.metric.map(compared.metric.value_counts()))
