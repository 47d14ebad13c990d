"""What is trained: the ticket of a node, made from what its parents left behind (paper, Sections 1 and 2).

The whole algorithm: round 0 trains the unpruned network. A later round prunes the smallest final weights of the round
before (one-shot: of round 0) and trains the survivors from their initial weights. Each control changes one part of that.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from . import masks, models
from .errors import LotteryError
from .masks import Mask
from .specs import Node
from .training import Ticket, generator


@dataclass(frozen=True)
class Trained:
    """What a training hands to those that stand on it: its mask, its final parameters and, from round 0, the initial ones."""

    mask: Mask
    final: dict[str, Tensor]
    initial: dict[str, Tensor]


def make(node: Node, parent: Trained | None = None, origin: Trained | None = None, pruned: Mask | None = None) -> Ticket:
    """The ticket of a node.

    parent, origin: what `node.parent` and `node.origin` left behind, where it has them; pruned: in place of the parent, the
    mask that pruning it gave, and in place of the origin its initial weights are drawn once more.
    """
    who = (node.strategy, node.control, node.trial, node.round, node.draw) + ((node.noise,) if node.noise else ())
    mask = _mask(node, who, parent, pruned)
    initial = _initial_weights(node, who, mask, parent, origin)
    weights = {name: value * mask[name] if name in mask else value.clone() for name, value in initial.items()}
    return Ticket(mask, weights, order=("order", *who))


def check_initial(weights: dict[str, Tensor], digest: str) -> None:
    """Raises LotteryError where initial weights that were drawn again are not those of a ticket."""
    if fingerprint(weights) != digest:
        raise LotteryError(
            "this processor draws other initial weights than the ticket's: its mask is of no use here without them. "
            "Take a ticket of Lenet, whose file carries them, or train the tickets here"
        )


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """A digest of named tensors, every bit of them: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def prune(node: Node, parent: Trained) -> Mask:
    """The mask that pruning its parent gives a node, and all other nodes of its ticket."""
    layers = node.recipe.layers
    if node.recipe.scope == "global":
        return masks.prune_globally(parent.final, parent.mask, [layer.weight for layer in layers if layer.kind == "conv"], node.rates["conv"])
    return masks.prune_layerwise(parent.final, parent.mask, {layer.weight: node.rates[layer.kind] for layer in layers})


def _mask(node: Node, who: tuple, parent: Trained | None, pruned: Mask | None) -> Mask:
    full = masks.ones({layer.weight: torch.empty(layer.shape) for layer in node.recipe.layers})
    if pruned is None and parent:
        pruned = prune(node, parent)
    if pruned is not None:
        if node.control == "random sparse":
            return masks.random_mask(full, {name: int(layer.sum()) for name, layer in pruned.items()}, generator("mask", *who))
        return pruned
    if node.control == "random sparse":
        return masks.random_mask(full, node.recipe.survivors(node.round), generator("mask", *who))
    if node.control == "pruned before training":
        return masks.keep_largest(unpruned_weights(node), full, node.recipe.survivors(node.round))
    return full


def _initial_weights(node: Node, who: tuple, mask: Mask, parent: Trained | None, origin: Trained | None) -> dict[str, Tensor]:
    random = generator("initial weights", *who)
    began = (origin.initial if origin else unpruned_weights(node)) if node.origin else {}
    match node.control:
        case "winning ticket" if node.round:
            return began
        case "continued training":
            return parent.final
        case "pruned before training":
            return unpruned_weights(node)
        case "noise":
            noise = {layer.weight: node.noise * node.recipe.sigma(layer) * torch.randn(layer.shape, generator=random) for layer in node.recipe.layers}
            return {name: value + noise.get(name, 0) for name, value in began.items()}
        case "reinit from the ticket":
            return {name: _drawn_from(value[mask[name]], value, random) if name in mask else value for name, value in began.items()}
    return models.initialise(node.recipe, random)


def unpruned_weights(node: Node) -> dict[str, Tensor]:
    """The initial parameters of the unpruned network of a node's trial, drawn as its own training draws them."""
    return models.initialise(node.recipe, generator("initial weights", "iterative", "winning ticket", node.trial, 0, 0))


def _drawn_from(values: Tensor, like: Tensor, random: torch.Generator) -> Tensor:
    """As many numbers as `like` has, drawn from `values` with replacement; zeros where there are none to draw from."""
    if not len(values):
        return torch.zeros_like(like)
    return values[torch.randint(len(values), like.shape, generator=random)]
