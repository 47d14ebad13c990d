"""What is inside the axes, never pixels."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from shared import tiny

from lottery_nb import run
from lottery_nb.analysis import paper
from lottery_nb.site import notebooks, pictures, plots, readings
from lottery_nb.site.plots import labels, marks, style

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def said(key):
    """What a legend lists."""
    return [text.get_text() for text in key.get_texts()]


def beside(ax):
    """The names that stand beside lines."""
    return {text.get_text() for text in ax.texts if text.get_gid() == "name"}


def the_papers(ax):
    return [line for line in ax.lines if line.get_gid() == "paper"]


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
    behind = the_papers(ax)
    assert len(behind) == 2
    assert [line.get_linestyle() for line in behind] == ["-", "--"], "as ours: controls are dashed"
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
    assert not the_papers(ax)
    assert said(figure.legends[0]) == [""]


def test_the_end_of_a_shorter_training_is_marked(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    assert "our training ends" in [text.get_text() for text in ax.texts]


def test_what_lies_far_above_our_training_does_not_press_it_flat(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    ends = table.iteration[table.metric == "test_accuracy_at_end"].iloc[0] / 1000
    assert ax.get_ylim() == (0, pytest.approx(marks.FAR * ends))
    assert "the paper: up to 38" in [text.get_text() for text in ax.texts]


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
    ours = [line for line in ax.lines if line not in the_papers(ax)]
    assert len(ours) == 2, "a round that the scale lacks is left out"
    rows = table[(table["round"] == 3) & (table.metric == "test_accuracy")]
    np.testing.assert_allclose(ours[1].get_ydata(), 100 * rows.groupby("iteration").value.mean())
    assert ax.get_legend_handles_labels()[1] == ["100.0 %", "51.3 %"]
    plots.legend(figure, [ax, ax], at=key)
    assert beside(ax) == {"100.0 %", "51.3 %"}
    assert not the_papers(ax) and said(key.get_legend()) == [""], "theirs begins after our end"


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
    n = "n: winning ticket (iterative) 1 to 2, random reinit (iterative) 1 to 4"
    assert figure.legends[0].get_title().get_text() == n
    assert all(beside(ax) == set(table.line) for ax in axes)


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
    assert cross.get_label() == marks.DIVERGED
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
        len([line for line in ax.lines if line not in the_papers(ax)])
        for ax in (first, third, missing)
    ] == [3, 3, 0]
    assert [ax.get_title("left") for ax in (first, third)] == [
        "100.0 % of the weights remain",
        "51.3 % of the weights remain",
    ]
    assert len(the_papers(first)) == 3, "the paper has these at round 0"
    assert missing.texts[0].get_text() == "round 8: not at this scale"
    assert said(key.get_legend()) == ["thin: the paper"]
    assert beside(first) == {"first hidden layer", "second hidden layer", "output layer"}
    _, [ax] = plots.panels(1, 1)
    plots.distribution(table, ax, ["not trained", "output layer"], 0)
    assert len(ax.lines) == 1, "a line that is not trained is left out"


METRICS = ["early_stop_iteration", "val_accuracy_at_early_stop"]


def test_a_narrower_network_fades_the_paper_and_its_legend_says_so(table):
    table["line"] = "Conv-2 " + table.line.map(
        {"winning ticket (iterative)": "0.0002", "random reinit (iterative)": "0.0003"}
    )
    table.attrs["narrower"], table.attrs["lines"] = True, list(table.line.unique())
    figure = plots.by_network(table, METRICS, ["Conv-2"], paper="fig32", ordered=True)
    left, _ = figure.axes
    assert [line.get_alpha() for line in the_papers(left)] == [style.BEHIND["alpha"] / 2] * 2
    assert said(figure.legends[0]) == [  # one panel's lines lie below it, so all are listed
        "0.0002 (n = 2)",
        "0.0003 (n = 4)",
        "thin: the paper, full width",
    ]
    assert left.get_title("left") == "Conv-2: early-stop iteration (thousands)"


def test_what_is_not_trained_takes_words_and_no_panel(table):
    table["line"] = "Conv-2 " + table.line
    lines = list(table.line.unique())
    table.attrs["lines"] = [*lines, "Conv-2 other", "Conv-4 a", "Conv-4 b"]
    figure = plots.by_network(table, METRICS, ["Conv-2", "Conv-4"])
    assert len(figure.axes) == 2
    title = figure.legends[0].get_title().get_text()
    assert title.endswith("Not trained yet: Conv-4, Conv-2 other")


def test_a_network_begins_a_row(table, tmp_path, monkeypatch):
    table["line"] = "Conv-2 " + table.line
    other = table.assign(line=table.line.str.replace("Conv-2", "Conv-4"))
    both = pd.concat([table, other])
    both.attrs |= {"lines": list(both.line.unique()), "conditions": {}}
    figure = plots.by_network(both, [*METRICS, METRICS[1]], ["Conv-2", "Conv-4"])
    titles = [ax.get_title("left")[:6] for ax in figure.axes]
    assert titles == ["Conv-2"] * 3 + [""] + ["Conv-4"] * 3 + [""]
    assert not figure.axes[3].axison and figure.axes[7].get_legend()
    figure.draw_without_rendering()
    monkeypatch.setattr(pictures, "PAGES", tmp_path)
    kept = pictures.panels_of(figure, "picture")
    assert [panel.begins_row for panel in kept] == [*[False] * 3, True, *[False] * 3]
    assert kept[-1].title == "Legend"


def test_where_nothing_is_trained_the_papers_curves_stand_alone(table):
    lines = ["Conv-2 0.0001", "Conv-2 0.0002"]
    empty = table[:0]
    empty.attrs |= {"lines": lines, "conditions": {}}
    figure = plots.by_network(empty, METRICS, ["Conv-2"], paper="fig32", ordered=True)
    assert [len(the_papers(ax)) for ax in figure.axes] == [2, 2]
    assert not any(ax.containers for ax in figure.axes)
    assert [text.get_text() for text in figure.axes[0].texts] == ["not trained at this scale yet"]


def test_no_line_leads_across_what_is_not_trained(table):
    rows = table[(table.line == "random reinit (iterative)") & table["round"].isin([1, 3])]
    whole = table[table.line != "random reinit (iterative)"]
    first = rows.assign(**{"round": rows["round"].replace(3, 2)})
    table = pd.concat([whole, first, rows[rows["round"] == 3].assign(round=4)])
    table.attrs = whole.attrs
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax)
    drawn = np.asarray(ax.containers[1].lines[0].get_ydata(), dtype=float)
    assert np.isnan(drawn).sum() == 1 and np.isnan(drawn[2]), "a gap where round 3 is missing"


def test_a_condition_has_its_colour_whatever_stands_beside_it():
    plan = {
        "sparse": tiny.random_sparse(),
        "reinit": tiny.iterative().reinitialised(),
        "ticket": tiny.iterative(),
    }
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(run(plan, scale="paper", quiet=True), ax)
    colours = {each.get_label(): each.lines[0].get_color() for each in ax.containers}
    assert colours == {"ticket": "#0072B2", "reinit": "#E69F00", "sparse": "#009E73"}


def test_a_sweep_is_maps_of_one_scale_ours_beside_the_papers(table):
    table["line"] = table.line.map(
        {"winning ticket (iterative)": "0.0012", "random reinit (iterative)": "0.002"}
    )
    table.attrs["lines"] = ["0.0012", "0.002", "0.0032"]
    figure = plots.sweep(table, METRICS[1], paper="fig26", of="Learning rate")
    stop, their_stop, accuracy, their_accuracy, less_stop, less, *bars = figure.axes
    assert len(bars) == 6
    for ours, theirs in ((stop, their_stop), (accuracy, their_accuracy)):
        assert ours.get_xlim() == theirs.get_xlim()
        assert [m.get_clim() for m in ours.collections[:1]] == [
            m.get_clim() for m in theirs.collections[:1]
        ]
        assert [text.get_text() for text in ours.get_yticklabels()] == ["0.0012", "0.002", "0.0032"]
    assert [text.get_text() for text in stop.texts] == ["not trained yet"]
    of_a_line = table[(table.line == "0.0012") & (table.metric == METRICS[1])]
    means = 100 * of_a_line.groupby("round").value.mean().sort_index(ascending=False)
    np.testing.assert_allclose(accuracy.collections[0].get_array().ravel(), means)
    curve = paper.curves("fig26").query("line == '0.0012' and metric == @METRICS[1]")
    theirs = 100 * curve.drop_duplicates("round").set_index("round")["mean"]
    shared = means.index.intersection(theirs.index)
    np.testing.assert_allclose(
        less.collections[0].get_array().ravel(), (means - theirs)[shared.sort_values()[::-1]]
    )
    assert less.get_title("left").endswith("ours − the paper's")
    table.attrs["narrower"] = True
    assert len(plots.sweep(table, METRICS[1], paper="fig26").axes) == 8, "of other networks"
    table.attrs["scale"] = "smoke"
    assert len(plots.sweep(table, METRICS[1], paper="fig26").axes) == 4, "two maps and their bars"


def test_narrower_networks_and_the_papers_have_panels_of_their_own():
    recipe = tiny.but(checkpoints=(2, 3), evaluate_every=1)
    table = run({"rate 0.1": recipe.iterative()}, scale="paper", quiet=True)
    figure = plots.accuracy_at_checkpoints(table, "test_accuracy", paper="fig07")
    assert len(figure.axes) == 4
    table.attrs["narrower"] = True
    figure = plots.accuracy_at_checkpoints(table, "test_accuracy", paper="fig07")
    ours, theirs, *_ = figure.axes
    assert len(figure.axes) == 6
    assert not the_papers(ours) and ours.containers
    assert theirs.lines and not theirs.containers
    assert theirs.get_title("left") == "The paper: test accuracy (%), checkpoint 1"
    [line] = readings.drawn(theirs)
    assert (line.name, len(line.points), len(line.papers) > 10) == ("rate 0.1", 0, True)
    assert beside(theirs) == beside(ours) == {"rate 0.1"}


def test_a_legend_tells_n_once_where_all_lines_have_as_many(table):
    figure, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table[table.draw == 0], ax)
    plots.legend(figure, [ax])
    [key] = figure.legends
    assert key.get_title().get_text() == "n = 2"
    assert beside(ax) == set(table.line)


def test_a_legend_tells_where_some_points_have_fewer_networks(table):
    figure, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(
        table[(table.draw == 0) & ((table["round"] < 2) | (table.trial == 0))], ax
    )
    plots.legend(figure, [ax])
    assert figure.legends[0].get_title().get_text() == "n = 1 to 2"


def test_a_claim_is_marked_where_it_happens(monkeypatch):
    """The arrow leads from the dense network's mean to the ticket's, and the number is the
    claim's."""
    monkeypatch.delenv("LOTTERY_RESULTS")
    [figure] = notebooks.named(["fig04"])
    table = run(figure.plan, scale="committed", quiet=True)
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    plots.legend(ax.figure, [ax])
    [arrow] = [line for line in ax.lines if line.get_gid() == labels.MARK]
    [text] = [text for text in ax.texts if text.get_gid() == labels.MARK]
    rows = table[(table.line == "winning ticket (iterative)")]
    means = rows[rows.metric == "early_stop_iteration"].groupby("round").value.mean()
    assert arrow.get_ydata() == pytest.approx([means[0] / 1000, means[7] / 1000])
    assert arrow.get_xdata() == pytest.approx([21.07, 21.07], abs=0.01)
    number, unit = text.get_text().split(" ", 1)
    assert unit == "% at 21.1 %\nagainst dense"
    # The claim's is the mean over trials of their ratios.
    assert float(number.replace("−", "-")) == pytest.approx(100 * (means[7] / means[0] - 1), abs=6)
    where = text.get_window_extent()
    assert ax.bbox.contains(*where.min) and ax.bbox.contains(*where.max)


def test_a_map_frames_the_rows_that_a_claim_compares(monkeypatch):
    monkeypatch.delenv("LOTTERY_RESULTS")
    [figure] = notebooks.named(["fig26"])
    table = run(figure.plan, scale="committed", quiet=True)
    stop, theirs, *_ = plots.sweep(table, METRICS[1], paper="fig26").axes
    rates = [text.get_text() for text in stop.get_yticklabels()]
    compared_with, about = stop.patches
    assert not theirs.patches
    assert [rates[round(frame.get_y())] for frame in (compared_with, about)] == ["0.0002", "0.0012"]
    assert [frame.get_linestyle() for frame in (compared_with, about)] == ["--", "-"]
    rows = table[(table.line == "0.0012") & (table.metric == METRICS[0])]
    framed = rows.density[rows.density.between(0.1, 0.6)] * 100
    left, right = about.get_x(), about.get_x() + about.get_width()
    inside = rows.density.mul(100).between(*sorted((left, right)))
    assert set(rows.density[inside] * 100) == set(framed)
    means = [
        table[(table.metric == METRICS[0]) & (table.line == rate) & table.density.between(0.1, 0.6)]
        .groupby("trial")
        .value.mean()
        for rate in ("0.0012", "0.0002")
    ]
    [text] = stop.texts
    number = float(text.get_text().replace("−", "-").removesuffix(" %"))
    assert number == pytest.approx(100 * (means[0] / means[1] - 1).mean(), abs=0.06)


@pytest.mark.parametrize("many", [3, 8])
def test_no_file_of_a_picture_is_wider_than_a_panel(many, table, tmp_path, monkeypatch):
    """Nor is a legend shrunk to fit, or stretched to a panel's height."""
    monkeypatch.setattr(pictures, "PAGES", tmp_path)
    names = [f"winning tickets of rate {i}" for i in range(many)]
    lines = pd.concat(
        [table[table.line == "winning ticket (iterative)"].assign(line=name) for name in names]
    )
    lines.attrs = table.attrs | {"lines": names, "conditions": {}}
    figure, axes = plots.panels(2, 2)
    for ax in axes[:3]:
        plots.early_stop_vs_density(lines, ax)
    plots.legend(figure, axes[:3], at=axes[3] if many == 3 else None)
    figure.draw_without_rendering()
    drawn = axes[0].bbox.height * 72 / figure.dpi
    kept = pictures.panels_of(figure, "picture")
    sizes = {}
    for path, title, *_ in kept:
        said = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', path.read_text())
        sizes.setdefault(title, tuple(map(float, said.groups())))
    width, height = sizes.pop("Legend")
    assert width == pytest.approx(max(w for w, _ in sizes.values()), abs=1)
    assert height < drawn * (0.7 if many == 3 else 1.7)
    assert min(h for _, h in sizes.values()) > drawn, "panels do not make room for it"


def test_names_stand_beside_their_own_line_and_in_its_panel():
    figure, [ax] = plots.panels(1, 1)
    x = np.linspace(0, 10, 50)
    lines = {f"line {slope}": ax.plot(x, slope * x, label=str(slope))[0] for slope in (1, 2, 3, 4)}
    figure.draw_without_rendering()
    assert labels.name_lines(ax, lines)
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert boxes.keys() == lines.keys()
    for name, box in boxes.items():
        assert ax.bbox.contains(*box.min) and ax.bbox.contains(*box.max)
        assert not any(box.overlaps(other) for other in boxes.values() if other is not box)
        middle = (box.min + box.max) / 2
        away = {
            other: np.hypot(*(ax.transData.transform(line.get_xydata()) - middle).T).min()
            for other, line in lines.items()
        }
        assert min(away, key=away.get) == name


def test_more_lines_than_can_be_named_are_listed():
    figure, [ax] = plots.panels(1, 1)
    lines = {str(i): ax.plot([0, 1], [i, i])[0] for i in range(labels.MOST + 1)}
    figure.draw_without_rendering()
    assert not labels.name_lines(ax, lines)
    assert not ax.texts


def test_names_stand_beside_lines_in_every_panel_or_in_none():
    figure, (room, none) = plots.panels(1, 2)
    for ax, count in ((room, 2), (none, labels.MOST + 1)):
        for i in range(count):
            line = ax.errorbar([0, 1], [i, i], label=str(i))
            told = pd.DataFrame({"x": [0, 1], "mean": [i, i], "trained": [1, 1]})
            readings.keep(ax, readings.Drawn(str(i), line, told, told[:0]))
    plots.legend(figure, [room, none])
    [key] = figure.legends
    assert not room.texts and not none.texts
    height = figure.get_size_inches()[1] - key.get_window_extent().height / figure.dpi
    assert height == pytest.approx(2.7), "it takes no room from the panels"


def test_pairs_share_a_colour_and_differ_in_dash(table):
    _, [ax] = plots.panels(1, 1)
    table.attrs["conditions"] = {}  # two settings, not two conditions
    plots.accuracy_vs_density(table, ax, paired=True)
    one, other = (container.lines[0] for container in ax.containers)
    assert one.get_color() == other.get_color()
    assert (one.get_linestyle(), other.get_markerfacecolor()) == ("-", "white")
    assert other.get_linestyle() != "-"


def test_a_panel_without_results_says_so(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, network="Conv-2")
    assert [text.get_text() for text in ax.texts] == ["not trained at this scale yet"]


def test_what_is_read_off_a_panel_is_what_it_shows(table):
    figure, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(table, ax, "val_accuracy_at_early_stop", paper="fig09")
    figure.draw_without_rendering()
    told = readings.readings(ax, ax.bbox)
    assert [place["at"] for place in told] == sorted(place["at"] for place in told)
    dense = told[0]
    assert dense["where"] == "Weights remaining (%): 100"
    assert dense["at"] == pytest.approx(ax.transAxes.inverted().transform(
        ax.transData.transform((100, 0))
    )[0], abs=1e-3)  # fmt: skip
    rows = table[(table.metric == "val_accuracy_at_early_stop") & (table["round"] == 1)]
    for line in told[1]["lines"]:
        values = 100 * rows.value[rows.line == line["name"]]
        mean, low, high = (f"{value:.4g}" for value in (values.mean(), values.min(), values.max()))
        assert line["ours"] == f"{mean} [{low}, {high}]"


def test_the_papers_number_stands_beside_ours(table):
    _, [ax] = plots.panels(1, 1)
    plots.early_stop_vs_density(table, ax, paper="fig04")
    [told, *_] = readings.readings(ax, ax.bbox)
    theirs = paper.curves("fig04")
    name = told["lines"][0]["name"]
    chosen = (theirs.line == f"{name}") & (theirs.metric == "early_stop_iteration")
    dense = theirs[chosen & (theirs["round"] == 0)]["mean"].iloc[0]
    assert told["lines"][0]["paper"] == f"{dense / 1000:.4g}"


def test_a_long_legend_in_place_of_a_panel_leaves_the_others_their_width(table):
    figure, [ax, key] = plots.panels(1, 2)
    plots.accuracy_vs_density(table, ax, paper="fig04")
    figure.draw_without_rendering()
    before = ax.bbox.width
    names = [f"Network {i} 0.03, warm-up 20K random sparse" for i in range(9)]
    plots.legend(figure, [ax], at=key, untrained=names)
    figure.draw_without_rendering()
    assert ax.bbox.width > 0.9 * before


def test_a_metric_over_a_number_has_a_line_a_round(table):
    _, [ax] = plots.panels(1, 1)
    numbers = {"winning ticket (iterative)": 100, "random reinit (iterative)": 3000}
    plots.metric_vs_number(table, ax, METRICS[1], numbers, [1, 2, 18])
    lines = readings.drawn(ax)
    assert len(lines) == 2, "a round that is not there has none"
    rows = table[(table.metric == METRICS[1]) & (table["round"] == 2)]
    means = [100 * rows[rows.line == line].value.mean() for line in numbers]
    np.testing.assert_allclose(lines[1].points["mean"], means)
    assert lines[1].points.x.tolist() == [100, 3000]
    assert ax.get_xscale() == "log"
    assert lines[0].name.endswith("% of the weights")


def test_receptive_fields_are_tiles_of_a_units_pixels():
    _, [ax, other] = plots.panels(1, 2)
    rows = pd.DataFrame({"x": [0, 5, 16 + 15], "value": 1.0})  # of two units of a 4 x 4 image
    plots.receptive_fields(rows, ax, side=4)
    picture = ax.images[0].get_array()
    assert picture.shape == (5, 30), "six units in a row, an edge before each"
    unit, second = picture[1:, 1:5], picture[1:, 6:10]
    assert np.argwhere(unit).tolist() == [[0, 0], [1, 1]]
    assert np.argwhere(second).tolist() == [[3, 3]]
    plots.receptive_fields(rows[:0], other)
    assert other.texts[0].get_text() == "not at this scale"


def test_trials_that_agree_have_no_bar(table):
    """The mean of three equal numbers may lie a rounding beside them."""
    rows = table[(table.metric == METRICS[1]) & (table.draw == 0) & (table.trial == 0)]
    three = pd.concat([rows.assign(trial=trial, value=0.1) for trial in range(3)])
    three.attrs = table.attrs
    assert (three.groupby(["line", "round"]).value.mean() != 0.1).any()
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(three, ax)
    plots.metric_vs_number(three, ax, METRICS[1], dict.fromkeys(three.line, 1.0), [0, 1])


def test_a_line_alone_has_the_colour_that_it_has_among_all(table):
    """And so the paper's own panel has it in the same."""
    tickets = table[table.line == "winning ticket (iterative)"].assign(line="warm-up")
    tickets.attrs = table.attrs | {
        "lines": ["rate 0.1", "rate 0.1 reinit", "warm-up"],
        "conditions": {
            "rate 0.1": ("iterative", "winning ticket"),
            "rate 0.1 reinit": ("iterative", "random reinit"),
            "warm-up": ("iterative", "winning ticket"),
        },
    }
    _, [ax] = plots.panels(1, 1)
    plots.accuracy_vs_density(tickets, ax, paired=True)
    assert ax.containers[0].lines[0].get_color() == style.COLOURS[1]


def test_a_narrower_network_has_its_claim_marked_beside_the_papers_panel(monkeypatch):
    monkeypatch.delenv("LOTTERY_RESULTS")
    [figure] = notebooks.named(["fig07"])
    table = run(figure.plan, scale="committed", quiet=True)
    drawn = plots.accuracy_at_checkpoints(table, "test_accuracy", paper="fig07", paired=True)
    ours, theirs = drawn.axes[4:6]
    [arrow] = [line for line in ours.lines if line.get_gid() == labels.MARK]
    rows = table[(table.line == "rate 0.1") & (table.metric == "test_accuracy_at_end")]
    means = 100 * rows.groupby("density").value.mean()
    assert arrow.get_ydata() == pytest.approx([means[1.0], means.iloc[0]])
    assert not [line for line in theirs.lines if line.get_gid() == labels.MARK]
    trained = {line for line in table.attrs["lines"] if line in set(table.line)}
    listed = {name.partition(" (n =")[0] for key in drawn.legends for name in said(key)}
    named = listed if len(trained) > labels.MOST else beside(ours)
    assert named >= trained, "and room is left for the names"
