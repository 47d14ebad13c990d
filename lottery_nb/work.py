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
from .graph import KEPT, Wanted
from .specs import RESULTS_VERSION, Node
from .tickets import Trained

Arrays = dict[str, np.ndarray]

# Of the code that decides a result, wherever it was loaded from.
DECIDING = ("data", "graph", "masks", "models", "specs", "tickets", "training", "work")
CODE = hashlib.sha256(b"".join(pkgutil.get_data(__package__, f"{name}.py") for name in DECIDING)).hexdigest()[:12]


def train_batch(
    batch: list[Wanted], parents: list[tuple[Arrays | None, Arrays | None]], device: torch.device, commit: str, progress: Callable[[int], None]
) -> list[tuple[dict, Arrays]]:
    """Train what is wanted, all of one recipe: (record, arrays) of each, as they are stored.

    parents: what each one's parent and origin left behind, None where it has none; commit: of the code, for the records;
    progress: called with the iterations done since the last call.
    """
    recipe, looks = batch[0].node.recipe, "test looks" in batch[0].needs
    loaded = data.load(recipe.data, recipe.scaling, recipe.validation, recipe.split_seed, str(device))
    made = [tickets.make(wish.node, *(arrays and trained(arrays) for arrays in left)) for wish, left in zip(batch, parents)]
    started, clock = datetime.now(UTC), time.monotonic()
    records = training.train(made, loaded, recipe, device, looks, progress)
    provenance = {
        "data": loaded.remark or recipe.data, "commit": commit, "versions": versions(), "device": device_name(device.type),
        "started": started.isoformat(timespec="seconds"), "seconds": round((time.monotonic() - clock) / len(batch), 2),
    }  # fmt: skip
    return [(_record(wish.node, *both) | provenance, _arrays(wish.node, *both)) for wish, *both in zip(batch, made, records)]


def train_anywhere(
    batch: list[Wanted], parents: list[tuple[Arrays | None, Arrays | None]], commit: str, tell: Callable[[int], None]
) -> list[tuple[dict, Arrays]]:
    """`train_batch` on the best device here. tell: as `progress` there, but called once a second at most."""
    untold, told = 0, time.monotonic()

    def progress(steps: int) -> None:
        nonlocal untold, told
        untold += steps
        if time.monotonic() - told > 1:
            tell(untold)
            untold, told = 0, time.monotonic()

    return train_batch(batch, parents, training.pick_device("auto"), commit, progress)


def versions() -> str:
    """Of what computes here, for the records."""
    return f"Python {platform.python_version()}, torch {torch.__version__}"


def _record(node: Node, ticket: training.Ticket, record: training.Record) -> dict:
    holds = ["final biases"] * (node.control in KEPT) + ["test looks"] * ("test_loss" in record.curves)
    return {
        "strategy": node.strategy, "control": node.control, "trial": node.trial, "round": node.round, "draw": node.draw,
        "recipe": {"version": RESULTS_VERSION, **node.recipe.deciding()},
        "density": masks.density(ticket.mask), "iterations": node.recipe.iterations, "early_stop": record.early_stop,
        "holds": holds, "measures": record.measures,
    } | ({"noise": node.noise} if node.noise else {})  # fmt: skip


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
    mask = {name: torch.from_numpy(np.unpackbits(bits, count=final[name].numel())).bool().view(final[name].shape) for name, bits in part["mask"].items()}
    return Trained(mask, final, {name: torch.from_numpy(array) for name, array in part["initial"].items()})


@cache
def device_name(kind: str) -> str:
    """The processor of a device ("cpu" | "cuda") and, of a CPU, the threads in use."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.processor() or platform.machine()} ({threads} thread{'s' if threads > 1 else ''})"
