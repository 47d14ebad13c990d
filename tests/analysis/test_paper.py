import pytest

from lottery_nb import LotteryError
from lottery_nb.analysis import paper


def test_points_of_figure_4():
    points = paper.curves("fig04")
    stops = points[(points.metric == "early_stop_iteration") & (points.panel == 1)].set_index(
        ["line", "round"]
    )["mean"]
    assert stops["winning ticket (iterative)", 0] == pytest.approx(4400, abs=3)
    assert stops["winning ticket (iterative)", 7] == pytest.approx(3540, abs=3)
    assert stops["random reinit (iterative)", 7] == pytest.approx(7633, abs=3)


def test_one_shot_points_stand_at_the_same_density_in_every_panel():
    points = paper.curves("fig04")
    for line, first in (("winning ticket (one-shot)", 0), ("random reinit (one-shot)", 1)):
        of = points[(points.line == line) & (points.metric == "early_stop_iteration")]
        log, linear = (of[of.panel == panel].set_index("round") for panel in (1, 5))
        assert list(log.index) == list(linear.index) == list(range(first, 40))
        assert (log["mean"] - linear["mean"]).abs().max() < 5
        assert linear.density.sub(linear.x / 100).abs().max() < 2e-3


def test_all_45_figures_but_the_table_have_points():
    assert all(len(paper.curves(f"fig{number:02d}")) for number in range(1, 46) if number != 2)
    assert [number for number in range(1, 50) if not paper.plots(f"fig{number:02d}")] == [
        2,
        46,
        47,
        48,
        49,
    ]


def test_a_figure_without_points():
    with pytest.raises(LotteryError, match="no curves in fig02"):
        paper.curves("fig02")
