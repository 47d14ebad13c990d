"""Names beside lines, in place of a legend: each where it covers least and is nearest to its own
line."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

SIZE = 8  # points
GRID = 6  # pixels between the places that are tried for a mark
STEP = 3  # pixels between the places of a line that are looked at
MOST = 5  # names in a panel; more are read more easily in a legend
MARK = "mark"  # the gid of an arrow and of the number beside it
COVERS, COVERS_PAPERS, STRANGER, FROM_END = 4.0, 1.0, 60.0, 0.08  # what a place costs


def name_lines(ax: Axes, lines: dict[str, Line2D]) -> list[Text] | None:
    """Write each name in the colour of its line beside it; None, and nothing written, where there
    is no room for all. The figure's layout must be done, and the axes' limits final."""
    places = {name: _places(ax, line) for name, line in lines.items()}
    if len(lines) > MOST or any(not len(place) for place in places.values()):
        return None
    others = [_places(ax, line) for line in ax.lines if line not in lines.values()]
    behind = np.concatenate([*others, np.empty((0, 2))])
    told = [text for text in ax.texts if text.get_text() and text.get_gid() != MARK]
    taken = [text.get_window_extent().extents for text in told]
    room, written = ax.bbox.extents, []
    # Those that end first choose first, as those that go on have more places left.
    for name in sorted(lines, key=lambda name: places[name][:, 0].max()):
        text = _text(ax, name, lines[name])
        box = text.get_window_extent()
        own, strangers = places[name], [places[other] for other in places if other != name]
        found = _best((box.width, box.height), own, strangers, behind, taken, room)
        if found is None:
            for each in [*written, text]:
                each.remove()
            return None
        _move(text, *found)
        taken.append(text.get_window_extent().extents)
        written.append(text)
    return written


def place_mark(ax: Axes) -> None:
    """Move the number of a panel's mark to where it covers least, near its arrow, with a thin line
    to it from further away. The figure's layout must be done, and the axes' limits final."""
    marked = next((line for line in ax.lines if line.get_gid() == MARK), None)
    text = next((text for text in ax.texts if text.get_gid() == MARK), None)
    if marked is None or text is None:
        return
    arrow, box = _places(ax, marked), text.get_window_extent()
    if not len(arrow):
        return
    points = np.concatenate([_places(ax, line) for line in ax.lines])
    taken = [each.get_window_extent().extents for each in ax.texts if each is not text]
    half = np.array([box.width, box.height]) / 2 + 2
    (left, bottom), (right, top) = ax.bbox.min + half, ax.bbox.max - half
    middles = np.mgrid[left:right:GRID, bottom:top:GRID].reshape(2, -1).T
    middles = middles[~_overlaps(middles, half, taken)]
    if not len(middles):
        text.remove()
        return
    cost = COVERS * _within(points, middles, half) + _distance(arrow, middles, half)
    middle = middles[cost.argmin()]
    _move(text, arrow[np.hypot(*(arrow - middle).T).argmin()], middle)


def _move(text: Annotation, at: np.ndarray, middle: np.ndarray) -> None:
    """Put the middle of a text there, and what it points at to `at`, in pixels."""
    text.xy = text.axes.transData.inverted().transform(at)
    text.set_position((middle - at) * 72 / text.axes.figure.dpi)


def _places(ax: Axes, line: Line2D) -> np.ndarray:
    """Where a line runs, (places, 2) in pixels, every few of them, as far as it is inside."""
    points = ax.transData.transform(np.column_stack(line.get_data()).astype(float))
    pieces = [points[-1:]]
    for start, stop in zip(points, points[1:]):
        if np.isfinite([*start, *stop]).all():
            count = int(np.hypot(*(stop - start)) // STEP) + 1
            pieces.append(start + np.linspace(0, 1, count)[:, None] * (stop - start))
    found = np.concatenate(pieces)
    inside = (found >= ax.bbox.min - 1) & (found <= ax.bbox.max + 1)
    return found[inside.all(axis=1)]


def _text(ax: Axes, name: str, line: Line2D) -> Text:
    red, green, blue = to_rgb(line.get_color())
    light = 0.3 * red + 0.6 * green + 0.1 * blue
    ink = np.array([red, green, blue]) * min(1.0, 0.45 / max(light, 0.01))  # legible on white
    return ax.annotate(
        name, (0, 0), (0, 0), textcoords="offset points", ha="center", va="center", fontsize=SIZE,
        color=tuple(ink), zorder=5, annotation_clip=False, gid="name",
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
    )  # fmt: skip


def _best(
    size: tuple[float, float],
    own: np.ndarray,
    strangers: list[np.ndarray],
    behind: np.ndarray,
    taken: list[np.ndarray],
    room: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:
    """The place of its line and the middle of a name that cost least, in pixels; None where none
    is free. size: of the name."""
    half = np.array(size) / 2
    gap = half[1] + 5
    beside = [(half[0] + 6, 0), (0, gap), (0, -gap), (half[0], gap), (half[0], -gap)]
    beside += [(-half[0], gap), (-half[0], -gap), (0, 2 * gap), (0, -2 * gap)]
    at = np.repeat(own[:: max(len(own) // 60, 1)], len(beside), axis=0)
    middles = at + np.resize(beside, at.shape)
    inside = (middles - half - 1 >= room[:2]) & (middles + half + 1 <= room[2:])
    free = inside.all(axis=1) & ~_overlaps(middles, half + 1, taken)
    if not free.any():
        return None
    at, middles = at[free], middles[free]
    near = _distance(own, middles, half)
    cost = 0.5 * near + FROM_END * (own[:, 0].max() - at[:, 0])
    cost += COVERS_PAPERS * _within(behind, middles, half + 1)
    cost += COVERS * sum(_within(line, middles, half + 1) for line in (own, *strangers))
    nearer = [_distance(line, middles, half) < near for line in strangers]
    cost += STRANGER * np.any(nearer, axis=0)
    return at[cost.argmin()], middles[cost.argmin()]


# Of many boxes at once, which have their middles, (boxes, 2), and half of their size in common:


def _overlaps(middles: np.ndarray, half: np.ndarray, taken: list[np.ndarray]) -> np.ndarray:
    """Whether each overlaps any of those taken."""
    found = np.zeros(len(middles), bool)
    for box in taken:
        found |= ((middles - half < box[2:]) & (middles + half > box[:2])).all(axis=1)
    return found


def _within(points: np.ndarray, middles: np.ndarray, half: np.ndarray) -> np.ndarray:
    """How many points lie in each."""
    across, up = _apart(points, middles)
    return ((across < half[0]) & (up < half[1])).sum(axis=1)


def _distance(points: np.ndarray, middles: np.ndarray, half: np.ndarray) -> np.ndarray:
    """From the edge of each to the nearest point."""
    across, up = _apart(points, middles)
    return np.hypot(np.maximum(across - half[0], 0), np.maximum(up - half[1], 0)).min(axis=1)


def _apart(points: np.ndarray, middles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From the middle of each to each point, across and up, (boxes, points)."""
    return abs(points[:, 0] - middles[:, :1]), abs(points[:, 1] - middles[:, 1:])
