"""Masks: which weights of a network survive. A mask is {layer name: bool tensor of the weight's
shape}. A pruning criterion gives each weight a score; the smallest go first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Mask = dict[str, Tensor]
    Weights = dict[str, Tensor]
    Scores = dict[str, Tensor]
else:
    from .lazy import torch


def magnitude(final: Weights, initial: Callable[[], Weights] | None = None) -> Scores:
    """The magnitudes of final weights: the paper's criterion (Section 2)."""
    return {name: weight.abs() for name, weight in final.items()}


# What a recipe's `criterion` names: functions of the final weights, {layer: tensor}, and of a
# function that draws the dense network's initial weights, for those criteria that compare the two.
CRITERIA: dict[str, Callable[[Weights, Callable[[], Weights]], Scores]] = {"magnitude": magnitude}


def ones(weights: dict[str, Tensor]) -> Mask:
    """The mask of the dense network, shaped like `weights` {layer: tensor}."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def density(mask: Mask) -> float:
    """Fraction of weights remaining, in [0, 1]: the paper's P_m. Counts weights only, no biases."""
    alive = sum(int(layer.sum()) for layer in mask.values())
    return alive / sum(layer.numel() for layer in mask.values())


def prune_layerwise(scores: Scores, mask: Mask, rates: dict[str, float]) -> Mask:
    """Prune the weights with the smallest scores of each layer.

    scores: {layer: one of each weight}; mask: {layer: bool, same shape}; rates: {layer: fraction of
    its survivors, in [0, 1)}. Returns a new mask in which each layer has lost exactly
    round(rate * survivors) of its survivors, the smallest in score, ties broken by position (the
    first goes first). Source: paper, Section 2.
    """
    survivors = {name: int(layer.sum()) for name, layer in mask.items()}
    left = {name: count - round(rates[name] * count) for name, count in survivors.items()}
    return keep_largest(scores, mask, left)


def prune_globally(scores: Scores, mask: Mask, names: list[str], rate: float) -> Mask:
    """Prune the weights with the smallest scores of the named layers taken together, and none of
    the others.

    Returns a new mask that lacks exactly round(rate * survivors) of the named layers' survivors,
    the smallest in score, ties broken by position (the first layer's first go first). Source:
    paper, Section 4 and Appendix I.1.
    """
    survivors = sum(int(mask[name].sum()) for name in names)
    return keep_largest_globally(scores, mask, names, survivors - round(rate * survivors))


def keep_largest_globally(scores: Scores, mask: Mask, names: list[str], count: int) -> Mask:
    """A new mask in which the named layers have `count` survivors together: those of `mask` with
    the largest scores, of equals the later ones; the other layers as they are."""
    together = torch.cat([scores[name].flatten() for name in names])
    alive = torch.cat([mask[name].flatten() for name in names])
    parts = _largest(together, alive, count).split([mask[name].numel() for name in names])
    return mask | {name: part.view_as(mask[name]) for name, part in zip(names, parts)}


def keep_largest(scores: Scores, mask: Mask, counts: dict[str, int]) -> Mask:
    """A new mask with exactly so many survivors a layer: those of `mask` with the largest scores,
    of equals the later ones."""
    return {name: _largest(scores[name], mask[name], counts[name]) for name in mask}


def random_mask(mask: Mask, counts: dict[str, int], generator: torch.Generator) -> Mask:
    """Exactly so many survivors a layer, at random positions among those of `mask` (paper,
    Section 1 and Appendix E)."""
    scores = {
        name: torch.rand(layer.shape, generator=generator, dtype=torch.float64)
        for name, layer in mask.items()
    }
    return keep_largest(scores, mask, counts)


def shuffled_by_input(mask: Mask, generator: torch.Generator) -> Mask:
    """Each input of a layer keeps as many weights as it has in `mask`, to units at random."""
    orders = {
        name: torch.rand(layer.shape, generator=generator, dtype=torch.float64).argsort(0)
        for name, layer in mask.items()
    }
    return {name: layer.gather(0, orders[name]) for name, layer in mask.items()}


def _largest(scores: Tensor, mask: Tensor, count: int) -> Tensor:
    """Which `count` of the survivors of `mask` have the largest scores, what is no number among
    them; without a full sort."""
    alive = scores[mask].nan_to_num(torch.inf)
    pruned = len(alive) - count
    if not pruned:
        return mask.clone()
    threshold = float(np.partition(alive.numpy(), pruned - 1)[pruned - 1])
    ties = (alive == threshold).nonzero().squeeze(1)
    kept = alive > threshold
    kept[ties[pruned - int((alive < threshold).sum()) :]] = True
    return torch.zeros_like(mask).masked_scatter_(mask, kept)
