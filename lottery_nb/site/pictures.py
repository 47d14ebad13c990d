"""What a notebook leaves beside its page: its picture for slides, print and the gallery, each panel
of it, its numbers. Made in the notebook's own kernel, while its picture and its table are at hand.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from math import ceil
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import LayoutEngine
from matplotlib.transforms import Bbox

from ..analysis import claims, results
from . import pages
from .notebooks import Notebook, named
from .pages import PAGES
from .plots import maps, style
from .readings import key_of, readings

SHORT = 20  # letters of a legend's entry, of which a panel has room for two side by side

IN_PAIRS = 8  # panels that a slide has room for two in a row

_shown: list[Figure] = []


def watch() -> None:
    """Remember the first picture that will be shown: a kernel closes what it has shown, with
    `plt.show` or at the end of a cell."""
    close = plt.close

    def remember_and_close(*args, **kwargs) -> None:
        if not _shown:
            _shown.extend(map(plt.figure, plt.get_fignums()[:1]))
        close(*args, **kwargs)

    plt.close = remember_and_close


def keep(name: str, table: pd.DataFrame) -> None:
    """Write the first picture of the notebook `name` and the numbers of its `run` beside its page,
    and print, as JSON, what was written: `kinds` of files, `panels`, and the page's `glance`."""
    [notebook] = named([name])
    numbers = table.drop(columns=[*results.PROVENANCE], errors="ignore")
    numbers.to_csv(PAGES / f"{name}.csv", index=False)
    kinds, panels = ["csv"], []
    if _shown:
        picture, kinds = _shown[0], ["png", "svg", "csv"]
        if not notebook.is_study:
            _slide(picture, notebook)
        lay_out(picture)
        picture.savefig(PAGES / f"{name}.png", dpi=200)
        picture.savefig(PAGES / f"{name}.svg", metadata={"Date": None})
        if not notebook.is_study:
            panels = panels_of(picture, name)
    glance = "" if notebook.is_study else pages.glance(notebook, table)
    told = [(str(path), *rest) for path, *rest in panels]
    print(json.dumps({"kinds": kinds, "panels": told, "glance": glance}))


def lay_out(picture: Figure) -> LayoutEngine:
    """Give everything its place, in which it stays, so that saving draws the picture once and not
    twice; the engine that did it."""
    engine = picture.get_layout_engine()
    engine.execute(picture)
    picture.set_layout_engine(None)
    return engine


def _slide(picture: Figure, notebook: Notebook) -> None:
    """A picture as a slide of 16 to 9, with the figure's finding and what to cite."""
    size = picture.get_size_inches().copy()
    picture.set_size_inches(12.8, 7.2)
    said = fill(notebook.finding or notebook.title, 100)
    cited = "The Lottery Ticket Hypothesis (Frankle & Carbin, ICLR 2019)"
    of = notebook.title.partition(":")[0]
    cited = f"{of} of {cited}, re-run" if notebook.is_figure else f"What came after {cited}"
    picture.suptitle(f"{said}\n{cited}", fontsize=13, x=0.01, ha="left")
    many = len(picture.axes) > IN_PAIRS and not _bars(picture)
    with _four_in_a_row(picture) if many else nullcontext():
        engine = lay_out(picture)
        picture.savefig(PAGES / f"{notebook.name}-slide.png", dpi=150)
        picture.set_layout_engine(engine)
    picture.suptitle("").set_in_layout(False)
    picture.set_size_inches(size)


@contextmanager
def _four_in_a_row(picture: Figure) -> Iterator[None]:
    """A picture of many panels that stand four in a row meanwhile: in pairs they are too flat on a
    slide."""
    panels = picture.axes
    before = [(ax.get_subplotspec(), ax.yaxis.label.get_size()) for ax in panels]
    places = GridSpec(ceil(len(panels) / 4), 4, figure=picture)
    for ax, place in zip(panels, places):
        ax.set_subplotspec(place)
        ax.yaxis.label.set_size("small")
    yield
    for ax, (place, size) in zip(panels, before):
        ax.set_subplotspec(place)
        ax.yaxis.label.set_size(size)


def _asked(name: str) -> str:
    """The quantity that a notebook's first claim is about, as panels have it in their titles; ""
    where it has none."""
    first = next(iter(claims.of_notebook(name)), None)
    return style.LABELS.get(first.of["metric"], "").lower() if first else ""


def _bars(picture: Figure) -> list[Axes]:
    """Its colour bars, each of which belongs to a panel."""
    return [ax for ax in picture.axes if (ax.get_gid() or "").startswith(maps.BAR_OF)]


def panels_of(picture: Figure, name: str) -> list[pages.Panel]:
    """A file of each panel of a picture, with its colour bar, and of its legend, so that a page can
    put them side by side or one below the other; the title of each, and what can be read off it.
    The picture's layout must be done and over. The first that shows what its first claim is about
    is the gallery's picture too."""
    inches = picture.dpi_scale_trans.inverted()
    for legend in list(picture.legends):  # one no wider than a panel in its place
        legend.remove()
        key = key_of(picture)
        columns = 2 if max(map(len, key["labels"])) <= SHORT else 1
        picture.legend(**key, loc="lower left", ncols=columns)
    bars = _bars(picture)
    blank = [ax for ax in picture.axes if not ax.axison and ax.get_legend() is None]
    after_blank = [ax for before, ax in pairwise(picture.axes) if before in blank]
    parts = [
        [ax, *(bar for bar in bars if bar.get_gid() == f"{maps.BAR_OF}{number}")]
        for number, ax in enumerate(picture.axes)
        if ax not in [*bars, *blank]
    ]
    parts += [[legend] for legend in picture.legends]
    everything = [*picture.axes, *picture.legends]
    legends = {legend: legend for legend in picture.legends}
    in_place = [ax for ax in picture.axes if not ax.axison and ax not in blank]  # of a panel
    legends |= {ax: ax.get_legend() for ax in in_place}
    boxes = [
        Bbox.union([legends.get(each, each).get_tightbbox() for each in part]) for part in parts
    ]
    of_axes = [box for part, box in zip(parts, boxes) if part[0] not in legends]
    widest, highest = max(box.width for box in of_axes), max(box.height for box in of_axes)
    panels = []
    titles = [part[0].get_title(loc="left").lower() for part in parts if part[0] not in legends]
    small = 1 + next((i for i, title in enumerate(titles) if _asked(name) in title), 0)
    for number, (part, box) in enumerate(zip(parts, boxes), 1):
        for each in everything:
            each.set_visible(each in part)
        if part[0] in legends:  # a short one is not blown up to a panel's width
            box = Bbox.from_extents(box.x0, box.y0, max(box.x1, box.x0 + widest), box.y1)
        else:  # panels of one size are drawn at one scale
            box = Bbox.from_extents(box.x1 - widest, box.y1 - highest, box.x1, box.y1)
        box = box.transformed(inches).padded(0.04)
        kind = "map" if len(part) > 1 else "panel"
        path = PAGES / f"{name}-{kind}{number}.svg"
        picture.savefig(path, bbox_inches=box, metadata={"Date": None})
        path.write_bytes(style.lighter(path.read_bytes()))
        if number == small:
            picture.savefig(PAGES / f"{name}-small.png", dpi=100, bbox_inches=box)
        if part[0] in legends:
            panels.append(pages.Panel(path, "Legend", []))
            continue
        shown = box.transformed(picture.dpi_scale_trans)
        title = part[0].get_title(loc="left")
        begins = part[0] in after_blank
        panels.append(pages.Panel(path, title, readings(part[0], shown), begins))
    return panels
