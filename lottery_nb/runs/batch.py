"""One batch of trainings, from what it stands on to its outputs. It needs no store, and of
libraries only torch and numpy, so any machine can do it."""

import hashlib
import pkgutil
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import torch

from .. import core
from ..core import data, masks, networks, tickets, training
from ..core.errors import LotteryError
from ..core.lines import RESULTS_VERSION, Node
from ..core.recipes import Recipe
from ..core.tickets import Outputs, Ticket
from .checkpoints import Checkpoints
from .graph import Ancestry, Arrays, unpacked
from .plans import KEPT, TEST_LOOKS, Request


def _code() -> str:
    """A digest of the code that decides a result, wherever it was loaded from."""
    names = sorted(module.name for module in pkgutil.iter_modules(core.__path__))
    files = [(core.__name__, f"{name}.py") for name in names]
    files += [(__package__, f"{name}.py") for name in ("batch", "graph", "plans")]
    code = b"".join(pkgutil.get_data(*file) or b"" for file in files)
    return hashlib.sha256(code).hexdigest()[:12]


CODE = _code()


def train_batch(
    batch: list[Request],
    ancestries: list[Ancestry],
    device: torch.device,
    commit: str,
    progress: Callable[[float], None],
    folder: Path | None = None,
) -> list[tuple[dict, Arrays]]:
    """Train what is wanted, all alike in `Recipe.shared`: (record, arrays) of each, as they are
    stored.

    ancestries: what each one is made from; commit: of the code, for the records; progress: called
    with the iterations done since the last call; folder: of a store, beside which long trainings
    leave checkpoints, see `Checkpoints`.
    """
    recipes, test_curves = [each.node.recipe for each in batch], TEST_LOOKS in batch[0].needs
    recipe = recipes[0]
    loaded = data_of(recipe, str(device))
    made, parents = zip(
        *(ticket(request.node, ancestry) for request, ancestry in zip(batch, ancestries))
    )
    common: dict[str, str | bool] = {"code": CODE, "data": loaded.digest, "versions": versions()}
    common |= {"device": device_name(device.type), "evaluations": test_curves}

    def trained(numbers: range) -> list[tuple[training.Record, float]]:
        """Some of the batch, and the seconds each took."""
        some, theirs = [made[i] for i in numbers], [recipes[i] for i in numbers]
        made_of = [
            common
            | {"mask": tickets.fingerprint(each.mask), "weights": tickets.fingerprint(each.weights)}
            for each in some
        ]
        kept = Checkpoints(folder, [batch[i].node.key for i in numbers], made_of)
        records = training.train(some, loaded, theirs, device, test_curves, progress, kept)
        return [(record, kept.seconds(i)) for i, record in enumerate(records)]

    started = datetime.now(UTC)
    records = _as_memory_allows(trained, range(len(batch)), recipe.network, device)
    result = []
    for request, start, origins, (record, seconds) in zip(batch, made, parents, records):
        made_of = {
            "data": {"digest": loaded.digest, "said": data.said(recipe.data)},
            "parents": origins,
            "code": CODE,
            "commit": commit,
            "versions": versions(),
            "device": device_name(device.type),
        }
        provenance = {
            "made_of": made_of,
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
        }
        result.append(
            (
                _record(request.node, start, record) | provenance,
                _arrays(request.node, start, record),
            )
        )
    return result


def _as_memory_allows(
    trained: Callable[[range], list], numbers: range, network: str, device: torch.device
) -> list:
    """What is trained of a batch: all at once, or where the device has too little memory for that
    one half after the other, and so on. Raises LotteryError where one is too much."""
    try:
        return trained(numbers)
    except torch.OutOfMemoryError as error:
        if len(numbers) == 1:
            raise LotteryError(
                f"a training of {network} takes more memory than {device} has free: free some, or "
                "train elsewhere"
            ) from error
    print(
        f"{len(numbers)} trainings of {network} at once take more memory than {device} has free: "
        "one half after the other",
        file=sys.stderr,
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    half = len(numbers) // 2
    parts = (numbers[:half], numbers[half:])
    return [each for part in parts for each in _as_memory_allows(trained, part, network, device)]


def ticket(node: Node, ancestry: Ancestry, drawn: str = networks.DRAWN) -> tuple[Ticket, dict]:
    """The ticket of a node, and the digests of what it is made from, by the keys of its parents;
    drawn: how initial weights are, one of `networks.DRAWS`."""
    images = None
    if "training images" in tickets.control_of(node.control).needs:
        images = data_of(node.recipe).train
    if ancestry.pruned is not None:
        shapes = {layer.weight: layer.shape for layer in node.recipe.layers}
        began = None
        if node.origin:
            carried = outputs_of(ancestry.origin).initial if ancestry.origin else None
            initial = tickets.initial_weights(node, ancestry.initial, carried)
            began = Outputs(mask={}, final={}, initial=initial)
        mask = _masks(ancestry.pruned, shapes)
        with training.arithmetic():
            made = tickets.make(node, None, began, mask, images, drawn)
        return made, ancestry.parents or {}
    parent = outputs_of(ancestry.parent) if ancestry.parent else None
    origin = outputs_of(ancestry.origin) if ancestry.origin else None
    both = ((node.parent, parent), (node.origin, origin))
    told = {other.key: digests(outputs) for other, outputs in both if other and outputs}
    with training.arithmetic():
        return tickets.make(node, parent, origin, None, images, drawn), told


def data_of(recipe: Recipe, device: str = "cpu") -> data.Data:
    """The data set that a recipe trains on."""
    return data.load(recipe.data, recipe.scaling, recipe.validation, recipe.split_seed, device)


def digests(left: Outputs) -> dict[str, str]:
    """By which a training's mask and final weights are known."""
    return {"mask": tickets.fingerprint(left.mask), "weights": tickets.fingerprint(left.final)}


def train_anywhere(
    batch: list[Request],
    ancestries: list[Ancestry],
    commit: str,
    folder: Path,
    tell: Callable[[float], None],
) -> list[tuple[dict, Arrays]]:
    """`train_batch` on the best device here. tell: as `progress` there, but called once a second at
    most."""
    untold, told = 0.0, time.monotonic()

    def progress(steps: float) -> None:
        nonlocal untold, told
        untold += steps
        if time.monotonic() - told > 1:
            tell(untold)
            untold, told = 0.0, time.monotonic()

    device = training.pick_device("auto")
    return train_batch(batch, ancestries, device, commit, progress, folder)


def versions() -> str:
    """Of what computes here, for the records."""
    return f"Python {platform.python_version()}, torch {torch.__version__}"


def _record(node: Node, ticket: Ticket, record: training.Record) -> dict:
    return {
        "strategy": node.strategy,
        "control": node.control,
        "trial": node.trial,
        "round": node.round,
        "draw": node.draw,
        "noise": node.noise,
        "order": node.order,
        "recipe": {"version": RESULTS_VERSION, **node.recipe.identity},
        "density": masks.density(ticket.mask),
        "iterations": node.recipe.iterations,
        "early_stop": record.early_stop,
        "holds": [TEST_LOOKS] * ("test_loss" in record.curves),
        "measures": record.measures,
        "mask": tickets.fingerprint(ticket.mask),
        "initial": tickets.fingerprint(ticket.weights),
        "weights": tickets.fingerprint(record.weights),
    }


def _arrays(node: Node, ticket: Ticket, record: training.Record) -> Arrays:
    """Curves always; the mask and final parameters where a later round may stand on them, or a path
    leads to them; initial ones of round 0."""
    arrays = dict(record.curves)
    if node.control in KEPT or node.order:
        arrays |= {f"mask/{name}": np.packbits(mask.numpy()) for name, mask in ticket.mask.items()}
        arrays |= {f"final/{name}": value.numpy() for name, value in record.weights.items()}
        if node.round == 0:
            arrays |= {f"initial/{name}": value.numpy() for name, value in ticket.weights.items()}
    return arrays


def outputs_of(arrays: Arrays) -> Outputs:
    """The outputs of a training, read from its stored arrays."""
    part = {
        kind: {
            name.split("/")[1]: array
            for name, array in arrays.items()
            if name.startswith(f"{kind}/")
        }
        for kind in ("mask", "final", "initial")
    }
    final = {name: torch.from_numpy(array) for name, array in part["final"].items()}
    mask = _masks(part["mask"], {name: value.shape for name, value in final.items()})
    return Outputs(
        mask, final, {name: torch.from_numpy(array) for name, array in part["initial"].items()}
    )


def _masks(packed: Arrays, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(unpacked(bits, shapes[name])) for name, bits in packed.items()}


@cache
def device_name(kind: str) -> str:
    """The kind of processor of a device ("cpu" | "cuda"): two that have the same name here compute
    the same bits."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    told = (
        dict(
            line.split("\t: ", 1)
            for line in cpuinfo.read_text().split("\n\n")[0].splitlines()
            if "\t: " in line
        )
        if cpuinfo.exists()
        else {}
    )
    told = {name.strip(): value for name, value in told.items()}
    kinds = (
        [f"family {told['cpu family']}, model {told['model']}"]
        if {"cpu family", "model"} <= told.keys()
        else []
    )
    kinds += [
        torch.backends.cpu.get_cpu_capability(),
        *(["AMX"] if "amx_tile" in told.get("flags", "") else []),
    ]
    name = told.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(kinds)}; 1 thread)"
