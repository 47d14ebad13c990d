"""How planning and looking up grow with the number of trainings, and how long the paper's own scale
takes on a cluster."""

import json
import platform
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from ..analysis import tables
from ..core import data
from ..core.lines import Node
from ..core.networks import NETWORKS
from ..core.recipes import conv2, conv4, conv6, lenet, resnet18, vgg19
from ..runs import batch, graph
from ..runs.plans import TEST_LOOKS, requests_of
from ..runs.store import FORM, canonical, digest
from ..site import notebooks, progress
from . import simulation, speed


def growth(
    say: Callable[[str], None] = lambda line: None,
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000),
) -> str:
    """How planning and looking up grow with the number of trainings, as lines to read. Takes about
    a minute."""
    began = time.perf_counter()
    plans = {figure.name: figure.plan for figure in notebooks.figures()}
    wanted = requests_of(plans.values(), "paper")
    pending = graph.with_ancestors(wanted)
    took = time.perf_counter() - began
    lines = [f"planning all figures at paper scale, {len(pending):,} trainings: {took:.1f} s"]
    everything = graph.with_ancestors(requests_of(plans.values(), "laptop")) | pending
    known = [request.node for request in everything.values()]
    fillers = (replace(known[i % len(known)], trial=1000 + i) for i in count())
    with (
        TemporaryDirectory() as folder,
        notebooks.environment(LOTTERY_STORE=folder, LOTTERY_MISSING="skip"),
    ):
        nodes, stored = chain(known, fillers), 0
        for size in sizes:
            say(f"a store of {size:,} made-up trainings")
            for node in islice(nodes, size - stored):
                _make_up(Path(folder), node)
            stored = size
            seconds = []
            # The latter without its committed table.
            for look in (progress.status, lambda: tables.run(plans["fig04"], scale="laptop")):
                began = time.perf_counter()
                with redirect_stdout(None):
                    look()
                seconds.append(time.perf_counter() - began)
            status, table = seconds
            said = f"status {status:.1f} s, Figure 4's table {table:.1f} s"
            lines.append(f"a store of {size:>7,} trainings: {said}")
    return "\n".join(lines)


def cluster(say: Callable[[str], None] = lambda line: None) -> dict:
    """What workers of one thread of this machine would take for the paper's own scale: {"machine":
    {...}, "iteration": {network: seconds, validation included, every weight there}, "hours":
    {networks: as `simulation.hours`}}. Takes about seven minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        say("an iteration of lenet")
        iteration = {"lenet": speed.ours(speed.as_large_as_mnist()) / lenet.evaluate_every}
        few = speed.as_large_as_a_fifth_of_cifar()
        for recipe in (conv2, conv4, conv6, resnet18, vgg19):
            say(f"an iteration of {recipe.network}")
            iteration[recipe.network] = (
                median(speed.ours_conv(few, recipe) for _ in range(speed.ROUNDS)) / speed.FIFTH
            )
        device = batch.device_name("cpu")
    finally:
        torch.set_num_threads(threads)
    say("the clock of the whole graph")
    return {
        "machine": {
            "device": device,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "iteration": {network: round(seconds, 5) for network, seconds in iteration.items()},
        "hours": hours_of_the_papers_scale(iteration),
    }


def hours_of_the_papers_scale(iteration: dict[str, float]) -> dict[str, dict]:
    """Of each group of networks, and of the whole book, what `simulation.hours` tells; iteration:
    seconds of one, by network."""
    pending = graph.with_ancestors(
        requests_of((figure.plan for figure in notebooks.figures()), "paper")
    )
    groups = {
        "Lenet": ("lenet",), "Conv-2, Conv-4, Conv-6": ("conv2", "conv4", "conv6"),
        "Resnet-18": ("resnet18",), "VGG-19": ("vgg19",), "the whole book": NETWORKS,
    }  # fmt: skip
    return {
        name: simulation.hours(
            {k: each for k, each in pending.items() if each.node.recipe.network in of}, iteration
        )
        for name, of in groups.items()
    }


def _make_up(folder: Path, node: Node) -> None:
    """A record as a training leaves it, without its arrays."""
    measures = {
        f"{split}_{what}_at_{moment}": 0.5
        for split in ("test", "train", "val")
        for what in ("loss", "accuracy")
        for moment in ("early_stop", "end")
    }
    parents = {parent.key: {"mask": "none", "weights": "none"} for parent in graph.parents_of(node)}
    of = {"digest": data.digest_at_hand(node.recipe.data) or "none", "said": "made up"}
    made_of = {
        "data": of,
        "parents": parents,
        "commit": "none",
        "versions": "none",
        "device": "none",
    }
    record = {
        "key": node.key, "strategy": node.strategy, "control": node.control, "trial": node.trial,
        "round": node.round, "draw": node.draw, "recipe": node.recipe.identity, "density": 0.5,
        "iterations": 100, "early_stop": 50, "holds": [TEST_LOOKS], "form": FORM,
        "measures": measures, "mask": "none", "initial": "none", "weights": "none",
        "made_of": made_of, "started": "2019-01-01", "seconds": 1.0,
    }  # fmt: skip
    (folder / node.key).mkdir()
    (folder / node.key / "record.json").write_text(
        json.dumps(record | {"sha256": digest(canonical(record))})
    )
