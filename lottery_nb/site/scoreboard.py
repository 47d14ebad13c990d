"""Claims as a reader sees them: a mark and a row for each, the bar of all, the scoreboard.

A mark is a tile with the sign of its outcome: filled where it rests on several trials, hollow where
on one, ringed where the network is a reduced one. A row has a number line: what keeps the rule is
shaded, a dot is a trial of ours, a diamond is the number on the paper's plot, a triangle that in
its text. All of it is HTML and SVG that works without scripts; `book/_static/scoreboard.js` adds
the filters.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from ..analysis import claims
from ..analysis.claims import EVIDENCE, OUTCOMES, Claim
from ..core.errors import LotteryError

if TYPE_CHECKING:
    from .notebooks import Notebook

Sheets = dict["Notebook", pd.DataFrame]  # of every figure what `claims.verdicts` returns

SAID = {outcome: outcome.capitalize() for outcome in OUTCOMES} | {
    "direction holds": "Inconclusive: the direction holds",
    "open": "Inconclusive: open",
}
SUBJECTS = {  # what a claim is about, by how its metric begins
    "early_stop": "early stop",
    "train_accuracy": "training accuracy",
    "test_accuracy": "accuracy",
    "val_accuracy": "accuracy",
    "val_loss": "loss",
    "incoming": "connections",
    "outgoing": "connections",
    "initial": "weights",
    "movement": "weights",
    "growth": "weights",
    "": "set-up",
}
NEEDS = {"paper": "it needs the paper’s own scale"}  # by the least scale that can test a claim
WHERE = {  # evidence, as it follows a number of claims
    "counting": "by counting",
    "paper scale": "at paper scale",
    "laptop scale": "at laptop scale",
    "reduced network": "on reduced networks",
    "": "not tested",
}
NAMES = {
    "lenet": "Lenet", "conv2": "Conv-2", "conv4": "Conv-4", "conv6": "Conv-6",
    "resnet18": "Resnet-18", "vgg19": "VGG-19",
}  # fmt: skip
WIDTH, LEFT, RIGHT = 220, 8, 212  # of a number line, and where its numbers lie, in px


def compare(figure: str, table: pd.DataFrame):
    """The figure's claims beside the paper's text, its plot and our runs, as rows to look at.

    Every number of ours is also left in the notebook under its claim's id, for prose elsewhere in
    the book to quote.

    Parameters
    ----------
    figure : str
        Such as "fig04".
    table : pandas.DataFrame
        What `run` returned for the figure's plan.

    Returns
    -------
    IPython.display.HTML
        A row a claim: its verdict, a number line, our mean and [lowest, highest] trial, the paper's
        numbers.

    Raises
    ------
    LotteryError
        Where a claim is malformed, or is about a line that the plan lacks, and for a name that is
        no figure's.
    """
    from IPython.display import HTML

    if not re.fullmatch(r"fig\d\d|chapter\d", figure):
        raise LotteryError(
            f"there is no figure {figure!r}: name it as its notebook is, such as fig04 or chapter1"
        )
    if "lines" in table.attrs:
        claims.check(figure, table.attrs["lines"])
    judged = claims.verdicts(figure, table)
    for row in judged.itertuples():
        _glue(row.id, row.claim.show(row.ours))
    return HTML(rows(judged))


def rows(judged: pd.DataFrame, networks: dict[str, str] | None = None) -> str:
    """Judged claims as a list, a row each. networks: of each claim by its id, for the filters."""
    return f'<ul class="claims">{"".join(_row(row, networks) for row in judged.itertuples())}</ul>'


def _row(row, networks: dict[str, str] | None) -> str:
    claim: Claim = row.claim
    filters = ""
    if networks is not None:
        values = {"network": networks[row.id], "subject": subject(claim)}
        values |= {"outcome": row.outcome, "evidence": row.evidence}
        filters = "".join(f' data-{name}="{value}"' for name, value in values.items())
    says = escape(claim.says)
    if networks is not None and not any(name in says for name in networks[row.id].split(", ")):
        says = f"<strong>{networks[row.id]}:</strong> {says}"  # so that it can stand alone
    notes = []
    if claim.plot is not None and claim.side(claim.plot) != "keeps":
        notes.append("The paper’s own plot does not keep this rule.")
    if row.unfinished and row.outcome != "not tested":
        notes.append(
            "One of the networks compared reaches its early stop at the end of our training or "
            "near it, so it may not be finished; the other is."
        )
    if claim.erratum:
        notes.append(f"Note: {escape(claim.erratum)}")
    foot = "".join(f'<p class="note">{note}</p>' for note in notes)
    return (
        f'<li id="{row.id}"{filters}>{mark(row)}'
        f'<div class="says"><p>{says} '
        f'<a class="permalink" href="#{row.id}" aria-label="Link to this claim">#</a></p>'
        f'<p class="meta">{verdict(row)}. {_source(claim)}.</p>{foot}</div>'
        f'<div class="measured">{number_line(row)}<p>{_numbers(row)}</p></div></li>'
    )


def _source(claim: Claim) -> str:
    if claim.where == claims.HERE:
        return "This book’s own expectation"
    return f"{'Source' if claim.chapter else 'The paper'}: {escape(claim.where)}"


def mark(row, link: str = "") -> str:
    """The tile of a judged claim. link: where it leads."""
    kinds = ["mark", row.outcome.replace(" ", "-")]
    kinds += ["single"] if row.n == 1 and row.evidence else []
    kinds += ["reduced"] if row.evidence == "reduced network" else []
    sign, said = OUTCOMES[row.outcome], escape(f"{verdict(row)}: {row.claim.says}")
    if link:
        return (
            f'<a class="{" ".join(kinds)}" href="{link}" title="{said}" aria-label="{said}">'
            f"{sign}</a>"
        )
    return f'<span class="{" ".join(kinds)}" aria-hidden="true">{sign}</span>'


def verdict(row) -> str:
    """A verdict in words, such as "Reproduced (5 trials, laptop scale)"."""
    if not row.evidence:
        return f"{SAID[row.outcome]}: {NEEDS.get(row.claim.scale, 'it is not trained yet')}"
    if row.evidence == "counting":
        return f"{SAID[row.outcome]} (by counting)"
    trials = "one trial" if row.n == 1 else f"{row.n} trials"
    by = f": {row.reduced}" if row.reduced and row.evidence == "reduced network" else ""
    return f"{SAID[row.outcome]} ({trials}, {row.evidence}{by})"


def _numbers(row) -> str:
    claim: Claim = row.claim
    said = []
    if row.values:
        spread = f" [{claim.number(row.low)}, {claim.number(row.high)}]" if row.n > 1 else ""
        said.append(f"ours <strong>{claim.show(row.ours)}</strong>{spread}")
    theirs = {"text": claim.text, "plot": claim.plot}
    said += [f"paper’s {name} {claim.show(v)}" for name, v in theirs.items() if v is not None]
    return " · ".join(said) or (
        "not run" if claim.chapter else "no number of the paper’s, none of ours"
    )


def number_line(row) -> str:
    """A judged claim as a small picture: the zone that keeps its rule, our trials, the paper's
    numbers, and where there is no effect."""
    claim: Claim = row.claim
    trials = [value for value in row.values if math.isfinite(value)]
    bounds = [bound for bound in claim.window if math.isfinite(bound)]
    theirs = [value for value in (claim.text, claim.plot) if value is not None]
    here = [*trials, *bounds, *theirs, *([] if claim.no_effect is None else [claim.no_effect])]
    low, high = min(here), max(here)
    margin = 0.12 * (high - low) or max(abs(high), 1e-9) / 2
    low, high = low - margin, high + margin

    def at(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(LEFT + share * (RIGHT - LEFT), 1)

    start, stop = map(at, claim.window)
    drawn = [
        f'<rect class="zone" x="{start}" y="9" width="{round(stop - start, 1)}" height="16"/>',
        f'<path class="axis" d="M{LEFT} 17H{RIGHT}"/>',
    ]
    if claim.no_effect is not None:
        none = at(claim.no_effect)
        label = "equal" if claim.as_ == "ratio" else "0"
        drawn.append(f'<path class="none" d="M{none} 6V28"/>')
        drawn.append(f'<text x="{none}" y="38">{label}</text>')
    if claim.text is not None:
        x = at(claim.text)
        drawn.append(f'<path class="paper" d="M{x - 4} 1h8l-4 7z"/>')
    if claim.plot is not None:
        x = at(claim.plot)
        drawn.append(f'<path class="paper" d="M{x} 25l4 4.5l-4 4.5l-4-4.5z"/>')
    drawn += [f'<circle class="trial" cx="{at(value)}" cy="17" r="3.5"/>' for value in trials]
    return (
        f'<svg class="number-line" viewBox="0 0 {WIDTH} 40" role="img" '
        f'aria-label="{escape(_line_said(row, trials))}">{"".join(drawn)}</svg>'
    )


def _line_said(row, trials: list[float]) -> str:
    claim: Claim = row.claim
    ((kind, bound),) = claim.rule.items()
    asked = (
        f"between {claim.show(bound[0])} and {claim.show(bound[1])}"
        if kind == "between"
        else f"{kind} {claim.show(bound)}"
    )
    said = [f"The rule asks for {asked}"]
    if trials:
        said.append(f"our trials: {', '.join(map(claim.show, trials))}")
    said += [f"the paper’s text: {claim.show(claim.text)}"] if claim.text is not None else []
    said += [f"its plot: {claim.show(claim.plot)}"] if claim.plot is not None else []
    return "; ".join(said)


def subject(claim: Claim) -> str:
    """What a claim is about, one of `SUBJECTS`."""
    return next(s for start, s in SUBJECTS.items() if claim.of["metric"].startswith(start))


def name_of(network: str) -> str:
    """A network as the paper writes it; one that it does not have by the name it has here."""
    return NAMES.get(network, network)


def _in_order(names: Iterable[str]) -> list[str]:
    """Names of networks, the paper's in its order and then others."""
    papers = list(NAMES.values())
    return sorted(names, key=lambda name: (papers.index(name) if name in papers else 99, name))


def networks_of(figure: Notebook, judged: pd.DataFrame) -> dict[str, str]:
    """The networks that each claim of a figure is about, by its id."""
    lines = {label: name_of(line.recipe.network) for label, line in figure.plan.items()}
    found = {}
    for claim in judged.claim:
        of = dict.fromkeys(lines.get(place["line"], place["line"]) for place in claim.places)
        found[claim.id] = ", ".join(of)
    return found


def of_the_paper(sheets: Sheets) -> Sheets:
    """The paper's figures and what is claimed of them there, without what was added here."""
    return {
        figure: sheet[[claim.where != claims.HERE for claim in sheet.claim]]
        for figure, sheet in sheets.items()
        if not figure.is_added
    }


def summary(sheets: Sheets) -> str:
    """How much of the paper reproduces, and on what evidence, in a few sentences."""
    sheets = of_the_paper(sheets)
    found = claims.counts(sheets.values())
    reduced = found["reduced network"]
    full = found[[*EVIDENCE]].sum(axis=1) - reduced
    single = Counter(
        row.evidence for sheet in sheets.values() for row in sheet[sheet.n == 1].itertuples()
    )
    untested = [
        claim.scale in NEEDS
        for sheet in sheets.values()
        for claim in sheet.claim[sheet.outcome == "not tested"]
    ]

    def said(of: pd.Series) -> str:
        parts = [f"**{of['reproduced']} reproduce**", f"{of['not reproduced']} do not"]
        if of["direction holds"]:
            parts.append(f"{of['direction holds']} go the paper’s way, but not as far")
        if of["open"]:
            parts.append(f"{of['open']} are open, because trials disagree")
        *parts, last = parts
        return f"{', '.join(parts)}{',' * (len(parts) > 1)} and {last}"

    return (
        f"Of the paper’s {int(found.to_numpy().sum())} checkable claims, {full.sum()} are tested "
        f"on networks of the paper’s size with at least a fifth of its training: {said(full)}. "
        f"(One trial decides {single['paper scale'] + single['laptop scale']} of them; "
        f"{found['counting'].sum()} need counting only.) "
        f"Another {reduced.sum()} are tested only on narrower networks or far shorter trainings, "
        f"which is weaker evidence: {said(reduced)}. (One trial decides "
        f"{single['reduced network']} of them.) {len(untested)} are not tested: "
        f"{sum(untested)} need the paper’s own scale, {untested.count(False)} are not trained yet."
    )


def by_network(sheets: Sheets) -> str:
    """How the claims about trainings of each network stand, as a Markdown table with the marks of
    outcomes."""
    every = pd.concat(
        sheet.assign(network=sheet.id.map(networks_of(figure, sheet)))
        for figure, sheet in sheets.items()
        if figure.plan
    )
    lines = [f"| | claims | {' | '.join(OUTCOMES.values())} | evidence |", f"|---|{'--:|' * 6}---|"]
    drawn = {line.recipe.network for figure in sheets for line in figure.plan.values()}
    for name in _in_order({*NAMES.values(), *map(name_of, drawn)}):
        own = every[every.network == name]
        counts = " | ".join(str((own.outcome == outcome).sum()) for outcome in OUTCOMES)
        where = " and ".join(each for each in EVIDENCE if (own.evidence == each).any())
        lines.append(f"| {name} | {len(own)} | {counts} | {where or OUTCOMES['not tested']} |")
    return "\n".join(lines)


def bar(sheets: Sheets, page: str = "scoreboard.html") -> str:
    """All claims of the paper as one bar, a segment for each outcome and evidence that leads to its
    claims on the scoreboard. page: the scoreboard's address."""
    found = claims.counts(of_the_paper(sheets).values())
    groups = []
    for evidence in [*EVIDENCE, ""]:
        segments, of = [], found[evidence]
        for outcome in OUTCOMES:
            if not of[outcome]:
                continue
            where = f"{page}#outcome={outcome}" + (f"&evidence={evidence}" if evidence else "")
            said = f"{of[outcome]} {SAID[outcome].lower()}" + (f", {evidence}" if evidence else "")
            kinds = f"{outcome.replace(' ', '-')}{' reduced' * (evidence == 'reduced network')}"
            segments.append(
                f'<a class="{kinds}" style="flex-grow:{of[outcome]}" '
                f'href="{escape(where.replace(" ", "%20"))}" title="{said}" aria-label="{said}">'
                f"{of[outcome]}</a>"
            )
        if segments:
            groups.append(
                f'<div style="flex-grow:{of.sum()}"><div class="segments">{"".join(segments)}</div>'
                f"<p>{of.sum()} {WHERE[evidence]}</p></div>"
            )
    return f'<div class="verdict-bar">{"".join(groups)}</div>\n{legend()}'


def legend() -> str:
    """What the marks mean."""
    signs = "".join(
        f'<span><span class="mark {outcome.replace(" ", "-")}" aria-hidden="true">{sign}</span> '
        f"{SAID[outcome].lower()}</span>"
        for outcome, sign in OUTCOMES.items()
    )
    kinds = "".join(
        f'<span><span class="mark reproduced {kind}" aria-hidden="true">✓</span> {said}</span>'
        for kind, said in (("single", "one trial"), ("reduced", "reduced network"))
    )
    return f'<p class="marks-legend">{signs}{kinds}</p>'


def page(sheets: Sheets) -> str:
    """The scoreboard as Markdown: the bar, filters, and a closed group of rows a figure, beside
    whose name stands a mark for each of its claims."""
    groups, seen = [], {"network": {}, "subject": {}}
    for figure, sheet in sheets.items():
        networks = networks_of(figure, sheet)
        for names in networks.values():
            seen["network"] |= dict.fromkeys(names.split(", "))
        seen["subject"] |= {subject(claim): None for claim in sheet.claim}
        marks = "".join(mark(row, f"#{row.id}") for row in sheet.itertuples())
        number, _, title = figure.title.partition(": ")
        title = title[:1].upper() + title[1:]
        groups.append(
            f'<div class="figure-claims"><details id="{figure.name}-claims"><summary>'
            f"{escape(number)} <small>{escape(title)}</small></summary>\n"
            f'<p><a href="figures/{figure.name}.html">{escape(figure.title)}</a></p>\n'
            f'{rows(sheet, networks)}\n</details><p class="marks">{marks}</p></div>'
        )
    options = {
        "network": _in_order(seen["network"]),
        "subject": sorted(seen["subject"]),
        "outcome": list(OUTCOMES),
        "evidence": list(EVIDENCE),
    }
    chosen = "".join(
        f'<label>{name.capitalize()} <select name="{name}"><option value="">all</option>'
        + "".join(f'<option value="{value}">{value}</option>' for value in values)
        + "</select></label>"
        for name, values in options.items()
    )
    form = (
        f'<form class="claims-filter" hidden>{chosen}<label>Search '
        '<input type="search" name="q"></label><button type="reset">Show all</button>'
        '<output aria-live="polite"></output></form>'
    )
    return "\n".join(
        [
            summary(sheets), "", "```{raw} html", bar(sheets, ""), form,
            '<div class="scoreboard">', *groups, "</div>", "```", "",
        ]
    )  # fmt: skip


def as_rows(sheets: Sheets) -> list[dict]:
    """All claims and verdicts as plain data, for CSV and JSON."""
    found = []
    for figure, sheet in sheets.items():
        networks = networks_of(figure, sheet)
        for row in sheet.itertuples():
            claim: Claim = row.claim
            found.append(
                {
                    "id": row.id,
                    "figure": figure.number,
                    "claim": claim.says,
                    "where": claim.where,
                    "networks": networks[row.id],
                    "subject": subject(claim),
                    "outcome": row.outcome,
                    "evidence": row.evidence,
                    "trials": row.n,
                    **{name: _plain(getattr(row, name)) for name in ("ours", "low", "high")},
                    "text": claim.text,
                    "plot": claim.plot,
                    "unit": claim.unit_said.strip(),
                    "rule": json.dumps(claim.rule),
                    "erratum": claim.erratum,
                }
            )
    return found


def _plain(value: float | None) -> float | None:
    """A number as JSON has it, which knows no NaN; six digits are more than were measured."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _glue(name: str, text: str) -> None:
    """Leave a text in the executed notebook under a name, where the book's `glue` role finds it."""
    from IPython.display import display

    prefix = "application/papermill.record/"
    display(
        {f"{prefix}text/plain": text},
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        raw=True,
    )
