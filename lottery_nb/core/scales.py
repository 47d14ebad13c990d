"""What the scales shrink: `smoke` to seconds, `laptop` to hours, `paper` nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .errors import LotteryError

EFFORTS = ("main", "control", "sweep")  # scales spend less on the appendix than on the main claims


@dataclass(frozen=True)
class Shrinking:
    """What a scale changes in the recipes of a network; None leaves a recipe's own value.

    iterations multiplies, and warm-up and milestones with it; rounds, trials and draws are upper
    limits; the others replace what a recipe says, unless its author chose it. control, sweep:
    further changes for recipes of that effort.
    """

    iterations: float = 1.0
    rounds: int | None = None
    trials: int | None = None
    draws: int | None = None
    data: str | None = None
    validation: int | None = None
    batch: int | None = None
    evaluate_every: int | None = None
    one_shot_every: int | None = None
    width: float | None = None
    precision: str | None = None
    control: Mapping = field(default_factory=dict)
    sweep: Mapping = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, int]:
        """Upper limits, by field of a recipe."""
        return self._those("rounds", "trials", "draws")

    @property
    def replaced(self) -> dict:
        """New values, by field of a recipe."""
        return self._those(
            "data", "validation", "batch", "evaluate_every", "one_shot_every", "width", "precision"
        )

    def _those(self, *names: str) -> dict:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


_SMOKE_DEEP = Shrinking(
    data="mnist1k", validation=100, batch=20, evaluate_every=4,
    rounds=2, trials=1, draws=1, sweep={"rounds": 1},
)  # fmt: skip
_LAPTOP_DEEP = Shrinking(precision="bf16", trials=1, draws=1)

# By scale, then by network or by the family of networks that it is of.
SCALES: dict[str, dict[str, Shrinking]] = {
    "smoke": {
        "lenet": Shrinking(
            data="mnist5k", validation=500, iterations=0.0012, evaluate_every=10,
            rounds=8, trials=2, draws=1, one_shot_every=9,
            control={"trials": 1}, sweep={"rounds": 3, "trials": 1},
        ),
        "conv": Shrinking(
            data="mnist1k", validation=100, batch=20, iterations=0.0006, evaluate_every=4,
            width=0.125, rounds=3, trials=1, draws=1, sweep={"rounds": 1},
        ),
        "deep": replace(_SMOKE_DEEP, iterations=0.0004, width=0.25),
        "vgg19": replace(_SMOKE_DEEP, iterations=12 / 112_480, width=0.0625),
    },
    "laptop": {
        "lenet": Shrinking(
            iterations=0.24, rounds=20, draws=1, one_shot_every=3,
            control={"trials": 3}, sweep={"rounds": 15, "trials": 1},
        ),
        "conv": Shrinking(
            iterations=0.15, precision="bf16", rounds=12, trials=1, draws=1,
            sweep={"width": 0.25, "rounds": 8},
        ),
        "deep": replace(
            _LAPTOP_DEEP, iterations=0.05, evaluate_every=250, width=0.5, rounds=8
        ),
        "vgg19": replace(
            _LAPTOP_DEEP, iterations=1500 / 112_480, evaluate_every=200, width=0.25, rounds=12
        ),
    },
    "paper": {},
}  # fmt: skip


def check_scale(scale: str) -> None:
    """Raises LotteryError for an unknown scale."""
    if not isinstance(scale, str) or scale not in SCALES:
        raise LotteryError(f"there is no scale {scale!r}: choose {', '.join(SCALES)}")


def shrinking(scale: str, network: str, family: str, effort: str = "main") -> Shrinking:
    """What a scale changes in a network's recipes of an effort; raises LotteryError for an unknown
    scale, and for one that shrinks others but neither this network nor its family."""
    check_scale(scale)
    shrinks = SCALES[scale]
    found = shrinks.get(network) or shrinks.get(family) or (None if shrinks else Shrinking())
    if found is None:
        raise LotteryError(
            f"the {scale} scale does not say what it shrinks of {network}: give the network a "
            f"family among {', '.join(shrinks)}, or add it to SCALES"
        )
    return replace(found, **getattr(found, effort, {}))
