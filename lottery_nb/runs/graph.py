"""What requests stand on, and what can be trained next. Nothing here touches torch or a store."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import NamedTuple

import numpy as np

from ..core.lines import Node
from ..core.networks import kind_of
from .plans import KEPT, TEST_LOOKS, Request

Arrays = dict[str, np.ndarray]

# Trainings of a small network in one batch: on one thread 4 are a sixth faster than 1, and a third
# faster than 12, whose parameters leave a processor's cache.
BATCH = {"cpu": 4, "cuda": 100}
# Of a convolutional network: on a CPU they take turns, so each is a batch of its own, and a kill
# loses one; a GPU is not filled by one.
SIDE_BY_SIDE = {"cpu": 1, "cuda": 16}


class Ancestry(NamedTuple):
    """What a training is made from: the stored arrays of its parent and of its origin.

    Where those are not at hand, `pruned` is the mask that a ticket file has of it (packed bits by
    layer weight), `parents` the digests that the file tells of them, by their keys, and `initial`
    the digest of its origin's initial weights, which are drawn again.
    """

    parent: Arrays | None = None
    origin: Arrays | None = None
    pruned: Arrays | None = None
    parents: dict[str, dict[str, str]] | None = None
    initial: str = ""


def unpacked(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A layer's mask from its packed bits: bool, of that shape."""
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)


def parents_of(node: Node) -> list[Node]:
    """The trainings whose results a node needs: one for its mask, one for its initial weights, or
    none."""
    return [before for before in (node.parent, node.origin) if before]


def with_ancestors(
    requests: dict[str, Request],
    done: Callable[[Request], bool] = lambda request: False,
    given: Callable[[Node], bool] = lambda node: False,
) -> dict[str, Request]:
    """What is requested and what it stands on, parents first, less what is done; given: whether a
    node's mask is at hand though its parents are not."""
    pending: dict[str, Request] = {}

    def add(request: Request) -> None:
        node = request.node
        request = request.also(pending.get(node.key)).also(requests.get(node.key))
        if request == pending.get(node.key) or done(request):
            return
        before = [Request(each) for each in parents_of(node)]
        if any(each.node.key in requests for each in before) or not given(node):
            for each in before:
                add(each)
        pending[node.key] = request

    for request in requests.values():
        add(request)
    return pending


class Frontier:
    """What is pending, and of that what can be trained now: all whose parents are done.

    Batches share what `Recipe.shared` says. Winning tickets go first, as most stands on them.
    """

    def __init__(self, pending: dict[str, Request]):
        self._pending = dict(pending)
        self._children: dict[str, list[str]] = {key: [] for key in pending}
        self._waits_for = {
            key: {before.key for before in parents_of(request.node) if before.key in pending}
            for key, request in pending.items()
        }
        # Heaps, by what the trainings of a batch have in common.
        self._ready: dict[tuple, list] = {}
        for key, befores in self._waits_for.items():
            for before in befores:
                self._children[before].append(key)
            if not befores:
                self.put_back(key)

    def __len__(self) -> int:
        return len(self._pending)

    def take(self, device: str, workers: int = 1) -> list[Request]:
        """The next batch: as many as a device ("cpu" | "cuda") trains at once, and no more than a
        fair share for each of `workers`; [] while nothing is ready."""
        if not self._ready:
            return []
        group = min(self._ready, key=lambda group: self._ready[group][0])
        heap = self._ready[group]
        network = kind_of(self._pending[heap[0][1]].node.recipe.network)
        size = (BATCH if network.stacks else SIDE_BY_SIDE)[device]
        share = min(size, ceil(len(heap) / workers))
        taken = [heappop(heap)[1] for _ in range(share)]
        if not heap:
            del self._ready[group]
        return [self._pending[key] for key in taken]

    def put_back(self, key: str, alone: bool = False) -> None:
        """Let a training that was taken be taken again; alone: in a batch of its own."""
        request = self._pending[key]
        node = request.node
        group = (_trains_as(request), key if alone else "")
        first = (node.control not in KEPT, node.strategy != "iterative", node.round)
        heappush(self._ready.setdefault(group, []), (first, key))

    def done(self, key: str) -> None:
        """A training that was taken is stored: what waited only for it can be taken."""
        del self._pending[key], self._waits_for[key]
        for child in self._children.pop(key):
            self._waits_for[child].discard(key)
            if not self._waits_for[child]:
                self.put_back(child)

    def give_up(self, key: str) -> int:
        """A training that was taken cannot be done: it and all that stands on it are pending no
        more. How many those are."""
        lost, below = {key}, [key]
        while below:
            children = [child for child in self._children[below.pop()] if child not in lost]
            lost.update(children)
            below += children
        for each in lost:
            del self._pending[each], self._waits_for[each], self._children[each]
        for children in self._children.values():
            children[:] = [child for child in children if child not in lost]
        return len(lost) - 1


def _trains_as(request: Request) -> tuple:
    """What trainings of one batch have in common: all that the engine takes beside tickets."""
    shared = tuple(sorted(request.node.recipe.shared.items()))
    return shared, TEST_LOOKS in request.needs
