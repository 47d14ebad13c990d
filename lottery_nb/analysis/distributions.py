"""How weights and connections are distributed over a layer: the paper's Figures 15, 16 and 19 to
24 and Chapter 4, from stored arrays."""

import math

import numpy as np

from ..runs.graph import Arrays, unpacked

RANGES = {
    "initial": (-0.28, 0.28),
    "movement": (0.0, 0.5),
    "growth": (-0.25, 0.5),
}  # no further than the paper draws
SHOWN = 24  # units
FEW = 10  # inputs, of which a unit has to have so many for what its pairs tell


def distribution(metric: str, arrays: Arrays, origin: Arrays) -> list[tuple[float, float]]:
    """The probability density of a quantity over a layer, a pair (middle of a bin, density) a bin;
    1 is the area in all.

    A "map of connections" is no distribution: its pairs are (input, share of the layer's units that
    it still reaches). Nor are "distance of inputs" and "neighbours among inputs": they are one
    pair, (0, the mean of `apart` or `neighbours` over units). Nor is "inputs of units": of the
    `SHOWN` units that have the most inputs, (place of a unit x inputs + an input that it has, 1).

    metric: one of `lines.DISTRIBUTIONS` and a layer, such as "initial weights, fc1"; arrays: of the
    node in the store; origin: of its trial's dense network. What lies outside the bins counts in
    the area, not in any bin.
    """
    what, layer = metric.split(", ")
    weight = f"{layer}.weight"
    initial, trained = origin[f"initial/{weight}"], origin[f"final/{weight}"]
    mask = unpacked(arrays[f"mask/{weight}"], initial.shape)
    quantity, _, side = what.partition(" ")
    chosen = mask if side == "in the ticket" else ~mask
    if side == "outside the ticket" and not chosen.any():
        return []  # of the dense network nothing is outside
    match quantity:
        case "initial":
            return _histogram(initial[mask], RANGES[quantity], _bins(mask.size))
        case "movement":
            return _histogram(np.abs(trained - initial)[chosen], RANGES[quantity], _bins(mask.size))
        case "growth":
            return _histogram(
                (np.abs(trained) - np.abs(initial))[chosen], RANGES[quantity], _bins(mask.size)
            )
        case "map":
            return [(float(i), float(share)) for i, share in enumerate(mask.mean(0))]
        case "incoming":
            return _shares(mask.mean(1), mask.shape[1])
        case "outgoing":
            return _shares(mask.mean(0), mask.shape[0])
        case "distance":
            return _mean(apart(mask))
        case "inputs":
            most = np.argsort(-mask.sum(1), kind="stable")[:SHOWN]
            return [(float(place), 1.0) for place in np.flatnonzero(mask[most])]
        case "neighbours":
            return _mean(neighbours(mask))
    raise ValueError(metric)


def apart(mask: np.ndarray) -> dict[int, float]:
    """How far apart the inputs of each unit lie on the image, beside chance.

    mask: (units, pixels of a square image), bool. Returns for each unit with `FEW` inputs or more
    the mean distance between two of them, divided by that of two pixels which units of the layer
    chose independently, each pixel as often as the layer has it: 1 where units choose by chance,
    less where each has a patch of its own. Pixels that no unit has left thus count for neither.
    """
    return _pairs(mask, _distances(mask))


def neighbours(mask: np.ndarray) -> dict[int, float]:
    """How many pairs of a unit's inputs are neighbours on the image, side by side or one above the
    other, beside chance; as `apart`, but more than 1 where each unit has patches of its own."""
    return _pairs(mask, _distances(mask) == 1)


def _mean(of_units: dict[int, float]) -> list[tuple[float, float]]:
    return [(0.0, float(np.mean(list(of_units.values()))))] if of_units else []


def _distances(mask: np.ndarray) -> np.ndarray:
    row, column = np.divmod(np.arange(mask.shape[1]), math.isqrt(mask.shape[1]))
    return np.hypot(row[:, None] - row, column[:, None] - column)


def _pairs(mask: np.ndarray, quantity: np.ndarray) -> dict[int, float]:
    """The mean of a quantity of two pixels over the pairs of each unit's inputs, beside chance."""
    chosen = mask.astype(float)
    often, inputs = chosen.sum(0), chosen.sum(1)
    chance = often @ quantity @ often / (often.sum() ** 2 - (often**2).sum())
    found = ((chosen @ quantity) * chosen).sum(1) / np.maximum(inputs * (inputs - 1), 1)
    return {int(i): float(found[i] / chance) for i in np.flatnonzero(inputs >= FEW)}


def _bins(weights: int) -> int:
    """A layer has the same bins at every density, a small layer fewer."""
    return min(100, round(2.8 * weights ** (1 / 3)))


def _shares(values: np.ndarray, of: int) -> list[tuple[float, float]]:
    """Shares of so many connections: a bin each 2 %, or each connection where that is more."""
    bins = min(51, of + 1)
    return _histogram(values, (-0.5 / (bins - 1), 1 + 0.5 / (bins - 1)), bins)


def _histogram(
    values: np.ndarray, span: tuple[float, float], bins: int
) -> list[tuple[float, float]]:
    if not len(values):
        return []
    counts, edges = np.histogram(values, bins, span)
    width = edges[1] - edges[0]
    return [
        (round(float(x), 6), float(count / len(values) / width))
        for x, count in zip(edges[:-1] + width / 2, counts)
    ]
