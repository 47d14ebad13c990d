"""What is trained: the ticket of a node, made from what its parents left behind (paper, Sections 1 and 2).

The whole algorithm: round 0 trains the unpruned network. A later round prunes the smallest final weights of the round
before (one-shot: of round 0) and trains the survivors, from their initial weights (winning ticket) or from fresh ones
(random reinit).
"""

from dataclasses import dataclass

from torch import Tensor

from . import masks, models
from .masks import Mask
from .specs import Node
from .training import Ticket, generator


@dataclass(frozen=True)
class Trained:
    """What a training hands to those that stand on it: its mask, the final weights of its layers and, from round 0, the
    initial parameters."""

    mask: Mask
    final: dict[str, Tensor]
    initial: dict[str, Tensor]


def make(node: Node, parent: Trained | None = None, origin: Trained | None = None) -> Ticket:
    """The ticket of a node. parent, origin: what `node.parent` and `node.origin` left behind; neither for round 0."""
    network = models.build(node.recipe)
    who = (node.strategy, node.control, node.trial, node.round, node.draw)
    if node.round and node.control == "winning ticket":
        initial = origin.initial
    else:
        initial = models.initialise(network, node.recipe.initialisation, generator("initial weights", *who))
    if node.round:
        mask = masks.prune_layerwise(parent.final, parent.mask, {layer.weight: node.rates[layer.kind] for layer in network.layers})
    else:
        mask = masks.ones({layer.weight: initial[layer.weight] for layer in network.layers})
    weights = {name: value * mask[name] if name in mask else value.clone() for name, value in initial.items()}
    return Ticket(mask, weights, order=("order", *who))
