"""How far our curves lie from the paper's, on tables made of the paper's own points."""

import pandas as pd
import pytest

from lottery_nb import lenet, resnet18
from lottery_nb.analysis import distances, paper

PLAN = {"resetting": lenet.iterative(), "continued training": lenet.continued()}


def as_ours(figure, shift, scale="paper"):
    """A table at a scale that lies so many of the paper's bands above the paper."""
    theirs = paper.curves(figure)
    band = (theirs["max"] - theirs["min"]).groupby([theirs.line, theirs.metric]).transform("median")
    return theirs.assign(value=theirs["mean"] + shift * band, iteration=theirs.x, scale=scale)[
        ["line", "round", "iteration", "metric", "value", "scale"]
    ]


@pytest.mark.parametrize("shift", [0, 0.5, -2])
def test_a_shift_is_told_in_bands(shift):
    summed = distances.summary(distances.points("fig09", PLAN, as_ours("fig09", shift)))
    assert set(summed.index) == {"early_stop_iteration", "val_accuracy_at_early_stop"}
    assert summed.distance.tolist() == pytest.approx([abs(shift)] * 2)
    assert summed.lean.tolist() == pytest.approx([shift] * 2)
    assert (summed.points >= 40).all()


def test_a_shorter_training_is_not_asked_for_what_comes_later():
    whole, short = (
        distances.points("fig09", PLAN, as_ours("fig09", 0, scale)) for scale in ("paper", "laptop")
    )
    stops = whole[whole.metric == "early_stop_iteration"]
    assert stops.theirs.max() > 12_000
    assert set(zip(short.line, short["round"])) == set(
        zip(*stops[stops.theirs <= 12_000][["line", "round"]].T.to_numpy())
    )


def test_each_line_is_compared_as_its_own_scale_allows():
    ours = as_ours("fig09", 0)
    ours["scale"] = ours.line.map({"resetting": "paper", "continued training": "laptop"})
    mixed = distances.points("fig09", PLAN, ours)
    whole, short = (
        distances.points("fig09", PLAN, as_ours("fig09", 0, scale)) for scale in ("paper", "laptop")
    )
    expected = pd.concat(
        [whole[whole.line == "resetting"], short[short.line == "continued training"]]
    )
    order = [*distances.KEYS, "metric"]
    pd.testing.assert_frame_equal(
        mixed.sort_values(order, ignore_index=True), expected.sort_values(order, ignore_index=True)
    )
    assert len(short) < len(mixed) < len(whole)


def test_the_end_of_a_shorter_training_is_not_the_papers():
    plan = {line: lenet.iterative() for line in paper.curves("fig04").line.unique()}
    ended = [
        distances.points("fig04", plan, as_ours("fig04", 0, scale))
        .metric.str.endswith("_at_end")
        .sum()
        for scale in ("paper", "laptop")
    ]
    assert ended[0] > 50
    assert ended[1] == 0


def test_curves_are_compared_at_each_iteration():
    plan = {"winning ticket": lenet.iterative(), "random reinit": lenet.iterative().reinitialised()}
    compared = distances.points("fig11", plan, as_ours("fig11", 1))
    assert compared.iteration.nunique() > 100
    assert distances.summary(compared).lean["val_loss"] == pytest.approx(1)


def test_a_narrower_network_is_left_out():
    plan = {line: resnet18.iterative() for line in paper.curves("fig08").line.unique()}
    assert distances.points("fig08", plan, as_ours("fig08", 0, "laptop")).empty
    assert len(distances.points("fig08", plan, as_ours("fig08", 0)))


def test_without_a_band_there_is_nothing_to_measure_in():
    ours = as_ours("fig15", 0).assign(value=1.0)
    assert distances.points(
        "fig15", {line: lenet.iterative() for line in ours.line.unique()}, ours
    ).empty
    assert distances.summary(
        pd.DataFrame(columns=["line", "round", "iteration", "metric", "ours", "theirs", "band"])
    ).empty
