"""What a reader can move. A slider over pruning rounds that needs no kernel and no network: one
picture and one table a round, drawn beforehand, and a few lines of script that show the chosen one.
And the playground, which trains while one watches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import count
from threading import Event, Thread
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ..analysis import paper as papers
from ..analysis.comparison import as_table, number
from ..analysis.tables import run
from ..core.errors import LotteryError, Stopped
from ..core.recipes import lenet
from . import plots
from .notebooks import ROUNDS
from .plots import style

OPENS_AT = 0.21  # the density of a slider's first frame: where tickets are at their best
NUMBERS = ("early_stop_iteration", "test_accuracy_at_early_stop")
# Beside letters and digits, what an address between single quotes holds as it is.
PLAIN = ' !"$()*+,-./:;<=>?@[]_{|}'
# Letters stay letters, at half the weight, in this font or in one as wide.
LETTERS = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana"]}
_numbers = count(1)  # of the sliders on a page


@dataclass(frozen=True)
class Frame:
    """What one position of a slider shows: what it is called, pictures (SVG) by what they show, and
    a table (HTML)."""

    name: str
    pictures: dict[str, bytes]
    table: str


class Slider:
    """Frames behind an `<input type="range">`: mouse, touch and arrow keys move it, screen readers
    hear each frame's name.

    Displays itself in JupyterLab and in the rendered book alike; without scripts the frame at
    `start` stays.
    """

    def __init__(self, frames: list[Frame], label: str = "Weights remaining", start: int = 0):
        self.frames, self.label, self.start = frames, label, start

    def _repr_html_(self) -> str:
        name = f"slider{next(_numbers)}"
        shown = "".join(
            f'<div class="frame" data-name="{escape(frame.name)}"{" hidden" * (i != self.start)}>'
            f'<div class="pictures">'
            f"{''.join(map(_image, frame.pictures, frame.pictures.values()))}</div>"
            f"{frame.table}</div>"
            for i, frame in enumerate(self.frames)
        )
        label, last = escape(self.label), len(self.frames) - 1
        first = escape(self.frames[self.start].name)
        return (
            f'<div id="{name}" class="round-slider" role="group" aria-label="{label}">'
            f'<label for="{name}-range">{label}: '
            f'<output for="{name}-range" aria-live="polite">{first}</output></label>'
            f'<input id="{name}-range" type="range" min="0" max="{last}" value="{self.start}" '
            f'step="1" aria-valuetext="{first}" style="width:100%">{shown}</div>'
            f"<script>{_SCRIPT % name}</script>"
        )


def _image(description: str, picture: bytes) -> str:
    source = f"data:image/svg+xml,{quote(picture, safe=PLAIN)}"
    kind = ' class="map"' if description.startswith("Map") else ""
    return f"""<img{kind} src='{source}' alt="{escape(description)}">"""


_SCRIPT = """(() => {
  const slider = document.getElementById("%s");
  const range = slider.querySelector("input"), said = slider.querySelector("output");
  const frames = [...slider.querySelectorAll(".frame")];
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== +range.value; });
    said.textContent = frames[+range.value].dataset.name;
    range.setAttribute("aria-valuetext", said.textContent);
  };
  range.addEventListener("input", show);
  if (!document.querySelector(".bd-article")) return;
  // In the book the address keeps the place, such as #weights=21.1, so that it can be sent.
  const places = frames.map((frame) => `#weights=${frame.dataset.name.split(" ")[0]}`);
  const go = () => {
    if (places.includes(location.hash)) range.value = places.indexOf(location.hash);
    show();
  };
  range.addEventListener("change", () => history.replaceState(null, "", places[+range.value]));
  addEventListener("hashchange", go);
  go();
})();"""


def rounds_of_lenet(scale: str, rounds: tuple[int, ...] | None = None) -> Slider | None:
    """A slider over the rounds of one trial of Lenet, its winning tickets and their
    reinitialisations.

    Each frame has the learning curves at a round, a map of the connections to the image that
    survive, and the round's numbers. The paper's curves are those of its Figure 3, its numbers
    those of its Figure 4. See `by_round`.

    Parameters
    ----------
    scale : str
        As for `run`, which trains what is missing.
    rounds : tuple of int, optional
        Only these, for a page that is to be light; None: all.

    Returns
    -------
    Slider or None
        It shows itself in JupyterLab and in the book; None where nothing is trained.

    Raises
    ------
    LotteryError
        As `run` does.
    """
    plan = ROUNDS
    if rounds:
        plan = {label: line.at_rounds(*rounds) for label, line in ROUNDS.items()}
    table = run(plan, scale=scale, trials=1, quiet=True)
    numbers = papers.curves("fig04")
    iterative = numbers.line.str.endswith(" (iterative)")
    theirs = pd.concat(
        [
            papers.curves("fig03"),
            numbers[iterative].assign(line=numbers.line.str.removesuffix(" (iterative)")),
        ]
    )
    return _slider(table, "test_accuracy", NUMBERS, theirs)


def by_round(
    table: pd.DataFrame, curve: str, paper: str, numbers: tuple[str, ...] = NUMBERS
) -> Slider | None:
    """A slider over the rounds of a table.

    Each frame has a panel for every winning ticket of the table with the controls that follow it in
    the plan: their learning curves at that round beside the dense network's. Where the table has
    it, a map of the surviving connections to the image comes next. Below stand the round's numbers
    beside the paper's.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    curve : str
        A metric told at every evaluation: "test_accuracy" | "val_accuracy" | "val_loss". The plan's
        lines must keep it, see `Line.with_curves`.
    paper : str
        The figure compared with, such as "fig05"; at smoke scale, whose data are others, its
        numbers are left out.
    numbers : tuple of str
        Metrics of the table below, early stop and test accuracy there if none are given: in
        iterations and in percent, with the lowest and highest where there are several trials.

    Returns
    -------
    Slider or None
        It shows itself in JupyterLab and in the book; None where nothing is trained.

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.
    """
    return _slider(table, curve, numbers, papers.curves(paper))


def distributions_by_round(table: pd.DataFrame, paper: str) -> Slider | None:
    """A slider over the rounds of a table of distributions: each frame has those of its lines at a
    round, on axes that are the same for every round.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`, for lines that show a distribution, see `Line.by_layer`.
    paper : str
        The figure whose curves are drawn behind, such as "fig15", at the rounds it has.

    Returns
    -------
    Slider or None
        None where nothing is trained.

    Raises
    ------
    LotteryError
        For a `paper` that plots no curves.
    """
    rows = table[table.x.notna()]
    lines = list(dict.fromkeys(rows.line))
    density = rows.groupby("round").density.mean()
    means = rows.groupby(["line", "round", "x"]).value.mean()
    filled = means[means > 0].index.get_level_values("x")
    heights = means.groupby(["line", "round"]).max()
    top = min(heights.max(), 1.6 * heights.quantile(0.9))  # a spike would flatten all else
    frames, laid_out = [], {}
    for r in density.index:
        figure, [ax] = plots.panels(1, 1, height=3.2)
        plots.distribution(table, ax, lines, r, paper, title="")
        ax.set(xlim=(filled.min(), filled.max()), ylim=(0, 1.05 * top))
        plots.legend(figure, [ax], listed=True)
        name = f"{_percent(density[[r]])}, round {r}"
        frames.append(Frame(name, {f"Distributions at {name}": _svg(figure, laid_out)}, ""))
    if not frames:
        return None
    return Slider(frames, start=int(np.abs(density.to_numpy() - OPENS_AT).argmin()))


def _slider(
    table: pd.DataFrame, curve: str, numbers: tuple[str, ...], theirs: pd.DataFrame
) -> Slider | None:
    if table.attrs["scale"] == "smoke":
        theirs = pd.DataFrame(columns=["line", "metric", "round", "x", "mean"])
    table = table[table.strategy == "iterative"]
    table.attrs = {}  # pandas copies them at every step
    groups = _groups(table)
    mapped = table[table.metric.str.startswith("map of connections")]
    frames, laid_out = [], {}
    density = table.groupby("round").density.mean()
    for r in density.index:
        rows = table[table["round"] == r]
        name = f"{_percent(rows.drop_duplicates('line').density)}, round {r}"
        pictures = {}
        for ticket, lines in groups.items():
            figure, [ax] = plots.panels(1, 1)
            plots.against_dense(table, ax, ticket, lines, r, curve, theirs)
            ax.set_title(ticket if len(groups) > 1 else "")
            plots.legend(figure, [ax], listed=True)
            what = f"{ticket}: {style.LABELS[curve]} over iterations at {name}"
            pictures[f"{what}, beside the dense network"] = _svg(figure, laid_out)
        if len(mapped):
            figure, [ax] = plots.panels(1, 1)
            plots.connection_map(mapped[mapped["round"] == r], ax)
            what = f"Map of the connections of each pixel that survive at {name}"
            pictures[what] = _svg(figure, laid_out)
        dense = table[(table["round"] == 0) & table.line.isin(groups)]
        told = pd.concat([dense, rows]) if r else rows
        frames.append(Frame(name, pictures, _beside_the_papers(told, r, numbers, theirs)))
    if not frames:
        return None
    return Slider(frames, start=int(np.abs(density.to_numpy() - OPENS_AT).argmin()))


def _svg(figure: Figure, laid_out: dict[tuple, list[Bbox]]) -> bytes:
    """A frame's picture. laid_out: where the axes of those before it stand, by what decides that;
    a ticket's axes are the same at every round, so most frames need not be laid out again."""
    drawn = BytesIO()
    named = [(legend.get_title().get_text(), len(legend.get_texts())) for legend in figure.legends]
    alike = len(figure.axes), figure.axes[0].get_ylim(), *named
    if alike not in laid_out:
        figure.get_layout_engine().execute(figure)
        laid_out[alike] = [ax.get_position(original=True) for ax in figure.axes]
    figure.set_layout_engine(None)  # or saving would lay it out by drawing it once more
    for ax, place in zip(figure.axes, laid_out[alike]):
        ax.set_position(place, which="original")
    with plt.rc_context(LETTERS):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    return style.lighter(drawn.getvalue())


def _groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """{winning ticket: [itself and the controls that follow it]}, by the labels of lines."""
    groups: dict[str, list[str]] = {}
    for line, control in table.drop_duplicates("line")[["line", "control"]].itertuples(index=False):
        if control == "winning ticket":
            groups[line] = []
        if not groups:
            raise LotteryError(
                f"the slider shows controls beside their tickets, and {line} stands before any "
                "winning ticket: put a line of winning tickets first in the plan"
            )
        groups[next(reversed(groups))].append(line)
    return groups


def _percent(densities: pd.Series) -> str:
    low, high = 100 * densities.min(), 100 * densities.max()
    return f"{high:.1f} %" if high - low < 0.05 else f"{low:.1f} to {high:.1f} %"


def _beside_the_papers(
    rows: pd.DataFrame, shown_round: int, numbers: tuple[str, ...], theirs: pd.DataFrame
) -> str:
    """The numbers of a round, the paper's below ours, a row a line of the figure, as an HTML table;
    rows: of that round, and of the dense networks."""
    shown = []
    tickets = rows.line[rows["round"] != shown_round].nunique()
    for (line, r), mine in rows.groupby(["line", "round"], sort=False):
        called = line
        if r != shown_round:
            called = "dense network" if tickets == 1 else f"{line}: dense network"
        row = {"Line": called, "Weights remaining": f"{100 * mine.density.iloc[0]:.1f} %"}
        for metric in numbers:
            values = mine[mine.metric == metric].value
            their = theirs[
                (theirs.line == line) & (theirs.metric == metric) & (theirs["round"] == r)
            ]["mean"]
            label = style.LABELS[metric].replace(" (thousands)", "").replace(" (%)", "")
            row[label] = number(values.mean(), metric)
            if len(values) > 1:
                low, high = (number(value, metric) for value in (values.min(), values.max()))
                row[label] += f" [{low}, {high}]"
            if len(theirs):
                row[label] += f"<br><small>the paper: {number(their.mean(), metric)}</small>"
        shown.append(row)
    return as_table(pd.DataFrame(shown), "round")


CONTROLS = ("nothing", "random reinit", "random sparse")
PLAYED_ROUNDS = 8  # the most
PLAYED = 6  # times a rehearsal's iterations, so that early stop lies inside the training


def play(
    rate: float = 0.2,
    rounds: int = 8,
    strategy: str = "iterative",
    control: str = "random reinit",
    trials: int = 2,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[pd.DataFrame]:
    """Prune Lenet on the embedded digits and yield the table so far after each round; what is
    trained already is not trained again.

    Parameters
    ----------
    rate : float
        Of the survivors that a round prunes, in (0, 1); of the output layer half of it.
    rounds : int
        1 to 8; one-shot pruning takes no notice of it.
    strategy : str
        "iterative" | "one-shot" (four densities).
    control : str
        Which control is drawn too: "nothing" | "random reinit" | "random sparse" (iterative only).
    trials : int
        How many initialisations.
    watch : callable, optional
        See `run`.

    Yields
    ------
    pandas.DataFrame
        As `run` returns it.

    Raises
    ------
    LotteryError
        For what is none of these, when the first table is asked for.

    Examples
    --------
    ::

        for table in play(rate=0.5, rounds=3, control="nothing"):
            plots.race(table)
    """
    if strategy not in ("iterative", "one-shot") or control not in CONTROLS:
        raise LotteryError(
            f"strategy is {strategy!r} and control {control!r}: choose iterative or one-shot, and "
            f"{', '.join(CONTROLS)}"
        )
    if (strategy, control) == ("one-shot", "random sparse"):
        raise LotteryError(
            "random sparse networks are drawn for the sizes of iterative pruning: choose "
            "iterative, or random reinit"
        )
    if not isinstance(rate, int | float) or isinstance(rate, bool):
        raise LotteryError(f"rate is {rate!r}: give a number between 0 and 1, such as 0.2")
    if rounds not in range(1, PLAYED_ROUNDS + 1):
        raise LotteryError(f"rounds is {rounds!r}: give a whole number from 1 to {PLAYED_ROUNDS}")
    recipe = lenet.but(
        prune_fc=rate,
        prune_output=rate / 2,
        rounds=rounds,
        iterations=PLAYED * lenet.iterations,
        evaluate_every=20,
    )
    tickets = recipe.iterative() if strategy == "iterative" else recipe.one_shot()
    tickets = tickets.with_curves("val_accuracy")
    plan = {"winning ticket": tickets.distribution("map of connections", "fc1")}
    if control == "random reinit":
        plan[control] = tickets.reinitialised()
    if control == "random sparse":
        plan[control] = recipe.random_sparse().with_curves("val_accuracy")
    grid = sorted({node.round for node in tickets.nodes("smoke", trials)})
    for i in range(1, len(grid) + 1):
        yield run(
            {label: line.at_rounds(*grid[:i]) for label, line in plan.items()},
            scale="smoke",
            trials=trials,
            watch=watch,
            quiet=True,
        )


def playground():
    """Controls that train while one watches, for JupyterLab: every round is drawn as it finishes;
    Stop keeps what is done.

    It draws what `play` yields, trained in a thread of its own; what goes wrong is said below the
    controls.

    Returns
    -------
    ipywidgets.VBox
        The pruning rate, 5 % to 90 % a round, 1 to 8 rounds, the strategy, the control beside it, 1
        to 5 trials, Train and Stop, and the picture. Nothing is trained before Train is pressed.
    """
    import ipywidgets as w

    controls = {
        "rate": w.FloatSlider(
            0.2, min=0.05, max=0.9, step=0.05, description="Pruned a round", readout_format=".0%"
        ),
        "rounds": w.IntSlider(8, min=1, max=8, description="Rounds"),
        "strategy": w.ToggleButtons(options=["iterative", "one-shot"], description="Pruning"),
        "control": w.Dropdown(options=CONTROLS, value="random reinit", description="Control"),
        "trials": w.IntSlider(2, min=1, max=5, description="Trials"),
    }
    for control in controls.values():
        control.style.description_width = "7rem"
    train, stop = (
        w.Button(description="Train", button_style="primary"),
        w.Button(description="Stop", disabled=True),
    )
    picture = w.Image(layout=w.Layout(max_width="100%", display="none"))  # until there is one
    said, stopped = w.HTML(), Event()

    def watch():
        if stopped.is_set():
            raise Stopped

    def work():
        try:
            chosen = {name: control.value for name, control in controls.items()}
            for i, table in enumerate(play(**chosen, watch=watch)):
                picture.value, picture.layout.display = _png(table), None
                said.value = (
                    f"Round {i} of {chosen['rounds']} is done."
                    if chosen["strategy"] == "iterative"
                    else f"{i + 1} densities are done."
                )
            said.value += " That is all of them."
        except Stopped:
            said.value += " Stopped; what is done is kept."
        except LotteryError as error:
            said.value = escape(str(error))
        except Exception as error:  # a thread has nobody else to tell
            said.value = escape(f"{type(error).__name__}: {error}")
            raise
        finally:
            train.disabled, stop.disabled = False, True

    def begin(_):
        stopped.clear()
        train.disabled, stop.disabled, said.value = True, False, "Training…"
        Thread(target=work, daemon=True).start()

    train.on_click(begin)
    stop.on_click(lambda _: stopped.set())
    return w.VBox([*controls.values(), w.HBox([train, stop]), said, picture])


def _png(table: pd.DataFrame) -> bytes:
    drawn = BytesIO()
    figure = plots.race(table)
    figure.savefig(drawn, format="png", dpi=110)
    plt.close(figure)
    return drawn.getvalue()
