"""Which trainings a figure shows: a `Line` is one of its lines ("the random reinitialisations of
the iterative tickets of this recipe"), a `Node` one training: a line at one trial and one round."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from numbers import Real
from typing import TYPE_CHECKING

from .errors import LotteryError
from .tickets import control_of

if TYPE_CHECKING:
    from .networks import Layer
    from .recipes import Recipe

# Raised when the meaning of a result changes for the same recipe; every key then changes with it.
RESULTS_VERSION = 1

# What a line may show beside the measures that every training leaves; all but distributions are
# evaluated every `evaluate_every` iterations.
CURVES = ("test_accuracy", "val_loss", "val_accuracy")
TEST_STOP = ("early_stop_iteration_test", "test_accuracy_at_early_stop_test")
# On the straight line between the weights of two trainings: how far the error rises above that of
# its ends, the cosine of the surviving weights of the two, and test accuracy at places from 0 to 1.
PATH = ("error_barrier", "similarity_of_ends", "test_accuracy_on_path")
DISTRIBUTIONS = (
    "initial weights", "movement in the ticket", "movement outside the ticket",
    "growth in the ticket", "growth outside the ticket", "incoming connections",
    "outgoing connections", "map of connections", "distance of inputs",
    "neighbours among inputs", "inputs of units",
)  # fmt: skip


def any_distribution(shows: Iterable[str]) -> bool:
    """Whether a distribution over a layer is among what a line shows."""
    return any(what.startswith(DISTRIBUTIONS) for what in shows)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise LotteryError(message)


def is_count(value) -> bool:
    """Whether this is a whole number of 1 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _count(name: str, value: int, wanted="a whole number of 1 or more is needed") -> int:
    _require(is_count(value), f"{name} is {value!r}: {wanted}")
    return value


@dataclass(frozen=True)
class Node:
    """One training.

    recipe: already at its scale; strategy: "iterative" | "one-shot" | "continued"; control: of
    `tickets.CONTROLS`; round: counts prunings (one-shot: steps of the grid of densities); order: 0,
    or the number of another training of the same ticket, on batches in another order.
    """

    recipe: Recipe
    strategy: str
    control: str
    trial: int
    round: int
    draw: int = 0
    noise: float = 0.0
    order: int = 0

    def __post_init__(self):
        if self.round == 0 and self.recipe.rewind:  # the dense network is never rewound
            object.__setattr__(self, "recipe", replace(self.recipe, rewind=0))

    @cached_property
    def parent(self) -> Node | None:
        """The training whose final weights decide this node's mask: none where no training does."""
        needs = control_of(self.control).needs
        counts_its_ticket = "survivor counts" in needs and self.recipe.scope == "global"
        if self.round == 0 or not ({"mask", "final weights"} & {*needs} or counts_its_ticket):
            return None
        before = 0 if self.strategy == "one-shot" else self.round - 1
        if before == 0:
            return self.dense
        control = "continued training" if self.strategy == "continued" else "winning ticket"
        return replace(self, control=control, round=before, draw=0, noise=0.0, order=0)

    @cached_property
    def start_of_path(self) -> Node:
        """The training in order 1 of the same network."""
        return replace(self, order=1)

    @cached_property
    def origin(self) -> Node | None:
        """The dense network of this trial where this node starts from its initial weights, or, with
        late rewinding, the beginning of its training, from whose final weights it starts."""
        if not (self.round and "initial weights" in control_of(self.control).needs):
            return None
        rewind, dense = self.recipe.rewind, self.dense
        return replace(dense, recipe=dense.recipe.until(rewind)) if rewind else dense

    @property
    def dense(self) -> Node:
        """The dense network of this trial."""
        return Node(self.recipe, "iterative", "winning ticket", self.trial, 0)

    @property
    def ticket(self) -> Node:
        """The winning ticket of this trial and round, whose mask its controls have."""
        return replace(self, control="winning ticket", draw=0, noise=0.0, order=0)

    @cached_property
    def rates(self) -> dict[str, float]:
        """Fraction of the survivors to prune from the parent's layers, by kind of layer."""
        if self.strategy != "one-shot":
            return self.recipe.rates
        rate = self.recipe.one_shot_step * self.round
        return {
            kind: each and (rate if kind == "fc" else rate * each / self.recipe.prune_fc)
            for kind, each in self.recipe.rates.items()
        }

    @cached_property
    def stream(self) -> tuple:
        """The names that seed what is random in this training; a ticket's initial weights, and the
        images that score it untrained, are drawn by the names of its dense network."""
        who = (self.strategy, self.control, self.trial, self.round, self.draw)
        return (*who, self.noise) if self.noise else who

    @cached_property
    def batches(self) -> tuple:
        """The names that seed the order of its batches, its dropout and its views of images."""
        return ("order", *self.stream, *([self.order] if self.order else []))

    @cached_property
    def key(self) -> str:
        """A readable prefix and a hash of what decides the result. Of a dense network the pruning
        rates are in it too, which decide nothing there yet: some are trained once for each."""
        spec = {
            "version": RESULTS_VERSION, "recipe": self.recipe.identity, "strategy": self.strategy,
            "control": self.control, "trial": self.trial, "round": self.round, "draw": self.draw,
        }  # fmt: skip
        spec |= {"noise": self.noise} if self.noise else {}
        spec |= {"order": self.order} if self.order else {}
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
        control = f"{self.control} {self.noise:g}" if self.noise else self.control
        kind = f"{self.strategy}-{control.replace(' ', '-')}"
        place = f"t{self.trial}-r{self.round:02d}" + (f"-d{self.draw}" if self.draw else "")
        place += f"-o{self.order}" if self.order else ""
        return f"{self.recipe.network}-{self.recipe.data}-{kind}-{place}-{digest}"


def in_order(nodes: Iterable[Node]) -> list[Node]:
    """By round, then by trial and draw."""
    return sorted(nodes, key=lambda node: (node.round, node.trial, node.draw))


@dataclass(frozen=True)
class Line:
    """One line of a figure: which tickets, which control on them, which rounds are drawn."""

    recipe: Recipe
    strategy: str = "iterative"
    control: str = "winning ticket"
    draws: int = 1  # controls with a random part: so many a ticket
    noise: float = 0.0  # of the control "noise", in deviations of a layer's initial weights
    order: int = 0  # of batches: 0, or the number of another training of the same tickets
    rounds: tuple[int, ...] | None = None  # None: all of the recipe's
    shows: tuple[str, ...] = ()  # what its table has beside the usual measures

    def with_control(self, control: str, draws: int = 1, noise: float = 0.0) -> Line:
        """A control on these tickets, `draws` times a ticket; control: of `tickets.CONTROLS`;
        noise: of the control "noise" alone, see `with_noise`."""
        control_of(control)
        if control == "noise":
            _require(
                isinstance(noise, Real) and noise > 0 and math.isfinite(noise),
                f"noise is {noise!r}: it must be a number above 0",
            )
        else:
            _require(not noise, f"noise is {noise!r}: {control} takes none")
        _require(
            self.strategy == "iterative" or "mask" in control_of(control).needs,
            f"{control} has as many weights as iterative rounds leave: ask it of an iterative line",
        )
        return replace(self, control=control, draws=_count("draws", draws), noise=float(noise))

    def reinitialised(self, draws: int = 1) -> Line:
        """The same masks with fresh initial weights, `draws` times a ticket (paper, Section 2)."""
        return self.with_control("random reinit", draws)

    def reinitialised_from_ticket(self, draws: int = 1) -> Line:
        """The same masks, each layer's weights drawn from its ticket's own initial weights (paper,
        Appendix F, Figure 17)."""
        return self.with_control("reinit from the ticket", draws)

    def with_noise(self, sigmas: float, draws: int = 1) -> Line:
        """The tickets with Gaussian noise on their initial weights, its deviation `sigmas` times
        that of each layer's initialisation (paper, Appendix F, Figure 25)."""
        return self.with_control("noise", draws, sigmas)

    def trained_again(self, order: int = 1) -> Line:
        """The same networks, from the same weights, trained on batches in another order (and with
        other dropout and other views of images); order: a number of 1 or more for each. Their
        weights are kept."""
        return replace(self, order=_count("order", order))

    def with_path(self) -> Line:
        """Show what lies on the straight line between the trained weights of two orders, of 1 and
        of this one: `PATH` (Frankle et al. 2020, arXiv:1912.05671)."""
        _require(
            self.order > 1,
            f"a path leads here from order 1, and this line is of order {self.order}: ask for "
            "trained_again(2) first",
        )
        return replace(self, shows=(*self.shows, *PATH))

    def at_rounds(self, *rounds: int) -> Line:
        """Only these rounds are drawn (the rounds they stand on are trained all the same)."""
        _require(
            bool(rounds) and all(isinstance(r, int) and r >= 0 for r in rounds),
            f"rounds are {rounds!r}: whole numbers of 0 or more are needed",
        )
        return replace(self, rounds=tuple(sorted(set(rounds))))

    def with_curves(self, *metrics: str) -> Line:
        """Keep metrics as training proceeds, for pictures whose x axis is the iteration: test
        accuracy and validation loss, or those of `CURVES` that are named."""
        _require(
            set(metrics) <= set(CURVES),
            f"there is no curve of {metrics!r}: choose among {', '.join(CURVES)}",
        )
        return replace(self, shows=(*self.shows, *(metrics or CURVES[:2])))

    def stopped_on_test(self) -> Line:
        """Also tell the early stop by test loss, as Figures 17, 18 and 25 of the paper do, and test
        accuracy there."""
        return replace(self, shows=(*self.shows, *TEST_STOP))

    def distribution(self, what: str, layer: str) -> Line:
        """Show how a quantity is distributed over a layer; what: one of DISTRIBUTIONS; layer: such
        as "fc1"."""
        _require(
            what in DISTRIBUTIONS,
            f"there is no distribution of {what!r}: choose {', '.join(DISTRIBUTIONS)}",
        )
        names = [each.name for each in self.recipe.layers]
        _require(layer in names, f"there is no layer {layer!r}: choose {', '.join(names)}")
        first = self.recipe.layers[0]
        _require(
            "inputs" not in what or (first.name, first.kind) == (layer, "fc"),
            f"layer {layer!r} of {self.recipe.network} has no image's pixels for inputs: the first "
            "of Lenet has",
        )
        return replace(self, shows=(*self.shows, f"{what}, {layer}"))

    def by_layer(self, what: str, *labels: str) -> dict[str, Line]:
        """A line for each layer of the network, first to last, that shows a distribution over it;
        labels: one a layer."""
        pairs = zip(labels, self.recipe.layers, strict=True)
        return {label: self.distribution(what, layer.name) for label, layer in pairs}

    def nodes(self, scale: str, trials: int | None = None) -> list[Node]:
        """The trainings this line shows at a scale, in order of rounds; trials: None takes the
        scale's own number."""
        if trials is not None:
            _count(
                "trials", trials, "give a whole number of 1 or more, or None for the scale's own"
            )
        return list(self._nodes(scale, trials or self.recipe.at(scale).trials))

    @lru_cache(maxsize=10_000)  # noqa: B019 (a plan asks again and again; one node keeps its key)
    def _nodes(self, scale: str, trials: int) -> list[Node]:
        nodes = (node for trial in range(trials) for node in self.of_trial(scale, trial))
        return in_order(nodes)

    def of_trial(self, scale: str, trial: int) -> Iterator[Node]:
        """The trainings of one trial, in order of rounds."""
        recipe = self.recipe.at(scale)
        one_shot = self.strategy == "one-shot"
        grid = recipe.one_shot_grid if one_shot else range(recipe.rounds + 1)
        rounds = [r for r in grid if self.rounds is None or r in self.rounds]
        if one_shot:
            self._check_rates(recipe, max(rounds, default=0))
        else:
            _check_something_is_left(recipe, max(rounds, default=0))
        draws = min(self.draws, recipe.draws)
        if self.control == "winning ticket":
            draws = 1
        else:
            rounds = [r for r in rounds if r]  # a control of the dense network is another such
        for r in rounds:
            for draw in range(draws):
                yield self.node(recipe, trial, r, draw)

    def node(self, recipe: Recipe, trial: int, round: int, draw: int = 0) -> Node:
        """One training of this line; recipe: at its scale. What strategies share is one node: the
        dense network, and the first pruning of an iterative and a continued ticket."""
        same = round == 0 or (round == 1 and self.strategy == "continued")
        strategy = "iterative" if same else self.strategy
        return Node(recipe, strategy, self.control, trial, round, draw, self.noise, self.order)

    def _check_rates(self, recipe: Recipe, last: int) -> None:
        for kind, rate in self.node(recipe, 0, last).rates.items():
            _require(
                rate < 1,
                f"one-shot round {last} would prune {100 * rate:g} % of each {kind} layer: its "
                f"rate may be at most prune_fc={recipe.prune_fc:g}, else ask for lower rounds with "
                "at_rounds",
            )

    def what_shrank(self, scale: str, trials: tuple[int, int] | None = None) -> list[str]:
        """What a scale takes from this line, in words: ["12,000 of 50,000 iterations", ...]; empty
        at paper scale.

        trials: the fewest and the most that a point has; None for the scale's own.
        """
        full, small = self.recipe, self.recipe.at(scale)
        few, many = trials or (small.trials, small.trials)
        many = min(many, full.trials)  # another figure may have more
        facts: list[tuple[str, int | str, int]] = [
            ("iterations", small.iterations, full.iterations)
        ]
        if few < full.trials:
            facts.append(("trials", few if few == many else f"{few} to {many}", full.trials))
        if self.strategy == "one-shot":
            grids = len(small.one_shot_grid) - 1, len(full.one_shot_grid) - 1
            facts.append(("one-shot densities", *grids))
        elif self.rounds is None or max(self.rounds) > small.rounds:
            facts.append(("rounds", small.rounds, full.rounds))
        if self.control != "winning ticket":
            drawn = f"{control_of(self.control).drawn} a ticket"
            facts.append((drawn, min(self.draws, small.draws), self.draws))
        said = []
        if small.data != full.data:
            said.append(f"{small.data} instead of {full.data}")
        if small.precision != full.precision:
            said.append(f"{small.precision} instead of {full.precision} in products")
        if small.width != full.width:
            said.append(f"{small.width:g} of the filters and units of each layer")
        for what, ours, theirs in facts:
            if ours != theirs:
                ours = ours if isinstance(ours, str) else f"{ours:,}"
                said.append(f"{ours} of {theirs:,} {what}")
        return said


@cache
def _check_something_is_left(recipe: Recipe, rounds: int) -> None:
    if recipe.scope == "global":
        _require(
            rounds == 0 or recipe.remaining(rounds) < recipe.remaining(rounds - 1),
            f"{rounds} rounds are too many: the last would prune none of the "
            f"{recipe.remaining(rounds):,} weights left",
        )
        return

    def idle(round: int) -> Layer | None:
        """A layer of which a round prunes nothing, though it should."""
        before, after = recipe.survivors(round - 1), recipe.survivors(round)
        pruned = (layer for layer in recipe.layers if recipe.rates[layer.kind])
        return next((x for x in pruned if after[x.weight] == before[x.weight]), None)

    if rounds and idle(rounds):  # a round prunes no more than the one before it
        left, layer = next((r, layer) for r in range(rounds) if (layer := idle(r + 1)))
        network = f"sizes {recipe.sizes}" if recipe.sizes else recipe.network
        raise LotteryError(
            f"{rounds} rounds are too many for {network}: after {left} of them {layer.name} is "
            f"down to {recipe.survivors(left)[layer.weight]} weights, of which a round prunes "
            f"none; ask for rounds={left} at most"
        )
