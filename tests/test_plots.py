"""What is inside the axes, never pixels."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_lottery import tiny

from lottery_nb import paper, plots, run

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def table():
    plan = {"winning ticket (iterative)": tiny.iterative(), "random reinit (iterative)": tiny.iterative().reinitialised(2)}
    return run(plan, scale="paper")


def test_means_bars_and_axis(table):
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax)
    rows = table[(table.line == "winning ticket (iterative)") & (table.metric == "test_accuracy_at_early_stop")]
    x, y = np.array(ax.containers[0].lines[0].get_data(), dtype=float)
    expected = rows.groupby("round")[["density", "value"]].mean()
    np.testing.assert_allclose(x, 100 * expected.density)
    np.testing.assert_allclose(y, 100 * expected.value)
    bars = ax.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(np.array([bar[:, 1] for bar in bars], dtype=float), 100 * rows.groupby("round").value.agg(["min", "max"]))
    assert ax.get_xlim()[0] > ax.get_xlim()[1], "networks get smaller to the right"
    assert ax.get_xlabel() == "Weights remaining (%)"
    markers = [container.lines[0].get_marker() for container in ax.containers]
    assert len(set(markers)) == len(markers), "lines can be told apart without colour"


def test_the_papers_curve_lies_underneath_in_the_same_colour(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    behind = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert len(behind) == 2
    theirs = paper.curves("fig04", 1)
    theirs = theirs[theirs.line == "winning ticket (iterative)"].sort_values("density")
    np.testing.assert_allclose(behind[0].get_xdata(), 100 * theirs.density)
    np.testing.assert_allclose(behind[0].get_ydata(), theirs["mean"] / 1000)
    ours = ax.containers[0].lines[0]
    assert behind[0].get_color() == ours.get_color()
    assert behind[0].get_zorder() < ours.get_zorder()


def test_no_paper_at_smoke_scale(table):
    table.attrs["scale"] = "smoke"
    figure, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    plots.legend(figure, [ax])
    assert not [line for line in ax.lines if line.get_linestyle() == ":"]
    assert len(figure.legends[0].get_texts()) == 2


def test_the_end_of_a_shorter_training_is_marked(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    assert "our training ends" in [text.get_text() for text in ax.texts]


def test_colours_stay_with_their_lines(table):
    _, [both, one] = plots.panels(1, 2)
    plots.accuracy_vs_density(table, both)
    plots.accuracy_vs_density(table, one, lines=["random reinit (iterative)"])
    assert one.containers[0].lines[0].get_color() == both.containers[1].lines[0].get_color()


def test_curves():
    table = run({"winning ticket": tiny.iterative().at_rounds(0, 3).with_curves()}, scale="paper")
    figure, [ax, key] = plots.panels(1, 2)
    plots.curves(table, ax, [("winning ticket", 0), ("winning ticket", 3), ("winning ticket", 18)], paper="fig03")
    ours = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(ours) == 2, "a round that the scale lacks is left out"
    rows = table[(table["round"] == 3) & (table.metric == "test_accuracy")]
    np.testing.assert_allclose(ours[1].get_ydata(), 100 * rows.groupby("iteration").value.mean())
    assert ax.get_legend_handles_labels()[1] == ["100.0 %", "51.3 %"]
    plots.legend(figure, [ax, ax], at=key)
    assert [text.get_text() for text in key.get_legend().get_texts()] == ["100.0 %", "51.3 %", "the paper"]
