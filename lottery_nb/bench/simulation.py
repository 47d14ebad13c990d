"""How long the paper's own scale takes on so many workers: the graph of all trainings, gone through
by the clock instead of by training."""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from ..core.recipes import Recipe, lenet
from ..runs.graph import Frontier, parents_of
from ..runs.plans import Request

WORKERS = tuple(2**i for i in range(10))  # 1 to 512


def seconds_of(recipe: Recipe, iteration: dict[str, float]) -> float:
    """Of one training; iteration: seconds of an iteration by network, Lenet's for the paper's
    sizes; a network that is not there takes as long as the slowest."""
    size = recipe.weights / lenet.weights if recipe.network == "lenet" else 1
    return recipe.iterations * iteration.get(recipe.network, max(iteration.values())) * size


def makespan(
    pending: dict[str, Request], seconds: Callable[[Recipe], float], workers: int
) -> float:
    """Seconds from the first training to the last on so many equal workers, handed out as
    `runner` hands them out."""
    frontier, clock, under_way = Frontier(pending), 0.0, []
    while frontier:
        while len(under_way) < workers and (batch := frontier.take("cpu", workers)):
            heappush(
                under_way,
                (
                    clock + sum(seconds(request.node.recipe) for request in batch),
                    [request.node.key for request in batch],
                ),
            )
        clock, keys = heappop(under_way)
        for key in keys:
            frontier.done(key)
    return clock


def critical_path(pending: dict[str, Request], seconds: Callable[[Recipe], float]) -> float:
    """Seconds of the longest chain of trainings that each wait for the one before: no number of
    workers is faster."""
    until: dict[str, float] = {}
    for key, request in pending.items():  # parents come first
        before = [until[parent.key] for parent in parents_of(request.node) if parent.key in pending]
        until[key] = max(before, default=0.0) + seconds(request.node.recipe)
    return max(until.values(), default=0.0)


def hours(
    pending: dict[str, Request], iteration: dict[str, float], workers: Iterable[int] = WORKERS
) -> dict:
    """{"trainings": how many, "work": hours on one worker, "chain": hours of the critical path,
    "on": {workers: hours}}"""
    times: dict[Recipe, float] = {}

    def seconds(recipe: Recipe) -> float:
        if recipe not in times:
            times[recipe] = seconds_of(recipe, iteration)
        return times[recipe]

    return {
        "trainings": len(pending),
        "work": sum(seconds(request.node.recipe) for request in pending.values()) / 3600,
        "chain": critical_path(pending, seconds) / 3600,
        "on": {str(count): makespan(pending, seconds, count) / 3600 for count in workers},
    }
