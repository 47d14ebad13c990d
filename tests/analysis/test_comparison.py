"""The tables of studies: our means and the paper's, what is missing, and rehearsals."""

import re

import pandas as pd
import pytest

from lottery_nb.analysis import comparison, paper

TEST, STOP = "test_accuracy_at_early_stop", "early_stop_iteration"
PAPERS = {"the paper": [("fig05", "Conv-2")]}


def a_table(scale="laptop", lines=("raw", "centred")):
    """Two trials of each line's rounds 0 and 3; the last line lacks round 3."""
    rows = [
        {"line": line, "metric": metric, "round": r, "density": 1 - r / 10, "trial": trial}
        | {"value": value + trial * (0.02 if metric == TEST else 200)}
        for line in lines
        for r in (0, 3)
        if r == 0 or line != lines[-1]
        for trial in (0, 1)
        for metric, value in ((TEST, 0.6), (STOP, 2_000))
    ]
    table = pd.DataFrame(rows, columns=["line", "metric", "round", "density", "trial", "value"])
    table.attrs |= {"lines": ["raw", "centred"], "scale": scale}
    return table


def cells(html):
    """The rows of an HTML table, its head first."""
    rows = re.findall("<tr>(.*?)</tr>", html.data, re.S)
    of_rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]
    return [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in of_rows]


def at_rounds(table, **how):
    return comparison.at_rounds(table, [TEST, STOP], PAPERS, "study_x", "laptop", **how)


def papers_mean(metric, r):
    points = paper.curves("fig05").query("line == 'Conv-2' and metric == @metric and round == @r")
    return points["mean"].mean()


def test_rounds_that_all_lines_have():
    head, *rows = cells(at_rounds(a_table()))
    assert head == ["tickets", "test accuracy, 100.0 %", "early stop, 100.0 %"]
    assert rows == [
        ["raw", "61.00 %", "2,100"],
        ["centred", "61.00 %", "2,100"],
        ["the paper", f"{100 * papers_mean(TEST, 0):.2f} %", f"{papers_mean(STOP, 0):,.0f}"],
    ]


def test_rounds_that_are_named():
    head, *rows = cells(at_rounds(a_table(), rounds=(0, 3, 7)))
    assert head[1:3] == ["test accuracy, 100.0 %", "test accuracy, 70.0 %"]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["centred"] == ["61.00 %", "–", "2,100", "–"]
    assert by_name["the paper"][1] == f"{100 * papers_mean(TEST, 3):.2f} %"


def test_what_would_be_wider_than_the_page_stands_the_other_way_round():
    narrow = cells(at_rounds(a_table(), rounds=(0, 3)))
    metrics = [TEST, STOP, "val_loss_at_early_stop"]
    wide = cells(comparison.at_rounds(a_table(), metrics, PAPERS, "study_x", "laptop", (0, 3)))
    lines = [row[0] for row in narrow[1:]]
    assert wide[0] == ["mean", *lines]
    assert [row[0] for row in wide[1:5]] == narrow[0][1:]
    for j, row in enumerate(narrow[1:], 1):
        assert [each[j] for each in wide[1:5]] == row[1:]


def test_a_point_comes_from_the_first_place_that_has_it():
    places = comparison._theirs(a_table(), comparison.LENET)["the paper"]
    assert ("val_accuracy_at_early_stop", 7) in places, "Figure 29 has it, Figure 4 does not"
    mine = paper.curves("fig04")
    mine = mine[(mine.line == "winning ticket (iterative)") & (mine["round"] == 7)]
    assert places[STOP, 7] == pytest.approx(mine[mine.metric == STOP]["mean"].mean())


def test_dense_networks_that_are_named_alike_stand_together():
    table = a_table(lines=("SGD, raw", "Adam, raw"))
    table.attrs["lines"] = ["SGD, raw", "Adam, raw"]
    papers = {"Adam, the paper": [("fig05", "Conv-2")]}
    head, *rows = cells(comparison.dense_networks(table, papers, "study_x", "laptop"))
    assert head == ["networks", "trials", "early stop"] + [
        f"{which} accuracy" for which in ("validation", "test", "training")
    ]
    assert [row[0] for row in rows] == ["Adam, raw", "Adam, the paper", "SGD, raw"]
    assert rows[0][1:] == ["2", "2,100", "–", "61.0 %", "–"]
    assert rows[1][1:4] == ["–", f"{papers_mean(STOP, 0):,.0f}", "–"]


def test_the_paper_does_not_stand_beside_a_rehearsal_and_a_rehearsal_is_said_to_be_one():
    html = at_rounds(a_table(scale="smoke"))
    assert [row[0] for row in cells(html)] == ["tickets", "raw", "centred"]
    assert "from a run at smoke scale" in html.data
    assert "about the run at laptop scale" in html.data
    assert "from a run at" not in at_rounds(a_table()).data


def test_what_is_not_trained_is_said_with_the_command_that_trains_it():
    command = "python -m lottery_nb run study_x --scale laptop"
    nothing = at_rounds(a_table(lines=()))
    assert "<table" not in nothing.data
    assert f"<p>Not trained yet: <code>{command}</code>, then <code>store freeze" in nothing.data
    part = at_rounds(a_table(lines=("raw",)))
    assert "Not trained yet (centred): " in part.data
    assert {row[0]: row[1:] for row in cells(part)}["centred"] == ["–", "–"]
    assert "Not trained" not in at_rounds(a_table()).data


@pytest.mark.parametrize(
    ("value", "metric", "said"),
    [
        (None, TEST, "–"),
        (float("nan"), TEST, "–"),
        (0.0, TEST, "0.00 %"),
        (1.0, TEST, "100.00 %"),
        (1.0, STOP, "1"),
        (0.25, "val_loss_at_end", "0.250"),
    ],
)
def test_numbers_are_said_as_their_metric_wants(value, metric, said):
    assert comparison.number(value, metric).replace("\N{NO-BREAK SPACE}", " ") == said


def test_every_quantity_that_the_paper_plots_has_words():
    for metric in paper._points().metric.unique():
        if " " not in metric:
            assert comparison.quantity(metric)
    assert comparison.quantity("test_accuracy_at_checkpoint_2") == "test accuracy at checkpoint 2"
    assert comparison.quantity("val_accuracy_at_end") == "validation accuracy at the end"
