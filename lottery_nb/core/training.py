"""The engine: trains several tickets at once, of one recipe or of several that differ in numbers,
and returns a record of each.

On a CPU a ticket leaves the same bits alone, in a batch of any size and company and in any process,
on the same kind of processor and with the same torch. Three things make that so: one thread, as
several split products otherwise; values that fill whole vectors, as the optimiser takes a tail that
does not by other arithmetic; and that each ticket's own density decides whether
its first layer is trained as a sparse matrix.
"""

import ctypes
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial, reduce
from itertools import chain, repeat
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from . import networks
from .data import VIEWS, Data, Split, augmented
from .errors import LotteryError
from .networks import Network
from .recipes import Recipe
from .seeds import generator
from .tickets import Ticket

# On several, products are split otherwise, and a batch leaves other bits than a trial alone.
THREADS = 1
VECTOR = 64  # numbers; what an optimiser or a GPU takes at once divides it
MOMENTS = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # as torch's optimisers name them
PACK_BELOW = 0.18  # density under which a layer's survivors are trained as a sparse matrix


@dataclass(frozen=True)
class Record:
    """What a training leaves. Accuracies are fractions, losses mean cross-entropies in nats.

    curves: {name: (evaluations,)}, one value every `evaluate_every` steps: "iterations",
    "val_loss", "val_accuracy", and "test_loss", "test_accuracy" where a figure asked for them.
    early_stop: iteration of the smallest validation loss, found afterwards (paper, Section 2).
    measures: {name: value} at the start (before the first step), at early stop and at the end.
    weights: {parameter: final value}. A training that diverged has losses that are not numbers; it
    stops early before that, or at its first evaluation.
    """

    curves: dict[str, np.ndarray]
    early_stop: int
    measures: dict[str, float]
    weights: dict[str, Tensor]


# Where a training stands after an evaluation: all that the rest of it depends on, as arrays.
State = dict[str, np.ndarray]


class Saved(Protocol):
    """Where trainings that were begun before stand, and where to keep it from time to time."""

    def read(self, number: int) -> State | None:
        """Where the training of a ticket stands, by the ticket's number; None: at its start."""

    def due(self, after: float | None = None) -> bool:
        """Whether it is time to write; after: so many seconds since the last time."""

    def write(self, states: dict[int, State]) -> None:
        """Keep where trainings stand, by the numbers of their tickets."""


class NotSaved:
    """Nothing was begun before, and nothing is kept."""

    def read(self, number: int) -> State | None:
        return None

    def due(self, after: float | None = None) -> bool:
        return False

    def write(self, states: dict[int, State]) -> None:
        pass


def pick_device(device: str = "auto") -> torch.device:
    """The device of a name: "auto" takes a CUDA device where there is one; anything else is torch's
    own."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise LotteryError(
            f"device {device!r} cannot be used here: choose auto, cpu or cuda"
        ) from error


@contextmanager
def arithmetic() -> Iterator[None]:
    """What a training's bits and speed rest on, for this thread and until it ends; denormal numbers
    are afterwards computed with, and memory is kept for good."""
    threads = torch.get_num_threads()
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32 = matmul.allow_tf32, cudnn.allow_tf32
    torch.set_num_threads(THREADS)
    # Adam's moments of a weight without gradient, such as a border pixel's, decay to denormal
    # numbers, with which a CPU trains at two thirds of its speed; only rounding changes.
    torch.set_flush_denormal(True)
    # On a GPU fp32 is fp32: no products of rounded numbers unless a recipe asks for them.
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    _keep_memory()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
        matmul.allow_tf32, cudnn.allow_tf32 = tf32


@cache
def _keep_memory() -> None:
    """A convolution's outputs are megabytes that glibc returns to the system after every use and
    gets back page by page: a quarter of Conv-2's time in bf16. Told so (M_MMAP_MAX,
    M_TRIM_THRESHOLD), it keeps them."""
    if platform.libc_ver()[0] == "glibc":
        for option, value in ((-4, 0), (-1, 2**31 - 1)):
            ctypes.CDLL(None).mallopt(option, value)


def train(
    tickets: list[Ticket],
    data: Data,
    recipe: Recipe | list[Recipe],
    device: torch.device | str = "cpu",
    test_curves: bool = False,
    progress: Callable[[float], None] = lambda iterations: None,
    saved: Saved | None = None,
) -> list[Record]:
    """Train every ticket; one record each, in their order.

    recipe: of all, or one each, equal but in what `Recipe.shared` leaves out. test_curves: evaluate
    the test set at every evaluation too. progress: called with the iterations done since the last
    call, as shares of all tickets'. saved: where they go on from, to the same bits, and where to
    keep how far they are; None: nowhere. Pruned weights are exactly zero throughout: their
    gradients are, so no optimiser moves them. Raises LotteryError where the recipe asks for bf16
    and the device has none, or recipes cannot be trained together.
    """
    recipes = recipe if isinstance(recipe, list) else [recipe] * len(tickets)
    recipe = recipes[0]  # for what all have in common
    for other in recipes:
        if differ := {name for name, _ in recipe.shared.items() ^ other.shared.items()}:
            raise LotteryError(
                f"these recipes cannot be trained together: they differ in "
                f"{', '.join(sorted(differ))}; train them in batches of their own"
            )
    network, device = networks.build(recipe), torch.device(device)
    if recipe.precision == "bf16" and not _has_bf16(device):
        raise LotteryError(
            f"{recipe.network} is to multiply in bf16, which this device has no fast arithmetic "
            "for: train elsewhere, or change the recipe in the figure's plan to "
            f"{recipe.network}.but(precision='fp32'), which every scale leaves alone"
        )
    saved = saved or NotSaved()
    begun = {i: state for i in range(len(tickets)) if (state := saved.read(i))}
    together: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for i, ticket in enumerate(tickets):
        done = int(begun[i]["iterations"][-1]) if i in begun else 0
        together.setdefault((_worth_packing(network, ticket, device), done), []).append(i)
    records: dict[int, Record] = {}
    here = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with here, arithmetic(), torch.no_grad():
        for (packed, done), group in together.items():
            share = len(group) / len(tickets)
            some, theirs = [tickets[i] for i in group], [recipes[i] for i in group]
            batch = _Batch(some, theirs, packed, network, data, device)
            if done:
                batch.resume(done, [begun[i] for i in group])
                progress(done * share)
            for start in range(done, recipe.iterations, recipe.evaluate_every):
                steps = batch.train(start)
                batch.evaluate(start + steps, test_curves)
                progress(steps * share)
                if saved.due():
                    saved.write({i: batch.state(trial) for trial, i in enumerate(group)})
            records |= zip(group, batch.records())
            if len(records) < len(tickets) and saved.due(after=60):
                saved.write({i: batch.state(trial) for trial, i in enumerate(group)})
    return [records[i] for i in range(len(tickets))]


class _Batch:
    """Tickets that are trained together: what they are now, and what was seen of them so far.

    recipes: of each; packed: the layers that are trained as sparse matrices.
    """

    def __init__(
        self,
        tickets: list[Ticket],
        recipes: list[Recipe],
        packed: tuple[str, ...],
        network: Network,
        data: Data,
        device: torch.device,
    ):
        self.recipe = recipe = recipes[0]  # for what all have in common
        self.network, self.device, self.trials = network, device, len(tickets)
        self.splits = {
            name: (network.prepare(split.images).to(device), split.labels.to(device))
            for name, split in vars(data).items()
            if isinstance(split, Split)
        }

        patterns = {
            name: torch.stack([_pattern(ticket.mask[name]) for ticket in tickets])
            for name in packed
        }

        # A convolution on a GPU reads whole vectors: of each of its weights the first begins one.
        aligned = device.type == "cuda" and not network.stacks
        vector = VECTOR if aligned or len({each.steps for each in recipes}) > 1 else 1

        def stack(trials: Iterable[dict[str, Tensor]]) -> _Stack:
            return _Stack(list(trials), device, patterns, vector)

        weights = [ticket.weights for ticket in tickets]
        self.values, self.gradients = stack(weights), stack(weights)
        self.alive = stack(map(_alive, tickets)).flat
        self.pruned = not all(mask.all() for ticket in tickets for mask in ticket.mask.values())
        self.values.flat.mul_(self.alive)
        for name in packed:
            self.values.views[name].values().add_(0.0)  # a pruned weight is 0.0 there, not -0.0
        self.gradients.flat.zero_()
        decays = any(each.weight_decay for each in recipes)
        of_each = stack(map(_decays, tickets, recipes)).flat if decays else None
        self.optimiser = _Optimiser(recipes, self.values, self.gradients, of_each)

        shape = recipe.evaluate_every, recipe.batch
        examples = len(self.splits["train"][1])
        self.orders = [_batches(examples, shape, ticket.order) for ticket in tickets]
        self.dropout = [generator("dropout", *ticket.order) for ticket in tickets]
        self.augmentation = [generator("augmentation", *ticket.order) for ticket in tickets]
        self.recorded: dict[str, _Recorded] = {}

        self.weights = self.values.full()
        self.best = {name: stacked.clone() for name, stacked in self.weights.items()}
        self.iterations: list[int] = []  # at which evaluations were made
        self.curves: list[np.ndarray] = []  # of each: (splits, loss and accuracy, trials)
        self.measured: dict[str, np.ndarray] = {}  # (trials,)
        for name, split in (("val", "validation"), ("test", "test")):
            self._measure(name, split, self.weights, "at_start")
        # A network that only gets worse stops at iteration 0, as some of the paper's do (Figure 5).
        self.best_loss = torch.from_numpy(self.measured["val_loss_at_start"]).to(device)

    def train(self, start: int) -> int:
        """Train up to the next evaluation; how many iterations those were."""
        steps = min(self.recipe.evaluate_every, self.recipe.iterations - start)
        for inputs in self._inputs(start, steps):
            self._launch("step", self._step, *inputs)
        values = self.values
        if self.pruned:  # where a trial diverged, zero times no number is no zero; -0.0 stays
            values.flat.masked_fill_((self.alive == 0) & ~values.flat.isfinite(), 0)
        self.weights = values.full()
        return steps

    def _inputs(self, start: int, steps: int) -> Iterator[tuple]:
        """What each step takes, see `_step`; drawn on the CPU, so that any device trains on the
        same, and sent at once."""
        recipe = self.recipe
        chosen = torch.stack([next(order) for order in self.orders], 2)[:steps]
        views = units = None
        if recipe.augment:
            shape = chosen.shape[:2]
            of_each = [torch.randint(VIEWS, shape, generator=each) for each in self.augmentation]
            views = torch.stack(of_each, 2)
        if recipe.dropout:
            kept = [self.network.kept_units(steps, recipe.batch, each) for each in self.dropout]
            units = torch.stack(kept, 2)
        rates: Iterable = [self.optimiser.rates(start + i) for i in range(steps)]
        if self.device.type == "cuda":  # as a tensor: a number would stay what it was recorded as
            rates = _sent(torch.tensor(rates), self.device)
        drawn = (
            repeat(None) if each is None else _sent(each, self.device)
            for each in (chosen, views, units)
        )
        return zip(*drawn, rates)

    def _launch(self, name: str, compute: Callable, *inputs: Any) -> Any:
        """Compute something with changing inputs; on a GPU it is recorded under a name, and what is
        given as `compute` later is taken to be the same. There all weights are views of one buffer,
        so they may be recorded; packed layers, which are not, exist on a CPU only."""
        if self.device.type != "cuda":
            return compute(*inputs)
        if name not in self.recorded:
            self.recorded[name] = _Recorded()
        return self.recorded[name](compute, *inputs)

    def _step(
        self,
        chosen: Tensor,
        views: Tensor | None,
        units: Tensor | None,
        rates: list[float] | Tensor,
    ) -> None:
        """Train for one iteration.

        chosen, views: (batch, trials), which images, and which view of each; units: (batch, trials,
        units), which hidden ones are kept; None where the recipe has none of it. rates: (groups of
        the optimiser,).
        """
        images, labels = self.splits["train"]
        x = images.index_select(0, chosen.flatten())  # half the time of images[chosen]
        if views is not None:
            x = augmented(x, views.flatten())
        x = x.view(*chosen.shape, *images.shape[1:])
        self.network.gradients(self.values.views, x, labels[chosen], self.gradients.views, units)
        if self.pruned:
            self.gradients.flat.mul_(self.alive)
        self.optimiser.step(rates)

    def evaluate(self, iteration: int, test: bool) -> None:
        """Evaluate on the validation set, and keep the weights of trials that were never better;
        test: on the test set too."""
        seen = [
            self._launch(name, partial(evaluate, self.network, self.weights, *self.splits[name]))
            for name in ("validation", *(["test"] if test else []))
        ]
        loss = seen[0][0]
        better = loss < self.best_loss
        self.best_loss = torch.fmin(loss, self.best_loss)
        for name, stacked in self.weights.items():
            self.best[name][better] = stacked[better]
        self.iterations.append(iteration)
        self.curves.append(torch.stack([torch.stack(pair) for pair in seen]).cpu().numpy())
        if iteration in self.recipe.checkpoints:
            number = self.recipe.checkpoints.index(iteration) + 1
            accuracy = evaluate(self.network, self.weights, *self.splits["test"])[1]
            self.measured[f"test_accuracy_at_checkpoint_{number}"] = accuracy.cpu().numpy()
            self.measured[f"val_accuracy_at_checkpoint_{number}"] = self.curves[-1][0][1]

    def state(self, trial: int) -> State:
        """Where a trial stands after an evaluation."""
        flats = {"values": self.values.flat} | self.optimiser.moments
        state = {name: torch.cat(self.values.of_trial(flat, trial)) for name, flat in flats.items()}
        state |= {f"best/{name}": stacked[trial] for name, stacked in self.best.items()}
        state |= {"best_loss": self.best_loss[trial]}
        state |= {"dropout": self.dropout[trial].get_state()}
        state |= {"augmentation": self.augmentation[trial].get_state()}
        return {name: value.cpu().numpy() for name, value in state.items()} | {
            "iterations": np.array(self.iterations),
            "curves": np.stack(self.curves)[..., trial],
            **{f"measured/{name}": value[trial] for name, value in self.measured.items()},
        }

    def resume(self, iteration: int, states: list[State]) -> None:
        """Go on where each trial stood after an evaluation, all of them at one iteration."""
        self.optimiser.steps_done(iteration)
        flats = {"values": self.values.flat} | self.optimiser.moments
        for trial, state in enumerate(states):
            for name, flat in flats.items():
                if name not in state:  # momentum, which another in the batch has
                    continue
                pieces = self.values.of_trial(flat, trial)
                saved = torch.from_numpy(state[name]).split([len(piece) for piece in pieces])
                for piece, value in zip(pieces, saved):
                    piece.copy_(value)
            for name, stacked in self.best.items():
                stacked[trial] = torch.from_numpy(state[f"best/{name}"])
            self.dropout[trial].set_state(torch.from_numpy(state["dropout"]))
            self.augmentation[trial].set_state(torch.from_numpy(state["augmentation"]))
        losses = np.stack([state["best_loss"] for state in states])
        self.best_loss = torch.from_numpy(losses).to(self.device)
        self.iterations = states[0]["iterations"].tolist()
        self.curves = list(np.stack([state["curves"] for state in states], -1))
        for name in states[0]:
            if name.startswith("measured/"):
                values = np.stack([state[name] for state in states])
                self.measured[name.removeprefix("measured/")] = values
        for _ in self.iterations:  # a chunk of batches each
            for order in self.orders:
                next(order)
        self.weights = self.values.full()

    def records(self) -> list[Record]:
        """A record of each training."""
        self.recorded.clear()  # and with it the memory that it holds
        for moment, weights in (("at_early_stop", self.best), ("at_end", self.weights)):
            for split in ("test", "train"):
                self._measure(split, split, weights, moment)
        iterations, curves = np.array(self.iterations), np.stack(self.curves)
        return [self._record(i, iterations, curves[..., i]) for i in range(self.trials)]

    def _measure(self, name: str, split: str, weights: dict[str, Tensor], moment: str) -> None:
        # Launched one by one on a GPU, so larger pieces than those that are recorded.
        at_once = self.network.chunk * (4 if self.device.type == "cuda" else 1)
        loss, accuracy = evaluate(self.network, weights, *self.splits[split], at_once)
        self.measured[f"{name}_loss_{moment}"] = loss.cpu().numpy()
        self.measured[f"{name}_accuracy_{moment}"] = accuracy.cpu().numpy()

    def _record(self, trial: int, iterations: np.ndarray, seen: np.ndarray) -> Record:
        """seen: (evaluations, splits, loss and accuracy)"""
        curves = {"iterations": iterations}
        for name, values in zip(("val", "test"), seen.swapaxes(0, 1)):
            curves |= {f"{name}_loss": values[:, 0], f"{name}_accuracy": values[:, 1]}
        measures = {name: float(value[trial]) for name, value in self.measured.items()}
        when = np.append(0, iterations)
        since_start = {
            name: np.append(measures[f"{name}_at_start"], values)
            for name, values in curves.items()
            if name != "iterations"
        }
        stop = _smallest(since_start["val_loss"])
        for moment, at in (("early_stop", stop), ("end", -1)):
            for name in ("val_loss", "val_accuracy"):
                measures[f"{name}_at_{moment}"] = float(since_start[name][at])
        measures["diverged"] = float(not np.isfinite(curves["val_loss"][-1]))
        if "test_loss" in curves:
            at = _smallest(since_start["test_loss"])
            measures["early_stop_iteration_test"] = float(when[at])
            measures["test_accuracy_at_early_stop_test"] = float(since_start["test_accuracy"][at])
        weights = {name: stacked[trial].cpu().clone() for name, stacked in self.weights.items()}
        return Record(curves, int(when[stop]), measures, weights)


def _smallest(losses: np.ndarray) -> int:
    return int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))


def evaluate(
    network, parameters: dict[str, Tensor], images: Tensor, labels: Tensor, at_once: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy of each trial on a split: two tensors (trials,). at_once: how
    many images; 0: as many as a CPU's cache holds."""
    losses, corrects = [], []
    parameters, at_once = network.rounded(parameters), at_once or network.chunk
    for x, y in zip(images.split(at_once), labels.split(at_once)):
        logits = network.logits(parameters, x)
        right = logits.gather(1, y.expand(len(logits), 1, len(y))).squeeze(1)
        losses.append((logits.logsumexp(1) - right).sum(-1, dtype=torch.float64))
        corrects.append((logits.argmax(1) == y).sum(-1))
    loss, correct = reduce(torch.add, losses), reduce(torch.add, corrects)
    return loss / len(labels), correct.double() / len(labels)


def _alive(ticket: Ticket) -> dict[str, Tensor]:
    """The ticket's mask for every parameter, 1.0 where it lives; biases are never pruned."""
    return {
        name: ticket.mask[name].float() if name in ticket.mask else torch.ones_like(value)
        for name, value in ticket.weights.items()
    }


def _decays(ticket: Ticket, recipe: Recipe) -> dict[str, Tensor]:
    """The weight decay of every parameter: that of the recipe for weights, none for biases and
    batch-norm."""
    return {
        name: torch.full_like(value, recipe.weight_decay * (name in ticket.mask))
        for name, value in ticket.weights.items()
    }


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _Recorded:
    """What a GPU computes again and again, launched as one: recorded as a CUDA graph, as the
    hundreds of kernels of a small network take longer to launch one by one than to run.

    The first time they are launched one by one, which sets up libraries and finds out whether there
    is memory enough; the second time they are recorded.
    """

    def __init__(self) -> None:
        self._begun = False
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list = []  # of what is recorded, into which those of each time are copied
        self._outputs: Any = None

    def __call__(self, compute: Callable, *inputs: Tensor | None) -> Any:
        """Compute: the same each time, in the same places, and all that changes is in the inputs.
        The outputs are overwritten the next time."""
        if not self._begun:
            self._begun = True
            here = torch.cuda.current_stream()
            self._stream.wait_stream(here)
            with torch.cuda.stream(self._stream):
                outputs = compute(*inputs)
            here.wait_stream(self._stream)
            return outputs
        if self._graph is None:
            self._inputs = [None if each is None else each.clone() for each in inputs]
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._outputs = compute(*self._inputs)
        for held, value in zip(self._inputs, inputs):
            if held is not None:
                held.copy_(value)
        self._graph.replay()
        return self._outputs


class _Alike(NamedTuple):
    """Trials that step alike: a recipe of theirs, and their pieces of each buffer; steps: how many
    are done, of each piece."""

    recipe: Recipe
    steps: list[Tensor]
    values: list[Tensor]
    gradients: list[Tensor]
    decays: list[Tensor]
    moments: list[list[Tensor]]


class _Optimiser:
    """Steps of torch's fused Adam or SGD through flat buffers, without torch's optimiser objects,
    whose first step imports a compiler for more than a second.

    decays: the weight decay of every value; None: of none. moments: what is kept of each value from
    step to step, by torch's names.
    """

    def __init__(
        self, recipes: list[Recipe], values: "_Stack", gradients: "_Stack", decays: Tensor | None
    ):
        zeros = torch.zeros_like(values.flat)
        self.moments: dict[str, Tensor] = {}
        if recipes[0].optimiser == "adam":
            self.moments = {name: zeros.clone() for name in MOMENTS[:2]}
        elif any(recipe.momentum for recipe in recipes):
            self.moments = {MOMENTS[2]: -zeros}  # 0.9 of -0.0 plus a gradient is the gradient
        together: dict[tuple, list[int]] = {}
        for trial, recipe in enumerate(recipes):
            together.setdefault(recipe.steps, []).append(trial)
        self._groups = []
        for trials in together.values():
            of = partial(values.pieces, trials=trials)
            pieces, moments = of(values.flat), [of(each) for each in self.moments.values()]
            steps = [torch.zeros((), device=zeros.device) for _ in pieces]
            decayed = [] if decays is None else of(decays)
            self._groups.append(
                _Alike(recipes[trials[0]], steps, pieces, of(gradients.flat), decayed, moments)
            )

    def rates(self, iteration: int) -> list[float]:
        """The learning rate of each group at an iteration, counted from 0."""
        return [group.recipe.rate_at(iteration) for group in self._groups]

    def step(self, rates: list[float] | Tensor) -> None:
        """Take a step at these learning rates, one a group."""
        for group, rate in zip(self._groups, rates):
            recipe, steps, values, gradients, decays, moments = group
            if recipe.weight_decay:
                for gradient, value, decay in zip(gradients, values, decays):
                    gradient.addcmul_(value, decay)
            if recipe.optimiser == "adam":
                beta1, beta2 = recipe.adam_betas
                first, second = moments
                adam(
                    values, gradients, first, second, [], steps, fused=True, lr=rate, beta1=beta1,
                    beta2=beta2, eps=recipe.adam_eps, weight_decay=0, amsgrad=False,
                    maximize=False,
                )  # fmt: skip
            else:
                kept = moments[0] if recipe.momentum else []
                sgd(
                    values, gradients, [*kept], fused=True, lr=rate, momentum=recipe.momentum,
                    dampening=0, nesterov=False, weight_decay=0, maximize=False,
                )  # fmt: skip

    def steps_done(self, count: int) -> None:
        """Count on from so many steps."""
        for group in self._groups:
            for each in group.steps:
                each.fill_(count)


def _batches(examples: int, shape: tuple[int, int], order: tuple):
    """Endless indices, (steps, batch) at a time: the training set in a new order each epoch, a
    batch running on into the next."""
    rng = generator(*order)
    count = shape[0] * shape[1]
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < count:
            left = torch.cat([left, torch.randperm(examples, generator=rng)])
        yield left[:count].view(shape)
        left = left[count:]


def _worth_packing(network, ticket: Ticket, device) -> tuple[str, ...]:
    """The layers so empty that products with their survivors alone are faster."""
    if torch.device(device).type != "cpu":
        return ()
    return tuple(
        layer.weight
        for layer in network.packable
        if ticket.mask[layer.weight].float().mean() < PACK_BELOW
    )


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on a device, without waiting for what a GPU was given to do before."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def _padded(values: Tensor, multiple: int) -> Tensor:
    """Values, and zeros up to a multiple."""
    return torch.nn.functional.pad(values, (0, -len(values) % multiple))


def _pattern(mask: Tensor) -> Tensor:
    """The places of a packed layer that are stored: its survivors, and of the pruned ones the first
    that fill whole vectors."""
    more = -int(mask.sum()) % VECTOR
    pattern = mask.clone()
    pattern.view(-1)[(~mask).flatten().nonzero()[:more]] = True
    return pattern


class _Stack:
    """Parameters of several trials in one flat buffer, which the optimiser steps through at once.

    flat: (all values,), parameter by parameter and in each trial by trial, of a packed layer the
    values at its pattern only; zeros fill each piece up to a multiple of `vector`, 1 where pieces
    may begin anywhere, and the whole up to one of `VECTOR`. views:
    {name: (trials, *shape)} into it; a packed layer's view is one sparse matrix
    (trials * outputs, trials * inputs) with a block a trial on its diagonal.
    """

    def __init__(
        self, trials: list[dict[str, Tensor]], device, packed: dict[str, Tensor], vector: int
    ):
        self._trials = len(trials)
        pieces = {
            name: [
                trial[name][packed[name][i]] if name in packed else trial[name].flatten()
                for i, trial in enumerate(trials)
            ]
            for name in trials[0]
        }
        self._counts = [len(piece) for each in pieces.values() for piece in each]
        filled = {name: [_padded(piece, vector) for piece in each] for name, each in pieces.items()}
        self._sizes = [len(piece) for each in filled.values() for piece in each]
        self.flat = _padded(torch.cat([*chain(*filled.values())]), VECTOR).to(device)
        parts = self._split(self.flat, [sum(map(len, each)) for each in filled.values()])
        self.views = {
            name: _block_diagonal(packed[name], part)
            if name in packed
            else part.view(self._trials, -1)[:, : value.numel()].unflatten(1, value.shape)
            for (name, value), part in zip(trials[0].items(), parts)
        }  # fmt: skip
        self._packed = {name: (mask, torch.zeros(mask.shape)) for name, mask in packed.items()}

    def pieces(self, flat: Tensor, trials: list[int]) -> list[Tensor]:
        """The values of some trials in a buffer of this form, with the zeros that fill them up: of
        all in one, of others a piece a parameter and trial."""
        if len(trials) == self._trials:
            return [flat]
        pieces = self._split(flat, self._sizes)
        return [piece for i, piece in enumerate(pieces) if i % self._trials in trials]

    def of_trial(self, flat: Tensor, trial: int) -> list[Tensor]:
        """A trial's values in a buffer of this form, a piece a parameter: the same in any batch."""
        pieces = zip(self._split(flat, self._sizes), self._counts)
        return [piece[:count] for piece, count in pieces][trial :: self._trials]

    @staticmethod
    def _split(flat: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        """Its first parts, of these sizes."""
        return flat[: sum(sizes)].split(sizes)

    def full(self) -> dict[str, Tensor]:
        """{name: (trials, *shape)}, pruned weights as zeros; of packed layers a copy, which the
        next call overwrites."""
        for name, (mask, dense) in self._packed.items():
            dense[mask] = self.views[name].values()
        return {
            name: self._packed[name][1] if name in self._packed else view
            for name, view in self.views.items()
        }


def _block_diagonal(mask: Tensor, values: Tensor) -> Tensor:
    """A sparse CSR matrix that shares `values`: those at a mask (trials, outputs, inputs), row by
    row."""
    trials, outputs, inputs = mask.shape
    rows = mask.sum(-1).flatten().cumsum(0)
    trial, _, column = mask.nonzero(as_tuple=True)
    starts = torch.cat([rows.new_zeros(1), rows]).int()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts,
            (trial * inputs + column).int(),
            values,
            (trials * outputs, trials * inputs),
            check_invariants=False,
        )
