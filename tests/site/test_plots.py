"""What is inside the axes, never pixels."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from shared import tiny

from lottery_nb import run
from lottery_nb.analysis import paper
from lottery_nb.site import plots

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def table():
    plan = {
        "winning ticket (iterative)": tiny.iterative(),
        "random reinit (iterative)": tiny.iterative().reinitialised(2),
    }
    return run(plan, scale="paper")


def test_means_bars_and_axis(table):
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax)
    rows = table[
        (table.line == "winning ticket (iterative)")
        & (table.metric == "test_accuracy_at_early_stop")
    ]
    x, y = np.array(ax.containers[0].lines[0].get_data(), dtype=float)
    expected = rows.groupby("round")[["density", "value"]].mean()
    np.testing.assert_allclose(x, 100 * expected.density)
    np.testing.assert_allclose(y, 100 * expected.value)
    bars = ax.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(
        np.array([bar[:, 1] for bar in bars], dtype=float),
        100 * rows.groupby("round").value.agg(["min", "max"]),
    )
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
    plots.curves(
        table,
        ax,
        [("winning ticket", 0), ("winning ticket", 3), ("winning ticket", 18)],
        paper="fig03",
    )
    ours = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(ours) == 2, "a round that the scale lacks is left out"
    rows = table[(table["round"] == 3) & (table.metric == "test_accuracy")]
    np.testing.assert_allclose(ours[1].get_ydata(), 100 * rows.groupby("iteration").value.mean())
    assert ax.get_legend_handles_labels()[1] == ["100.0 %", "51.3 %"]
    plots.legend(figure, [ax, ax], at=key)
    assert [text.get_text() for text in key.get_legend().get_texts()] == [
        "100.0 %",
        "51.3 %",
        "the paper",
    ]


def test_weights_remaining_instead_of_density(table):
    _, [ax] = plots.panels(1, 1)
    lines = dict.fromkeys(table.line.unique(), 50000)
    plots.accuracy_vs_density(table, ax, weights=lines, ordered=True)
    assert ax.containers[0].lines[0].get_xdata()[0] == 50
    assert ax.get_xlabel() == "Weights remaining (thousands)"
    assert ax.get_xlim()[0] > 50


def test_a_legend_counts_the_trainings_of_all_panels(table):
    figure, axes = plots.panels(1, 2)
    for ax, rows in zip(axes, (table, table[(table.trial == 0) & (table.draw == 0)])):
        rows.attrs = table.attrs
        plots.accuracy_vs_density(rows, ax)
    plots.legend(figure, axes)
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [
        "winning ticket (iterative) (n = 1 to 2)",
        "random reinit (iterative) (n = 1 to 4)",
    ]


def test_a_diverged_training_is_marked_and_named(table):
    table.loc[
        (table.metric == "diverged")
        & (table["round"] == 2)
        & (table.trial == 0)
        & (table.line == "winning ticket (iterative)"),
        "value",
    ] = 1.0
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax)
    [cross] = [line for line in ax.lines if line.get_marker() == "x"]
    assert cross.get_label() == plots.DIVERGED
    assert cross.get_xdata()[0] == pytest.approx(64, abs=0.5)
    low, high = ax.get_ylim()
    assert low <= cross.get_ydata()[0] <= high


def test_lines_of_one_network_lose_its_name(table):
    table["line"] = "Lenet " + table.line
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax, network="Lenet")
    assert [container.get_label() for container in ax.containers] == [
        "winning ticket (iterative)",
        "random reinit (iterative)",
    ]
    assert ax.get_title("left") == "Lenet"


@pytest.mark.parametrize(
    "ours, whole, lowest", [(0.98, 0.98, None), (0.6, 0.6, 59.7), (0.6, 0.5, 49.7)]
)
def test_accuracy_is_drawn_as_low_as_in_the_paper_or_as_our_lines(table, ours, whole, lowest):
    measured = table.metric == "test_accuracy_at_early_stop"
    table.loc[measured, "value"] = ours
    table.loc[measured & (table["round"] == 0), "value"] = whole
    table.loc[
        measured & (table["round"] == 1) & (table.line == "winning ticket (iterative)"), "value"
    ] = 0.1  # learns nothing
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax, paper="fig04")
    assert ax.get_ylim()[0] == pytest.approx(
        lowest or 100 * paper.curves("fig04", 2)["min"].min() - 0.3
    )


def test_distributions():
    tickets = tiny.iterative().at_rounds(0, 3)
    table = run(
        tickets.by_layer(
            "initial weights", "first hidden layer", "second hidden layer", "output layer"
        ),
        scale="paper",
    )
    figure = plots.distributions(
        table, [(None, r, list(table.line.unique())) for r in (0, 3, 8)], paper="fig15"
    )
    first, third, missing, key = figure.axes
    assert [
        len([line for line in ax.lines if line.get_linestyle() == "-"])
        for ax in (first, third, missing)
    ] == [3, 3, 0]
    assert [ax.get_title("left") for ax in (first, third)] == [
        "100.0 % of the weights remain",
        "51.3 % of the weights remain",
    ]
    assert len([line for line in first.lines if line.get_linestyle() == ":"]) == 3, (
        "the paper has these at round 0"
    )
    assert missing.texts[0].get_text() == "round 8: not at this scale"
    assert [text.get_text() for text in key.get_legend().get_texts()] == [
        "first hidden layer",
        "second hidden layer",
        "output layer",
        "the paper",
    ]


def test_a_narrower_network_fades_the_paper_and_its_legend_says_so(table):
    table["line"] = "Conv-2 " + table.line.map(
        {"winning ticket (iterative)": "0.0002", "random reinit (iterative)": "0.0003"}
    )
    table.attrs["narrower"] = True
    figure = plots.speed_and_accuracy_by_network(
        table, "val_accuracy_at_early_stop", ["Conv-2"], paper="fig32", ordered=True
    )
    left, right = figure.axes
    behind = [line for line in left.lines if line.get_linestyle() == ":"]
    assert [line.get_alpha() for line in behind] == [plots.BEHIND["alpha"] / 2] * 2
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "0.0002 (n = 2)",
        "0.0003 (n = 4)",
        "the paper, full width",
    ]
    assert left.get_title("left") == "Conv-2: early-stop iteration (thousands)"


def test_a_network_without_results_leaves_the_others_drawn(table):
    table["line"] = "Conv-2 " + table.line
    first, _, third, fourth = plots.speed_and_accuracy_by_network(
        table, "val_accuracy_at_early_stop", ["Conv-2", "Conv-4"]
    ).axes
    assert first.containers
    assert [text.get_text() for ax in (third, fourth) for text in ax.texts] == [
        "not trained at this scale yet"
    ] * 2
    assert fourth.get_legend() is None


def test_the_papers_curves_stand_alone_where_ours_are_not_trained(table):
    rates = ["0.0001", "0.0002"]
    table["line"] = "Conv-2 0.0002"
    table.attrs["lines"] = [
        f"{network} {rate}" for network in ("Conv-2", "Conv-4") for rate in rates
    ]
    first, second, third, fourth = plots.speed_and_accuracy_by_network(
        table, "val_accuracy_at_early_stop", ["Conv-2", "Conv-4"], paper="fig32", ordered=True
    ).axes
    assert [text.get_text() for ax in (third, fourth) for text in ax.texts] == [
        "not trained at this scale yet"
    ] * 2
    assert not third.containers and len(third.lines) == 2
    assert [text.get_text() for text in fourth.get_legend().get_texts()] == [*rates, "the paper"]
    ours = {container.get_label(): container.lines[0].get_color() for container in first.containers}
    theirs = {line.get_label(): line.get_color() for line in third.lines}
    assert ours == {"0.0002": theirs["0.0002"]}, (
        "a line keeps its colour whichever others are trained"
    )


def test_a_legend_tells_n_once_where_all_lines_have_as_many(table):
    figure, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table[table.draw == 0], ax)
    plots.legend(figure, [ax])
    [key] = figure.legends
    assert key.get_title().get_text() == "n = 2"
    assert [text.get_text() for text in key.get_texts()] == list(table.line.unique())


def test_a_legend_tells_where_some_points_have_fewer_networks(table):
    figure, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(
        table[(table.draw == 0) & ((table["round"] < 2) | (table.trial == 0))], ax
    )
    plots.legend(figure, [ax])
    assert figure.legends[0].get_title().get_text() == "n = 1 to 2"


def test_pairs_share_a_colour_and_differ_in_dash(table):
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax, paired=True)
    one, other = (container.lines[0] for container in ax.containers)
    assert one.get_color() == other.get_color()
    assert (one.get_linestyle(), other.get_markerfacecolor()) == ("-", "white")
    assert other.get_linestyle() != "-"


def test_a_panel_without_results_says_so(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, network="Conv-2")
    assert [text.get_text() for text in ax.texts] == ["not trained at this scale yet"]
