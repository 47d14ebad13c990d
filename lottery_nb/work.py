"""One batch of trainings, from what it stands on to what it leaves behind. It needs no store, and of libraries only torch and
numpy, so any machine can do it."""

import hashlib
import pkgutil
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import torch

from . import data, masks, tickets, training
from .graph import KEPT, Ancestry, Wanted
from .specs import RESULTS_VERSION, Node
from .tickets import Trained

Arrays = dict[str, np.ndarray]

# Of the code that decides a result, wherever it was loaded from.
DECIDING = ("data", "graph", "masks", "models", "specs", "tickets", "training", "work")
CODE = hashlib.sha256(b"".join(pkgutil.get_data(__package__, f"{name}.py") for name in DECIDING)).hexdigest()[:12]


def train_batch(
    batch: list[Wanted], ancestries: list[Ancestry], device: torch.device, commit: str, progress: Callable[[float], None]
) -> list[tuple[dict, Arrays]]:
    """Train what is wanted, all of one recipe: (record, arrays) of each, as they are stored.

    ancestries: what each one is made from; commit: of the code, for the records; progress: called with the iterations done
    since the last call.
    """
    recipe, looks = batch[0].node.recipe, "test looks" in batch[0].needs
    loaded = data.load(recipe.data, recipe.scaling, recipe.validation, recipe.split_seed, str(device))
    made, parents = zip(*(ticket(wish.node, ancestry) for wish, ancestry in zip(batch, ancestries)))
    started, clock = datetime.now(UTC), time.monotonic()
    records = training.train(list(made), loaded, recipe, device, looks, progress)
    seconds = round((time.monotonic() - clock) / len(batch), 2)
    result = []
    for wish, start, origins, record in zip(batch, made, parents, records):
        made_of = {
            "data": {"digest": loaded.digest, "said": data.said(recipe.data)}, "parents": origins, "code": CODE, "commit": commit,
            "versions": versions(), "device": device_name(device.type),
        }  # fmt: skip
        provenance = {"made_of": made_of, "started": started.isoformat(timespec="seconds"), "seconds": seconds}
        result.append((_record(wish.node, start, record) | provenance, _arrays(wish.node, start, record)))
    return result


def ticket(node: Node, ancestry: Ancestry) -> tuple[training.Ticket, dict]:
    """The ticket of a node, and the digests of what it is made from, by the keys of its parents."""
    if ancestry.pruned is not None:
        shapes = {layer.weight: layer.shape for layer in node.recipe.layers}
        began = ancestry.origin and trained(ancestry.origin)
        if node.origin:
            tickets.check_initial(began.initial if began else tickets.unpruned_weights(node), ancestry.initial)
        mask = {name: unpacked(bits, shapes[name]) for name, bits in ancestry.pruned.items()}
        return tickets.make(node, origin=began, pruned=mask), ancestry.parents or {}
    parent, origin = (arrays and trained(arrays) for arrays in ancestry[:2])
    both = ((node.parent, parent), (node.origin, origin))
    return tickets.make(node, parent, origin), {other.key: digests(left) for other, left in both if other}


def digests(left: Trained) -> dict[str, str]:
    """By which a training's mask and final weights are known."""
    return {"mask": tickets.fingerprint(left.mask), "weights": tickets.fingerprint(left.final)}


def train_anywhere(batch: list[Wanted], ancestries: list[Ancestry], commit: str, tell: Callable[[float], None]) -> list[tuple[dict, Arrays]]:
    """`train_batch` on the best device here. tell: as `progress` there, but called once a second at most."""
    untold, told = 0, time.monotonic()

    def progress(steps: float) -> None:
        nonlocal untold, told
        untold += steps
        if time.monotonic() - told > 1:
            tell(untold)
            untold, told = 0, time.monotonic()

    return train_batch(batch, ancestries, training.pick_device("auto"), commit, progress)


def versions() -> str:
    """Of what computes here, for the records."""
    return f"Python {platform.python_version()}, torch {torch.__version__}"


def _record(node: Node, ticket: training.Ticket, record: training.Record) -> dict:
    return {
        "strategy": node.strategy, "control": node.control, "trial": node.trial, "round": node.round, "draw": node.draw,
        "noise": node.noise, "recipe": {"version": RESULTS_VERSION, **node.recipe.deciding()},
        "density": masks.density(ticket.mask), "iterations": node.recipe.iterations, "early_stop": record.early_stop,
        "holds": ["test looks"] * ("test_loss" in record.curves), "measures": record.measures,
        "mask": tickets.fingerprint(ticket.mask), "initial": tickets.fingerprint(ticket.weights), "weights": tickets.fingerprint(record.weights),
    }  # fmt: skip


def _arrays(node: Node, ticket: training.Ticket, record: training.Record) -> Arrays:
    """Curves always; the mask and final parameters where a later round may stand on them; initial ones of round 0."""
    arrays = dict(record.curves)
    if node.control in KEPT:
        arrays |= {f"mask/{name}": np.packbits(mask.numpy()) for name, mask in ticket.mask.items()}
        arrays |= {f"final/{name}": value.numpy() for name, value in record.weights.items()}
        if node.round == 0:
            arrays |= {f"initial/{name}": value.numpy() for name, value in ticket.weights.items()}
    return arrays


def trained(arrays: Arrays) -> Trained:
    """What a training left behind, read from its stored arrays."""
    part = {kind: {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"{kind}/")} for kind in ("mask", "final", "initial")}
    final = {name: torch.from_numpy(array) for name, array in part["final"].items()}
    mask = {name: unpacked(bits, final[name].shape) for name, bits in part["mask"].items()}
    return Trained(mask, final, {name: torch.from_numpy(array) for name, array in part["initial"].items()})


def unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """A layer's mask from its packed bits: bool, of that shape."""
    return torch.from_numpy(np.unpackbits(bits, count=int(np.prod(shape)))).bool().view(shape)


@cache
def device_name(kind: str) -> str:
    """The kind of processor of a device ("cpu" | "cuda"): two that have the same name here compute the same bits."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    told = dict(line.split("\t: ", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if "\t: " in line) if cpuinfo.exists() else {}
    told = {name.strip(): value for name, value in told.items()}
    kinds = [f"family {told['cpu family']}, model {told['model']}"] if {"cpu family", "model"} <= told.keys() else []
    kinds += [torch.backends.cpu.get_cpu_capability(), *(["AMX"] if "amx_tile" in told.get("flags", "") else [])]
    return f"{told.get('model name') or platform.processor() or platform.machine()} ({', '.join(kinds)}; 1 thread)"
