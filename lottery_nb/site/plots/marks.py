"""Marks in a panel: what a claim compares, which trials diverged, where our training ends."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ...analysis import claims
from . import labels
from .points import edges_of
from .style import INK

DIVERGED = "a trial diverged"
FAR = 2.5  # times the end of our training, above which a panel of early stops shows nothing


def mark_the_diverged(
    ax: Axes, table: pd.DataFrame, metric: str, factor: float, weights: dict[str, int] | None
) -> None:
    """A cross where a trial's loss was no number at the end, at the edge of the panel if the mean
    lies beyond it."""
    failed = table[(table.metric == "diverged") & (table.value > 0)]
    for (name, r), rows in failed.groupby(["line", "round"]):
        there = (table.line == name) & (table["round"] == r) & (table.metric == metric)
        x = rows.density.iloc[0] * (weights[name] / 1000 if weights else 100)
        y = np.clip(factor * table.value[there].mean(), *ax.get_ylim())
        look = {"color": "#B00020", "markersize": 6, "clip_on": False, "zorder": 5}
        ax.plot(x, y, "x", label=DIVERGED, **look)


def mark_the_end(ax: Axes, table: pd.DataFrame, factor: float) -> None:
    """A line where our training ends, if the paper's goes on: no early stop of ours can lie above
    it. Of what lies far above it, which would press ours flat, the panel says how far it goes."""
    iterations = table.iteration[table.metric == "test_accuracy_at_end"]
    if iterations.empty or iterations.max() * factor >= ax.dataLim.y1:
        return
    ends, highest = iterations.max() * factor, ax.dataLim.y1
    ax.axhline(ends, color="#999999", linewidth=0.8, zorder=0.4)
    told = [("our training ends", ends, "bottom")]
    if highest > FAR * ends:
        ax.set_ylim(top=FAR * ends)
        told.append((f"the paper: up to {highest:.2g}", FAR * ends, "top"))
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5}
    at_right = {"xycoords": ("axes fraction", "data"), "ha": "right", "bbox": ground}
    for said, height, side in told:
        ax.annotate(said, (1, height), va=side, fontsize=7, color="#666666", **at_right)


def mark_the_claim(
    ax: Axes, table: pd.DataFrame, metric: str, figure: str, lines: dict[str, str], factor: float
) -> None:
    """The first of the figure's claims that compares two of the panel's points, where it happens:
    an arrow from what it compares with, our number, and what that is; lines: what the panel calls
    them."""
    for row, of, against in _comparisons(table, metric, figure, set(lines)):
        ends = [_point(table, place, factor) for place in (against, of)]
        if None not in ends and of.get("density") != 1:
            if against.get("density") == 1:
                than = "dense"
            elif against["line"] == of["line"]:
                than = f"{ends[0][0]:.3g} %"
            else:  # "reinit" beside its ticket, not the rate once more
                than = lines[against["line"]].removeprefix(f"{lines[of['line']]} ")
            number, at = row.claim.show(row.ours), f"at {ends[1][0]:.3g} %"
            if row.claim.as_ == "ratio":
                said = f"{number} the {than.replace('dense', 'dense network')}’s\n{at}"
            else:
                said = f"{number} {at}\nagainst {than}"
            _draw_arrow(ax, *ends, said)
            return


def _draw_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], said: str) -> None:
    (from_x, from_y), (x, y) = start, end
    if from_x != x:
        ax.hlines(from_y, *sorted((from_x, x)), color=INK, linewidth=0.8, linestyle=":", zorder=4)
    head = {"marker": "^" if y > from_y else "v", "markersize": 4, "markevery": [1]}
    ax.plot([x, x], [from_y, y], color=INK, linewidth=1.0, zorder=5, gid=labels.MARK, **head)
    number = ax.annotate(
        said, (x, (y + from_y) / 2), (0, 0), ha="center",
        va="center", textcoords="offset points", fontsize=labels.SIZE, fontweight="bold",
        color=INK, zorder=6, gid=labels.MARK, annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
    )  # fmt: skip
    number.set_in_layout(False)  # `labels.place_mark` moves it into the panel
    low, high = ax.get_ylim()
    edge = 0.03 * (high - low)  # the panel shows both ends; one that begins at 0 still does
    bottom = 0 if low == 0 else min(low, y - edge, from_y - edge)
    ax.set_ylim(bottom, max(high, y + edge, from_y + edge))


def frame_the_claim(
    ax: Axes, table: pd.DataFrame, metric: str, figure: str, names: list[str]
) -> None:
    """The first of the figure's claims that compares two of a map's rows, where it happens: a frame
    around what it is about, with our number, a dashed one around what it compares with."""
    found = next(_comparisons(table, metric, figure, set(names)), None)
    if found is None:
        return
    row, of, against = found
    for place, dashes in ((against, "--"), (of, "-")):
        rows = table[(table.line == place["line"]) & (table.metric == metric)]
        densities = np.sort(rows.density.dropna().unique())
        inside = claims.at_density(densities, place.get("density", [0, 1]))
        edges, cells = 100 * edges_of(densities), np.flatnonzero(inside)
        left, right, y = edges[cells[0]], edges[cells[-1] + 1], names.index(place["line"])
        frame = Rectangle((left, y), right - left, 1, fill=False, zorder=5, clip_on=False)
        frame.set(edgecolor=INK, linewidth=1.6, linestyle=dashes)
        ax.add_patch(frame)
    ax.text(1, y + 0.5, row.claim.show(row.ours), transform=ax.get_yaxis_transform(), ha="right",
            va="center", fontsize=labels.SIZE, fontweight="bold", color=INK, zorder=6,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1})  # fmt: skip


def _comparisons(
    table: pd.DataFrame, metric: str, figure: str, lines: set[str]
) -> Iterator[tuple[Any, dict, dict]]:
    """Of the figure's tested claims those that compare two places of these lines in a metric: its
    row of `claims.verdicts`, the place it is about, and the one it compares with."""
    for row in claims.verdicts(figure, table).itertuples():
        of, against = row.claim.places
        compares = row.claim.no_effect is not None and row.outcome != "not tested"
        shown = {of["metric"], against["metric"]} == {metric}
        if compares and shown and {of["line"], against["line"]} <= lines:
            yield row, of, against


def _point(table: pd.DataFrame, place: dict, factor: float) -> tuple[float, float] | None:
    """Where a claim's place is drawn; None where it is no single round of a line."""
    rows = table[(table.line == place["line"]) & (table.metric == place["metric"])]
    density = place.get("density")
    if not isinstance(density, int | float) or rows.empty:
        return None
    there = rows["round"][claims.at_density(rows.density.to_numpy(float), density)]
    if there.empty:
        return None
    rows = rows[rows["round"] == there.iloc[0]]
    return 100 * rows.density.iloc[0], factor * rows.value.mean()
