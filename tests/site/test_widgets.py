"""The slider over rounds: what it holds, and, in a real browser where one is installed, that it
moves."""

import re
import time
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import pandas as pd
import pytest
from shared import tiny

from lottery_nb import LotteryError, run
from lottery_nb.analysis import tables
from lottery_nb.core.scales import SCALES, Shrinking
from lottery_nb.runs.store import Store
from lottery_nb.site import plots, widgets

PLAN = {
    "Net": tiny.iterative().with_curves("val_accuracy").distribution("map of connections", "fc1"),
    "Net reinit": tiny.iterative().reinitialised().with_curves("val_accuracy"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTERY_STORE", str(tmp_path_factory.mktemp("store")))
        return tables.run(PLAN, scale="paper")


@pytest.fixture(scope="module")
def slider(table):
    return widgets.by_round(table, "val_accuracy", paper="fig05")


def test_a_frame_a_round(table, slider):
    assert [frame.name for frame in slider.frames] == [
        "100.0 %, round 0",
        "80.1 %, round 1",
        "64.1 %, round 2",
        "51.3 %, round 3",
    ]
    last = table[(table["round"] == 3) & (table.line == "Net")]
    accuracy = 100 * last[last.metric == "test_accuracy_at_early_stop"].value.mean()
    assert f"{accuracy:.2f}\N{NO-BREAK SPACE}%" in slider.frames[3].table
    assert "Net reinit" in slider.frames[3].table
    assert "Net reinit" not in slider.frames[0].table
    for frame in slider.frames:
        assert len(frame.pictures) == 2
        for description, picture in frame.pictures.items():
            assert ElementTree.fromstring(picture).tag.endswith("svg")
            assert frame.name in description


def test_the_map_is_the_share_of_each_pixels_connections(table):
    rows = table[table.metric == "map of connections, fc1"]
    assert sorted(rows.x.unique()) == list(range(784))
    for r, rows_of in rows.groupby("round"):
        assert rows_of.value.mean() == pytest.approx(0.8**r, abs=0.001)


def test_without_a_script_the_frame_nearest_to_21_percent_stays(slider):
    page = slider._repr_html_()
    assert page.count('class="frame"') == 4
    assert page.count(' hidden><div class="pictures">') == 3
    assert 'min="0" max="3" value="3"' in page
    assert 'aria-valuetext="51.3 %, round 3"' in page
    asked = []
    reader = HTMLParser()
    reader.handle_starttag = lambda _, attributes: asked.extend(
        value for name, value in attributes if name in ("src", "href")
    )
    reader.feed(page)
    pictures = [each for frame in slider.frames for each in frame.pictures.values()]
    kind = "data:image/svg+xml,"
    assert [unquote_to_bytes(each.removeprefix(kind)) for each in asked] == pictures
    assert all(each.startswith(kind) for each in asked), "it asks for nothing else"
    names = re.findall(r'id="(slider\d+)"', page + slider._repr_html_())
    assert len(set(names)) == 2, "two sliders on a page do not meet"


def test_nothing_trained_is_no_slider(table):
    assert widgets.by_round(table[:0], "val_accuracy", paper="fig05") is None


def test_axes_are_the_same_in_every_frame(table):
    limits = set()
    for r in (1, 3):
        _, [ax] = plots.panels(1, 1)
        plots.against_dense(
            table,
            ax,
            "Net",
            list(PLAN),
            r,
            "val_accuracy",
            table[:0].rename(columns={"value": "mean"}),
        )
        limits.add(ax.get_ylim())
        assert ax.get_legend_handles_labels()[1] == [
            "dense network",
            "winning ticket",
            "random reinit",
        ]
    assert len(limits) == 1


# --- the playground -------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    smoke = {
        "data": "mnist5k",
        "iterations": 0.0008,
        "evaluate_every": 20,
        "validation": 500,
        "rounds": 8,
    }
    monkeypatch.setitem(SCALES["smoke"], "lenet", Shrinking(**smoke))


def test_play_yields_a_table_that_grows_by_a_round(quick):
    seen = [
        sorted(table["round"].unique())
        for table in widgets.play(rate=0.5, rounds=3, control="random sparse", trials=1)
    ]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    *_, table = widgets.play(rate=0.5, rounds=2, control="nothing", trials=1)
    assert list(table.line.unique()) == ["winning ticket"]
    assert table.density.min() == pytest.approx(0.25, abs=0.01)


def test_the_playgrounds_picture_has_iteration_0_the_race_and_the_map(quick):
    for table in widgets.play(rate=0.5, rounds=2, trials=1):
        figure = plots.race(table)
        start, _, race, pixels, *_ = figure.axes
        newest = table["round"].max()
        before = table[(table.metric == "test_accuracy_at_start") & (table["round"] == newest)]
        ticket = before[before.line == "winning ticket"].value.iloc[0]
        assert start.containers[0].lines[0].get_ydata()[-1] == pytest.approx(100 * ticket)
        assert len(race.lines) == (3 if newest else 1)
        assert pixels.images[0].get_array().shape == (28, 28)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 1.5},
        {"strategy": "both"},
        {"control": "luck"},
        {"strategy": "one-shot", "control": "random sparse"},
        {"trials": 0},
    ],
)
def test_bad_play(wrong):
    with pytest.raises(LotteryError):
        next(widgets.play(**wrong))


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened for a minute")


def test_the_playground_trains_stops_and_goes_on(quick):
    *controls, buttons, said, picture = widgets.playground().children
    rate, rounds, strategy, control, trials = controls
    train, stop = buttons.children
    rate.value, trials.value = 0.3, 1
    train.click()
    assert train.disabled and not stop.disabled and picture.layout.display == "none"
    wait_for(lambda: picture.value)
    stop.click()
    wait_for(lambda: not train.disabled)
    assert said.value.endswith("Stopped; what is done is kept.")
    assert bytes(picture.value).startswith(b"\x89PNG")
    stored = len(list(Store()))
    assert 1 <= stored < 17
    train.click()
    wait_for(lambda: not train.disabled)
    assert said.value == "Round 8 of 8 is done. That is all of them."
    assert len(list(Store())) == 17, "what was done was not done again"
    strategy.value, control.value = "one-shot", "random sparse"
    train.click()
    wait_for(lambda: not train.disabled)
    assert "choose iterative" in said.value


def watched(monkeypatch):
    """The figures of a slider, to be; each must stand as it would if it were laid out alone."""
    drawn, draw = [], widgets._svg

    def look(figure, laid_out):
        picture = draw(figure, laid_out)
        stand = [ax.get_position().bounds for ax in figure.axes]
        figure.set_layout_engine("constrained")
        figure.draw_without_rendering()
        for ax, place in zip(figure.axes, stand):
            assert ax.get_position().bounds == pytest.approx(place, abs=1e-6)
        drawn.append(figure)
        return picture

    monkeypatch.setattr(widgets, "_svg", look)
    return drawn


def test_frames_of_networks_that_learn_otherwise_are_laid_out_apart(table, monkeypatch):
    """The numbers at one's axis are longer than at the other's."""
    drawn = watched(monkeypatch)
    other = table.assign(line=table.line.str.replace("Net", "Other"), value=table.value / 1000)
    both = pd.concat([table, other])
    both.attrs = table.attrs | {"lines": [*dict.fromkeys(both.line)]}
    widgets.by_round(both, "val_accuracy", paper="fig05")
    assert len(drawn) == 4 * 3  # two networks and a map a round
    left = {figure.axes[0].get_position().x0 for figure in drawn}
    assert len(left) == 3


def test_distributions_by_round_have_one_frame_a_round_and_the_same_axes(monkeypatch):
    drawn = watched(monkeypatch)
    plan = tiny.iterative().by_layer("initial weights", "first", "second", "output")
    table = run(plan, scale="paper", quiet=True)
    slider = widgets.distributions_by_round(table, "fig15")
    rounds = sorted(set(table["round"]))
    assert [frame.name.split(", ")[1] for frame in slider.frames] == [f"round {r}" for r in rounds]
    assert len({(figure.axes[0].get_xlim(), figure.axes[0].get_ylim()) for figure in drawn}) == 1
    assert widgets.distributions_by_round(table[:0], "fig15") is None
