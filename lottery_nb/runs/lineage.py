"""Whether what is stored is what it says: every digest and every mask found again, and stores
brought together by lineage."""

import sys
from collections.abc import Callable
from pathlib import Path

from ..core import tickets
from ..core.errors import LotteryError
from ..core.lines import RESULTS_VERSION, Node
from ..core.networks import DRAWS
from ..core.recipes import Recipe
from . import batch, checkpoints, ticket_files
from .graph import parents_of
from .runner import ancestry_of, other_parent
from .store import Store, digests_of


def node_of(record: dict) -> Node:
    """The node that a record is of; raises LotteryError where its key is another, and where its
    control or network is not here."""
    identity = dict(record["recipe"])
    version = identity.pop("version")
    names = ("strategy", "control", "trial", "round", "draw", "noise")
    told = {name: record[name] for name in names} | {"order": record.get("order", 0)}
    tickets.control_of(told["control"])
    node = Node(Recipe.of_identity(identity), **told)
    if version != RESULTS_VERSION or node.key != record["key"]:
        raise LotteryError(
            f"{record['key']} is a key of other code: here its recipe has the key {node.key}"
        )
    return node


def verify(
    store: Store, progress: Callable[[int], None] = lambda done: None
) -> tuple[int, dict[str, str]]:
    """Check every training: its checksums, the digests of what is kept of it, and that its mask and
    initial weights are what its parents give. Returns how many are whole, and what is wrong with
    the others, by key; damaged files are set aside."""
    store.sweep()
    checkpoints.sweep(store.folder, set(store))
    whole, wrong = 0, {}
    for key in store:
        try:
            said = _wrong(store, key)
        except LotteryError as error:
            said = str(error)
        if said:
            wrong[key] = said
        else:
            whole += 1
        progress(1)
    return whole, wrong


def _wrong(store: Store, key: str) -> str:
    """What is wrong with a stored training; "" where nothing is."""
    arrays = store.arrays(key)
    if arrays is None:
        return "was damaged and is set aside; it will be trained again"
    record = store.needed_record(key)
    node = node_of(record)
    kept = batch.outputs_of(arrays)
    if kept.final and batch.digests(kept) != digests_of(record):
        return "does not have the weights or the mask that its record tells"
    if other := other_parent(store, node, record):
        return f"was made from another {other} than is stored"
    missing = [parent.key for parent in parents_of(node) if parent.key not in store]
    if missing and not (node.round and ticket_files.given(node)):
        return f"stands on {missing[0]}, which is not here: that it has its mask cannot be checked"
    others, ancestry = [], ancestry_of(store, node)
    for drawn in DRAWS:  # another release of torch may have drawn its initial weights
        ticket, parents = batch.ticket(node, ancestry, drawn)
        if missing and parents != record["made_of"]["parents"]:
            return f"stands on another {missing[0]} than the committed ticket does"
        found = {
            "mask": tickets.fingerprint(ticket.mask),
            "initial": tickets.fingerprint(ticket.weights),
        }
        others.append([name for name in found if found[name] != record[name]])
        if not others[-1]:
            return ""
    return f"has another {others[0][0]} than its parents give"


def merge(store: Store, other: Store) -> dict[str, list[str]]:
    """Copy in another store's trainings with all that they stand on.

    Returns keys by what became of them: "copied"; "added" (the same training, measured more);
    "same"; "another machine's" (other weights from another processor or torch: ours stay);
    "conflict" (other weights from the same); "without parents" (they stand on trainings that
    neither store has); "of another lineage" (on such as ours are not); "of other code" (whose key
    or control it has not here); "damaged" (there, and set aside there).
    """
    fates: dict[str, str] = {}
    nodes = {}
    for key in other:
        if record := other.record(key):
            try:
                nodes[key] = node_of(record)
            except LotteryError:
                fates[key] = "of other code"

    def bring(key: str) -> str:
        if key not in fates:
            fates[key] = _bring(key)
        return fates[key]

    def _bring(key: str) -> str:
        theirs, ours = other.needed_record(key), store.record(key)
        if ours and ours["weights"] != theirs["weights"]:
            alike = all(
                ours["made_of"][name] == theirs["made_of"][name]
                for name in ("device", "versions", "data", "parents")
            )
            return "conflict" if alike else "another machine's"
        if ours and set(theirs["holds"]) <= set(ours["holds"]):
            return "same"
        for parent in parents_of(nodes[key]):
            told = theirs["made_of"]["parents"].get(parent.key)
            if parent.key in nodes:
                bring(parent.key)
            there = store.record(parent.key)
            if there is None and not _committed(nodes[key], parent, told):
                return "without parents"
            if there and digests_of(there) != told:
                return "of another lineage"
        arrays = other.arrays(key)
        if arrays is None:
            return "damaged"
        own = {"key", "arrays_sha256", "form"}  # of a file, which the new one gets anew
        record = {name: value for name, value in theirs.items() if name not in own}
        store.write(key, record, arrays)
        return "added" if ours else "copied"

    for key in nodes:
        bring(key)
    return {
        fate: [key for key in fates if fates[key] == fate] for fate in dict.fromkeys(fates.values())
    }


def _committed(node: Node, parent: Node, told: dict | None) -> bool:
    """Whether a committed ticket tells of a node the parent that its record tells."""
    return (
        ticket_files.given(node)
        and (ticket_files.ancestry(node).parents or {}).get(parent.key) == told
    )


def report(folder: Path, fates: dict[str, list[str]]) -> int:
    """Say what became of a merged store's trainings; the exit status."""
    print(
        f"{len(fates.get('copied', ()))} trainings copied in, {len(fates.get('added', ()))} "
        f"measured more, {len(fates.get('same', ()))} were here"
    )
    said = {
        "another machine's": "have other weights here, from another processor or torch; ours stay",
        "conflict": "have other weights here, though processor, torch, data and parents are the "
        "same; ours stay",
        "without parents": "stand on trainings that neither store has, and are not copied: merge "
        "the store that has those first",
        "of another lineage": "stand on other parents than are here, and are not copied",
        "of other code": "were trained by other code, and are not copied",
        "damaged": "are damaged and set aside there, and are not copied",
    }
    for fate, words in said.items():
        if keys := fates.get(fate):
            print(
                f"{len(keys)} of {folder} {words}: "
                f"{', '.join(keys[:3])}{' …' if len(keys) > 3 else ''}",
                file=sys.stderr,
            )
    lost = ("conflict", "without parents", "of other code", "damaged")
    return 1 if any(fates.get(fate) for fate in lost) else 0
