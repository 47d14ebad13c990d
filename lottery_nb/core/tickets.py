"""What is trained: a ticket, which is a mask and initial weights (paper, Sections 1 and 2).

The whole algorithm: round 0 trains the dense network. A later round prunes the smallest final
weights of the round before (one-shot: of round 0) and trains the survivors from their initial
weights. Each control changes one part of that: it is one function below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from . import masks, networks, saliency
from .errors import LotteryError
from .seeds import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .data import Split
    from .lines import Node
    from .masks import Mask
    from .networks import Layer

    Weights = dict[str, Tensor]
else:
    from .lazy import torch


@dataclass(frozen=True)
class Ticket:
    """A mask and the initial weights it is trained from (paper, Section 1), on the CPU.

    mask: {layer weight: bool}; weights: {parameter: tensor}, biases included; order: names that
    seed the order of its batches, dropout and the views of augmented images.
    """

    mask: Mask
    weights: Weights
    order: tuple


@dataclass(frozen=True)
class Outputs:
    """What a training hands to those that stand on it: its mask, its final parameters and, from
    round 0, the initial ones."""

    mask: Mask
    final: Weights
    initial: Weights


@dataclass(frozen=True)
class Control:
    """What is done with a ticket, as a function of what is at hand: its mask, its initial weights.

    needs: of the trainings before it, any of "mask" (which the round before decides), "final
    weights" (of the round before), "initial weights" (of the dense network), "survivor counts" (how
    many weights the ticket keeps in each layer); and "training images"; drawn: what `draws` counts,
    in words.
    """

    make: Callable[[AtHand], tuple[Mask, Weights]]
    needs: tuple[str, ...] = ()
    drawn: str = "draws"


CONTROLS: dict[str, Control] = {}
NEEDS = ("mask", "final weights", "initial weights", "survivor counts", "training images")


def control(name: str, needs: tuple[str, ...] = (), drawn: str = "draws") -> Callable:
    """Make a function of what is `AtHand` the control of a name; see `Control`. Raises LotteryError
    for a need that there is not."""
    if unknown := [need for need in needs if need not in NEEDS]:
        raise LotteryError(
            f"the control {name!r} needs {unknown[0]!r}, which is not among {', '.join(NEEDS)}"
        )

    def named(make: Callable[[AtHand], tuple[Mask, Weights]]) -> Callable:
        CONTROLS[name] = Control(make, needs, drawn)
        return make

    return named


def control_of(name: str) -> Control:
    """The control of a name; raises LotteryError for an unknown one."""
    if name not in CONTROLS:
        raise LotteryError(f"there is no control {name!r}: choose {', '.join(CONTROLS)}")
    return CONTROLS[name]


@control("winning ticket", needs=("mask", "initial weights"))
def winning_ticket(at: AtHand):
    """The ticket itself; at round 0 the dense network."""
    return at.mask, at.dense_weights


@control("random reinit", needs=("mask",), drawn="reinitialisations")
def random_reinit(at: AtHand):
    """Its mask, fresh weights (paper, Section 2)."""
    return at.mask, at.fresh_weights()


@control("reinit from the ticket", needs=("mask", "initial weights"))
def reinit_from_ticket(at: AtHand):
    """Its mask, each layer's weights drawn from its own surviving ones (paper, Appendix F)."""
    return at.mask, at.with_layers(
        lambda layer, weight: _drawn_from(weight[at.mask[layer.weight]], weight.shape, at.random)
    )


@control("noise", needs=("mask", "initial weights"))
def noise(at: AtHand):
    """Its mask, its weights with Gaussian noise (paper, Appendix F, Figure 25)."""

    def noisy(layer, weight):
        sigmas = at.node.noise * at.sigma(layer)
        return weight + sigmas * torch.randn(layer.shape, generator=at.random)

    return at.mask, at.with_layers(noisy)


@control("reinit with its signs", needs=("mask", "initial weights"))
def reinit_with_signs(at: AtHand):
    """Its mask, fresh magnitudes, its weights' own signs (Zhou et al. 2019)."""
    fresh = at.fresh_weights()
    return at.mask, at.with_layers(lambda layer, weight: fresh[layer.weight].abs() * weight.sign())


@control("constants with its signs", needs=("mask", "initial weights"))
def constants_with_signs(at: AtHand):
    """Its mask, every weight of a layer as large as the deviation it was drawn with, its weights'
    own signs (Zhou et al. 2019)."""
    return at.mask, at.with_layers(lambda layer, weight: at.sigma(layer) * weight.sign())


@control("constants", needs=("mask", "initial weights"))
def constants(at: AtHand):
    """Its mask, every weight of a layer as large as the deviation it was drawn with, and
    positive."""
    return at.mask, at.with_layers(lambda layer, weight: torch.full_like(weight, at.sigma(layer)))


@control("random signs", needs=("mask", "initial weights"))
def random_signs(at: AtHand):
    """Its mask, its weights' own magnitudes, signs drawn anew (Zhou et al. 2019)."""

    def drawn(layer, weight):
        return weight.abs() * (2 * torch.randint(2, weight.shape, generator=at.random) - 1)

    return at.mask, at.with_layers(drawn)


@control("flipped signs", needs=("mask", "initial weights"))
def flipped_signs(at: AtHand):
    """Its mask, its weights with every sign flipped."""
    return at.mask, at.with_layers(lambda layer, weight: -weight)


@control("continued training", needs=("mask", "final weights"))
def continued_training(at: AtHand):
    """The training between two prunings of the continued strategy, which no figure shows: it goes
    on from the trained weights (paper, Appendix B)."""
    return at.mask, at.parent_final


@control("random sparse", needs=("survivor counts",), drawn="random masks")
def random_sparse(at: AtHand):
    """As many survivors in each layer, at random positions, fresh weights (paper, Section 1)."""
    random = generator("mask", *at.node.stream)
    return masks.random_mask(at.full_mask, at.survivors, random), at.fresh_weights()


@control("pruned before training")
def pruned_before_training(at: AtHand):
    """The largest initial weights, nothing trained before (paper, Appendix F, Figure 18)."""
    at.refuse_rewinding()
    weights = at.dense_weights
    magnitudes = {name: weights[name].abs() for name in at.full_mask}
    return masks.keep_largest(magnitudes, at.full_mask, at.survivors), weights


def _pruned_by(criterion: str) -> None:
    """Register what a criterion of `saliency` keeps of the untrained network, as many weights in
    all as the ticket has; the same mask shuffled within each layer, and with fresh weights (Frankle
    et al. 2021); and shuffled among the units of each input."""

    @control(criterion, needs=("training images",))
    def kept(at: AtHand):
        return at.salient(criterion), at.dense_weights

    @control(f"shuffled {criterion}", needs=("training images",))
    def shuffled(at: AtHand):
        counts = {name: int(layer.sum()) for name, layer in at.salient(criterion).items()}
        random = generator("mask", *at.node.stream)
        return masks.random_mask(at.full_mask, counts, random), at.dense_weights

    @control(f"shuffled by input {criterion}", needs=("training images",))
    def shuffled_by_input(at: AtHand):
        random = generator("mask", *at.node.stream)
        return masks.shuffled_by_input(at.salient(criterion), random), at.dense_weights

    @control(f"reinitialised {criterion}", needs=("training images",))
    def reinitialised(at: AtHand):
        return at.salient(criterion), at.fresh_weights()


for _criterion in saliency.CRITERIA:
    _pruned_by(_criterion)


@dataclass(frozen=True)
class AtHand:
    """What a control makes its mask and weights of.

    parent, origin: what `node.parent` and `node.origin` handed on, where the node has them; pruned:
    in place of the parent, the mask that pruning it gave; images: the training images, where the
    control needs them; drawn: how initial weights are, one of `networks.DRAWS`.
    """

    node: Node
    parent: Outputs | None = None
    origin: Outputs | None = None
    pruned: Mask | None = None
    images: Split | None = None
    drawn: str = networks.DRAWN

    @cached_property
    def full_mask(self) -> Mask:
        """That of the dense network."""
        return masks.ones(
            {layer.weight: torch.empty(layer.shape) for layer in self.node.recipe.layers}
        )

    @cached_property
    def mask(self) -> Mask:
        """The ticket's: the parent's, pruned once more; at round 0 that of the dense network.
        Raises LotteryError for a control that takes it without needing it."""
        if self.pruned is not None:
            return self.pruned
        if self.parent:
            return prune(self.node, self.parent, lambda: self._initial)
        if self.node.round:
            raise self._lacks("mask")
        return self.full_mask

    @cached_property
    def survivors(self) -> dict[str, int]:
        """How many weights the ticket keeps in each layer."""
        if self.parent or self.pruned is not None:
            return {name: int(layer.sum()) for name, layer in self.mask.items()}
        return self.node.recipe.survivors(self.node.round)

    @cached_property
    def dense_weights(self) -> Weights:
        """The initial weights of the dense network; with late rewinding, those after the first
        iterations of its training."""
        if self.node.origin and self.node.recipe.rewind:
            assert self.origin
            return self.origin.final
        return self._initial

    @property
    def _initial(self) -> Weights:
        """The dense network's, whether or not they are rewound to."""
        return self.origin.initial if self.origin else dense_weights(self.node, self.drawn)

    def refuse_rewinding(self) -> None:
        """Raise LotteryError if the recipe rewinds: what is pruned before training starts at
        iteration 0."""
        if self.node.recipe.rewind:
            raise LotteryError(
                f"{self.node.control} prunes before training and starts from initial weights, "
                f"which late rewinding (rewind={self.node.recipe.rewind}) replaces: ask for it of "
                "a recipe without rewind"
            )

    def salient(self, criterion: str) -> Mask:
        """The mask that a criterion of `saliency` leaves of the dense network before training."""
        self.refuse_rewinding()
        if not self.images:
            raise self._lacks("training images")
        random = generator("examples", *self.node.dense.stream)  # the same at all densities
        some = saliency.examples(self.images, random)
        network = saliency.Untrained(self.node.recipe, self.dense_weights, *some)
        return saliency.kept(criterion, network, self.node.recipe.remaining(self.node.round))

    @property
    def parent_final(self) -> Weights:
        """The final weights of the round before."""
        if not self.parent:
            raise self._lacks("final weights")
        return self.parent.final

    @cached_property
    def random(self) -> torch.Generator:
        """Of this node, for its initial weights."""
        return generator("initial weights", *self.node.stream)

    def _lacks(self, need: str) -> LotteryError:
        return LotteryError(
            f"the control {self.node.control!r} uses what is not among its needs: add {need!r}"
        )

    def fresh_weights(self) -> Weights:
        """Initial weights of this node's own."""
        return networks.initialise(self.node.recipe, self.random, self.drawn)

    def sigma(self, layer: Layer) -> float:
        """The deviation that a layer's initial weights are drawn with."""
        return networks.sigma(layer, self.node.recipe)

    def with_layers(self, change: Callable[[Layer, Tensor], Tensor]) -> Weights:
        """The dense network's initial weights, those of each layer changed."""
        weights = self.dense_weights
        layers = self.node.recipe.layers
        return weights | {each.weight: change(each, weights[each.weight]) for each in layers}


def make(
    node: Node,
    parent: Outputs | None = None,
    origin: Outputs | None = None,
    pruned: Mask | None = None,
    images: Split | None = None,
    drawn: str = networks.DRAWN,
) -> Ticket:
    """The ticket of a node, or what its control makes of it; see `AtHand`."""
    at = AtHand(node, parent, origin, pruned, images, drawn)
    mask, initial = control_of(node.control).make(at)
    weights = {
        name: value * mask[name] if name in mask else value.clone()
        for name, value in initial.items()
    }
    return Ticket(mask, weights, order=node.batches)


def prune(node: Node, parent: Outputs, initial: Callable[[], Weights] | None = None) -> Mask:
    """The mask that pruning its parent gives a node, and all other nodes of its ticket; initial:
    the dense network's initial weights, for a criterion that asks for them."""
    recipe = node.recipe
    final = {name: parent.final[name] for name in parent.mask}
    scores = masks.CRITERIA[recipe.criterion](final, initial or partial(dense_weights, node))
    if recipe.scope == "global":
        names = [layer.weight for layer in recipe.layers if layer.kind == "conv"]
        return masks.prune_globally(scores, parent.mask, names, node.rates["conv"])
    rates = {layer.weight: node.rates[layer.kind] for layer in recipe.layers}
    return masks.prune_layerwise(scores, parent.mask, rates)


def dense_weights(node: Node, drawn: str = networks.DRAWN) -> Weights:
    """The initial parameters of the dense network of a node's trial, drawn as its own training
    draws them; drawn: how, one of `networks.DRAWS`."""
    names = "initial weights", *node.dense.stream
    return networks.initialise(node.recipe, generator(*names), drawn)


def initial_weights(node: Node, digest: str, carried: Weights | None = None) -> Weights:
    """The initial parameters that a ticket was trained from, by their digest: those that its file
    carries, else drawn again, in whichever way gives them. Raises LotteryError where none does."""
    drawn = (dense_weights(node, each) for each in networks.DRAWS)
    for weights in [carried] if carried else drawn:
        if fingerprint(weights) == digest:
            return weights
    raise LotteryError(
        "this processor draws other initial weights than the ticket's: its mask is of no use "
        "here without them. Take a ticket of Lenet, whose file carries them, or train the "
        "tickets here, with LOTTERY_RESULTS set to nothing"
    )


def fingerprint(tensors: Weights) -> str:
    """A digest of named tensors, every bit of them: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def _drawn_from(values: Tensor, shape: torch.Size, random: torch.Generator) -> Tensor:
    """Numbers drawn from `values` with replacement; zeros where there are none to draw from."""
    if not len(values):
        return torch.zeros(shape)
    return values[torch.randint(len(values), shape, generator=random)]
