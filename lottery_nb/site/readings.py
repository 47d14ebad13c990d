"""What can be read off a panel: our points and the paper's, kept as they are drawn, for names
beside lines, for the legend, and for a reader who points at the picture."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import BboxBase

NEAR = 6  # pixels from side to side, within which points of several lines are read together
MOST = 40  # places of a panel that can be read


@dataclass(frozen=True)
class Drawn:
    """A line of ours in a panel.

    artist: what was drawn, of a map a row of cells; points: `x`, `mean`, `min`, `max` in the
    panel's units and `trained`, the networks behind each; papers: `x` and `mean` of the paper's own
    curve, none if it has none.
    """

    name: str
    artist: Artist | Container
    points: pd.DataFrame
    papers: pd.DataFrame

    @property
    def line(self) -> Artist:
        """The line itself, of what matplotlib draws with bars of error."""
        return self.artist[0] if isinstance(self.artist, Container) else self.artist


_DRAWN: WeakKeyDictionary[Axes, list[Drawn]] = WeakKeyDictionary()
_KEYS: WeakKeyDictionary[Figure, dict] = WeakKeyDictionary()


def keep(ax: Axes, line: Drawn) -> None:
    """Remember a line that was drawn into a panel."""
    _DRAWN.setdefault(ax, []).append(line)


def drawn(ax: Axes) -> list[Drawn]:
    """Our lines in a panel."""
    return _DRAWN.get(ax, [])


def keep_key(figure: Figure, key: dict) -> None:
    """Remember what the legend below a picture says, as arguments of a legend as wide as a
    panel."""
    _KEYS[figure] = key


def key_of(figure: Figure) -> dict:
    """What was remembered of its legend."""
    return _KEYS[figure]


def readings(ax: Axes, box: BboxBase) -> list[dict]:
    """What a reader of a panel is told, from left to right: `at`, where in the picture from 0 to 1,
    `where` in words, and of each line there its `name`, `colour`, `ours` and the `paper`'s.

    box: what the picture shows of the figure, in pixels.
    """
    lines = drawn(ax)
    ours = any(len(line.points) for line in lines)  # else it is a panel of the paper's alone
    of = [line.points if ours else line.papers for line in lines]
    places = sorted({float(_pixels(ax, x)) for points in of for x in points.x})
    places = [x for x in places if ax.bbox.x0 - 1 <= x <= ax.bbox.x1 + 1]
    apart = [x for i, x in enumerate(places) if not i or x - places[i - 1] > NEAR / 2]
    told = []
    for place in apart[:: -(-len(apart) // MOST) or 1]:
        rows = [row for line in lines if (row := _row(ax, line, place))]
        if rows:
            at = round((place - box.x0) / box.width, 4)
            told.append({"at": at, "where": rows[0].pop("where"), "lines": rows})
            for row in rows[1:]:
                row.pop("where")
    return told


def _row(ax: Axes, line: Drawn, place: float) -> dict | None:
    mine, theirs = (_nearest(ax, points, place) for points in (line.points, line.papers))
    if mine is None and (len(line.points) or theirs is None):
        return None
    spread = ""
    if mine is not None and mine["trained"] > 1:
        spread = f" [{_number(mine['min'])}, {_number(mine['max'])}]"
    return {
        "where": f"{ax.get_xlabel()}: {(theirs if mine is None else mine)['x']:.3g}",
        "name": line.name,
        "colour": to_hex(line.line.get_color()) if isinstance(line.line, Line2D) else "",
        "ours": "" if mine is None else f"{_number(mine['mean'])}{spread}",
        "paper": "" if theirs is None else _number(theirs["mean"]),
    }


def _nearest(ax: Axes, points: pd.DataFrame, place: float) -> pd.Series | None:
    if points.empty:
        return None
    away = abs(_pixels(ax, points.x.to_numpy(float)) - place)
    return points.iloc[int(np.argmin(away))] if away.min() <= NEAR else None


def _pixels(ax: Axes, x):
    xs = np.atleast_1d(np.asarray(x, float))
    at = ax.transData.transform(np.column_stack([xs, np.full(len(xs), ax.get_ylim()[1])]))[:, 0]
    return at if np.ndim(x) else at[0]


def _number(value: float) -> str:
    return f"{value:.4g}"
