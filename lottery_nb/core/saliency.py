"""Pruning at initialisation: masks of a network that nothing has trained.

Four criteria, as Frankle et al. 2021 (arXiv:2009.08576) compare them. Each scores the weights of
the whole network; those with the largest scores are kept, however many that leaves a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from . import masks, networks
from .networks import CLASSES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .data import Split
    from .masks import Mask, Scores, Weights
    from .recipes import Recipe
else:
    from .lazy import torch

EXAMPLES = 10  # of each class, by which SNIP and GraSP score (Frankle et al. 2021, Appendix B)
TEMPERATURE = 200  # by which GraSP divides logits (Wang et al. 2020, their code)


@dataclass(frozen=True)
class Untrained:
    """A network at its initial parameters, {parameter: tensor}, and a few training images, (n,
    height, width) or (n, height, width, channels), with their labels, (n,)."""

    recipe: Recipe
    parameters: Weights
    images: Tensor
    labels: Tensor

    def logits(self, weights: Weights, images: Tensor, training: bool = False) -> Tensor:
        """(n, classes), of its parameters with these weights in place of its own; training: with
        the statistics of these images, where batch-norm has learned none."""
        images = self._network.prepare(images)
        if training and isinstance(self._network, networks.Convolutional):
            kept = {name: value.clone() for name, value in self.parameters.items()}
            return self._network.forward(kept | weights, images, training=True)
        stacked = {name: value[None] for name, value in (self.parameters | weights).items()}
        return self._network.logits(stacked, images)[0].T

    @cached_property
    def _network(self) -> networks.Network:
        return networks.build(replace(self.recipe, precision="fp32"))

    def loss(self, weights: Weights, temperature: float = 1.0) -> Tensor:
        """The mean cross-entropy of the images."""
        logits = self.logits(weights, self.images, training=True) / temperature
        return torch.nn.functional.cross_entropy(logits, self.labels)


def snip(network: Untrained, weights: Weights) -> Scores:
    """How much the loss changes as a weight is scaled: |weight x its gradient| (Lee et al. 2019,
    arXiv:1810.02340)."""
    gradients = torch.autograd.grad(network.loss(weights), list(weights.values()))
    return {name: (w * g).abs() for (name, w), g in zip(weights.items(), gradients)}


def grasp(network: Untrained, weights: Weights) -> Scores:
    """How much of the gradient's norm goes with a weight: weight x (Hessian x gradient); where it
    is below 0, the gradient is larger without the weight (Wang et al. 2020, arXiv:2002.07376)."""
    leaves = list(weights.values())
    loss = network.loss(weights, TEMPERATURE)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    constant = [gradient.detach() for gradient in gradients]
    along = torch.stack([(g * c).sum() for g, c in zip(gradients, constant)]).sum()
    products = torch.autograd.grad(along, leaves)
    return {name: w * product for (name, w), product in zip(weights.items(), products)}


def synflow(network: Untrained, weights: Weights) -> Scores:
    """A weight's share of what flows from an image of ones to the outputs where all weights are
    positive; it needs no data (Tanaka et al. 2020, arXiv:2006.05467)."""
    biases = {
        name: torch.zeros_like(value)
        for name, value in network.parameters.items()
        if name.endswith(".bias")
    }
    ones = torch.ones_like(network.images[:1])
    positive = {name: weight.abs() for name, weight in weights.items()}
    flow = replace(network, parameters=network.parameters | biases).logits(positive, ones).sum()
    gradients = torch.autograd.grad(flow, list(weights.values()))
    return {name: (w * g).abs() for (name, w), g in zip(weights.items(), gradients)}


def initial_magnitude(network: Untrained, weights: Weights) -> Scores:
    """The magnitudes of initial weights."""
    return masks.magnitude(weights)


# Scores by name, and in how many steps they prune: scored anew after each, survivors falling by the
# same factor.
CRITERIA: dict[str, tuple[Callable[[Untrained, Weights], Scores], int]] = {
    "SNIP": (snip, 1),
    "GraSP": (grasp, 1),
    "SynFlow": (synflow, 100),
    "initial magnitude": (initial_magnitude, 1),
}


def kept(criterion: str, network: Untrained, remaining: int) -> Mask:
    """The mask that a criterion leaves of a network, with so many weights remaining in all; layers
    that the recipe does not prune keep theirs. Reckoned in 64 bits."""
    score, steps = CRITERIA[criterion]
    network = replace(
        network,
        parameters={name: value.double() for name, value in network.parameters.items()},
        images=network.images.double(),
    )
    layers = network.recipe.layers
    mask = masks.ones({each.weight: network.parameters[each.weight] for each in layers})
    pruned = [each.weight for each in layers if network.recipe.rates[each.kind]]
    everything = sum(mask[name].numel() for name in pruned)
    remaining -= sum(layer.numel() for name, layer in mask.items() if name not in pruned)
    for step in range(1, steps + 1):
        left = round(everything * (remaining / everything) ** (step / steps))
        weights = {
            name: (network.parameters[name] * mask[name]).requires_grad_() for name in pruned
        }
        with torch.enable_grad():
            scores = score(network, weights)
        mask = masks.keep_largest_globally(
            {name: scores[name].detach() for name in pruned}, mask, pruned, left
        )
    return mask


def examples(split: Split, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """`EXAMPLES` training images of each class and their labels, drawn at random; split: on the
    CPU."""
    order = torch.randperm(len(split.labels), generator=random)
    labels = split.labels[order]
    places = torch.cat([order[labels == each][:EXAMPLES] for each in range(CLASSES)])
    return split.images[places], split.labels[places]
