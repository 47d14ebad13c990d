"""The straight line between the weights that two trainings of one network end with: whether the two
lie in one valley (Frankle et al. 2020, arXiv:1912.05671)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core import networks
from ..core.errors import LotteryError

if TYPE_CHECKING:
    from ..core.recipes import Recipe
    from ..runs.graph import Arrays

PLACES = 21  # on the path, its ends included


def accuracy_on_path(recipe: Recipe, start: Arrays, end: Arrays) -> list[tuple[float, float]]:
    """Test accuracy, a fraction, of networks whose weights lie between those of two trainings: a
    pair (place from 0 to 1, accuracy) each.

    start, end: the stored arrays of the two. Raises LotteryError where their masks differ, and for
    networks with batch-norm, whose statistics do not lie between.
    """
    import torch

    from ..core import training
    from ..runs import batch

    if any(layer.normed for layer in recipe.layers):
        raise LotteryError(
            f"{recipe.network} has batch-norm, whose statistics do not lie on a straight line: ask "
            "for the path of Lenet or of Conv-2, Conv-4 and Conv-6"
        )
    one, other = batch.outputs_of(start), batch.outputs_of(end)
    if any(not torch.equal(mask, other.mask[name]) for name, mask in one.mask.items()):
        raise LotteryError(
            "a path leads between two trainings of one network, and these two have different masks"
        )
    network, test = networks.build(recipe), batch.data_of(recipe).test
    images, found = network.prepare(test.images), []
    with training.arithmetic(), torch.no_grad():
        for place in np.linspace(0, 1, PLACES):
            between = {
                name: torch.lerp(value, other.final[name], float(place))[None]
                for name, value in one.final.items()
            }
            _, accuracy = training.evaluate(network, between, images, test.labels)
            found.append((round(float(place), 6), float(accuracy[0])))
    return found


def similarity(start: Arrays, end: Arrays) -> float:
    """The cosine of the angle between the surviving weights of two trainings of one network, all
    layers together: 1 where they are the same but for their length, 0 where they have nothing in
    common."""
    names = [name.replace("mask/", "final/") for name in start if name.startswith("mask/")]
    one, other = (np.concatenate([a[name].ravel() for name in names]) for a in (start, end))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def error_barrier(path: list[tuple[float, float]]) -> float:
    """How far the error on a path of accuracies rises above the mean error of its two ends, a
    fraction; 0 where it does not."""
    accuracies = [accuracy for _, accuracy in path]
    return (accuracies[0] + accuracies[-1]) / 2 - min(accuracies)
