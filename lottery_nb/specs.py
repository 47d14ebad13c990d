"""What is asked for: recipes, scales, and the lines of a figure. No torch here: planning costs nothing.

A `Recipe` is one column of the paper's Figure 2 and everything the paper leaves open. A `Line` is one line of a figure
("the random reinitialisations of the iterative tickets of this recipe"). A `Node` is one training of one network: a line
at one trial and one round. A plan is a dict from a line's label to the line.

    from lottery_nb import lenet
    plan = {"winning ticket": lenet.iterative(), "random reinit": lenet.iterative().reinitialised(3)}
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from itertools import pairwise

from .errors import LotteryError

NETWORKS = ("lenet", "conv2", "conv4", "conv6", "conv6-256", "resnet18", "vgg19")
DEEP = ("resnet18", "vgg19")  # convolutions with batch-norm up to an average pooling, then the output layer
SCALINGS = ("unit", "raw", "centred", "standardised")
EFFORTS = ("main", "control", "sweep")
CLASSES = 10
LENET_INPUTS = 28 * 28
CONV_SIDE, CONV_CHANNELS = 32, 3  # of the images that the convolutional networks take
# Filters of each block of two 3x3 convolutions and a 2x2 max-pooling. The paper prints 256 for Conv-6's third block, but all
# its densities and weight counts fit 192 (the page of Figure 2 lays that out).
BLOCKS = {"conv2": (64,), "conv4": (64, 128), "conv6": (64, 128, 192), "conv6-256": (64, 128, 256)}
RESNET_FILTERS = (16, 32, 64)  # of each of three groups of three residual blocks of two convolutions
VGG_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # (filters, convolutions); a 2x2 max-pooling between blocks

NUMBERS = (
    "width", "dropout", "init_std", "learning_rate", "momentum", "weight_decay", "adam_eps", "prune_fc", "prune_output", "prune_conv", "one_shot_step",
)  # fmt: skip

# Raised when the meaning of a result changes for the same recipe; every key then changes with it.
RESULTS_VERSION = 1

# What a line may show beside the measures that every training leaves; all but distributions are looked up on the test set
# every `evaluate_every` steps.
CURVES = ("test_accuracy", "val_loss", "val_accuracy")
TEST_STOP = ("early_stop_iteration_test", "test_accuracy_at_early_stop_test")
DISTRIBUTIONS = (
    "initial weights", "movement in the ticket", "movement outside the ticket", "growth in the ticket", "growth outside the ticket",
    "incoming connections", "outgoing connections", "map of connections",
)  # fmt: skip


def _asks(default):
    """A field that says how much to train, not what a training results in: it stays out of a node's key."""
    return field(default=default, metadata={"asks": True})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise LotteryError(message)


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value) -> bool:
    """Whether this is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def any_distribution(shows: Iterable[str]) -> bool:
    """Whether a distribution over a layer is among what a line shows."""
    return any(what.startswith(DISTRIBUTIONS) for what in shows)


@dataclass(frozen=True)
class Layer:
    """A layer whose weights are counted. `kind` ("conv" | "fc" | "output" | "shortcut") picks its pruning rate; `shape` is
    (outputs, inputs), of a convolution (filters, channels, height, width); `normed`: batch-norm follows, in place of a bias."""

    name: str
    kind: str
    shape: tuple[int, ...]
    normed: bool = False

    @property
    def weight(self) -> str:
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        return f"{self.name}.bias"

    @property
    def count(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)

    @property
    def fans(self) -> tuple[int, int]:
        """(fan in, fan out)"""
        reach = math.prod(self.shape[2:])
        return self.shape[1] * reach, self.shape[0] * reach


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how one network is trained and pruned. Change a field with `recipe.but(field=value)`.

    Fields the paper does not fix carry our choice; the reasons are on the book's method page.
    """

    network: str
    data: str
    iterations: int  # optimiser steps of one training
    sizes: tuple[int, ...] = (300, 100)  # units of each fully-connected hidden layer
    width: float = 1.0  # multiplies filters and units
    scaling: str = "unit"  # pixel values: "unit" = 0 to 1 | "raw" = 0 to 255 | by channel over the training set: "centred" | "standardised"
    dropout: float = 0.0  # probability to drop a unit of a fully-connected hidden layer (convolutional networks)
    precision: str = "fp32"  # "fp32" | "bf16": of the products of convolutional networks, not of weights
    initialisation: str = "glorot"  # "glorot" | "gaussian", both truncated at two sigma (facts of the paper's Figure 15)
    init_std: float = 0.0  # "gaussian" only: sigma, the same for every layer
    optimiser: str = "adam"  # "adam" | "sgd"
    learning_rate: float = 1.2e-3
    momentum: float = 0.0  # SGD only
    weight_decay: float = 0.0  # SGD only; of weights, not of biases and batch-norm
    warmup: int = 0  # iterations over which the learning rate rises linearly from 0
    milestones: tuple[int, ...] = ()  # iterations from which on the learning rate is a tenth of what it was
    augment: bool = False  # flip and shift training images at random, each image anew in each batch
    marks: tuple[int, ...] = ()  # iterations at which test accuracy is taken, beside early stop and the end
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    batch: int = 60  # images a step
    evaluate_every: int = 100  # steps between two looks at the validation set
    validation: int = 5000  # images held out of the training set
    split_seed: int = 0  # which images those are; the same for all trials
    prune_fc: float = 0.2  # of the survivors of a fully-connected layer, a round
    prune_output: float = 0.1  # of the survivors of the output layer, a round
    prune_conv: float = 0.1  # of the survivors of a convolution, a round
    pruned: str = "all"  # "all" | "conv" | "fc": which layers are pruned at all; "fc" includes the output layer
    scope: str = "layerwise"  # "layerwise" | "global": the smallest weights of each layer, or of all convolutions together
    one_shot_step: float = 0.025  # one-shot densities are that far apart (output layer: half)
    rounds: int = _asks(28)  # pruning rounds after the unpruned one
    trials: int = _asks(5)
    draws: int = _asks(3)  # at most so many reinitialisations of a ticket
    one_shot_every: int = _asks(1)  # of the one-shot grid, every so manieth density
    effort: str = _asks("main")  # "main" | "control" | "sweep": scales spend less on the appendix than on the paper's main claims
    chosen: frozenset[str] = field(default=frozenset(), init=False, compare=False, metadata={"asks": True})  # by `but`: scales leave them alone

    def __post_init__(self):
        for name in ("sizes", "milestones", "marks", "adam_betas"):
            value = getattr(self, name)
            _require(isinstance(value, tuple | list), f"{name} is {value!r}: several values are needed, in parentheses and with a comma, such as (300, 100)")
            object.__setattr__(self, name, tuple(value))
        for name in NUMBERS:
            _require(is_number(getattr(self, name)), f"{name} is {getattr(self, name)!r}: a number is needed")
            if abs(getattr(self, name)) < 2**53:
                object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one recipe, and one key
        _require(
            len(self.adam_betas) == 2 and all(is_number(beta) and 0 <= beta < 1 for beta in self.adam_betas),
            f"adam_betas is {self.adam_betas!r}: two numbers in [0, 1) are needed, such as (0.9, 0.999)",
        )
        _require(0 < self.adam_eps < math.inf, f"adam_eps is {self.adam_eps!r}: it must be a number above 0")
        _require(
            isinstance(self.split_seed, int) and not isinstance(self.split_seed, bool) and self.split_seed >= 0,
            f"split_seed is {self.split_seed!r}: a whole number of 0 or more is needed",
        )
        for name in ("iterations", "batch", "evaluate_every", "validation", "rounds", "trials", "draws", "one_shot_every"):
            _require(_is_count(getattr(self, name)), f"{name} is {getattr(self, name)!r}: a whole number of 1 or more is needed")
        deep = self.network in DEEP
        _require(
            bool(self.sizes) != deep and all(_is_count(size) for size in self.sizes),
            f"sizes is {self.sizes!r}: {self.network} has no fully-connected hidden layer, so it must be ()"
            if deep
            else f"sizes is {self.sizes!r}: one positive whole number for each hidden layer is needed, such as (300, 100)",
        )
        _require(0 < self.learning_rate < math.inf, f"learning_rate is {self.learning_rate!r}: it must be a number above 0")
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum!r}: it must be in [0, 1)")
        _require(self.optimiser in ("adam", "sgd"), f"optimiser is {self.optimiser!r}: choose adam or sgd")
        _require(self.optimiser == "sgd" or not self.momentum, "momentum belongs to sgd: adam has none")
        _require(0 <= self.weight_decay < 1, f"weight_decay is {self.weight_decay!r}: it must be in [0, 1)")
        _require(self.optimiser == "sgd" or not self.weight_decay, "weight_decay belongs to sgd: adam has none here")
        _require(
            isinstance(self.warmup, int) and 0 <= self.warmup <= self.iterations,
            f"warmup is {self.warmup!r}: it must be a whole number from 0 to the {self.iterations:,} iterations of a training",
        )
        for name in ("milestones", "marks"):
            at = getattr(self, name)
            _require(
                all(map(_is_count, at)) and list(at) == sorted(set(at)) and all(i < self.iterations for i in at),
                f"{name} are {at!r}: whole numbers are needed that rise and lie before the end, iteration {self.iterations:,}",
            )
        _require(
            all(mark % self.evaluate_every == 0 for mark in self.marks),
            f"marks are {self.marks!r}: multiples of evaluate_every={self.evaluate_every} are needed",
        )
        _require(self.initialisation in ("glorot", "gaussian"), f"initialisation is {self.initialisation!r}: choose glorot or gaussian")
        _require(
            self.init_std > 0 if self.initialisation == "gaussian" else not self.init_std,
            f"init_std is {self.init_std!r}: gaussian needs a deviation above 0, and glorot has none to choose",
        )
        _require(self.effort in EFFORTS, f"effort is {self.effort!r}: choose {', '.join(EFFORTS)}")
        for name, choices in (("scaling", SCALINGS), ("precision", ("fp32", "bf16")), ("pruned", ("all", "conv", "fc")), ("scope", ("layerwise", "global"))):
            _require(getattr(self, name) in choices, f"{name} is {getattr(self, name)!r}: choose {', '.join(choices)}")
        _require(0 < self.width <= 4, f"width is {self.width!r}: it multiplies filters and units, and lies above 0 and up to 4")
        _require(0 <= self.dropout < 1, f"dropout is {self.dropout!r}: it must be in [0, 1)")
        if self.network == "lenet":
            for name, plain in (("dropout", 0.0), ("precision", "fp32")):
                _require(getattr(self, name) == plain, f"{name} is {getattr(self, name)!r}: Lenet has no such switch, the convolutional networks do")
            _require(self.pruned != "conv", "pruned is 'conv': Lenet has no convolution; choose all or fc")
            _require(not self.augment, "augment is for the networks of colour images: Lenet's digits are not flipped")
        if deep:
            _require(self.pruned == "conv", f"pruned is {self.pruned!r}: of {self.network} only the convolutions are pruned; choose conv")
            _require(not self.dropout, f"dropout is {self.dropout!r}: {self.network} has no layer for it, conv2, conv4 and conv6 do")
        _require(self.scope == "layerwise" or self.pruned == "conv", "global pruning takes the smallest weights of all convolutions: choose pruned='conv'")
        for name in ("prune_fc", "prune_output", "prune_conv", "one_shot_step"):
            _require(0 < getattr(self, name) < 1, f"{name} is {getattr(self, name)!r}: a pruning rate lies between 0 and 1, both excluded")
        _require(self.evaluate_every <= self.iterations, f"evaluate_every is {self.evaluate_every}: more than the {self.iterations} iterations of a training")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of its network, first to last; raises for an unknown network."""
        _require(self.network in NETWORKS, f"there is no network {self.network!r}: choose {', '.join(NETWORKS)}")
        convolutions, inputs = [], LENET_INPUTS
        if self.network in DEEP:
            convolutions = self._residual() if self.network == "resnet18" else self._vgg()
            inputs = convolutions[-1].shape[0]
        if self.network in BLOCKS:
            filters = [self._widened(n) for n in BLOCKS[self.network] for _ in range(2)]
            channels = zip(filters, [CONV_CHANNELS, *filters])
            convolutions = [Layer(f"conv{i}", "conv", (out, into, 3, 3)) for i, (out, into) in enumerate(channels, 1)]
            inputs = filters[-1] * (CONV_SIDE // 2 ** len(BLOCKS[self.network])) ** 2
        widths = (inputs, *map(self._widened, self.sizes), CLASSES)
        names = [*(f"fc{i}" for i in range(1, len(self.sizes) + 1)), "output"]
        connected = [Layer(name, "output" if name == "output" else "fc", (out, into)) for name, into, out in zip(names, widths, widths[1:])]
        return (*convolutions, *connected)

    def _residual(self) -> list[Layer]:
        """The residual network of 20 layers for CIFAR; a group that doubles the filters begins with a 1x1 projection."""
        filters = [self._widened(n) for n in RESNET_FILTERS]
        layers = [Layer("conv1", "conv", (filters[0], CONV_CHANNELS, 3, 3), True)]
        for group, (into, out) in enumerate(zip(filters[:1] + filters, filters)):
            if group:
                layers.append(Layer(f"shortcut{group}", "shortcut", (out, into, 1, 1), True))
            for i, channels in enumerate((into, *[out] * 5), 6 * group + 2):
                layers.append(Layer(f"conv{i}", "conv", (out, channels, 3, 3), True))
        return layers

    def _vgg(self) -> list[Layer]:
        filters = [self._widened(n) for n, convolutions in VGG_BLOCKS for _ in range(convolutions)]
        return [Layer(f"conv{i}", "conv", (out, into, 3, 3), True) for i, (out, into) in enumerate(zip(filters, [CONV_CHANNELS, *filters]), 1)]

    def _widened(self, units: int) -> int:
        return max(1, round(units * self.width))

    def rate_at(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0: the warm-up's share of it, a tenth after each milestone."""
        rising = min(1.0, iteration / self.warmup) if self.warmup else 1.0
        return self.learning_rate * rising * 0.1 ** sum(iteration >= milestone for milestone in self.milestones)

    @property
    def rates(self) -> dict[str, float]:
        """Fraction of the survivors that a round prunes from a layer, by kind of layer."""
        rates = {"conv": self.prune_conv, "fc": self.prune_fc, "output": self.prune_output, "shortcut": 0.0}
        return rates if self.pruned == "all" else {kind: rate if (kind == "conv") == (self.pruned == "conv") else 0.0 for kind, rate in rates.items()}

    @property
    def weights(self) -> int:
        """How many weights its network has."""
        return sum(layer.count for layer in self.layers)

    def sigma(self, layer: Layer) -> float:
        """The deviation of a layer's initial weights, before they are truncated at twice that."""
        return self.init_std or math.sqrt(2 / sum(layer.fans))

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
        """How many weights of each layer are left after so many rounds of iterative pruning, {layer weight: count}; with
        global pruning no plan tells, only a training does."""
        _require(self.scope == "layerwise", "global pruning leaves in each layer what a training decides: ask for the weights remaining in all")
        counts = {layer.weight: layer.count for layer in self.layers}
        for _ in range(rounds):
            counts = {layer.weight: counts[layer.weight] - round(self.rates[layer.kind] * counts[layer.weight]) for layer in self.layers}
        return counts

    def but(self, **changes) -> "Recipe":
        """This recipe with some fields changed. Scales leave these alone, but for `iterations`, which they multiply, and `rounds`,
        `trials` and `draws`, which they limit."""
        names = [f.name for f in fields(self) if f.init]
        unknown = sorted(set(changes) - set(names))
        _require(not unknown, f"a recipe has no {', '.join(unknown)}: its fields are {', '.join(names)}")
        changed = replace(self, **changes)
        object.__setattr__(changed, "chosen", self.chosen | set(changes))
        return changed

    def sweep(self, **changes) -> "Recipe":
        """This recipe with some fields changed, as one of many in a sweep: three trials at paper scale, fewer at others
        (paper, Appendix G)."""
        return self.but(**{"effort": "sweep", "trials": 3, **changes})

    def iterative(self) -> "Line":
        """Winning tickets: train, prune, reset the survivors to their initial weights, repeat (paper, Section 2)."""
        return Line(self)

    def one_shot(self) -> "Line":
        """Tickets of a single pruning: train, prune to the wanted density at once, reset (paper, Section 2)."""
        return Line(self, strategy="one-shot")

    def continued(self) -> "Line":
        """Tickets whose masks come from continued training: prune, train on from the trained weights, repeat, and reset
        to the initial weights only for the training that is shown (paper, Appendix B, Strategy 2)."""
        return Line(self, strategy="continued")

    def pruned_before_training(self) -> "Line":
        """The smallest initial weights pruned, nothing trained before (paper, Appendix F, Figure 18)."""
        return Line(self, control="pruned before training")

    def random_sparse(self, draws: int = 1) -> "Line":
        """As many survivors in each layer as the iterative tickets have, at random positions, with initial weights of
        their own, `draws` times a trial (paper, Section 1 and Appendix E)."""
        return Line(self, control="random sparse", draws=_draws(draws))

    @property
    def one_shot_grid(self) -> range:
        """Rounds of the one-shot lines: 0, then steps of `one_shot_step` short of pruning everything (2.5 % to 97.5 %)."""
        return range(0, math.ceil(1 / self.one_shot_step), self.one_shot_every)

    def at(self, scale: str) -> "Recipe":
        """This recipe shrunk to a scale, save what `but` has set; raises for an unknown one."""
        shrink = shrinking(scale).get(self.network, {})
        shrink = {**shrink, **shrink.get(self.effort, {})}
        changes = {name: value for name, value in shrink.items() if name not in ("iterations", "rounds", "trials", "draws", *EFFORTS, *self.chosen)}
        for name in ("rounds", "trials", "draws"):
            if name in shrink:
                changes[name] = min(getattr(self, name), shrink[name])
        if "iterations" in shrink:
            changes["iterations"] = max(1, round(self.iterations * shrink["iterations"]))
            changes["warmup"] = round(self.warmup * shrink["iterations"])
            changes["milestones"] = tuple(round(milestone * shrink["iterations"]) for milestone in self.milestones)
            every = changes["evaluate_every"] = min(changes.get("evaluate_every", self.evaluate_every), changes["iterations"])
            changes["marks"] = tuple(every * round(mark * shrink["iterations"] / every) for mark in self.marks)
        return replace(self, **changes)

    def deciding(self) -> dict:
        """The fields that decide a result and differ from their defaults: what a node's key is made of."""
        return dict(self._deciding)

    @cached_property
    def _deciding(self) -> dict:
        own = {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("asks")}
        defaults = {f.name: f.default for f in fields(self)}
        return {name: value for name, value in own.items() if value != defaults[name]}


@dataclass(frozen=True)
class Node:
    """One training. `recipe` is already at its scale. `round` counts prunings (one-shot: steps of the density grid)."""

    recipe: Recipe
    strategy: str  # "iterative" | "one-shot" | "continued"
    control: str  # a key of STANDS_ON
    trial: int
    round: int
    draw: int = 0
    noise: float = 0.0

    @cached_property
    def parent(self) -> "Node | None":
        """The training whose final weights decide this node's mask: none where no training does."""
        if not self.round or "mask" not in STANDS_ON[self.control] and not (self.control == "random sparse" and self.recipe.scope == "global"):
            return None
        before = 0 if self.strategy == "one-shot" else self.round - 1
        if not before:
            return self.unpruned
        return replace(self, control="continued training" if self.strategy == "continued" else "winning ticket", round=before, draw=0, noise=0.0)

    @cached_property
    def origin(self) -> "Node | None":
        """The unpruned network of this trial where this node starts from its initial weights, else none."""
        return self.unpruned if self.round and "initial weights" in STANDS_ON[self.control] else None

    @property
    def unpruned(self) -> "Node":
        """The whole network of this trial."""
        return Node(self.recipe, "iterative", "winning ticket", self.trial, 0)

    @cached_property
    def rates(self) -> dict[str, float]:
        """Fraction of the survivors to prune from the parent's layers, by kind of layer."""
        if self.strategy == "one-shot":
            rate = self.recipe.one_shot_step * self.round
            return {kind: each and (rate if kind == "fc" else rate * each / self.recipe.prune_fc) for kind, each in self.recipe.rates.items()}
        return self.recipe.rates

    @cached_property
    def key(self) -> str:
        """A readable prefix and a hash of all that decides the result, and of nothing else."""
        spec = {
            "version": RESULTS_VERSION, "recipe": self.recipe._deciding, "strategy": self.strategy,
            "control": self.control, "trial": self.trial, "round": self.round, "draw": self.draw,
        } | ({"noise": self.noise} if self.noise else {})  # fmt: skip
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
        draw = f"-d{self.draw}" if self.draw else ""
        control = f"{self.control} {self.noise:g}" if self.noise else self.control
        return f"{self.recipe.network}-{self.recipe.data}-{self.strategy}-{control.replace(' ', '-')}-t{self.trial}-r{self.round:02d}{draw}-{digest}"


@dataclass(frozen=True)
class Line:
    """One line of a figure: which tickets, which control on them, which rounds are drawn."""

    recipe: Recipe
    strategy: str = "iterative"
    control: str = "winning ticket"
    draws: int = 1  # controls with a random part: so many a ticket
    noise: float = 0.0  # of the control "noise", in deviations of a layer's initial weights
    rounds: tuple[int, ...] | None = None  # None: all of the recipe's
    shows: tuple[str, ...] = ()  # what its table has beside the usual measures

    def reinitialised(self, draws: int = 1) -> "Line":
        """The same masks with fresh initial weights, `draws` times a ticket (paper, Section 2)."""
        return replace(self, control="random reinit", draws=_draws(draws))

    def reinitialised_from_ticket(self, draws: int = 1) -> "Line":
        """The same masks, each layer's weights drawn from its ticket's own initial weights (paper, Appendix F, Figure 17)."""
        return replace(self, control="reinit from the ticket", draws=_draws(draws))

    def with_noise(self, sigmas: float, draws: int = 1) -> "Line":
        """The tickets with Gaussian noise on their initial weights, its deviation `sigmas` times that of each layer's
        initialisation (paper, Appendix F, Figure 25)."""
        _require(sigmas > 0 and math.isfinite(sigmas), f"noise is {sigmas!r}: it must be a number above 0")
        return replace(self, control="noise", noise=float(sigmas), draws=_draws(draws))

    def at_rounds(self, *rounds: int) -> "Line":
        """Only these rounds are drawn (the rounds they stand on are trained all the same)."""
        _require(bool(rounds) and all(isinstance(r, int) and r >= 0 for r in rounds), f"rounds are {rounds!r}: whole numbers of 0 or more are needed")
        return replace(self, rounds=tuple(sorted(set(rounds))))

    def with_curves(self, *metrics: str) -> "Line":
        """Keep metrics as training proceeds, for pictures whose x axis is the iteration: test accuracy and validation loss, or
        those of `CURVES` that are named."""
        _require(set(metrics) <= set(CURVES), f"there is no curve of {metrics!r}: choose among {', '.join(CURVES)}")
        return replace(self, shows=(*self.shows, *(metrics or CURVES[:2])))

    def stopped_on_test(self) -> "Line":
        """Also tell the early stop by test loss, as Figures 17, 18 and 25 of the paper do, and test accuracy there."""
        return replace(self, shows=(*self.shows, *TEST_STOP))

    def distribution(self, what: str, layer: str) -> "Line":
        """Show how a quantity is distributed over a layer; what: one of DISTRIBUTIONS; layer: such as "fc1"."""
        _require(what in DISTRIBUTIONS, f"there is no distribution of {what!r}: choose {', '.join(DISTRIBUTIONS)}")
        names = [each.name for each in self.recipe.layers]
        _require(layer in names, f"there is no layer {layer!r}: choose {', '.join(names)}")
        return replace(self, shows=(*self.shows, f"{what}, {layer}"))

    def by_layer(self, what: str, *labels: str) -> dict[str, "Line"]:
        """A line for each layer of the network, first to last, that shows a distribution over it; labels: one a layer."""
        return {label: self.distribution(what, layer.name) for label, layer in zip(labels, self.recipe.layers, strict=True)}

    @property
    def needs_test_looks(self) -> bool:
        """Whether test loss and accuracy are wanted at every evaluation."""
        return bool({"test_accuracy", *TEST_STOP} & set(self.shows))

    def nodes(self, scale: str, trials: int | None = None) -> list[Node]:
        """The trainings this line shows at a scale, in order of rounds; `trials=None` takes the scale's own number."""
        recipe = self.recipe.at(scale)
        if trials is None:
            trials = recipe.trials
        _require(_is_count(trials), f"trials is {trials!r}: give a whole number of 1 or more, or None for the scale's own")
        grid = recipe.one_shot_grid if self.strategy == "one-shot" else range(recipe.rounds + 1)
        wanted = [r for r in grid if self.rounds is None or r in self.rounds]
        if self.strategy != "one-shot":
            _check_something_is_left(recipe, max(wanted, default=0))
        elif wanted:
            for kind, rate in self._node(recipe, 0, wanted[-1], 0).rates.items():
                _require(
                    rate < 1,
                    f"one-shot round {wanted[-1]} would prune {100 * rate:g} % of each {kind} layer: its rate may be at most prune_fc={recipe.prune_fc:g}, "
                    f"else ask for lower rounds with at_rounds",
                )
        if self.control == "winning ticket":
            return [self._node(recipe, trial, r, 0) for r in wanted for trial in range(trials)]
        draws = min(self.draws, recipe.draws)  # a control of the unpruned network would be another unpruned network
        return [self._node(recipe, trial, r, draw) for r in wanted if r for trial in range(trials) for draw in range(draws)]

    def what_shrank(self, scale: str, trials: tuple[int, int] | None = None) -> list[str]:
        """What a scale takes from this line, in words: ["12,000 of 50,000 iterations", ...]; empty at paper scale.

        trials: the fewest and the most that a point has; None for the scale's own.
        """
        full, small = self.recipe, self.recipe.at(scale)
        few, many = trials or (small.trials, small.trials)
        facts = [("iterations", small.iterations, full.iterations), ("trials", few if few == many else f"{few} to {many}", full.trials)]
        if self.strategy == "one-shot":
            facts.append(("one-shot densities", len(small.one_shot_grid) - 1, len(full.one_shot_grid) - 1))
        else:
            facts.append(("rounds", small.rounds, full.rounds))
        if self.control != "winning ticket":
            facts.append((f"{DRAWN.get(self.control, 'draws')} a ticket", min(self.draws, small.draws), self.draws))
        said = [f"{small.data} instead of {full.data}"] if small.data != full.data else []
        said += [f"{small.precision} instead of {full.precision} in products"] if small.precision != full.precision else []
        said += [f"{small.width:g} of the filters and units of each layer"] if small.width != full.width else []
        return said + [f"{ours if isinstance(ours, str) else f'{ours:,}'} of {whole:,} {what}" for what, ours, whole in facts if ours != whole]

    def _node(self, recipe, trial, r, draw):
        same = r == 0 or (r == 1 and self.strategy == "continued")  # the first pruning is of the same network
        return Node(recipe, "iterative" if same else self.strategy, self.control, trial, r, draw, self.noise)


@cache
def _check_something_is_left(recipe: Recipe, rounds: int) -> None:
    if recipe.scope == "global":
        _require(
            recipe.remaining(rounds) < recipe.remaining(rounds - 1) if rounds else True,
            f"{rounds} rounds are too many: the last would prune none of the {recipe.remaining(rounds):,} weights left",
        )
        return
    for r, (before, after) in enumerate(pairwise(recipe.survivors(r) for r in range(rounds + 1))):
        for layer in recipe.layers:
            _require(
                after[layer.weight] < before[layer.weight] or not recipe.rates[layer.kind],
                f"{rounds} rounds are too many for {f'sizes {recipe.sizes}' if recipe.sizes else recipe.network}: after {r} of them {layer.name} is down to "
                f"{before[layer.weight]} weights, of which a round prunes none; ask for rounds={r} at most",
            )


def _draws(draws: int) -> int:
    _require(_is_count(draws), f"draws is {draws!r}: a whole number of 1 or more is needed")
    return draws


# What a pruned node takes from trainings before it. "mask": of the round before; "initial weights": of the unpruned network.
STANDS_ON = {
    "winning ticket": ("mask", "initial weights"),
    "random reinit": ("mask",),
    "reinit from the ticket": ("mask", "initial weights"),
    "noise": ("mask", "initial weights"),
    "continued training": ("mask",),  # the trainings between two prunings of that strategy, which no figure shows
    "random sparse": (),  # save where pruning is global: how many weights each layer keeps is then the ticket's
    "pruned before training": (),
}
DRAWN = {"random reinit": "reinitialisations", "random sparse": "random masks"}


_SMOKE_DEEP = {"data": "mnist1k", "evaluate_every": 8, "validation": 100, "batch": 20, "rounds": 2, "trials": 1, "draws": 1, "sweep": {"rounds": 1}}
_LAPTOP_DEEP = {"precision": "bf16", "trials": 1, "draws": 1}

# Scales: what each one shrinks, by network, and further where less effort is asked for. `iterations` multiplies; rounds,
# trials and draws are upper limits. `paper` shrinks nothing.
SCALES = {
    "smoke": {
        "lenet": {
            "data": "mnist5k", "iterations": 0.004, "evaluate_every": 20, "validation": 500,
            "rounds": 8, "trials": 2, "draws": 1, "one_shot_every": 9,
            "sweep": {"rounds": 3, "trials": 1},
        },
        **dict.fromkeys(BLOCKS, {
            "data": "mnist1k", "iterations": 0.003, "evaluate_every": 20, "validation": 100, "batch": 20, "width": 0.125,
            "rounds": 3, "trials": 1, "draws": 1,
            "sweep": {"rounds": 1},
        }),
        "resnet18": _SMOKE_DEEP | {"iterations": 0.0008, "width": 0.25},
        "vgg19": _SMOKE_DEEP | {"iterations": 24 / 112_480, "width": 0.0625},
    },
    "laptop": {
        "lenet": {
            "iterations": 0.24, "rounds": 20, "draws": 1, "one_shot_every": 3,
            "control": {"trials": 3}, "sweep": {"rounds": 15, "trials": 1},
        },
        **dict.fromkeys(BLOCKS, {
            "iterations": 0.15, "precision": "bf16", "rounds": 12, "trials": 1, "draws": 1,
            "sweep": {"width": 0.25, "rounds": 8},
        }),
        "resnet18": _LAPTOP_DEEP | {"iterations": 0.05, "evaluate_every": 250, "width": 0.5, "rounds": 8},
        "vgg19": _LAPTOP_DEEP | {"iterations": 1500 / 112_480, "evaluate_every": 200, "width": 0.25, "rounds": 12},
    },
    "paper": {},
}  # fmt: skip


def shrinking(scale: str) -> dict:
    """What a scale shrinks, by network; raises for an unknown scale."""
    _require(isinstance(scale, str) and scale in SCALES, f"there is no scale {scale!r}: choose {', '.join(SCALES)}")
    return SCALES[scale]


# The paper's Figure 2.
lenet = Recipe(network="lenet", data="mnist", iterations=50_000)
_conv = {"data": "cifar10", "sizes": (256, 256), "scaling": "raw"}  # the method page tells why pixels are 0 to 255
conv2 = Recipe(network="conv2", iterations=20_000, learning_rate=2e-4, rounds=22, **_conv)
conv4 = Recipe(network="conv4", iterations=25_000, learning_rate=3e-4, rounds=26, **_conv)
conv6 = Recipe(network="conv6", iterations=30_000, learning_rate=3e-4, rounds=26, prune_conv=0.15, **_conv)
_deep = {
    "data": "cifar10", "sizes": (), "scaling": "standardised", "augment": True, "optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9,
    "weight_decay": 1e-4, "pruned": "conv", "prune_conv": 0.2, "scope": "global",
}  # fmt: skip
resnet18 = Recipe(network="resnet18", iterations=30_000, batch=128, milestones=(20_000, 25_000), marks=(10_000, 20_000), rounds=15, **_deep)
# 160 epochs of 45,000 images, the rate a tenth after 80 and after 120
vgg19 = Recipe(network="vgg19", iterations=112_480, batch=64, milestones=(56_240, 84_360), marks=(30_000, 60_000), rounds=33, **_deep)

# What the book trains beside its figures, {name: plan}. "inputs": whole networks under each input scaling, for the method page;
# "rounds": every round of Lenet with its learning curves, for sliders. For the page on where we differ: "splits", other validation
# sets; "centred", Conv-2 on pixels less their mean; "dropout", which whole networks learn with it; at paper scale "length", all
# 50,000 iterations, and "precision", products in 32 bits; at both, "masks", Conv-2 pruned as in three of the paper's rounds at once.
STUDIES = {
    "inputs": {
        f"{name}, {scaling}": recipe.but(scaling=scaling).iterative().at_rounds(0)
        for name, recipe in {"Adam, 0.0002": conv2, "SGD, 0.0005": conv2.but(optimiser="sgd", learning_rate=5e-4)}.items()
        for scaling in SCALINGS
    },
    "rounds": {
        "winning ticket": lenet.iterative().with_curves().distribution("map of connections", "fc1"),
        "random reinit": lenet.iterative().reinitialised().with_curves(),
    },
    "splits": {f"split {seed}": lenet.but(split_seed=seed).iterative().at_rounds(0, 3, 7) for seed in range(6)},
    "length": {
        "winning ticket": lenet.iterative().at_rounds(0, 3, 7),
        "from input layer": lenet.iterative().at_rounds(4).distribution("outgoing connections", "fc1"),
    },
    "precision": {"Adam, 0.0002, raw, 32 bits": conv2.but(iterations=3_000).iterative().at_rounds(0)},
    "centred": {
        "Conv-2": conv2.but(scaling="centred").iterative().at_rounds(*range(9)),
        "Conv-2 reinit": conv2.but(scaling="centred").iterative().reinitialised().at_rounds(3, 5, 7),
    },
    "dropout": {
        f"{rate:g}, {scaling}": conv2.sweep(dropout=0.5, iterations=60_000, learning_rate=rate, scaling=scaling).iterative().at_rounds(0)
        for scaling in ("raw", "centred")
        for rate in (1e-4, 2e-4, 3e-4)
    },
    "masks": {
        "Conv-2": conv2.but(scaling="centred", precision="bf16", prune_fc=0.488, prune_conv=0.271, prune_output=0.271).iterative().at_rounds(0, 1, 2),
    },
}
