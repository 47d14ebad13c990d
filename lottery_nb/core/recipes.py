"""What is trained: a recipe is one column of the paper's Figure 2 and everything the paper leaves
open. The paper's own recipes stand at the end.

>>> from lottery_nb import lenet
>>> tickets = lenet.iterative()
>>> plan = {"winning ticket": tickets, "random reinit": tickets.reinitialised(3)}
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any

from . import masks, networks
from .errors import LotteryError
from .lines import Line, is_count
from .networks import Layer
from .scales import EFFORTS, shrinking

SCALINGS = ("unit", "raw", "centred", "standardised")


def is_number(value) -> bool:
    """Whether this is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _budget(default):
    """A field that says how much to train, not what a training results in: not in a node's key."""
    return field(default=default, metadata={"budget": True})


def _of_step(default):
    """A number of the optimiser's steps, which may differ in a batch."""
    return field(default=default, metadata={"of": "step"})


def _of_ticket(default):
    """A field that decides tickets, and nothing of how they are trained."""
    return field(default=default, metadata={"of": "ticket"})


WIDTHS = {0.5: "half as wide", 0.25: "a quarter as wide", 0.125: "an eighth as wide"}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how one network is trained and pruned.

    Change a field with `recipe.but(field=value)`. Fields that the paper does not fix carry our
    choice; the reasons are on the book's method page.

    Examples
    --------
    >>> from lottery_nb import lenet
    >>> lenet.but(learning_rate=0.002).learning_rate
    0.002
    >>> lenet.weights
    266200
    >>> f"{lenet.remaining(7) / lenet.weights:.1%}"  # after seven rounds
    '21.1%'
    >>> len(lenet.iterative().at_rounds(0, 7).nodes("laptop", trials=3))  # how many trainings
    6
    """

    network: str
    data: str
    iterations: int  # optimiser steps of one training
    sizes: tuple[int, ...] = (300, 100)  # units of each fully-connected hidden layer
    width: float = 1.0  # multiplies filters and units
    # Pixel values: "unit" = 0 to 1 | "raw" = 0 to 255 | by channel over the training set:
    # "centred" = raw less the mean | "standardised" = that over the deviation
    scaling: str = "unit"
    dropout: float = 0.0  # probability to drop a unit of a hidden layer (convolutional networks)
    precision: str = "fp32"  # "fp32" | "bf16": of products (convolutional networks), not of weights
    # "glorot" | "gaussian", both truncated at two sigma (facts of the paper's Figure 15)
    initialisation: str = _of_ticket("glorot")
    init_std: float = _of_ticket(0.0)  # "gaussian" only: sigma, the same for every layer
    optimiser: str = "adam"  # "adam" | "sgd"
    learning_rate: float = _of_step(1.2e-3)
    momentum: float = _of_step(0.0)  # SGD only
    weight_decay: float = _of_step(0.0)  # SGD only; of weights, not of biases and batch-norm
    warmup: int = _of_step(0)  # iterations over which the learning rate rises linearly from 0
    # Iterations from which on the learning rate is a tenth
    milestones: tuple[int, ...] = _of_step(())
    augment: bool = False  # flip and shift training images at random, anew in each batch
    # Checkpoint iterations: test accuracy is taken there, besides at early stop and at the end
    checkpoints: tuple[int, ...] = field(default=(), metadata={"key": "marks"})
    adam_betas: tuple[float, float] = _of_step((0.9, 0.999))
    adam_eps: float = _of_step(1e-8)
    batch: int = 60  # images an iteration
    evaluate_every: int = 100  # iterations between two evaluations
    validation: int = 5000  # images held out of the training set
    split_seed: int = 0  # which images those are; the same for all trials
    prune_fc: float = _of_ticket(0.2)  # of the survivors of a fully-connected layer, a round
    prune_output: float = _of_ticket(0.1)  # of the survivors of the output layer, a round
    prune_conv: float = _of_ticket(0.1)  # of the survivors of a convolution, a round
    # "all" | "conv" | "fc": which layers are pruned; "fc" has the output layer
    pruned: str = _of_ticket("all")
    # "layerwise" | "global": of each layer, or of all convolutions
    scope: str = _of_ticket("layerwise")
    criterion: str = _of_ticket("magnitude")  # of `masks.CRITERIA`: which weights go first
    # Late rewinding: survivors go back to where the dense network was after so many iterations
    rewind: int = _of_ticket(0)
    # One-shot densities are that far apart (output layer: half)
    one_shot_step: float = _of_ticket(0.025)
    rounds: int = _budget(28)  # pruning rounds after the dense one
    trials: int = _budget(5)
    draws: int = _budget(3)  # at most so many reinitialisations of a ticket
    one_shot_every: int = _budget(1)  # of the one-shot grid, every so manieth density
    effort: str = _budget("main")  # of `scales.EFFORTS`
    chosen: frozenset[str] = field(  # by `but`: scales leave these fields alone
        default=frozenset(), init=False, metadata={"budget": True}
    )

    def __post_init__(self):
        for name in ("sizes", "milestones", "checkpoints", "adam_betas"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise LotteryError(
                    f"{name} is {value!r}: several values are needed, in parentheses and with a "
                    "comma, such as (300, 100)"
                )
            object.__setattr__(self, name, tuple(value))
        for name in _NUMBERS:
            value = getattr(self, name)
            if not is_number(value):
                raise LotteryError(f"{name} is {value!r}: a number is needed")
            if abs(value) < 2**53:
                object.__setattr__(self, name, float(value))  # 1 and 1.0 are one recipe, one key
        only = networks.kind_of(self.network).only
        self._keep(_ALONE)
        for name, (values, why) in only.items():
            if getattr(self, name) not in values:
                raise LotteryError(f"{name} is {getattr(self, name)!r} for {self.network}: {why}")
        self._keep(_TOGETHER)

    def _keep(self, constraints: "tuple[_Constraint, ...]") -> None:
        for names, allowed, wanted in constraints:
            for name in names.split():
                value = getattr(self, name)
                if not allowed(value, self):
                    said = wanted.format(recipe=self, criteria=", ".join(masks.CRITERIA))
                    raise LotteryError(f"{name} is {value!r}: {said}")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of its network, first to last."""
        return networks.kind_of(self.network).layers_of(self)

    @property
    def weights(self) -> int:
        """How many weights its network has."""
        return sum(layer.count for layer in self.layers)

    @property
    def rates(self) -> dict[str, float]:
        """Fraction of the survivors that a round prunes from a layer, by kind of layer."""

        def rate(kind: str, of_kind: float) -> float:
            prunes = self.pruned == "all" or (kind == "conv") == (self.pruned == "conv")
            return of_kind if prunes else 0.0

        return {
            "conv": rate("conv", self.prune_conv),
            "fc": rate("fc", self.prune_fc),
            "output": rate("output", self.prune_output),
            "shortcut": 0.0,
        }

    def rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0: the warm-up's share of it, a tenth
        after each milestone."""
        rising = min(1.0, iteration / self.warmup) if self.warmup else 1.0
        passed = sum(iteration >= milestone for milestone in self.milestones)
        return self.learning_rate * rising * 0.1**passed

    def remaining(self, rounds: int) -> int:
        """How many weights are left after so many rounds of iterative pruning."""
        if self.scope == "layerwise":
            return sum(self.survivors(rounds).values())
        pruned = sum(layer.count for layer in self.layers if layer.kind == "conv")
        kept = self.weights - pruned
        for _ in range(rounds):
            pruned -= round(self.prune_conv * pruned)
        return kept + pruned

    def survivors(self, rounds: int) -> dict[str, int]:
        """How many weights of each layer are left after so many rounds of iterative pruning,
        {layer weight: count}; with global pruning no plan tells, only a training does."""
        if self.scope != "layerwise":
            raise LotteryError(
                "global pruning leaves in each layer what a training decides: ask for the weights "
                "remaining in all"
            )
        counts = {layer.weight: layer.count for layer in self.layers}
        rates = {layer.weight: self.rates[layer.kind] for layer in self.layers}
        for _ in range(rounds):
            counts = {name: count - round(rates[name] * count) for name, count in counts.items()}
        return counts

    @property
    def one_shot_grid(self) -> range:
        """Rounds of the one-shot lines: 0, then steps of `one_shot_step` short of pruning
        everything (2.5 % to 97.5 %)."""
        return range(0, math.ceil(1 / self.one_shot_step), self.one_shot_every)

    def but(self, **changes) -> "Recipe":
        """This recipe with some fields changed.

        Scales leave these alone, but for `iterations`, which they multiply, and `rounds`, `trials`
        and `draws`, which they limit. Raises LotteryError for a field or a value that there is not.
        """
        names = [f.name for f in fields(self) if f.init]
        if unknown := sorted(set(changes) - set(names)):
            raise LotteryError(
                f"a recipe has no {', '.join(unknown)}: its fields are {', '.join(names)}"
            )
        changed = replace(self, **changes)
        object.__setattr__(changed, "chosen", self.chosen | set(changes))
        return changed

    def sweep(self, **changes) -> "Recipe":
        """This recipe with some fields changed, as one of many in a sweep: three trials at paper
        scale, fewer at others (paper, Appendix G)."""
        return self.but(**{"effort": "sweep", "trials": 3, **changes})

    def __hash__(self) -> int:
        # Of what most recipes differ in: a hash of all forty fields takes longer than a look-up.
        return hash((self.network, self.iterations, self.learning_rate, self.sizes, self.prune_fc))

    @lru_cache(maxsize=10_000)  # noqa: B019 (a scale has few recipes)
    def at(self, scale: str) -> "Recipe":
        """This recipe shrunk to a scale, save what `but` has set; raises for an unknown one."""
        family = networks.kind_of(self.network).family
        shrinks = shrinking(scale, self.network, family, self.effort)
        changes = {k: v for k, v in shrinks.replaced.items() if k not in self.chosen}
        changes |= {k: min(getattr(self, k), limit) for k, limit in shrinks.limits.items()}
        if shrinks.iterations != 1:
            iterations = max(1, round(self.iterations * shrinks.iterations))
            every = min(changes.get("evaluate_every", self.evaluate_every), iterations)
            changes |= {
                "iterations": iterations,
                "evaluate_every": every,
                "warmup": round(self.warmup * shrinks.iterations),
                "rewind": math.ceil(self.rewind * shrinks.iterations),
                "milestones": tuple(round(i * shrinks.iterations) for i in self.milestones),
                "checkpoints": tuple(
                    every * round(i * shrinks.iterations / every) for i in self.checkpoints
                ),
            }
        return replace(self, **changes)

    def until(self, iterations: int) -> "Recipe":
        """The beginning of this recipe's dense training: with it a network has, bit for bit, the
        weights that it has after so many iterations of the whole."""
        return replace(
            self,
            iterations=iterations,
            evaluate_every=min(self.evaluate_every, iterations),
            milestones=tuple(i for i in self.milestones if i < iterations),
            checkpoints=(),
            rewind=0,
        )

    def reduced_by(self, scale: str) -> str:
        """By what a scale says little of the paper's network, in words: it makes it narrower, or
        trains it for under a fifth of its iterations; "" where it does neither."""
        shrunk = self.at(scale)
        share = shrunk.width / self.width
        said = [WIDTHS.get(share, f"{share:g} times as wide")] if share < 1 else []
        if shrunk.iterations < self.iterations / 5:
            said.append(f"{shrunk.iterations:,} of {self.iterations:,} iterations")
        return ", ".join(said)

    @cached_property
    def identity(self) -> dict:
        """The fields that decide a result and differ from their defaults, as keys have them."""
        deciding = (f for f in fields(self) if not f.metadata.get("budget"))
        values = {
            f.metadata.get("key", f.name): (getattr(self, f.name), f.default) for f in deciding
        }
        return {name: value for name, (value, default) in values.items() if value != default}

    @cached_property
    def shared(self) -> dict:
        """Of the `identity` what all trainings of a batch have in common: not the numbers of the
        optimiser's steps, nor what decides their tickets."""
        own = {f.metadata.get("key", f.name) for f in fields(self) if "of" in f.metadata}
        return {name: value for name, value in self.identity.items() if name not in own}

    @cached_property
    def steps(self) -> tuple:
        """The numbers of the optimiser's steps; trainings that have the same step alike."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.metadata.get("of") == "step")

    @classmethod
    def of_identity(cls, identity: dict) -> "Recipe":
        """The recipe of an `identity`, also of one read from JSON; raises LotteryError for one of
        other code."""
        names = {f.metadata.get("key", f.name): f.name for f in fields(cls)}
        if unknown := sorted(identity.keys() - names.keys()):
            raise LotteryError(f"a recipe of other code: this one has no {', '.join(unknown)}")
        values: dict[str, Any] = {
            names[key]: tuple(value) if isinstance(value, list) else value
            for key, value in identity.items()
        }
        return cls(**values)

    def iterative(self) -> Line:
        """Winning tickets: train, prune, reset the survivors to their initial weights, repeat
        (paper, Section 2)."""
        return Line(self)

    def one_shot(self) -> Line:
        """Tickets of a single pruning: train, prune to the wanted density at once, reset (paper,
        Section 2)."""
        return Line(self, strategy="one-shot")

    def continued(self) -> Line:
        """Tickets whose masks come from continued training: prune, train on from the trained
        weights, repeat, and reset to the initial weights only for the training that is shown
        (paper, Appendix B, Strategy 2)."""
        return Line(self, strategy="continued")

    def pruned_before_training(self) -> Line:
        """The smallest initial weights pruned, nothing trained before (paper, Appendix F,
        Figure 18)."""
        return Line(self).with_control("pruned before training")

    def random_sparse(self, draws: int = 1) -> Line:
        """As many survivors in each layer as the iterative tickets have, at random positions, with
        initial weights of their own, `draws` times a trial (paper, Section 1 and Appendix E)."""
        return Line(self).with_control("random sparse", draws)


_NUMBERS = (
    "width", "dropout", "init_std", "learning_rate", "momentum", "weight_decay", "adam_eps",
    "prune_fc", "prune_output", "prune_conv", "one_shot_step",
)  # fmt: skip


def _rising(iterations, recipe) -> bool:
    inside = all(is_count(i) and i < recipe.iterations for i in iterations)
    return inside and list(iterations) == sorted(set(iterations))


def _choice(*values) -> tuple[Callable, str]:
    said = ", ".join(values) if len(values) > 2 else " or ".join(values)
    return lambda value, recipe: value in values, f"choose {said}"


_Constraint = tuple[str, Callable[[Any, Recipe], bool], str]

# Fields, what they may be, and what a person is told who gives another value: each by itself, ...
_ALONE: tuple[_Constraint, ...] = (
    (
        "adam_betas",
        lambda v, r: len(v) == 2 and all(is_number(beta) and 0 <= beta < 1 for beta in v),
        "two numbers in [0, 1) are needed, such as (0.9, 0.999)",
    ),
    ("adam_eps learning_rate", lambda v, r: 0 < v < math.inf, "it must be a number above 0"),
    (
        "split_seed",
        lambda v, r: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
        "a whole number of 0 or more is needed",
    ),
    (
        "iterations batch evaluate_every validation rounds trials draws one_shot_every",
        lambda v, r: is_count(v),
        "a whole number of 1 or more is needed",
    ),
    (
        "sizes",
        lambda v, r: (
            all(map(is_count, v)) and bool(v or "sizes" in networks.kind_of(r.network).only)
        ),
        "one positive whole number for each hidden layer is needed, such as (300, 100)",
    ),
    ("momentum weight_decay dropout", lambda v, r: 0 <= v < 1, "it must be in [0, 1)"),
    ("optimiser", *_choice("adam", "sgd")),
    ("initialisation", *_choice("glorot", "gaussian")),
    ("effort", *_choice(*EFFORTS)),
    ("scaling", *_choice(*SCALINGS)),
    ("precision", *_choice("fp32", "bf16")),
    ("pruned", *_choice("all", "conv", "fc")),
    ("scope", *_choice("layerwise", "global")),
    ("criterion", lambda v, r: v in masks.CRITERIA, "choose {criteria}"),
    (
        "width",
        lambda v, r: 0 < v <= 4,
        "it multiplies filters and units, and lies above 0 and up to 4",
    ),
    (
        "prune_fc prune_output prune_conv one_shot_step",
        lambda v, r: 0 < v < 1,
        "a pruning rate lies between 0 and 1, both excluded",
    ),
)
# ... and together with other fields.
_TOGETHER: tuple[_Constraint, ...] = (
    (
        "momentum weight_decay",
        lambda v, r: r.optimiser == "sgd" or not v,
        "it belongs to sgd, adam has none here",
    ),
    (
        "warmup",
        lambda v, r: isinstance(v, int) and 0 <= v <= r.iterations,
        "it must be a whole number from 0 to the {recipe.iterations:,} iterations of a training",
    ),
    (
        "rewind",
        lambda v, r: v == 0 or (is_count(v) and r.warmup <= v < r.iterations),
        "it must be 0, or a whole number from the end of the warm-up, iteration {recipe.warmup:,}, "
        "to below the {recipe.iterations:,} iterations of a training",
    ),
    (
        "milestones checkpoints",
        _rising,
        "whole numbers are needed that rise and lie before the end, iteration "
        "{recipe.iterations:,}",
    ),
    (
        "checkpoints",
        lambda v, r: all(i % r.evaluate_every == 0 for i in v),
        "multiples of evaluate_every={recipe.evaluate_every} are needed",
    ),
    (
        "init_std",
        lambda v, r: v > 0 if r.initialisation == "gaussian" else not v,
        "gaussian needs a deviation above 0, and glorot has none to choose",
    ),
    (
        "scope",
        lambda v, r: v == "layerwise" or r.pruned == "conv",
        "global pruning takes the smallest weights of all convolutions: choose pruned='conv'",
    ),
    (
        "evaluate_every",
        lambda v, r: v <= r.iterations,
        "more than the {recipe.iterations} iterations of a training",
    ),
)

# The paper's Figure 2.
lenet = Recipe(network="lenet", data="mnist", iterations=50_000)
# The method page tells why pixels are 0 to 255.
_conv: dict[str, Any] = {"data": "cifar10", "sizes": (256, 256), "scaling": "raw"}
conv2 = Recipe(network="conv2", iterations=20_000, learning_rate=2e-4, rounds=22, **_conv)
conv4 = Recipe(network="conv4", iterations=25_000, learning_rate=3e-4, rounds=26, **_conv)
conv6 = Recipe(
    network="conv6", iterations=30_000, learning_rate=3e-4, rounds=26, prune_conv=0.15, **_conv
)
_deep: dict[str, Any] = {
    "data": "cifar10", "sizes": (), "scaling": "standardised", "augment": True,
    "optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4,
    "pruned": "conv", "prune_conv": 0.2, "scope": "global",
}  # fmt: skip
resnet18 = Recipe(
    network="resnet18",
    iterations=30_000,
    batch=128,
    milestones=(20_000, 25_000),
    checkpoints=(10_000, 20_000),
    rounds=15,
    **_deep,
)
# 160 epochs of 45,000 images, the rate a tenth after 80 and after 120
vgg19 = Recipe(
    network="vgg19",
    iterations=112_480,
    batch=64,
    milestones=(56_240, 84_360),
    checkpoints=(30_000, 60_000),
    rounds=33,
    **_deep,
)
