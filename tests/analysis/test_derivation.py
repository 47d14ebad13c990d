"""Every tested claim once more, from the committed tables with pandas alone.

`lottery_nb.analysis.claims` measures and judges; nothing of it is used here, so that a fault there
does not hide itself. The project is asked only which trainings are behind a figure's line.
"""

import numpy as np
import pandas as pd
import pytest
import yaml

from lottery_nb.analysis import results
from lottery_nb.runs.store import ROOT
from lottery_nb.site import progress
from lottery_nb.site.notebooks import figures

EQUAL = {"difference": 0, "relative": 0, "ratio": 1}  # a measurement where there is no effect


def rows_of(line, metric, held, frames):
    """A line's rows of a metric, from the table of the scale at which it is shown."""
    scale = held.best_scale(line)
    if scale is None:
        return pd.DataFrame()
    frame = frames[f"{line.recipe.network}-{scale}"]
    keys = {node.key for node in held.nodes(line, scale)}
    return frame[frame.node.isin(keys) & (frame.metric == metric)]


def at(rows, place):
    """{trial: value} at a place of a claim."""
    if "iteration" in place:
        rows = rows[rows.iteration == place["iteration"]]
    density = place.get("density")
    if isinstance(density, list):
        rows = rows[(density[0] <= rows.density) & (rows.density <= density[1])]
    found = {}
    for trial, mine in rows.groupby("trial"):
        if density is not None and not isinstance(density, list):
            distance = (mine.density - density).abs()
            if distance.min() > 0.03 * min(density, 1 - density):
                continue
            mine = mine[distance == distance.min()]
        if "moment" in place or "x" in place:
            curve = mine.sort_values("x")
            x, y = curve.x.to_numpy(), curve.value.to_numpy()
            if "x" in place:
                found[trial] = np.interp(place["x"], x, y)
                continue
            mean = np.trapezoid(x * y, x) / np.trapezoid(y, x)
            spread = np.sqrt(np.trapezoid((x - mean) ** 2 * y, x) / np.trapezoid(y, x))
            found[trial] = mean if place["moment"] == "mean" else spread
        else:
            found[trial] = mine.value.mean()
    return found


def measurements(claim, lines, held, frames):
    """A claim's measurement on each trial, in its own unit."""
    here, there = claim["of"], claim["of"] | (claim.get("against") or {})
    if not {here["line"], there["line"]} <= set(lines):
        return []
    ours, base = (
        at(rows_of(lines[place["line"]], place["metric"], held, frames), place)
        for place in (here, there)
    )
    how = claim.get("as", "value")
    values = []
    for trial in sorted(set(ours) & set(base)):
        a, b = ours[trial], base[trial]
        with np.errstate(all="ignore"):
            value = {"value": a, "difference": a - b, "relative": a / b - 1, "ratio": a / b}[how]
        values.append(value * (100 if claim["unit"] in ("pp", "%") else 1))
    return values


def outcome(claim, values):
    [(kind, bound)] = claim["rule"].items()
    low, high = {"above": (bound, np.inf), "below": (-np.inf, bound), "between": bound}[kind]
    strict = kind != "between"

    def side(value):
        if value < low or strict and value == low:
            return "below"
        return "above" if value > high or strict and value == high else "keeps"

    sides = {side(value) for value in values}
    if len(sides) == 1:
        return "reproduced" if sides == {"keeps"} else "not reproduced"
    none = EQUAL.get(claim.get("as", "value"))
    if none is not None and low >= none and min(values) > none:
        return "direction holds"
    if none is not None and high <= none and max(values) < none:
        return "direction holds"
    return "open"


def test_every_tested_claim_comes_out_the_same_another_way(monkeypatch):
    monkeypatch.delenv("LOTTERY_RESULTS")
    held, folder = results.committed(), ROOT / "book" / "results"
    frames = {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}
    claims = {row["id"]: row for row in yaml.safe_load((ROOT / "book" / "claims.yml").read_text())}
    judged = pd.concat(progress.judged().values()).set_index("id")
    lines = {figure.number: figure.plan for figure in figures()}
    compared = 0
    for name, row in judged[judged.outcome != "not tested"].iterrows():
        claim = claims[name]
        if not lines[claim["figure"]]:
            continue  # Figure 2 is counted, not trained
        values = measurements(claim, lines[claim["figure"]], held, frames)
        assert len(values) == row.n, name
        assert [np.mean(values), min(values), max(values)] == pytest.approx(
            [row.ours, row.low, row.high], rel=1e-9, abs=1e-9
        ), name
        assert outcome(claim, values) == row.outcome, name
        compared += 1
    assert compared > 180
