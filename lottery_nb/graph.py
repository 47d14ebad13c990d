"""What is wanted of a plan, what that stands on, and what can be trained next. Nothing here touches torch or a store."""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from .errors import LotteryError
from .specs import Line, Node, any_distribution, shrinking

Plan = dict[str, Line]

# Trainings of Lenet in one batch: on one thread 4 are a sixth faster than 1, and a third faster than 12, whose parameters leave
# a processor's cache. Those of a convolutional network take turns anyway, so each is a batch of its own, and a kill loses one.
BATCH = {"cpu": 4, "cuda": 100}
KEPT = ("winning ticket", "continued training")  # controls whose weights are stored, as later rounds stand on them


class Wanted(NamedTuple):
    """A training that is asked for, what its lines show of it beside the usual measures, and what its record must hold
    for that: "test looks"."""

    node: Node
    shows: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def also(self, other: "Wanted | None") -> "Wanted":
        return Wanted(self.node, self.shows | other.shows, self.needs | other.needs) if other else self


class Ancestry(NamedTuple):
    """What a training is made from: the stored arrays of its parent and of its origin, or in their place the mask that a ticket
    file has of it (packed bits by layer weight) and the digests of the parents that the file tells, by their keys."""

    parent: dict | None = None
    origin: dict | None = None
    pruned: dict | None = None
    parents: dict[str, dict[str, str]] | None = None
    initial: str = ""  # the digest of its origin's initial weights, where those are to be drawn again


def wanted_nodes(plans: Iterable[Plan], scale: str, trials: int | None = None) -> dict[str, Wanted]:
    """The distinct trainings that plans show, by key; what one line shows of a training is added to what others do."""
    shrinking(scale)
    plans = list(plans)
    for plan in plans:
        _check(plan)
    wanted: dict[str, Wanted] = {}
    for plan in plans:
        for line in plan.values():
            for node in line.nodes(scale, trials):
                wanted[node.key] = Wanted(node, frozenset(line.shows), needed(line)).also(wanted.get(node.key))
    return wanted


def needed(line: Line) -> frozenset[str]:
    """What the records of a line's trainings must hold beside what all do."""
    return frozenset({"test looks"} if line.needs_test_looks else ())


def _check(plan: Plan) -> None:
    if not isinstance(plan, dict):
        raise LotteryError(f"a plan is a dict of lines by their labels, not a {type(plan).__name__}")
    for label, line in plan.items():
        if not isinstance(label, str):
            raise LotteryError(f"the label {label!r} of a plan is a {type(label).__name__}: give a text")
        if not isinstance(line, Line):
            raise LotteryError(f"{label!r} is a {type(line).__name__}, not a line: give one such as lenet.iterative() or lenet.one_shot()")
        if line.control not in KEPT and any_distribution(line.shows):
            raise LotteryError(f"{label!r} shows a distribution over networks of {line.control}, whose weights are not kept: winning tickets have one")


def with_ancestors(
    wanted: dict[str, Wanted], done: Callable[[Wanted], bool] = lambda wish: False, given: Callable[[Node], bool] = lambda node: False
) -> dict[str, Wanted]:
    """What is wanted and what it stands on, less what is done; given: whether a node's mask is at hand though its parents are not."""
    pending: dict[str, Wanted] = {}

    def add(wish: Wanted) -> None:
        node = wish.node
        wish = wish.also(pending.get(node.key)).also(wanted.get(node.key))
        if wish == pending.get(node.key) or done(wish):
            return
        before = [Wanted(each) for each in parents_of(node)]
        if any(each.node.key in wanted or done(each) for each in before) or not given(node):
            for each in before:
                add(each)
        pending[node.key] = wish

    for wish in wanted.values():
        add(wish)
    return pending


class Frontier:
    """What is pending, and of that what can be trained now: all whose parents are done.

    Batches share a recipe. Winning tickets go first, as most stands on them.
    """

    def __init__(self, pending: dict[str, Wanted]):
        self._pending, self._children = dict(pending), {key: [] for key in pending}
        self._waits_for = {key: {before.key for before in parents_of(wish.node) if before.key in pending} for key, wish in pending.items()}
        self._ready: dict[tuple, list] = {}  # heaps, by what the trainings of a batch have in common
        for key, befores in self._waits_for.items():
            for before in befores:
                self._children[before].append(key)
            if not befores:
                self.put_back(key)

    def __len__(self) -> int:
        return len(self._pending)

    def take(self, size: int, hands: int = 1) -> list[Wanted]:
        """The next batch: at most `size`, and no more than a fair share for each of `hands`; [] while nothing is ready."""
        if not self._ready:
            return []
        group = min(self._ready, key=lambda group: self._ready[group][0])
        heap = self._ready[group]
        in_turns = self._pending[heap[0][1]].node.recipe.network != "lenet"
        taken = [heappop(heap)[1] for _ in range(1 if in_turns else min(size, -(-len(heap) // hands)))]
        if not heap:
            del self._ready[group]
        return [self._pending[key] for key in taken]

    def put_back(self, key: str, alone: bool = False) -> None:
        """Let a training that was taken be taken again; alone: in a batch of its own."""
        wish = self._pending[key]
        node = wish.node
        group = (_trains_as(wish), key if alone else "")
        heappush(self._ready.setdefault(group, []), ((node.control not in KEPT, node.strategy != "iterative", node.round), key))

    def done(self, key: str) -> None:
        """A training that was taken is stored: what waited only for it can be taken."""
        del self._pending[key], self._waits_for[key]
        for child in self._children.pop(key):
            self._waits_for[child].discard(key)
            if not self._waits_for[child]:
                self.put_back(child)

    def give_up(self, key: str) -> int:
        """A training that was taken cannot be done: it and all that stands on it are pending no more. How many those are."""
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


def parents_of(node: Node) -> list[Node]:
    """The trainings whose results a node needs: one for its mask, one for its initial weights, or none."""
    return [before for before in (node.parent, node.origin) if before]


def _trains_as(wish: Wanted) -> tuple:
    """What trainings of one batch have in common: all that the engine takes beside tickets."""
    return tuple(sorted(wish.node.recipe.deciding().items())), "test looks" in wish.needs
