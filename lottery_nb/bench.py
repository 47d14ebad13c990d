"""How fast the engine is on this machine, against a plain PyTorch loop and against the machine's own limit.

Everything is measured on one thread of one process, in turns, and reported as medians; only the first ratio compares several
processes with several threads. On a busy machine trust the ratios. Images
are the embedded digits, repeated to MNIST's 55,000 / 5,000 / 10,000: the time does not depend on what they show.
"""

import json
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import chain, count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from . import book, data, graph, models, plans, running, simulation, tickets, training, work
from .data import Data, Split
from .specs import NETWORKS, Node, Recipe, conv2, conv4, conv6, lenet, resnet18, vgg19
from .store import FORM, canonical, digest

TRIALS = 5  # the paper's
ROUNDS = 3  # turns of each measurement
FIFTH = 20  # iterations of a convolutional network that are timed, with a fifth of the images of an evaluation
TARGETS = {
    "lenet_processes_vs_threads": (">=", 1.0),
    "lenet_vs_plain": (">=", 4.0), "lenet_limit": ("<=", 1.5), "lenet_sparse_vs_dense": ("<=", 0.7),
    "conv2_vs_plain_fp32": (">=", 1.6), "conv2_vs_plain_laptop": (">=", 2.8), "resnet18_vs_plain_laptop": (">=", 2.0),
    "lenet_gpu_vs_plain": (">=", 150),
}  # fmt: skip
EXPLAINED = {
    "lenet_processes_vs_threads": "trial-iterations a second of Lenet, validation included: a process a core / one process of as many threads",
    "lenet_vs_plain": "trial-iterations a second of Lenet, validation included: ours / plain",
    "lenet_limit": "time of a Lenet iteration / time of its matrix products alone",
    "lenet_sparse_vs_dense": "time of an iteration at 3.6 % of the weights / at 100 %",
    "conv2_vs_plain_fp32": "trial-iterations a second of Conv-2, evaluation included: ours at fp32 / plain",
    "conv2_vs_plain_laptop": "the same, ours at the laptop scale's precision",
    "resnet18_vs_plain_laptop": "the same of Resnet-18, augmentation and batch-norm included",
    "lenet_gpu_vs_plain": "trial-iterations a second of Lenet on a GPU, 100 trials in a batch, validation included: ours / plain",
}


def measure(say: Callable[[str], None] = lambda line: None) -> dict:
    """All ratios: {"ratios": {key: number}, "machine": {...}, "details": {milliseconds of each part}}. Takes about two minutes."""
    digits = _as_large_as_mnist()
    few = _as_large_as_a_fifth_of_cifar()
    small = _with_few(digits, 100)
    laptop = {recipe.network: recipe.but(precision=recipe.at("laptop").precision) for recipe in (conv2, resnet18)}
    cores = running.processors()
    parts = {
        "ours: an iteration of a trial, a process a core": lambda: _side_by_side(cores, 1, graph.BATCH["cpu"]),
        "ours: an iteration of a trial, one process of all threads": lambda: _side_by_side(1, cores, 3 * graph.BATCH["cpu"]),
        "plain: 100 iterations of one trial, with evaluation": lambda: _plain(digits),
        "ours: 100 iterations of a trial, with evaluation": lambda: _ours(digits),
        "products: an iteration of a trial": lambda: _products_alone(),
        "ours: an iteration of a trial at 100 %": lambda: _iteration(small, 1.0),
        "ours: an iteration of a trial at 21 %": lambda: _iteration(small, 0.21),
        "ours: an iteration of a trial at 3.6 %": lambda: _iteration(small, 0.036),
        "ours: an iteration of a trial at 1.2 %": lambda: _iteration(small, 0.012),
        "plain: 100 iterations of Conv-2, with evaluation": lambda: 5 * _plain_conv(few),
        "ours: 100 iterations of Conv-2 at fp32, with evaluation": lambda: 5 * _ours_conv(few, conv2),
        "ours: 100 iterations of Conv-2 at laptop precision, with evaluation": lambda: 5 * _ours_conv(few, laptop["conv2"]),
        "plain: 100 iterations of Resnet-18, with evaluation": lambda: 5 * _plain_resnet(few),
        "ours: 100 iterations of Resnet-18 at laptop precision, with evaluation": lambda: 5 * _ours_conv(few, laptop["resnet18"]),
    }
    if torch.cuda.is_available():
        parts["plain: 100 iterations of one trial on the GPU, with evaluation"] = lambda: _plain(digits, "cuda")
        parts["ours: 100 iterations of a trial of a hundred on the GPU, with evaluation"] = lambda: _ours(digits, "cuda", graph.BATCH["cuda"])
    seconds: dict[str, list[float]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(ROUNDS):
            say(f"turn {turn + 1} of {ROUNDS}")
            for name, part in parts.items():
                seconds.setdefault(name, []).append(part())
    finally:
        torch.set_num_threads(threads)
    took = {name: median(values) for name, values in seconds.items()}
    processes, as_threads, plain, ours, products, dense, _, sparse, _, plain_conv, conv_fp32, conv_laptop, plain_resnet, resnet, *on_gpu = took.values()
    ratios = {
        "lenet_processes_vs_threads": as_threads / processes,
        "lenet_vs_plain": plain / ours, "lenet_limit": dense / products, "lenet_sparse_vs_dense": sparse / dense,
        "conv2_vs_plain_fp32": plain_conv / conv_fp32, "conv2_vs_plain_laptop": plain_conv / conv_laptop, "resnet18_vs_plain_laptop": plain_resnet / resnet,
    }  # fmt: skip
    if on_gpu:
        ratios["lenet_gpu_vs_plain"] = on_gpu[0] / on_gpu[1]
    return {
        "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "machine": {
            "device": work.device_name("cpu"), "cores": cores, "python": platform.python_version(), "torch": torch.__version__,
        },
        "details": {f"{name}, ms": round(1000 * value, 3) for name, value in took.items()},
    }  # fmt: skip


def report(measured: dict) -> str:
    """The measurements as lines to read."""
    lines = [", ".join(f"{name} {value}" for name, value in measured["machine"].items()), ""]
    for key, value in measured["ratios"].items():
        sign, target = TARGETS[key]
        lines.append(f"{key:24}{value:6.2f}   aim {sign} {target}   {EXPLAINED[key]}")
    return "\n".join([*lines, "", *(f"{value:10.3f}  {name}" for name, value in measured["details"].items())])


def _as_large_as_mnist() -> Data:
    digits = data.load("mnist5k", validation=500)

    def repeated(split: Split, n: int) -> Split:
        chosen = torch.randint(0, len(split.labels), (n,), generator=training.generator("bench"))
        return Split(split.images[chosen], split.labels[chosen])

    return Data("repeated digits", repeated(digits.train, 55_000), repeated(digits.validation, 5_000), repeated(digits.test, 10_000))


def _as_large_as_a_fifth_of_cifar() -> Data:
    """3,000 / 1,000 / 2,000 images of 3x32x32: training images enough for the iterations that are timed."""

    def split(n: int) -> Split:
        random = training.generator("bench", n)
        return Split(torch.randint(0, 256, (n, 3, 32, 32), generator=random).float(), torch.randint(0, 10, (n,), generator=random))

    return Data("noise", split(3000), split(1000), split(2000))


def _with_few(digits: Data, n: int) -> Data:
    """The same training images, so few others that evaluation costs nothing."""

    def few(split: Split) -> Split:
        return Split(split.images[:n], split.labels[:n])

    return Data(digits.name, digits.train, few(digits.validation), few(digits.test))


def _tickets(density: float, trials: int) -> list[training.Ticket]:
    """One ticket a trial, its layers at random masks of one density."""
    network, made = models.build(lenet), []
    for trial in range(trials):
        rng = training.generator("bench", trial)
        weights = models.initialise(lenet, rng)
        mask = {layer.weight: torch.rand(layer.shape, generator=rng) < density for layer in network.layers}
        made.append(training.Ticket(mask, {name: value * mask.get(name, 1) for name, value in weights.items()}, ("bench", trial)))
    return made


def _ours(digits: Data, device: str = "cpu", trials: int = TRIALS) -> float:
    """Seconds of 100 iterations a trial with the paper's evaluations, so many of them in a batch as `run` trains them."""
    return _per_evaluation(digits, 1.0, lenet.evaluate_every, device, trials)


def _side_by_side(processes: int, threads: int, trials: int) -> float:
    """Seconds of one training iteration of one trial of the whole machine, with so many processes of so many threads."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as workers:
        took = list(workers.map(_one_of_several, [threads] * processes, [trials] * processes))
    return median(took) / processes


def _one_of_several(threads: int, trials: int) -> float:
    training.THREADS = threads
    return _per_evaluation(_as_large_as_mnist(), 1.0, lenet.evaluate_every, "cpu", trials) / lenet.evaluate_every


def _iteration(digits: Data, density: float) -> float:
    """Seconds of one training iteration a trial."""
    return _per_evaluation(digits, density, 200) / 200


def _per_evaluation(digits: Data, density: float, every: int, device: str = "cpu", trials: int = TRIALS) -> float:
    ticks = []
    short = Data(digits.name, digits.train, digits.validation, _with_few(digits, 100).test)
    recipe = lenet.but(iterations=6 * every, evaluate_every=every)
    training.train(_tickets(density, trials), short, recipe, device, progress=lambda _: ticks.append(time.perf_counter()))
    return median(later - sooner for sooner, later in zip(ticks, ticks[1:])) / trials


def _products_alone() -> float:
    """Seconds of the eight matrix products of one iteration a trial, at the engine's shapes and threads."""
    network = models.build(lenet)
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


def _plain(digits: Data, device: str = "cpu") -> float:
    """Seconds of 100 iterations of one trial as a good tutorial writes them, and one evaluation of validation and test."""
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )
    return _plainly(network.to(device), digits, lenet, 3, lenet.evaluate_every)


def _plain_conv(few: Data) -> float:
    """Seconds of `FIFTH` iterations of Conv-2 as a good tutorial writes them, and one evaluation of validation and test."""
    block = (torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    units = (torch.nn.Linear(16384, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    return _plainly(torch.nn.Sequential(*block, torch.nn.Flatten(), *units), few, conv2, 1, FIFTH)


def _plain_resnet(few: Data) -> float:
    """The same of Resnet-18, its images shifted and flipped one by one as torchvision does it."""
    return _plainly(plain_resnet(), few, resnet18, 1, FIFTH)


def normed(into: int, out: int, size: int = 3, stride: int = 1) -> tuple[torch.nn.Module, ...]:
    """A convolution and its batch-norm, of torch's own modules."""
    return torch.nn.Conv2d(into, out, size, stride, size // 2, bias=False), torch.nn.BatchNorm2d(out)


class Block(torch.nn.Module):
    """A residual block of two convolutions, of torch's own modules."""

    def __init__(self, into: int, out: int, stride: int):
        super().__init__()
        self.inner = torch.nn.Sequential(*normed(into, out, stride=stride), torch.nn.ReLU(), *normed(out, out))
        self.shortcut = torch.nn.Sequential(*(normed(into, out, 1, stride) if stride > 1 else ()))

    def forward(self, x):
        return (self.inner(x) + self.shortcut(x)).relu()


def plain_resnet(filters: tuple[int, int, int] = (16, 32, 64)) -> torch.nn.Module:
    """Resnet-18 of torch's own modules, for images (n, 3, 32, 32)."""
    groups = zip(filters[:1] + filters, filters, (1, 2, 2))
    blocks = [Block(*each) for into, out, stride in groups for each in ((into, out, stride), (out, out, 1), (out, out, 1))]
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(filters[2], 10))
    return torch.nn.Sequential(*normed(3, filters[0]), torch.nn.ReLU(), *blocks, *head)


def _ours_conv(few: Data, recipe: Recipe) -> float:
    """Seconds of the same by the engine, which looks at the validation set alone meanwhile."""
    ticks = [time.perf_counter()]
    recipe = recipe.but(iterations=2 * FIFTH, evaluate_every=FIFTH, milestones=(), marks=())
    last = {name: Split(each.images.permute(0, 2, 3, 1), each.labels) for name, each in (("train", few.train), ("validation", few.validation))}
    short = Data(few.name, **last, test=Split(last["train"].images[:10], last["train"].labels[:10]))
    training.train([tickets.make(recipe.iterative().nodes("paper", 1)[0])], short, recipe, progress=lambda _: ticks.append(time.perf_counter()))
    return ticks[2] - ticks[1]


def _plainly(network: torch.nn.Module, digits: Data, recipe: Recipe, turns: int, every: int) -> float:
    """Seconds (median over turns) of so many iterations and an evaluation, in a plain loop."""
    alive = {name: torch.ones_like(value) for name, value in network.named_parameters() if name.endswith("weight")}
    device = next(network.parameters()).device
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    else:
        optimiser = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    sets = {name: TensorDataset(split.images, split.labels) for name, split in (("validation", digits.validation), ("test", digits.test))}
    sets["train"] = _Augmented(digits.train.images, digits.train.labels) if recipe.augment else TensorDataset(digits.train.images, digits.train.labels)
    loaders = {name: DataLoader(each, recipe.batch if name == "train" else 1000, shuffle=name == "train") for name, each in sets.items()}
    batches, ticks = (batch for _ in count() for batch in loaders["train"]), [time.perf_counter()]
    for _ in range(turns + 1):
        network.train()
        for _ in range(every):
            x, y = next(batches)
            optimiser.zero_grad()
            F.cross_entropy(network(x.to(device)), y.to(device)).backward()
            optimiser.step()
            with torch.no_grad():
                for name, value in network.named_parameters():
                    if name in alive:
                        value.mul_(alive[name])
        network.eval()
        with torch.no_grad():
            for name in ("validation", "test"):
                sum(float(F.cross_entropy(network(x.to(device)), y.to(device), reduction="sum")) for x, y in loaders[name])
        ticks.append(time.perf_counter())
    return median(later - sooner for sooner, later in zip(ticks[1:], ticks[2:]))


class _Augmented(TensorDataset):
    """Images and labels, each image cropped out of its padding and flipped at random when it is asked for."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        super().__init__(images, labels)
        data.torchvision_datasets()  # mends the next import where it has to be
        from torchvision.transforms import v2

        self.change = v2.Compose([v2.RandomCrop(32, padding=data.SHIFT), v2.RandomHorizontalFlip()])

    def __getitem__(self, i: int):
        image, label = super().__getitem__(i)
        return self.change(image), label


def growth(say: Callable[[str], None] = lambda line: None, sizes: tuple[int, ...] = (1_000, 10_000, 100_000)) -> str:
    """How planning and looking up grow with the number of trainings, as lines to read. Takes about a minute."""
    began = time.perf_counter()
    plans_of_all = {figure.name: figure.plan for figure in book.figures()}
    wanted = graph.wanted_nodes(plans_of_all.values(), "paper")
    pending = graph.with_ancestors(wanted)
    lines = [f"planning all figures at paper scale, {len(pending):,} trainings: {time.perf_counter() - began:.1f} s"]
    everything = graph.with_ancestors(graph.wanted_nodes(plans_of_all.values(), "laptop")) | pending
    known = [wish.node for wish in everything.values()]
    fillers = (replace(known[i % len(known)], trial=1000 + i) for i in count())
    with TemporaryDirectory() as folder, book.environment(LOTTERY_STORE=folder, LOTTERY_MISSING="skip"):
        nodes, stored = chain(known, fillers), 0
        for size in sizes:
            say(f"a store of {size:,} made-up trainings")
            for node in islice(nodes, size - stored):
                _make_up(Path(folder), node)
            stored = size
            took = []
            for look in (book.status, lambda: plans.run(plans_of_all["fig04"], scale="laptop")):  # the latter without its committed table
                began = time.perf_counter()
                with redirect_stdout(None):
                    look()
                took.append(time.perf_counter() - began)
            lines.append(f"a store of {size:>7,} trainings: status {took[0]:.1f} s, Figure 4's table {took[1]:.1f} s")
    return "\n".join(lines)


def cluster(say: Callable[[str], None] = lambda line: None) -> dict:
    """What workers of one thread of this machine would take for the paper's own scale: {"machine": {...}, "iteration": {network:
    seconds, validation included, every weight there}, "hours": {networks: as `simulation.hours`}}. Takes about seven minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        say("an iteration of lenet")
        iteration = {"lenet": _ours(_as_large_as_mnist()) / lenet.evaluate_every}
        few = _as_large_as_a_fifth_of_cifar()
        for recipe in (conv2, conv4, conv6, resnet18, vgg19):
            say(f"an iteration of {recipe.network}")
            iteration[recipe.network] = median(_ours_conv(few, recipe) for _ in range(ROUNDS)) / FIFTH
        device = work.device_name("cpu")
    finally:
        torch.set_num_threads(threads)
    say("the clock of the whole graph")
    pending = graph.with_ancestors(graph.wanted_nodes((figure.plan for figure in book.figures()), "paper"))
    groups = {
        "Lenet": ("lenet",), "Conv-2, Conv-4, Conv-6": ("conv2", "conv4", "conv6"), "Resnet-18": ("resnet18",), "VGG-19": ("vgg19",),
        "the whole book": NETWORKS,
    }  # fmt: skip
    return {
        "machine": {"device": device, "python": platform.python_version(), "torch": torch.__version__},
        "iteration": {network: round(seconds, 5) for network, seconds in iteration.items()},
        "hours": {
            name: simulation.hours({key: wish for key, wish in pending.items() if wish.node.recipe.network in networks}, iteration)
            for name, networks in groups.items()
        },
    }


def _make_up(folder: Path, node: Node) -> None:
    """A record as a training leaves it, without its arrays."""
    measures = {f"{split}_{what}_at_{moment}": 0.5 for split in ("test", "train", "val") for what in ("loss", "accuracy") for moment in ("early_stop", "end")}
    parents = {parent.key: {"mask": "none", "weights": "none"} for parent in graph.parents_of(node)}
    of = {"digest": data.digest_at_hand(node.recipe.data) or "none", "said": "made up"}
    made_of = {"data": of, "parents": parents, "commit": "none", "versions": "none", "device": "none"}
    record = {
        "key": node.key, "strategy": node.strategy, "control": node.control, "trial": node.trial, "round": node.round, "draw": node.draw,
        "recipe": node.recipe.deciding(), "density": 0.5, "iterations": 100, "early_stop": 50, "holds": ["test looks"], "form": FORM,
        "measures": measures, "mask": "none", "initial": "none", "weights": "none", "made_of": made_of, "started": "2019-01-01", "seconds": 1.0,
    }  # fmt: skip
    (folder / node.key).mkdir()
    (folder / node.key / "record.json").write_text(json.dumps(record | {"sha256": digest(canonical(record))}))
