"""How fast the engine is on this machine, against a plain PyTorch loop and against the machine's
own limit.

Everything is measured on one thread of one process, in turns, and reported as medians; only the
first ratio compares several processes with several threads. On a busy machine trust the ratios.
Images are the embedded digits, repeated to MNIST's 55,000 / 5,000 / 10,000: the time does not
depend on what they show.
"""

import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

import torch

from ..core import data, networks, tickets, training
from ..core.data import Data, Split
from ..core.recipes import Recipe, conv2, lenet, resnet18
from ..core.seeds import generator
from ..core.tickets import Ticket
from ..runs import executors, graph
from ..runs.batch import device_name
from .plain import image_by_image, plain_conv, plain_lenet, plain_resnet

TRIALS = 5  # the paper's
ROUNDS = 3  # turns of each measurement
# Iterations of a convolutional network that are timed, with a fifth of the images of an evaluation
FIFTH = 20
TARGETS = {
    "lenet_processes_vs_threads": (">=", 1.0),
    "lenet_vs_plain": (">=", 4.0),
    "lenet_vs_image_by_image": (">=", 5.0),
    "lenet_limit": ("<=", 1.5),
    "lenet_sparse_vs_dense": ("<=", 0.7),
    "conv2_vs_plain_fp32": (">=", 1.6),
    "conv2_vs_plain_laptop": (">=", 2.8),
    "resnet18_vs_plain_laptop": (">=", 2.0),
    "lenet_gpu_vs_plain": (">=", 150),
}
EXPLAINED = {
    "lenet_processes_vs_threads": "trial-iterations a second of Lenet, validation included: "
    "a process a core / one process of as many threads",
    "lenet_vs_plain": "trial-iterations a second of Lenet, validation included: ours / plain",
    "lenet_vs_image_by_image": "time of a Lenet iteration without evaluation: as open_lth trains, "
    "image by image / ours",
    "lenet_limit": "time of a Lenet iteration / time of its matrix products alone",
    "lenet_sparse_vs_dense": "time of an iteration at 3.6 % of the weights / at 100 %",
    "conv2_vs_plain_fp32": "trial-iterations a second of Conv-2, evaluation included: "
    "ours at fp32 / plain",
    "conv2_vs_plain_laptop": "the same, ours at the laptop scale's precision",
    "resnet18_vs_plain_laptop": "the same of Resnet-18, augmentation and batch-norm included",
    "lenet_gpu_vs_plain": "trial-iterations a second of Lenet on a GPU, 100 trials in a batch, "
    "validation included: ours / plain",
}
# Of each ratio, the two parts of `measure` that it compares.
RATIOS = {
    "lenet_processes_vs_threads": ("as threads", "as processes"),
    "lenet_vs_plain": ("plain", "ours"),
    "lenet_vs_image_by_image": ("image by image", "iteration at 100 %"),
    "lenet_limit": ("iteration at 100 %", "products"),
    "lenet_sparse_vs_dense": ("iteration at 3.6 %", "iteration at 100 %"),
    "conv2_vs_plain_fp32": ("plain Conv-2", "Conv-2 at fp32"),
    "conv2_vs_plain_laptop": ("plain Conv-2", "Conv-2 at laptop precision"),
    "resnet18_vs_plain_laptop": ("plain Resnet-18", "Resnet-18 at laptop precision"),
    "lenet_gpu_vs_plain": ("plain on the GPU", "ours on the GPU"),
}


def measure(say: Callable[[str], None] = lambda line: None) -> dict:
    """All ratios: {"ratios": {key: number}, "machine": {...}, "details": {milliseconds of each
    part}}. Takes about two minutes."""
    digits = as_large_as_mnist()
    few = as_large_as_a_fifth_of_cifar()
    small = _with_few(digits, 100)
    cores, batch = executors.processors(), graph.BATCH["cpu"]
    quick_conv2, quick_resnet18 = (
        recipe.but(precision=recipe.at("laptop").precision) for recipe in (conv2, resnet18)
    )
    # An iteration of a trial, or where that is said 100 of them with an evaluation.
    parts = {
        "as processes": ("a process a core", lambda: _side_by_side(cores, 1, batch)),
        "as threads": ("one process of all threads", lambda: _side_by_side(1, cores, 3 * batch)),
        "plain": ("100, with an evaluation", lambda: plain_lenet(digits)),
        "ours": ("100, with an evaluation", lambda: ours(digits)),
        "image by image": ("as open_lth trains", lambda: image_by_image(digits, 300)),
        "products": ("its matrix products alone", _products_alone),
        "iteration at 100 %": ("", lambda: _iteration(small, 1.0)),
        "iteration at 21 %": ("", lambda: _iteration(small, 0.21)),
        "iteration at 3.6 %": ("", lambda: _iteration(small, 0.036)),
        "iteration at 1.2 %": ("", lambda: _iteration(small, 0.012)),
        "plain Conv-2": ("100, with an evaluation", lambda: 5 * plain_conv(few, FIFTH)),
        "Conv-2 at fp32": ("100, with an evaluation", lambda: 5 * ours_conv(few, conv2)),
        "Conv-2 at laptop precision": (
            "100, with an evaluation", lambda: 5 * ours_conv(few, quick_conv2),
        ),
        "plain Resnet-18": ("100, with an evaluation", lambda: 5 * plain_resnet(few, FIFTH)),
        "Resnet-18 at laptop precision": (
            "100, with an evaluation", lambda: 5 * ours_conv(few, quick_resnet18),
        ),
    }  # fmt: skip
    if torch.cuda.is_available():
        hundred = graph.BATCH["cuda"]
        parts["plain on the GPU"] = ("100, with an evaluation", lambda: plain_lenet(digits, "cuda"))
        parts["ours on the GPU"] = (
            f"100 of a trial of {hundred}, with an evaluation",
            lambda: ours(digits, "cuda", hundred),
        )
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(ROUNDS):
            say(f"turn {turn + 1} of {ROUNDS}")
            for name, (_, part) in parts.items():
                seconds[name].append(part())
    finally:
        torch.set_num_threads(threads)
    took = {name: median(values) for name, values in seconds.items()}
    return {
        "ratios": {
            name: round(took[one] / took[other], 2)
            for name, (one, other) in RATIOS.items()
            if one in took
        },
        "machine": {
            "device": device_name("cpu"),
            "cores": cores,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "details": {
            f"{name}{' (' * bool(how)}{how}{')' * bool(how)}, ms": round(1000 * took[name], 3)
            for name, (how, _) in parts.items()
        },
    }


def report(measured: dict) -> str:
    """The measurements as lines to read."""
    lines = [", ".join(f"{name} {value}" for name, value in measured["machine"].items()), ""]
    for key, value in measured["ratios"].items():
        sign, target = TARGETS[key]
        lines.append(f"{key:24}{value:6.2f}   aim {sign} {target}   {EXPLAINED[key]}")
    return "\n".join(
        [*lines, "", *(f"{value:10.3f}  {name}" for name, value in measured["details"].items())]
    )


def as_large_as_mnist() -> Data:
    digits = data.load("mnist5k", validation=500)

    def repeated(split: Split, n: int) -> Split:
        chosen = torch.randint(0, len(split.labels), (n,), generator=generator("bench"))
        return Split(split.images[chosen], split.labels[chosen])

    return Data(
        "repeated digits",
        repeated(digits.train, 55_000),
        repeated(digits.validation, 5_000),
        repeated(digits.test, 10_000),
    )


def as_large_as_a_fifth_of_cifar() -> Data:
    """3,000 / 1,000 / 2,000 images of 3x32x32: training images enough for the iterations that are
    timed."""

    def split(n: int) -> Split:
        random = generator("bench", n)
        return Split(
            torch.randint(0, 256, (n, 3, 32, 32), generator=random).float(),
            torch.randint(0, 10, (n,), generator=random),
        )

    return Data("noise", split(3000), split(1000), split(2000))


def _with_few(digits: Data, n: int) -> Data:
    """The same training images, so few others that evaluation costs nothing."""

    def few(split: Split) -> Split:
        return Split(split.images[:n], split.labels[:n])

    return Data(digits.name, digits.train, few(digits.validation), few(digits.test))


def _tickets(density: float, trials: int) -> list[Ticket]:
    """One ticket a trial, its layers at random masks of one density."""
    network, made = networks.build(lenet), []
    for trial in range(trials):
        rng = generator("bench", trial)
        weights = networks.initialise(lenet, rng)
        mask = {
            layer.weight: torch.rand(layer.shape, generator=rng) < density
            for layer in network.layers
        }
        made.append(
            Ticket(
                mask,
                {name: value * mask.get(name, 1) for name, value in weights.items()},
                ("bench", trial),
            )
        )
    return made


def ours(digits: Data, device: str = "cpu", trials: int = TRIALS) -> float:
    """Seconds of 100 iterations a trial with the paper's evaluations, so many of them in a batch as
    `run` trains them."""
    return _per_evaluation(digits, 1.0, lenet.evaluate_every, device, trials)


def _side_by_side(processes: int, threads: int, trials: int) -> float:
    """Seconds of one training iteration of one trial of the whole machine, with so many processes
    of so many threads."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as workers:
        took = list(workers.map(_one_of_several, [threads] * processes, [trials] * processes))
    return median(took) / processes


def _one_of_several(threads: int, trials: int) -> float:
    training.THREADS = threads
    return (
        _per_evaluation(as_large_as_mnist(), 1.0, lenet.evaluate_every, "cpu", trials)
        / lenet.evaluate_every
    )


def _iteration(digits: Data, density: float) -> float:
    """Seconds of one training iteration a trial."""
    return _per_evaluation(digits, density, 200) / 200


def _per_evaluation(
    digits: Data, density: float, every: int, device: str = "cpu", trials: int = TRIALS
) -> float:
    ticks = []
    short = Data(digits.name, digits.train, digits.validation, _with_few(digits, 100).test)
    recipe = lenet.but(iterations=6 * every, evaluate_every=every)
    training.train(
        _tickets(density, trials),
        short,
        recipe,
        device,
        progress=lambda _: ticks.append(time.perf_counter()),
    )
    return median(later - sooner for sooner, later in zip(ticks, ticks[1:])) / trials


def _products_alone() -> float:
    """Seconds of the eight matrix products of one iteration a trial, at the engine's shapes and
    threads."""
    network = networks.build(lenet)
    weights = [torch.randn(TRIALS, *layer.shape) for layer in network.layers]
    below = [torch.randn(TRIALS, layer.shape[1], lenet.batch) for layer in network.layers]
    deltas = [torch.randn(TRIALS, layer.shape[0], lenet.batch) for layer in network.layers]
    gradients = [torch.empty_like(weight) for weight in weights]

    def once() -> None:
        for i, weight in enumerate(weights):
            torch.bmm(weight, below[i])
            torch.bmm(deltas[i], below[i].mT, out=gradients[i])
            if i:
                torch.bmm(weight.mT, deltas[i])

    ticks = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(100):
            once()
        ticks.append((time.perf_counter() - start) / 100)
    return median(ticks) / TRIALS


def ours_conv(few: Data, recipe: Recipe) -> float:
    """Seconds of the same by the engine, which looks at the validation set alone meanwhile."""
    ticks = [time.perf_counter()]
    recipe = recipe.but(iterations=2 * FIFTH, evaluate_every=FIFTH, milestones=(), checkpoints=())
    last = {
        name: Split(each.images.permute(0, 2, 3, 1), each.labels)
        for name, each in (("train", few.train), ("validation", few.validation))
    }
    short = Data(few.name, **last, test=Split(last["train"].images[:10], last["train"].labels[:10]))
    training.train(
        [tickets.make(recipe.iterative().nodes("paper", 1)[0])],
        short,
        recipe,
        progress=lambda _: ticks.append(time.perf_counter()),
    )
    return ticks[2] - ticks[1]
