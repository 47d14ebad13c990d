import math

import numpy as np
import pytest

from lottery_nb.analysis import distributions
from lottery_nb.analysis.distributions import distribution

RNG = np.random.default_rng(0)
INITIAL = RNG.uniform(-0.1, 0.1, (40, 50))
MASK = np.zeros((40, 50), dtype=bool)
MASK[:, :10] = True  # every unit keeps its first ten inputs
FINAL = np.where(MASK, 2 * INITIAL, 0.5 * INITIAL)
ORIGIN = {"initial/fc1.weight": INITIAL, "final/fc1.weight": FINAL}
ARRAYS = {"mask/fc1.weight": np.packbits(MASK)}


def moments(metric):
    x, density = np.array(distribution(metric, ARRAYS, ORIGIN)).T
    width = x[1] - x[0]
    assert density.sum() * width == pytest.approx(1, abs=1e-4)
    return (x * density).sum() * width, x[density > 0]


def test_initial_weights_are_those_of_the_survivors():
    mean, where = moments("initial weights, fc1")
    assert mean == pytest.approx(INITIAL[MASK].mean(), abs=0.01)
    assert where.min() > -0.12
    assert where.max() < 0.12


def test_movement_and_growth_in_and_outside_the_ticket():
    size = np.abs(INITIAL)
    for metric, expected in {
        "movement in the ticket": size[MASK], "movement outside the ticket": size[~MASK] / 2,
        "growth in the ticket": size[MASK], "growth outside the ticket": -size[~MASK] / 2,
    }.items():  # fmt: skip
        assert moments(f"{metric}, fc1")[0] == pytest.approx(expected.mean(), abs=0.01), metric


def test_connections_are_shares_of_a_unit():
    assert moments("incoming connections, fc1")[0] == pytest.approx(10 / 50)
    mean, where = moments("outgoing connections, fc1")
    assert mean == pytest.approx(10 / 50)
    assert where.tolist() == [0, 1], "ten inputs keep all they had, the others none"


def test_what_lies_outside_the_bins_counts_in_the_area():
    far = {**ORIGIN, "final/fc1.weight": FINAL + np.where(np.arange(50) < 5, 10, 0)}
    density = np.array(distribution("movement in the ticket, fc1", ARRAYS, far))
    assert density[:, 1].sum() * (density[1, 0] - density[0, 0]) == pytest.approx(0.5, abs=1e-4)


def test_nothing_lies_outside_the_dense_network():
    dense = {"mask/fc1.weight": np.packbits(np.ones_like(MASK))}
    assert distribution("movement outside the ticket, fc1", dense, ORIGIN) == []
    assert distribution("movement in the ticket, fc1", dense, ORIGIN)


def test_pairs_of_inputs_are_counted_beside_what_the_layer_chooses(monkeypatch):
    """Four pixels of a 4 x 4 image: two units have neighbours, one the corners of a diagonal."""
    monkeypatch.setattr(distributions, "FEW", 2)
    mask = np.zeros((4, 16), bool)
    mask[0, [0, 1]] = mask[1, [0, 1]] = mask[2, [0, 15]] = True
    mask[3, 5] = True  # one input has no other
    often = {0: 3, 1: 2, 15: 1, 5: 1}
    at = {pixel: divmod(pixel, 4) for pixel in often}
    pairs = [(a, b) for a in often for b in often if a != b]
    apart = np.array([math.dist(at[a], at[b]) for a, b in pairs])
    weights = [often[a] * often[b] for a, b in pairs]
    chance = np.average(apart, weights=weights)
    found = distributions.apart(mask)
    assert found == pytest.approx({0: 1 / chance, 1: 1 / chance, 2: 3 * 2**0.5 / chance})
    chance = np.average(apart == 1, weights=weights)
    assert distributions.neighbours(mask) == pytest.approx({0: 1 / chance, 1: 1 / chance, 2: 0})
    monkeypatch.setattr(distributions, "FEW", 3)
    assert distributions.apart(mask) == {}


@pytest.mark.parametrize("measure", [distributions.apart, distributions.neighbours])
def test_units_that_choose_by_chance_are_as_chance_has_it(measure):
    draw = np.random.default_rng(0)
    often = draw.random(784) * 0.2
    found = list(measure(draw.random((300, 784)) < often).values())
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_inputs_of_the_units_that_have_the_most(monkeypatch):
    monkeypatch.setattr(distributions, "SHOWN", 2)
    mask = np.zeros((3, 4), bool)
    mask[0, 1] = mask[1, [0, 3]] = mask[2, [0, 1, 2]] = True
    arrays = {"mask/fc1.weight": np.packbits(mask)}
    zeros = {f"{kind}/fc1.weight": np.zeros((3, 4)) for kind in ("initial", "final")}
    found = distribution("inputs of units, fc1", arrays, zeros)
    assert found == [(0, 1), (1, 1), (2, 1), (4 + 0, 1), (4 + 3, 1)]
