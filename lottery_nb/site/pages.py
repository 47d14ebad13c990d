"""What the prose pages include, as Markdown: lists and tables made of judged claims, committed
tables and measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from ..analysis import claims, distances, results
from ..analysis.comparison import quantity
from ..runs.store import ROOT
from . import scoreboard

if TYPE_CHECKING:
    from datetime import datetime

    from .notebooks import Notebook

PAGES = ROOT / "book" / "figures"  # papermill's output and all else that the book's build makes
DATA = {
    "mnist5k": "5,000 embedded digits",
    "mnist1k": "1,000 embedded digits",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
}
QUESTIONS = {  # and the figures that answer them
    "Are there winning tickets?": (1, 4, 5, 3, 12, 13, 11, 6),
    "Is it the weights, or which connections survive?": (14, 17, 18, 25),
    "How are they found?": (9, 10, 29, 35, 37, 38, 39),
    "What do they look like inside?": (15, 16, *range(19, 25)),
    "Do deep networks have them?": (7, 8, *range(40, 46)),
    "How much depends on the settings?": (26, 27, 28, 30, 31, 32, 33, 34, 36),
    "What was trained?": (2,),
}
SHOWN = (1, 8, 64, 512)  # workers, in the cluster page's table


def launch(repository: str | None) -> str:
    """How to run the playground live, as Markdown. repository: "owner/name" on GitHub, where the
    book is built from one."""
    here = "## Run it live\n\nOn your own machine: `make lab`, then `playground.ipynb`."
    if not repository:
        return here
    binder = (
        f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/playground.ipynb"
    )
    colab = f"https://colab.research.google.com/github/{repository}/blob/HEAD/binder/colab.ipynb"
    return (
        f"{here} In the browser: [Binder]({binder}), which takes minutes to start, or "
        f"[Colab]({colab}), which asks for `https://github.com/{repository}`."
    )


def glance(notebook: Notebook, table: pd.DataFrame) -> str:
    """A figure at a glance, for the top of its page: a mark for each claim, and what was run, how
    long, and how much of the paper's own programme that is; table: of its `run`."""
    marks = "".join(
        scoreboard.mark(row, f"#{row.id}")
        for row in claims.verdicts(notebook.name, table).itertuples()
    )
    ran = "Nothing is trained for this figure: its numbers are counted."
    if notebook.plan and len(table):
        nodes = table.drop_duplicates("node")
        scales = table.attrs["scales"]
        theirs = sum(
            line.recipe.iterations * len(line.nodes("paper")) for line in notebook.plan.values()
        )
        ours = sum(
            line.recipe.at(scales[label]).iterations * table[table.line == label].node.nunique()
            for label, line in notebook.plan.items()
        )
        pruned = table[(table["round"] > 1) | (table.groupby("line")["round"].transform("max") < 2)]
        trials = pruned.groupby(["line", "round"]).trial.nunique()  # many share a dense network
        few, many = int(trials.min()), int(trials.max())
        seen = {each.partition(",")[0] for each in nodes.data.dropna()}
        copied = [each for each in nodes.data.dropna() if "copy" in each]
        data = " and ".join(DATA.get(name, name) for name in sorted(seen, reverse=True))
        if copied:
            copy = "a JPEG copy" if any("JPEG" in each for each in copied) else "another copy"
            data += f' (<a href="../limits.html">{copy}</a>)'
        ran = (
            f"{len(nodes):,} trainings at {' and '.join(dict.fromkeys(scales.values()))} scale, "
            f"{few if few == many else f'{few} to {many}'} trial{'s' * (many > 1)} a line, "
            f"{_duration(nodes.seconds.sum() / 3600)} of computing, on {data}."
        )
        if notebook.is_figure:
            ran += (
                f" That is {_share(ours / theirs)} of the iterations that the paper’s figure "
                f"stands for{', in narrower networks' * table.attrs['narrower']}."
            )
    return (
        f'<div class="glance"><p class="marks" aria-label="Verdicts">{marks}</p><p>{ran} '
        f'<a href="../reading.html">How to read this page</a></p></div>'
    )


class Panel(NamedTuple):
    """A panel of a picture: its file, its title, what a reader who points at it is told, see
    `readings.readings`, and whether it begins a row of its own."""

    path: Path
    title: str
    readings: list[dict]
    begins_row: bool = False


def panels(notebook: Notebook, drawn: list[Panel]) -> str:
    """A picture's panels as MyST, side by side where there is room; "" without any."""
    if not drawn:
        return ""
    said = [f"{notebook.alt} First panel: {drawn[0].title}", *(panel.title for panel in drawn[1:])]
    row = '<span class="row-of-panels"></span>'
    images = [
        f"{row * panel.begins_row}![{alt}]({panel.path.name})" for panel, alt in zip(drawn, said)
    ]
    told = json.dumps([panel.readings for panel in drawn], separators=(",", ":"))
    script = f'<script type="application/json" class="readings">{told}</script>'
    return "\n".join([":::{div} panels", *images, "", "```{raw} html", script, "```", ":::"])


def _share(share: float) -> str:
    return "under 1 %" if share < 0.01 else f"{100 * share:.{int(share < 0.1)}f} %"


def gallery(sheets: dict[Notebook, pd.DataFrame], pictures: Path) -> str:
    """A card for every figure, one panel and its verdicts, by what the figure asks, as MyST; those
    with no claim tested come last. pictures: the folder where they are, if they are."""
    said, groups = [], dict(QUESTIONS)
    groups["Added by you"] = [figure.number for figure in sheets if figure.is_added]
    for question, numbers in groups.items():
        cards = [
            _card(figure, sheet, pictures)
            for figure, sheet in sorted(sheets.items(), key=lambda each: _untested(each[1]))
            if figure.number in numbers
        ]
        if cards:
            said += [f"## {question}", "", "::::{grid} 1 2 2 2", ":gutter: 3", "", *cards]
            said += ["::::", ""]
    return "\n".join(said)


def chapters(sheets: dict[Notebook, pd.DataFrame], pictures: Path) -> str:
    """A card for every chapter on what came after the paper, in their order, and how their claims
    stand, as MyST; pictures: the folder where they are."""
    cards = [_card(chapter, sheet, pictures) for chapter, sheet in sheets.items()]
    counted = claims.counts(sheets.values()).sum(axis=1)
    said = ", ".join(f"{n} {outcome}" for outcome, n in counted.items() if n)
    return "\n".join(
        [
            "::::{grid} 1 2 2 2", ":gutter: 3", "", *cards, "::::", "",
            f"Of the {counted.sum()} claims of these chapters, counted apart from the paper’s: "
            f"{said}.", "",
        ]
    )  # fmt: skip


def _untested(sheet: pd.DataFrame) -> bool:
    return bool((sheet.outcome == "not tested").all())


def _card(figure: Notebook, sheet: pd.DataFrame, pictures: Path) -> str:
    options = [f":link: {figure.name}", ":link-type: ref"]
    if (pictures / f"{figure.name}-small.png").exists():
        options += [f":img-top: figures/{figure.name}-small.png", f":img-alt: {figure.alt}"]
    marks = "".join(map(scoreboard.mark, sheet.itertuples()))
    untested = len(sheet) > 0 and _untested(sheet)
    return "\n".join(
        [
            f":::{{grid-item-card}} {figure.title}",
            *options,
            "",
            figure.finding,
            "",
            f'<span class="marks">{marks}</span>' + " no claim tested yet" * untested,
            ":::",
        ]
    )


def built(when: datetime, commit: str) -> str:
    """When the book was built from nothing, and of which commit, as Markdown."""
    return (
        f"This book was last built from nothing on {when:%Y-%m-%d}, from commit `{commit}`: every "
        "notebook was executed, and every number read from the committed tables. `make book` does "
        "it again.\n"
    )


def scope(shown: int, ours: int, theirs: int) -> str:
    """What was run for the book, and how much of the paper's programme that is, in three sentences;
    shown: trainings that figures show; ours, theirs: their iterations, and those of the paper's."""
    nodes = results.committed().trainings
    days = sorted(set(nodes.started.astype(str).str[:10]))
    return (
        f"**What was run:** {len(nodes):,} trainings between {days[0]} and {days[-1]}, "
        f"{_computed(nodes)}. The paper’s figures show {shown:,} of them: that is "
        f"{_share(ours / theirs)} of the {theirs / 1e9:.1f} billion iterations behind the paper’s "
        "own.\n"
    )


def _computed(nodes: pd.DataFrame) -> str:
    """Where and how long trainings ran, in words; nodes: with `seconds` and `device`."""
    on_gpu = ~nodes.device.map(results.on_a_thread).astype(bool)
    hours = f"in {nodes.seconds[~on_gpu].sum() / 3600:.0f} hours of one processor thread"
    return f"{on_gpu.sum():,} of them on a GPU, the others {hours}" if on_gpu.any() else hours


def coverage(
    tables: dict[Notebook, pd.DataFrame],
    remaining: dict[Notebook, tuple[int, int, dict[str, float]]],
) -> str:
    """How far the book is trained, in two sentences; tables: of the figures that are committed at
    more than smoke scale; remaining: of `progress.remaining`."""
    parts = [figure for figure in tables if remaining[figure][2]]
    rehearsed = [figure for figure in remaining if figure.plan and figure not in tables]
    nodes = results.committed().trainings
    named = ", ".join(map(_linked, parts))
    rest = f", {len(rehearsed)} only rehearsed," if rehearsed else ""
    return (
        f"Of the {len(remaining)} figures {len(tables)} are trained on the real data, {len(parts)} "
        f"of them in part ({named}){rest} "
        "and one needs no training. Behind the whole book, with its studies and chapters, stand "
        f"{len(nodes):,} different trainings, {_computed(nodes)}.\n"
    )


def remaining_table(remaining: dict[Notebook, tuple[int, int, dict[str, float]]]) -> str:
    """What is still to train of the figures that are not complete, as a Markdown table; remaining:
    of `progress.remaining`."""
    said = [
        "| figure | scale | trained | wanted | hours missing |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    shared: dict[str, float] = {}
    for figure, (done, wanted, left) in remaining.items():
        if left:
            scale, hours = figure.committed_scale or "laptop", sum(left.values()) / 3600
            said.append(f"| {_linked(figure)} | {scale} | {done} | {wanted} | {hours:.1f} |")
            shared |= left
    said.append(
        f"| together, each training once | | | {len(shared):,} missing | "
        f"{sum(shared.values()) / 3600:.1f} |"
    )
    return "\n".join([*said, ""])


def disagreements(sheets: dict[Notebook, pd.DataFrame]) -> str:
    """The claims for which the paper's text and its plot give different numbers, and which of them
    ours are nearer to, as Markdown."""
    rows: dict[tuple, str] = {}
    for figure, sheet in sheets.items():
        for row in sheet.itertuples():
            if row.claim.disagrees and (figure, row.claim.text, row.claim.plot) not in rows:
                claim, tested = row.claim, row.outcome != "not tested"
                nearer = _nearer(claim, row.ours) if tested else "–"
                ours = claim.show(row.ours) if tested else "–"
                rows[figure, claim.text, claim.plot] = (
                    f"| {{ref}}`{figure.number} <{figure.name}>` | {claim.says} | "
                    f"{claim.show(claim.text)} | {claim.show(claim.plot)} | {ours} | {nearer} |"
                )
    return _numbers(
        "| figure | claim | text | plot | ours | ours is nearer to |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        *rows.values(),
    )


def _nearer(claim: claims.Claim, ours: float) -> str:
    """Whether ours lies nearer to the paper's text or to its plot, or further from both than they
    from each other."""
    text, plot = abs(ours - claim.text), abs(ours - claim.plot)
    if min(text, plot) > abs(claim.text - claim.plot):
        return "neither"
    return "the plot" if plot < text else "the text"


def contradictions(sheets: dict[Notebook, pd.DataFrame]) -> str:
    """The claims that the paper makes without a number and that its own plot contradicts, with
    ours, as Markdown."""
    rows = [
        f"| {{ref}}`{figure.number} <{figure.name}>` | {row.claim.says} | "
        f"{row.claim.show(row.claim.plot)} | "
        f"{'–' if row.outcome == 'not tested' else row.claim.show(row.ours)} |"
        for figure, sheet in sheets.items()
        for row in sheet.itertuples()
        if row.claim.is_contradicted
    ]
    return _numbers("| figure | claim | plot | ours |", "| --- | --- | ---: | ---: |", *rows)


def _numbers(*lines: str) -> str:
    """A Markdown table in which no number stands apart from its unit."""
    return (
        "\n".join([*lines, ""])
        .replace(" %", "\N{NO-BREAK SPACE}%")
        .replace(" points", "\N{NO-BREAK SPACE}points")
    )


def studies(notebooks: list[Notebook]) -> str:
    """What studies ask, and what they found, as a Markdown table."""
    rows = [
        f"| {{ref}}`{study.name}` | {study.finding or 'Not answered yet.'} |" for study in notebooks
    ]
    return "\n".join(["| study | what we saw |", "| --- | --- |", *rows, ""])


def differences(compared: dict[Notebook, pd.DataFrame]) -> str:
    """How far figures' curves lie from the paper's, worst first, as a Markdown table; compared:
    `distances.points` of each."""
    rows = []
    for figure, points in compared.items():
        for metric, row in distances.summary(points).iterrows():
            cells = [
                _linked(figure), quantity(metric), f"{row.points:,.0f}", f"{row.distance:.2f}",
                _shift(metric, row.difference), figure.committed_scale,
            ]  # fmt: skip
            rows.append((row.distance, figure.number, f"| {' | '.join(cells)} |"))
    head = [
        "| figure | quantity | points | distance in bands | ours less the paper's | scale |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    return "\n".join([*head, *(row for *_, row in sorted(rows, reverse=True)), ""])


def _linked(figure: Notebook) -> str:
    return f"{{ref}}`{figure.number} <{figure.name}>`"


def _shift(metric: str, difference: float) -> str:
    if "iteration" in metric:
        said = f"{difference:+,.0f} iterations"
    elif "loss" in metric:
        said = f"{difference:+.3f}"
    else:
        said = f"{100 * difference:+.2f} points"
    return said.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def sharing_table(counts: dict[str, tuple[int, int]]) -> str:
    """How many trainings the figures ask for and how many are distinct, {scale: both}, as a
    Markdown table."""
    rows = [
        f"| `{scale}` | {asked:,} | {distinct:,} |" for scale, (asked, distinct) in counts.items()
    ]
    return "\n".join(
        [
            "| scale | trainings that the figures ask for | distinct |",
            "| --- | ---: | ---: |",
            *rows,
            "",
        ]
    )


def workers_table(simulated: dict) -> str:
    """How long the paper's scale takes on so many workers, and of what that is made, as two
    Markdown tables.

    simulated: as `bench.cluster` returns it.
    """
    rows = [
        f"| networks | trainings |{''.join(f' on {count:,} |' for count in SHOWN)} longest chain |",
        f"| --- | ---: |{' ---: |' * (len(SHOWN) + 1)}",
    ]
    for name, hours in simulated["hours"].items():
        times = [_duration(hours["on"][str(count)]) for count in SHOWN]
        rows.append(
            f"| {name} | {hours['trainings']:,} | {' | '.join(times)} | "
            f"{_duration(hours['chain'])} |"
        )
    machine, iteration = simulated["machine"], simulated["iteration"]
    on = f"{machine['device']}, Python {machine['python']}, torch {machine['torch']}"
    rows += [
        "",
        "Milliseconds of an iteration, its share of validation included, measured on one worker "
        f"({on}):",
        "",
        "| network | ms |",
        "| --- | ---: |",
    ]
    rows += [
        f"| {network} | {1000 * seconds:,.{2 * (seconds < 0.01)}f} |"
        for network, seconds in iteration.items()
    ]
    return "\n".join([*rows, ""])


def _duration(hours: float) -> str:
    for unit, size in (("years", 24 * 365), ("days", 24), ("hours", 1)):
        if hours >= 2 * size:
            return f"{hours / size:,.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{60 * hours:,.0f}\N{NO-BREAK SPACE}minutes"
