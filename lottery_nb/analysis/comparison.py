"""Tables of studies: our trainings beside the paper's.

A study, `notebooks/study_<question>.ipynb`, trains what isolates one cause of a difference and ends
in a table. What several studies need for it is here; what only one needs is in its notebook. At
smoke scale the paper's rows are left out, for the data are others.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from . import paper

QUANTITIES = {
    "early_stop_iteration": "early stop",
    "early_stop_iteration_test": "early stop by test loss",
    "val_loss": "validation loss",
    "test_accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
}
# {name of a row: where the paper draws it, as (figure, line)}
Papers = Mapping[str, Iterable[tuple[str, str]]]
WIDE = 5  # columns of numbers, of which a page has room for no more
Means = dict[str, dict[tuple[str, int], float]]  # {name of a row: {(metric, round): mean}}
# Lenet's winning tickets; only Figure 29 has their validation accuracy
LENET: Papers = {"the paper": (("fig04", "winning ticket (iterative)"), ("fig29", "0.2"))}
DENSE = (
    "early_stop_iteration",
    "val_accuracy_at_early_stop",
    "test_accuracy_at_early_stop",
    "train_accuracy_at_early_stop",
)


def quantity(metric: str) -> str:
    """A metric in words, such as "test accuracy at the end"; where no moment is said, it is early
    stop."""
    what, _, moment = metric.partition("_at_")
    moments = {"": "", "early_stop": "", "early_stop_test": "", "end": " at the end"}
    return QUANTITIES[what] + moments.get(moment, f" at {moment.replace('_', ' ')}")


def at_rounds(
    table: pd.DataFrame,
    metrics: Iterable[str],
    papers: Papers,
    study: str,
    scale: str,
    rounds: Iterable[int] | None = None,
):
    """Means of our lines, then of the paper's, at some rounds of pruning: a row a line, a column
    for each metric and round, or the other way round where that would be wider than the page.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    metrics : iterable of str
        Such as "test_accuracy_at_early_stop": accuracies, losses or iterations.
    papers : dict of str to iterable of (str, str)
        The rows of the paper's: by their names the places where it draws them, as (figure, line). A
        point is taken from the first place that has it.
    study, scale : str
        The study's name, such as "study_length", and the scale at which it is trained.
    rounds : iterable of int, optional
        None: the rounds that all lines have. Of those named, the ones that any line has.

    Returns
    -------
    IPython.display.HTML
        The table; a dash stands where a line lacks a round. See `show`.

    Examples
    --------
    ::

        plan = {"raw": conv2.iterative().at_rounds(0, 3)}
        table = run(plan, scale=scale, trials=trials, figure="study_tickets")
        metrics = ["test_accuracy_at_early_stop"]
        comparison.at_rounds(
            table, metrics, {"the paper": [("fig05", "Conv-2")]}, "study_tickets", "laptop"
        )
    """
    means = _ours(table) | _theirs(table, papers)
    density = table.groupby("round").density.first()
    of_lines = [set(rows["round"]) for _, rows in table.groupby("line")]
    shared = set.intersection(*of_lines) if of_lines else set()
    shown = sorted(shared if rounds is None else set(rounds) & set(density.index))
    columns = [(metric, r) for metric in metrics for r in shown]
    rows = [
        {"tickets": name}
        | {
            f"{quantity(metric)}, {_percent(density[r], 1)}": number(found.get((metric, r)), metric)
            for metric, r in columns
        }
        for name, found in means.items()
    ]
    shown_means = pd.DataFrame(rows)
    if len(columns) > WIDE:
        shown_means = shown_means.set_index("tickets").T.rename_axis("mean").reset_index()
    return show(shown_means, table, study, scale)


def dense_networks(table: pd.DataFrame, papers: Papers, study: str, scale: str):
    """Early stops and accuracies of dense networks, ours and the paper's: a row a line.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `run`.
    papers : dict of str to iterable of (str, str)
        The rows of the paper's, as in `at_rounds`. Rows whose names are alike up to the first comma
        stand together.
    study, scale : str
        The study's name, such as "study_pixels", and the scale at which it is trained.

    Returns
    -------
    IPython.display.HTML
        The table, with how many trials a row of ours is the mean of. See `show`.
    """
    means = _ours(table) | _theirs(table, papers)
    trials = table.groupby("line").trial.nunique()
    rows = [
        {"networks": name, "trials": trials.get(name, "–")}
        | {quantity(metric): number(found.get((metric, 0)), metric, 1) for metric in DENSE}
        for name, found in means.items()
    ]
    rows.sort(key=lambda row: row["networks"].partition(",")[0])
    return show(pd.DataFrame(rows), table, study, scale)


def show(shown: pd.DataFrame, table: pd.DataFrame, study: str, scale: str):
    """A study's table for its page, and below it what a reader must know besides.

    Lines that are not trained are named with the commands that train them. A run at another scale
    than the study's own, such as a rehearsal, is said to be one.

    Parameters
    ----------
    shown : pandas.DataFrame
        What the page shows, a row a line. It is left out where nothing is trained.
    table : pandas.DataFrame
        Of `run`: what `shown` was made of.
    study, scale : str
        The study's name, such as "study_pixels", and the scale at which it is trained.

    Returns
    -------
    IPython.display.HTML
    """
    from IPython.display import HTML

    trained = set(table.line)
    lacks = [line for line in table.attrs["lines"] if line not in trained]
    parts = [as_table(shown, study)] if trained else []
    if lacks:
        which = f" ({'; '.join(lacks)})" if trained else ""
        command = f"python -m lottery_nb run {study} --scale {scale}"
        parts.append(
            f"<p>Not trained yet{which}: <code>{command}</code>, then <code>store freeze</code> "
            "likewise.</p>"
        )
    if trained and (at := table.attrs["scale"]) != scale:
        parts.append(
            f"<p>These numbers are from a run at {at} scale. The words on this page, and the "
            f"lengths in the names above, are about the run at {scale} scale.</p>"
        )
    return HTML("\n".join(parts))


def as_table(shown: pd.DataFrame, name: str) -> str:
    """A table of the book as HTML: its name keeps it the same from run to run."""
    return (
        shown.style.set_table_attributes('class="dataframe claims"').set_uuid(name).hide().to_html()
    )


def _ours(table: pd.DataFrame) -> Means:
    """Our means, for each line."""
    means = table.groupby(["line", "metric", "round"]).value.mean()
    return {line: means[line].to_dict() if line in means else {} for line in table.attrs["lines"]}


def _theirs(table: pd.DataFrame, papers: Papers) -> Means:
    """The paper's means, for each of its rows; none beside our numbers of smoke scale."""
    means: Means = {}
    for name, places in papers.items() if table.attrs["scale"] != "smoke" else ():
        means[name] = {}
        for figure, line in places:
            points = paper.curves(figure)
            drawn = points[points.line == line].groupby(["metric", "round"])["mean"].mean()
            means[name] = drawn.to_dict() | means[name]
    return means


def number(value: float | None, metric: str, decimals: int = 2) -> str:
    """A measurement as a table shows it; a dash for none."""
    if value is None or pd.isna(value):
        return "–"
    if "iteration" in metric:
        return f"{value:,.0f}"
    return f"{value:.3f}" if "loss" in metric else _percent(value, decimals)


def _percent(share: float, decimals: int) -> str:
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"
