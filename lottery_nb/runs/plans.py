"""What a plan requests. A plan is a dict from a line's label to the line."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from ..core.errors import LotteryError
from ..core.lines import TEST_STOP, Line, Node, any_distribution
from ..core.scales import check_scale

Plan = dict[str, Line]

# Controls that later rounds stand on: their masks and weights are stored.
KEPT = ("winning ticket", "continued training")
# Test loss and accuracy at every evaluation, as records name what they hold.
TEST_LOOKS = "test looks"


class Request(NamedTuple):
    """A training that is asked for, what its lines show of it beside the usual measures, and what
    its record must hold for that: `TEST_LOOKS`."""

    node: Node
    shows: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    def also(self, other: "Request | None") -> "Request":
        """This request with what another one of the same training asks for."""
        if not other:
            return self
        return Request(self.node, self.shows | other.shows, self.needs | other.needs)


def request(node: Node, line: Line) -> Request:
    """What a line asks of one of its trainings."""
    shows = frozenset(line.shows)
    return Request(node, shows, needs_of(shows))


def needs_of(shows: Collection[str]) -> frozenset[str]:
    """What a record must hold so that these can be shown of it."""
    looks = {"test_accuracy", *TEST_STOP} & {*shows}
    return frozenset({TEST_LOOKS} if looks else ())


def requests_of(plans: Iterable[Plan], scale: str, trials: int | None = None) -> dict[str, Request]:
    """The distinct trainings that plans show, by key; what one line shows of a training is added to
    what others do. Raises LotteryError for what is no plan."""
    check_scale(scale)
    plans = list(plans)
    for plan in plans:
        check(plan)
    lines = (line for plan in plans for line in plan.values())
    return joined({n.key: request(n, line) for n in line.nodes(scale, trials)} for line in lines)


def joined(parts: Iterable[dict[str, Request]]) -> dict[str, Request]:
    """Requests by key, brought together: of a training, all that any part asks for."""
    requests: dict[str, Request] = {}
    for part in parts:
        for key, each in part.items():
            requests[key] = each.also(requests.get(key))
    return requests


def check(plan: Plan) -> None:
    """Raises LotteryError for what is no plan."""
    if not isinstance(plan, dict):
        raise LotteryError(
            f"a plan is a dict of lines by their labels, not a {type(plan).__name__}"
        )
    for label, line in plan.items():
        if not isinstance(label, str):
            raise LotteryError(
                f"the label {label!r} of a plan is a {type(label).__name__}: give a text"
            )
        if not isinstance(line, Line):
            raise LotteryError(
                f"{label!r} is a {type(line).__name__}, not a line: give one such as "
                "lenet.iterative() or lenet.one_shot()"
            )
        if line.control not in KEPT and any_distribution(line.shows):
            raise LotteryError(
                f"{label!r} shows a distribution over networks of {line.control}, whose weights "
                "are not kept: winning tickets have one"
            )
