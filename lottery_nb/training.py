"""The engine: trains several tickets of one recipe at once and returns what each left behind.

On a CPU a ticket leaves the same bits alone, in a batch of any size and in any process, on the same kind of processor and with
the same torch. Three things make that so: one thread, as several split products otherwise; parameters in a buffer that fills
whole vectors, as the optimiser takes a tail that does not by other arithmetic; and that each ticket's own density decides
whether its first layer is trained as a sparse matrix.
"""

import ctypes
import hashlib
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from . import models
from .data import VIEWS, Data, Split, augmented
from .errors import LotteryError
from .masks import Mask
from .specs import Recipe

THREADS = 1  # on several, products are split otherwise, and a batch leaves other bits than a trial alone
VECTOR = 64  # numbers, of which the parameters' buffer holds a multiple
PACK_BELOW = 0.18  # density under which a layer's survivors are trained as a sparse matrix


@dataclass(frozen=True)
class Ticket:
    """A mask and the initial weights it is trained from (paper, Section 1), on the CPU.

    mask: {layer weight: bool}; weights: {parameter: tensor}, biases included; order: names that seed the order of its batches.
    """

    mask: Mask
    weights: dict[str, Tensor]
    order: tuple


@dataclass(frozen=True)
class Record:
    """What one training left behind. Accuracies are fractions, losses mean cross-entropies in nats.

    curves: {name: (evaluations,)}, one value every `evaluate_every` steps: "iterations", "val_loss", "val_accuracy", and
    "test_loss", "test_accuracy" where a figure asked for them. early_stop: iteration of the smallest validation loss, found
    afterwards (paper, Section 2). measures: {name: value} at the start (before the first step), at early
    stop and at the end. weights: {parameter: final value}.
    A training that diverged has losses that are not numbers; it stops early before that, or at its first evaluation.
    """

    curves: dict[str, np.ndarray]
    early_stop: int
    measures: dict[str, float]
    weights: dict[str, Tensor]


def generator(*names) -> torch.Generator:
    """A generator on the CPU seeded by names, so that a training draws the same numbers wherever and beside whom it runs."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def pick_device(device: str = "auto") -> torch.device:
    """The device of a name: "auto" takes a CUDA device where there is one; anything else is torch's own."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise LotteryError(f"device {device!r} cannot be used here: choose auto, cpu or cuda") from error


@contextmanager
def _arithmetic() -> Iterator[None]:
    """What a training's bits and speed rest on, for this thread and until it ends."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    # Adam's moments of a weight without gradient, such as a border pixel's, decay to denormal numbers, with which a CPU trains
    # at two thirds of its speed; only rounding changes.
    torch.set_flush_denormal(True)
    # On a GPU fp32 is fp32: no products of rounded numbers unless a recipe asks for them.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _keep_memory()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


@cache
def _keep_memory() -> None:
    """A convolution's outputs are megabytes that glibc returns to the system after every use and gets back page by page: a
    quarter of Conv-2's time in bf16. Told so (M_MMAP_MAX, M_TRIM_THRESHOLD), it keeps them."""
    if platform.libc_ver()[0] == "glibc":
        for option, value in ((-4, 0), (-1, 2**31 - 1)):
            ctypes.CDLL(None).mallopt(option, value)


def train(
    tickets: list[Ticket],
    data: Data,
    recipe: Recipe,
    device: torch.device | str = "cpu",
    test_looks: bool = False,
    progress: Callable[[int], None] = lambda iterations: None,
) -> list[Record]:
    """Train every ticket by the recipe; one record each, in their order.

    test_looks: look at the test set at every evaluation too. progress: called with the iterations done since the last call, as
    shares of all tickets'. Pruned weights are exactly zero throughout: their gradients are, so no optimiser moves them.
    """
    network = models.build(recipe)
    if recipe.precision == "bf16" and not _has_bf16(torch.device(device)):
        raise LotteryError(
            f"{recipe.network} is to multiply in bf16, which this device has no fast arithmetic for: train elsewhere, or change the recipe in the "
            f"figure's plan to {recipe.network}.but(precision='fp32'), which every scale leaves alone"
        )
    together: dict[tuple[str, ...], list[int]] = {}
    for i, ticket in enumerate(tickets):
        together.setdefault(_worth_packing(network, ticket, device), []).append(i)
    records: dict[int, Record] = {}
    with _arithmetic(), torch.no_grad():
        for packed, group in together.items():
            share = len(group) / len(tickets)
            made = _train([tickets[i] for i in group], packed, network, data, recipe, device, test_looks, lambda steps, share=share: progress(steps * share))
            records |= zip(group, made)
    return [records[i] for i in range(len(tickets))]


def _train(
    tickets: list[Ticket], packed: tuple[str, ...], network, data: Data, recipe: Recipe, device, test_looks: bool, progress: Callable[[float], None]
) -> list[Record]:
    """Train tickets in one batch. packed: the layers that are trained as sparse matrices."""
    splits = {name: _on(device, network, getattr(data, name)) for name in ("train", "validation", "test")}
    images, labels = splits["train"]

    survivors = {name: torch.stack([ticket.mask[name] for ticket in tickets]) for name in packed}
    values = _Stack([ticket.weights for ticket in tickets], device, survivors)
    gradients = _Stack([ticket.weights for ticket in tickets], device, survivors)
    alive = _Stack([_alive(ticket) for ticket in tickets], device, survivors).flat
    pruned = not alive.all()
    values.flat.mul_(alive)
    decays = _Stack([_decays(ticket, recipe) for ticket in tickets], device, survivors).flat if recipe.weight_decay else None
    optimiser = _optimiser(recipe, values.flat)
    values.flat.grad = gradients.flat.zero_()
    best = {name: stacked.clone() for name, stacked in values.full().items()}
    best_loss = torch.full((len(tickets),), torch.inf, device=device)
    randoms = [generator("dropout", *ticket.order) for ticket in tickets]
    glances = [generator("augmentation", *ticket.order) for ticket in tickets]
    marked = {}
    orders = [_batches(len(labels), (recipe.evaluate_every, recipe.batch), ticket.order) for ticket in tickets]

    looked_at = ("validation", "test") if test_looks else ("validation",)
    measured = {
        f"{name}_{what}_at_start": value.cpu().numpy()
        for name, split in (("val", "validation"), ("test", "test"))
        for what, value in zip(("loss", "accuracy"), evaluate(network, values.full(), *splits[split]))
    }
    looks = []  # a row an evaluation: iteration, then (loss, accuracy) of each ticket on what is looked at
    for start in range(0, recipe.iterations, recipe.evaluate_every):
        steps = min(recipe.evaluate_every, recipe.iterations - start)
        chosen = torch.stack([next(order) for order in orders], 2)[:steps].to(device)  # (steps, batch, trials)
        views = torch.stack([torch.randint(VIEWS, chosen.shape[:2], generator=each) for each in glances], 2).to(device) if recipe.augment else None
        for i, batch in enumerate(chosen):
            x = images.index_select(0, batch.flatten())  # half the time of images[batch]
            if recipe.augment:
                x = augmented(x, views[i].flatten())
            x = x.view(*batch.shape, *images.shape[1:])
            network.gradients(values.views, x, labels[batch], gradients.views, randoms)
            if pruned:
                gradients.flat.mul_(alive)
            if decays is not None:
                gradients.flat.addcmul_(values.flat, decays)
            optimiser.param_groups[0]["lr"] = recipe.rate_at(start + i)
            optimiser.step()
        if pruned and not values.flat.sum().isfinite():
            values.flat.masked_fill_(alive == 0, 0)  # where a training diverged, zero times no number was no zero
        full = values.full()
        seen = [value for split in looked_at for value in evaluate(network, full, *splits[split])]
        loss = seen[0]
        better = loss < best_loss if looks else torch.ones_like(loss, dtype=torch.bool)
        best_loss = torch.fmin(loss, best_loss)
        for name, stacked in full.items():
            best[name][better] = stacked[better]
        looks.append((start + steps, torch.stack(seen).cpu().numpy()))
        if start + steps in recipe.marks:
            marked[start + steps] = evaluate(network, full, *splits["test"])[1].cpu().numpy()
        progress(steps)

    at = {"early_stop": best, "end": full}
    measured |= {
        f"{split}_{what}_at_{moment}": value.cpu().numpy()
        for moment, parameters in at.items()
        for split in ("test", "train")
        for what, value in zip(("loss", "accuracy"), evaluate(network, parameters, *splits[split]))
    }
    for number, mark in enumerate(recipe.marks, 1):
        measured[f"test_accuracy_at_mark_{number}"] = marked[mark]
        measured[f"val_accuracy_at_mark_{number}"] = looks[mark // recipe.evaluate_every - 1][1][1]
    iterations = np.array([iteration for iteration, _ in looks])
    seen = np.stack([row for _, row in looks])  # (evaluations, 2 or 4, trials)
    return [_record(i, iterations, seen[..., i], measured, full) for i in range(len(tickets))]


def _record(i: int, iterations: np.ndarray, seen: np.ndarray, measured: dict, final: dict[str, Tensor]) -> Record:
    curves = {"iterations": iterations, **dict(zip(("val_loss", "val_accuracy", "test_loss", "test_accuracy"), seen.T))}
    stop = _smallest(curves["val_loss"])
    measures = {name: float(value[i]) for name, value in measured.items()}
    for moment, at in (("early_stop", stop), ("end", -1)):
        for name in ("val_loss", "val_accuracy"):
            measures[f"{name}_at_{moment}"] = float(curves[name][at])
    measures["diverged"] = float(not np.isfinite(curves["val_loss"][-1]))
    if "test_loss" in curves:
        at = _smallest(curves["test_loss"])
        measures["early_stop_iteration_test"] = float(iterations[at])
        measures["test_accuracy_at_early_stop_test"] = float(curves["test_accuracy"][at])
    weights = {name: stacked[i].cpu().clone() for name, stacked in final.items()}
    return Record(curves, int(iterations[stop]), measures, weights)


def _smallest(losses: np.ndarray) -> int:
    return int(np.argmin(np.where(np.isnan(losses), np.inf, losses)))


def evaluate(network, parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy of each trial on a split: two tensors (trials,)."""
    loss = correct = 0
    for x, y in zip(images.split(network.chunk), labels.split(network.chunk)):
        logits = network.logits(parameters, x)
        right = logits.gather(1, y.expand(len(logits), 1, len(y))).squeeze(1)
        loss += (logits.logsumexp(1) - right).sum(-1, dtype=torch.float64)
        correct += (logits.argmax(1) == y).sum(-1)
    return loss / len(labels), correct.double() / len(labels)


def _on(device, network, split: Split) -> tuple[Tensor, Tensor]:
    return network.prepare(split.images).to(device), split.labels.to(device)


def _alive(ticket: Ticket) -> dict[str, Tensor]:
    """The ticket's mask for every parameter, 1.0 where it lives; biases are never pruned."""
    return {name: ticket.mask[name].float() if name in ticket.mask else torch.ones_like(value) for name, value in ticket.weights.items()}


def _decays(ticket: Ticket, recipe: Recipe) -> dict[str, Tensor]:
    """The weight decay of every parameter: that of the recipe for weights, none for biases and batch-norm."""
    return {name: torch.full_like(value, recipe.weight_decay * (name in ticket.mask)) for name, value in ticket.weights.items()}


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _optimiser(recipe: Recipe, flat: Tensor) -> torch.optim.Optimizer:
    if recipe.optimiser == "adam":
        return torch.optim.Adam([flat], lr=recipe.learning_rate, betas=recipe.adam_betas, eps=recipe.adam_eps, fused=True)
    return torch.optim.SGD([flat], lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)


def _batches(examples: int, shape: tuple[int, int], order: tuple):
    """Endless indices, (steps, batch) at a time: the training set in a new order each epoch, a batch running on into the next."""
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
    return tuple(layer.weight for layer in network.packable if ticket.mask[layer.weight].float().mean() < PACK_BELOW)


class _Stack:
    """Parameters of several trials in one flat buffer, which the optimiser steps through at once.

    flat: (all values,), of a packed layer the survivors only, and zeros up to a multiple of `VECTOR`. views: {name: (trials, *shape)} into it; a packed layer's
    view is one sparse matrix (trials * outputs, trials * inputs) with a block a trial on its diagonal.
    """

    def __init__(self, trials: list[dict[str, Tensor]], device, packed: dict[str, Tensor]):
        stacked = {name: torch.stack([trial[name] for trial in trials]).to(device) for name in trials[0]}
        values = [(value[packed[name]] if name in packed else value).flatten() for name, value in stacked.items()]
        counts = [len(each) for each in values]
        padding = values[0].new_zeros(-sum(counts) % VECTOR)
        self.flat = torch.cat([*values, padding])
        *parts, _ = self.flat.split([*counts, len(padding)])
        self.views = {
            name: _block_diagonal(packed[name], part) if name in packed else part.view(value.shape)
            for (name, value), part in zip(stacked.items(), parts)
        }  # fmt: skip
        self._packed = {name: (mask, torch.zeros(mask.shape)) for name, mask in packed.items()}

    def full(self) -> dict[str, Tensor]:
        """{name: (trials, *shape)}, pruned weights as zeros; of packed layers a copy, which the next call overwrites."""
        for name, (mask, dense) in self._packed.items():
            dense[mask] = self.views[name].values()
        return {name: self._packed[name][1] if name in self._packed else view for name, view in self.views.items()}


def _block_diagonal(mask: Tensor, values: Tensor) -> Tensor:
    """A sparse CSR matrix that shares `values`: the survivors of (trials, outputs, inputs), row by row."""
    trials, outputs, inputs = mask.shape
    rows = mask.sum(-1).flatten().cumsum(0)
    trial, _, column = mask.nonzero(as_tuple=True)
    starts = torch.cat([rows.new_zeros(1), rows]).int()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, (trial * inputs + column).int(), values, (trials * outputs, trials * inputs), check_invariants=False)
