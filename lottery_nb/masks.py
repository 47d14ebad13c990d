"""Masks: which weights of a network survive. A mask is {layer name: bool tensor of the weight's shape}."""

import numpy as np
import torch
from torch import Tensor

Mask = dict[str, Tensor]


def ones(weights: dict[str, Tensor]) -> Mask:
    """The mask of the unpruned network, shaped like `weights` {layer: tensor}."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def density(mask: Mask) -> float:
    """Fraction of weights remaining, in [0, 1]: the paper's P_m. Counts weights only, no biases."""
    return sum(int(layer.sum()) for layer in mask.values()) / sum(layer.numel() for layer in mask.values())


def prune_layerwise(weights: dict[str, Tensor], mask: Mask, rates: dict[str, float]) -> Mask:
    """Prune the smallest weights of each layer.

    weights: {layer: final weights}; mask: {layer: bool, same shape}; rates: {layer: fraction of its survivors, in [0, 1)}.
    Returns a new mask in which each layer has lost exactly round(rate * survivors) of its survivors, the smallest in
    magnitude, ties broken by position (the first goes first). Source: paper, Section 2.
    """
    survivors = {name: int(layer.sum()) for name, layer in mask.items()}
    return keep_largest(weights, mask, {name: count - round(rates[name] * count) for name, count in survivors.items()})


def prune_globally(weights: dict[str, Tensor], mask: Mask, names: list[str], rate: float) -> Mask:
    """Prune the smallest weights of the named layers taken together, and none of the others.

    Returns a new mask that lacks exactly round(rate * survivors) of the named layers' survivors, the smallest in magnitude,
    ties broken by position (the first layer's first go first). Source: paper, Section 4 and Appendix I.1.
    """
    together = torch.cat([weights[name].flatten() for name in names])
    alive = torch.cat([mask[name].flatten() for name in names])
    survivors = int(alive.sum())
    kept = _largest(together, alive, survivors - round(rate * survivors)).split([mask[name].numel() for name in names])
    return mask | {name: part.view_as(mask[name]) for name, part in zip(names, kept)}


def keep_largest(weights: dict[str, Tensor], mask: Mask, counts: dict[str, int]) -> Mask:
    """A new mask with exactly so many survivors a layer: those of `mask` largest in magnitude, of equals the later ones."""
    return {name: _largest(weights[name], mask[name], counts[name]) for name in mask}


def _largest(weight: Tensor, mask: Tensor, count: int) -> Tensor:
    """Which `count` of the survivors of `mask` are largest in magnitude, what is no number among them; without a full sort."""
    magnitudes = weight[mask].abs().nan_to_num(torch.inf)
    pruned = len(magnitudes) - count
    if not pruned:
        return mask.clone()
    threshold = float(np.partition(magnitudes.numpy(), pruned - 1)[pruned - 1])
    ties = (magnitudes == threshold).nonzero().squeeze(1)
    kept = magnitudes > threshold
    kept[ties[pruned - int((magnitudes < threshold).sum()) :]] = True
    return torch.zeros_like(mask).masked_scatter_(mask, kept)


def random_mask(mask: Mask, counts: dict[str, int], generator: torch.Generator) -> Mask:
    """Exactly so many survivors a layer, at random positions among those of `mask` (paper, Section 1 and Appendix E)."""
    return keep_largest({name: torch.rand(layer.shape, generator=generator, dtype=torch.float64) for name, layer in mask.items()}, mask, counts)
