"""What the prose pages include, as Markdown: lists and tables made of judged claims, committed tables and measurements."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from . import claims, distances, paper, plans, results

if TYPE_CHECKING:
    from .book import Figure

QUANTITIES = {
    "early_stop_iteration": "early stop", "early_stop_iteration_test": "early stop by test loss", "val_loss": "validation loss",
    "test_accuracy": "test accuracy", "train_accuracy": "training accuracy", "val_accuracy": "validation accuracy",
}  # fmt: skip
PAPERS_TICKET = {"val_accuracy_at_early_stop": ("fig29", "0.2")}  # where the paper draws Lenet's usual tickets; all else in Figure 4
LENETS = {"the paper": ("fig04", "winning ticket (iterative)")}
PIXELS = ("fig23-inputs-are-uneven", "fig23-peak-of-many", "fig23-peak-of-few")
SHOWN = (1, 8, 64, 512)  # workers, in the cluster page's table


def launch(repository: str | None) -> str:
    """How to run the playground live, as Markdown. repository: "owner/name" on GitHub, where the book is built from one."""
    here = "## Run it live\n\nOn your own machine: `make lab`, then `playground.ipynb`."
    if not repository:
        return here
    binder = f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/playground.ipynb"
    colab = f"https://colab.research.google.com/github/{repository}/blob/HEAD/binder/colab.ipynb"
    return f"{here} In the browser: [Binder]({binder}), which takes minutes to start, or [Colab]({colab}), which asks for `https://github.com/{repository}`."


def gallery(sheets: dict[Figure, pd.DataFrame], pictures: Path) -> str:
    """A card for every figure, picture and verdicts, as MyST; pictures: the folder where they are, if they are."""
    cards = []
    for figure, sheet in sheets.items():
        counts = sheet.verdict.value_counts()
        said = " ".join(f"{mark} {counts[verdict]}" for verdict, mark in claims.VERDICTS.items() if verdict in counts)
        options = [f":link: {figure.name}", ":link-type: ref"]
        if (pictures / f"{figure.name}-small.png").exists():
            options += [f":img-top: figures/{figure.name}-small.png", f":img-alt: {figure.alt}"]
        cards.append("\n".join([f":::{{grid-item-card}} {figure.title}", *options, "", f"{figure.committed_scale or 'rehearsal'} · {said}", ":::"]))
    return "\n".join(["::::{grid} 1 2 2 3", ":gutter: 3", "", *cards, "::::", ""])


def coverage(tables: dict[Figure, pd.DataFrame], remaining: dict[Figure, tuple[int, int, dict[str, float]]]) -> str:
    """How far the book is trained, in two sentences; tables: of the figures that are committed at more than smoke scale;
    remaining: of `book.remaining`."""
    parts = [figure for figure in tables if remaining[figure][2]]
    rehearsed = [figure for figure in remaining if figure.plan and figure not in tables]
    nodes = results.committed().trainings
    named = ", ".join(map(_linked, parts))
    rest = f", {len(rehearsed)} only rehearsed," if rehearsed else ""
    return (
        f"Of the {len(remaining)} figures {len(tables)} are trained on the real data, {len(parts)} of them in part ({named}){rest} "
        f"and one needs no training. Behind them stand {len(nodes):,} different trainings, {nodes.seconds.sum() / 3600:.0f} hours "
        "of one or two processor threads.\n"
    )


def remaining_table(remaining: dict[Figure, tuple[int, int, dict[str, float]]]) -> str:
    """What is still to train of the figures that are not complete, as a Markdown table; remaining: of `book.remaining`."""
    said = ["| figure | scale | trained | wanted | hours missing |", "| --- | --- | ---: | ---: | ---: |"]
    shared: dict[str, float] = {}
    for figure, (done, wanted, left) in remaining.items():
        if left:
            scale, hours = figure.committed_scale or "laptop", sum(left.values()) / 3600
            said.append(f"| {_linked(figure)} | {scale} | {done} | {wanted} | {hours:.1f} |")
            shared |= left
    said.append(f"| together, each training once | | | {len(shared):,} missing | {sum(shared.values()) / 3600:.1f} |")
    return "\n".join([*said, ""])


def totals(sheets: dict[Figure, pd.DataFrame]) -> str:
    """How many claims have which verdict, as a Markdown table."""
    counts = pd.concat(sheets.values()).verdict.value_counts()
    rows = [f"| {mark} {verdict} | {counts.get(verdict, 0)} |" for verdict, mark in claims.VERDICTS.items()]
    return "\n".join(["| verdict | claims |", "| --- | ---: |", *rows, ""])


def scoreboard(sheets: dict[Figure, pd.DataFrame]) -> str:
    """All claims and their verdicts, figure by figure, as Markdown."""
    lines = [totals(sheets)]
    for figure, sheet in sheets.items():
        scale = figure.committed_scale
        said = f"At {scale} scale." if scale else f"No results are committed yet: `python -m lottery_nb run {figure.name} --scale laptop` makes them."
        lines += [f"## Figure {figure.number}", "", f"{said} The page: {{ref}}`{figure.name}`.", ""]
        lines += ["```{raw} html", claims.as_html(sheet, figure.name), "```", ""]
    return "\n".join(lines)


def disagreements(sheets: dict[Figure, pd.DataFrame]) -> str:
    """The claims for which the paper's text and its plot give different numbers, and which of them ours are nearer to, as Markdown."""
    rows: dict[tuple, str] = {}
    for figure, sheet in sheets.items():
        for row in sheet.itertuples():
            if row.claim.disagrees and (figure, row.claim.text, row.claim.plot) not in rows:
                claim, tested = row.claim, row.verdict != "not tested at this scale"
                nearer = "the plot" if tested and abs(row.ours - claim.plot) < abs(row.ours - claim.text) else "the text" if tested else "–"
                ours = claim.show(row.ours) if tested else "–"
                rows[figure, claim.text, claim.plot] = (
                    f"| {{ref}}`{figure.number} <{figure.name}>` | {claim.says} | {claim.show(claim.text)} | {claim.show(claim.plot)} | {ours} | {nearer} |"
                )
    head = ["| figure | claim | text | plot | ours | ours is nearer to |", "| --- | --- | ---: | ---: | ---: | --- |"]
    return "\n".join([*head, *rows.values(), ""]).replace(" %", "\N{NO-BREAK SPACE}%").replace(" pp", "\N{NO-BREAK SPACE}pp")


def differences(compared: dict[Figure, pd.DataFrame]) -> str:
    """How far figures' curves lie from the paper's, worst first, as a Markdown table; compared: `distances.points` of each."""
    rows = []
    for figure, points in compared.items():
        for metric, row in distances.summary(points).iterrows():
            cells = [
                _linked(figure), _quantity(metric), f"{row.points:,.0f}", f"{row.distance:.2f}",
                _shift(metric, row.difference), figure.committed_scale,
            ]  # fmt: skip
            rows.append((row.distance, figure.number, f"| {' | '.join(cells)} |"))
    head = ["| figure | quantity | points | distance in bands | ours less the paper's | scale |", "| --- | --- | ---: | ---: | ---: | --- |"]
    return "\n".join([*head, *(row for *_, row in sorted(rows, reverse=True)), ""])


def _linked(figure: Figure) -> str:
    return f"{{ref}}`{figure.number} <{figure.name}>`"


def _quantity(metric: str) -> str:
    """A metric in words, such as "test accuracy at the end"; where none is said, the moment is early stop."""
    quantity, _, moment = metric.partition("_at_")
    moments = {"": "", "early_stop": "", "early_stop_test": "", "end": " at the end"}
    return QUANTITIES[quantity] + moments.get(moment, f" at {moment.replace('_', ' ')}")


def _shift(metric: str, difference: float) -> str:
    if "iteration" in metric:
        said = f"{difference:+,.0f} iterations"
    elif "loss" in metric:
        said = f"{difference:+.3f}"
    else:
        said = f"{100 * difference:+.2f} pp"
    return said.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")


def _told_of(*committed: tuple[str, str]) -> Callable:
    """Hand a function the committed tables, (figure or study, scale), that it tells of; where one is missing, tell how to make it."""

    def decorate(tell: Callable[..., str]) -> Callable[[], str]:
        @wraps(tell)
        def told() -> str:
            from . import book

            tables = {(name, scale): plans.of_committed(book.plans_named([name])[name], scale=scale)[0] for name, scale in committed}
            commands = [f"`python -m lottery_nb run {name} --scale {scale}`" for (name, scale), table in tables.items() if table.empty]
            return f"*Not trained yet: {' and '.join(commands)}, then `store freeze` likewise.*\n" if commands else tell(*tables.values())

        return told

    return decorate


@_told_of(("splits", "laptop"))
def splits_table(splits: pd.DataFrame) -> str:
    """Winning tickets of Lenet under other validation splits, beside the paper's, as a Markdown table."""
    return _at_rounds(dict(iter(splits.groupby("line", sort=False))), ("val_accuracy_at_early_stop", "test_accuracy_at_early_stop", "early_stop_iteration"))


@_told_of(("splits", "laptop"), ("length", "paper"))
def length_table(splits: pd.DataFrame, length: pd.DataFrame) -> str:
    """Winning tickets of Lenet that were found and trained with 12,000 and with 50,000 iterations, beside the paper's, as a Markdown table."""
    tables = {"12,000 iterations": splits, "50,000 iterations": length}
    lines = {name: table[table.line.isin(("split 0", "winning ticket"))] for name, table in tables.items()}
    return _at_rounds(lines, ("early_stop_iteration", "test_accuracy_at_early_stop"))


@_told_of(("fig23", "laptop"), ("length", "paper"))
def pixels_table(fig23: pd.DataFrame, length: pd.DataFrame) -> str:
    """What the paper says of the pixels of its Figure 23, after 12,000 and 50,000 iterations, as a Markdown table."""
    sheets = {
        "12,000 iterations": claims.verdicts("fig23", fig23),
        "50,000 iterations": claims.verdicts("fig23", length),
    }
    said = [f"| claim | {' | '.join(sheets)} | the paper |", "| --- | ---: | ---: | ---: |"]
    for rows in zip(*(sheet[sheet.claim.map(lambda claim: claim.id in PIXELS)].itertuples() for sheet in sheets.values())):
        claim = rows[0].claim
        said.append(f"| {claim.says} | {' | '.join(f'{claim.show(row.ours)} {claims.VERDICTS[row.verdict]}' for row in rows)} | {claim.show(claim.plot)} |")
    return "\n".join([*said, ""])


@_told_of(("fig05", "laptop"), ("centred", "laptop"))
def centred_table(fig05: pd.DataFrame, centred: pd.DataFrame) -> str:
    """Tickets of Conv-2 and their reinitialisations on raw and on centred pixels, beside the paper's, as a Markdown table."""
    kinds = {"ticket": "Conv-2", "reinitialised": "Conv-2 reinit"}
    pixels = {"raw": fig05[fig05.trial == 0], "centred": centred}
    lines = {f"{kind}, {name}": table[table.line == line] for kind, line in kinds.items() for name, table in pixels.items()}
    papers = {f"{kind}, the paper": ("fig05", line) for kind, line in kinds.items()}
    rounds = sorted(set(centred["round"][centred.line == "Conv-2 reinit"]) | {0})
    return _at_rounds(lines, ("test_accuracy_at_early_stop", "early_stop_iteration"), papers, rounds)


@_told_of(("dropout", "laptop"))
def dropout_table(dropout: pd.DataFrame) -> str:
    """Validation accuracies of three whole Conv-2 networks with dropout, at each learning rate and input scaling, beside the paper's."""
    ours = dropout[dropout.metric == "val_accuracy_at_early_stop"]
    accuracies = {tuple(line.split(", ")): sorted(rows.value) for line, rows in ours.groupby("line", sort=False)}
    points = paper.curves("fig36").query("round == 0 and metric == 'val_accuracy_at_early_stop'").set_index("line")
    rates = list(dict.fromkeys(rate for rate, _ in accuracies))
    for rate in rates:
        point = points.loc[f"Conv-2 {rate}"]  # of three trials lowest, mean and highest also tell the third
        accuracies[rate, "the paper"] = sorted([point["min"], 3 * point["mean"] - point["min"] - point["max"], point["max"]])
    said = [f"| pixels | {' | '.join(f'learning rate {rate}' for rate in rates)} |", f"| --- |{' ---: |' * len(rates)}"]
    for pixels in dict.fromkeys(pixels for _, pixels in accuracies):
        said.append(f"| {pixels} | {' | '.join(', '.join(f'{100 * a:.0f}' for a in accuracies[rate, pixels]) + ' %' for rate in rates)} |")
    return "\n".join([*said, ""])


@_told_of(("centred", "laptop"), ("masks", "laptop"), ("masks", "paper"))
def masks_table(centred: pd.DataFrame, short: pd.DataFrame, full: pd.DataFrame) -> str:
    """Tickets of Conv-2 that were found and trained with 3,000 and with 20,000 iterations, beside the paper's, as a Markdown table."""
    brisk = {f"{name} iterations, pruned thrice at once": table.assign(round=3 * table["round"]) for name, table in {"3,000": short, "20,000": full}.items()}
    lines = {"3,000 iterations": centred[centred.line == "Conv-2"]} | brisk
    return _at_rounds(lines, ("test_accuracy_at_early_stop", "early_stop_iteration"), {"20,000 iterations, the paper": ("fig05", "Conv-2")})


def _at_rounds(lines: dict[str, pd.DataFrame], metrics: tuple[str, ...], papers: dict[str, tuple[str, str]] = LENETS, rounds: list[int] | None = None) -> str:
    """Means of lines, and of the paper's, {name: (its figure, its line)}, at some rounds, else those that all lines have, as a Markdown table."""
    rounds = rounds or sorted(set.intersection(*(set(rows["round"]) for rows in lines.values())))
    density = lines[next(iter(lines))].groupby("round").density.first()
    rows = {name: rows.groupby(["metric", "round"]).value.mean() for name, rows in lines.items()}
    for name, their in papers.items():
        sought = {metric: PAPERS_TICKET.get(metric, their) for metric in metrics}
        points = pd.concat([paper.curves(figure).query("line == @line and metric == @metric") for metric, (figure, line) in sought.items()])
        rows[name] = points.groupby(["metric", "round"])["mean"].mean()
    columns = [(metric, r) for metric in metrics for r in rounds]
    said = [f"| tickets | {' | '.join(f'{_quantity(metric)}, {100 * density[r]:.1f} %' for metric, r in columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for name, means in rows.items():
        cells = ["–" if c not in means else f"{means[c]:,.0f}" if means[c] > 1 else f"{100 * means[c]:.2f} %" for c in columns]
        said.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*said, ""]).replace(" %", "\N{NO-BREAK SPACE}%")


@_told_of(("inputs", "laptop"))
def inputs_table(inputs: pd.DataFrame) -> str:
    """Whole Conv-2 networks under each input scaling beside the paper's, as a Markdown table."""
    return _whole_conv2(inputs, {"Adam, 0.0002, the paper": ("fig05", "Conv-2"), "SGD, 0.0005, the paper": ("fig33", "Conv-2 0.0005")})


@_told_of(("inputs", "laptop"), ("precision", "paper"))
def precision_table(inputs: pd.DataFrame, precision: pd.DataFrame) -> str:
    """Whole Conv-2 networks with products in 16 and in 32 bits, beside the paper's, as a Markdown table."""
    halved = inputs[inputs.line == "Adam, 0.0002, raw"].assign(line="Adam, 0.0002, raw, 16 bits")
    return _whole_conv2(pd.concat([halved, precision]), {"Adam, 0.0002, the paper": ("fig05", "Conv-2")})


def _whole_conv2(table: pd.DataFrame, papers: dict[str, tuple[str, str]]) -> str:
    """Early stops and accuracies of whole networks, and of the paper's, {name: (its figure, its line)}, as a Markdown table."""
    columns = ("early_stop_iteration", *(f"{split}_accuracy_at_early_stop" for split in ("val", "test", "train")))
    rows = {line: {metric: rows[rows.metric == metric].value.mean() for metric in columns} for line, rows in table.groupby("line", sort=False)}
    trials = table.groupby("line").trial.nunique()
    for line, (figure, theirs) in papers.items():
        points = paper.curves(figure)
        points = points[(points.line == theirs) & (points["round"] == 0)].drop_duplicates("metric").set_index("metric")["mean"]
        rows[line] = {metric: points.get(metric) for metric in columns}
    said = ["| learning rate, pixels | trials | early stop | validation accuracy | test accuracy | training accuracy |", f"| --- |{' ---: |' * 5}"]
    for line, values in sorted(rows.items(), key=lambda row: row[0].split(", ")[0]):
        cells = ["–" if pd.isna(value) else f"{value:,.0f}" if value > 1 else f"{100 * value:.1f} %" for value in values.values()]
        said.append(f"| {line} | {trials.get(line, '–')} | {' | '.join(cells)} |")
    return "\n".join([*said, ""])


def sharing_table(counts: dict[str, tuple[int, int]]) -> str:
    """How many trainings the figures ask for and how many are distinct, {scale: both}, as a Markdown table."""
    rows = [f"| `{scale}` | {asked:,} | {distinct:,} |" for scale, (asked, distinct) in counts.items()]
    return "\n".join(["| scale | trainings that the figures ask for | distinct |", "| --- | ---: | ---: |", *rows, ""])


def workers_table(simulated: dict) -> str:
    """How long the paper's scale takes on so many workers, and of what that is made, as two Markdown tables.

    simulated: as `bench.cluster` returns it.
    """
    rows = [f"| networks | trainings |{''.join(f' on {count:,} |' for count in SHOWN)} longest chain |", f"| --- | ---: |{' ---: |' * (len(SHOWN) + 1)}"]
    for name, hours in simulated["hours"].items():
        times = [_duration(hours["on"][str(count)]) for count in SHOWN]
        rows.append(f"| {name} | {hours['trainings']:,} | {' | '.join(times)} | {_duration(hours['chain'])} |")
    machine, iteration = simulated["machine"], simulated["iteration"]
    on = f"{machine['device']}, Python {machine['python']}, torch {machine['torch']}"
    rows += ["", f"Milliseconds of an iteration, its share of validation included, measured on one worker ({on}):", "", "| network | ms |", "| --- | ---: |"]
    rows += [f"| {network} | {1000 * seconds:,.{2 * (seconds < 0.01)}f} |" for network, seconds in iteration.items()]
    return "\n".join([*rows, ""])


def _duration(hours: float) -> str:
    for unit, size in (("years", 24 * 365), ("days", 24), ("hours", 1)):
        if hours >= 2 * size:
            return f"{hours / size:,.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{60 * hours:,.0f}\N{NO-BREAK SPACE}minutes"
