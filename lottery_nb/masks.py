"""Masks: which weights of a network survive. A mask is {layer name: bool tensor of the weight's shape}."""

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
    return {name: _without_smallest(weights[name], mask[name], rates[name]) for name in mask}


def _without_smallest(weight: Tensor, mask: Tensor, rate: float) -> Tensor:
    survivors = mask.flatten().nonzero().squeeze(1)
    count = round(rate * len(survivors))
    order = torch.argsort(weight.flatten()[survivors].abs(), stable=True)
    pruned = mask.flatten().clone()
    pruned[survivors[order[:count]]] = False
    return pruned.view_as(mask)


def random_mask(mask: Mask, generator: torch.Generator) -> Mask:
    """As many survivors in each layer as in `mask`, at random positions (paper, Section 4 and Appendix E)."""
    shuffled = {}
    for name, layer in mask.items():
        order = torch.randperm(layer.numel(), generator=generator).to(layer.device)
        shuffled[name] = layer.flatten()[order].view_as(layer)
    return shuffled
