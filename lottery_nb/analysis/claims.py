"""The paper's claims and what our runs say of them: `book/claims.yml` read, measured and judged.
Those of later papers, `book/later_claims.yml`, are judged alike and counted apart.

A measurement is made on each trial of our table (draws of a trial averaged) and, the same way, on
the paper's own curve. A verdict has two parts. The outcome: "reproduced" where every trial keeps
the rule, "not reproduced" where all break it on the same side; where the trials straddle it,
"direction holds" if the rule asks for an effect and every trial has it, though not in the size
asked, and "open" if not; "not tested" where the scale is too small or the table lacks what is
compared. The evidence: the scale of the trainings, or that the network is a reduced one.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import fastjsonschema
import numpy as np
import pandas as pd
import yaml

from ..core.errors import LotteryError
from ..core.scales import SCALES
from ..runs.store import ROOT
from . import paper

FILE = ROOT / "book" / "claims.yml"
LATER = FILE.with_name("later_claims.yml")
OUTCOMES = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "direction holds": "≈",
    "open": "?",
    "not tested": "–",
}
# What a verdict rests on, best first. Reduced: narrower, or under a fifth of the paper's iterations
EVIDENCE = ("counting", "paper scale", "laptop scale", "reduced network")
STOP, END = "early_stop_iteration", "test_accuracy_at_end"
NEAR_THE_END = 0.93  # of our training: who stops there may not be finished
EXACT = 9  # decimals: 97.84 % less 97.54 % are 0.3 points, which floating point misses
HUNDREDTHS = ("pp", "%")
COUNTS = ("weights", "iterations")
DECIMALS = {"%": 1, "plain": 3}  # else 2
# Of the weights that are left or gone, whichever are fewer; neighbouring rounds are further apart
DENSITY_TOLERANCE = 0.03
HERE = "This book"  # where a claim stands that is not the paper's
POINT = ("trial", "density", "iteration", "x", "value")


@dataclass(frozen=True)
class Claim:
    """A row of `book/claims.yml`, which has a figure, or of `book/later_claims.yml`, which has a
    chapter; `book/claims.schema.json` explains the keys."""

    id: str
    says: str
    where: str
    of: dict
    unit: str
    rule: dict
    text: float | None
    plot: float | None
    figure: int = 0
    chapter: int = 0
    against: dict | None = None
    as_: str = "value"
    scale: str = "laptop"
    erratum: str = ""

    @property
    def notebook(self) -> str:
        """Its figure's, such as "fig04", or its chapter's, such as "chapter1"."""
        if self.chapter:
            return f"chapter{int(self.chapter)}"
        return f"fig{int(self.figure):02d}"  # to JSON Schema, 4.0 is a whole number

    @property
    def places(self) -> tuple[dict, dict]:
        """Where it measures, and where what it compares that with; the same for a mere value."""
        return self.of, {**self.of, **(self.against or {})}

    def side(self, value: float) -> str:
        """Where a measurement lies: it "keeps" the rule, or breaks it "below" or "above"; a
        training that failed is "nowhere"."""
        ((kind, bound),) = self.rule.items()
        if pd.isna(value):
            return "nowhere"
        if kind == "between":
            return "below" if value < bound[0] else "above" if value > bound[1] else "keeps"
        if kind == "above":
            return "keeps" if value > bound else "below"
        return "keeps" if value < bound else "above"

    @property
    def window(self) -> tuple[float, float]:
        """The lowest and the highest measurement that keep the rule; one is infinite where the rule
        has one bound, which itself does not keep it."""
        ((kind, bound),) = self.rule.items()
        if kind == "between":
            return bound[0], bound[1]
        return (bound, np.inf) if kind == "above" else (-np.inf, bound)

    @property
    def no_effect(self) -> float | None:
        """The measurement where what is compared is equal; None for a mere value."""
        return {"difference": 0.0, "relative": 0.0, "ratio": 1.0}.get(self.as_)

    def has_effect(self, value: float) -> bool:
        """Whether a measurement lies on that side of no effect on which the whole rule does; never
        where the rule asks for no effect."""
        low, high = self.window
        if self.no_effect is None:
            return False
        return low >= self.no_effect < value or high <= self.no_effect > value

    @property
    def disagrees(self) -> bool:
        """Whether the paper's text and its own plot differ by more than rounding and a tenth. A
        text that gives a bound, as in "more than 0.3", or says that there is no difference, agrees
        with a plot that keeps the claim's rule."""
        if self.text is None or self.plot is None:
            return False
        if self.text in (0, *self.rule.values()) and self.side(self.plot) == "keeps":
            return False
        decimals = len(f"{self.text:g}".partition(".")[2])
        return abs(self.text - self.plot) > max(0.5 * 10**-decimals, 0.1 * abs(self.text))

    @property
    def is_contradicted(self) -> bool:
        """Whether the paper's text says without a number what its own plot does not show."""
        return self.text is None and self.plot is not None and self.side(self.plot) != "keeps"

    def measure(self, rows: pd.DataFrame) -> float | None:
        """The measurement on rows of one trial (or of the paper); None where they lack it."""
        found = (_points(rows, place["line"], place["metric"]) for place in self.places)
        return self._compared(*map(_value_at, found, self.places))

    def _compared(self, value: float | None, base: float | None) -> float | None:
        if value is None or base is None:
            return None
        if self.as_ != "value":
            with np.errstate(all="ignore"):
                if self.of["metric"].startswith(STOP):
                    base = base or np.nan  # nothing is so many times an early stop of 0
                ratio = float(np.divide(value, base))
            value = {"difference": value - base, "relative": ratio - 1, "ratio": ratio}[self.as_]
        return round(value * (100 if self.unit in HUNDREDTHS else 1), EXACT)

    def by_trial(self, points: dict[tuple[str, str], "Points"]) -> dict[float, float]:
        """The measurement on each trial that has one; points: by line and metric."""
        places = [(place["line"], place["metric"]) for place in self.places]
        if not all(place in points for place in places):
            return {}
        of, against = (points[place] for place in places)
        found = {}
        for trial in dict.fromkeys(of["trial"].tolist()):
            both = (
                {k: v[each["trial"] == trial] for k, v in each.items()} for each in (of, against)
            )
            value = self._compared(*map(_value_at, both, self.places))
            if value is not None:
                found[trial] = value
        return found

    def show(self, value: float | None) -> str:
        """A number with its unit; a dash for none."""
        if value is None or pd.isna(value):
            return "–"
        return self.number(value) + self.unit_said

    @property
    def unit_said(self) -> str:
        """Its unit as it follows a number: a difference of accuracies is in points, a level in
        percent."""
        if self.unit == "pp":
            return " points" if self.as_ == "difference" else " %"
        return {"x": "×", "%": " %"}.get(self.unit, "")

    def number(self, value: float) -> str:
        """A number without its unit, signed where it is a change."""
        if self.unit in COUNTS:
            return f"{value:,.0f}"
        sign = "+" if self.as_ in ("difference", "relative") else ""
        text = f"{value:{sign}.{DECIMALS.get(self.unit, 2)}f}"
        return text.replace("-", "−") if float(text) else text.lstrip("+-")


@cache
def load(path: Path = FILE) -> tuple[Claim, ...]:
    """All claims, in the file's order; raises LotteryError naming the claim that is malformed."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C: ten times as fast
        rows = yaml.load(path.read_text(), Loader=loader)
    except yaml.YAMLError as error:
        raise LotteryError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    claims = _parse(rows, path)
    ids = [claim.id for claim in claims]
    twice = {i for i in ids if ids.count(i) > 1}
    if twice:
        raise LotteryError(f"{path}: {', '.join(sorted(twice))} stands there more than once")
    return claims


def parse(row: dict, path: Path) -> Claim:
    """The claim of a row of the file at `path`; raises LotteryError naming claim and key where it
    is malformed."""
    return _parse([row], path)[0]


def _parse(rows: list[dict], path: Path) -> tuple[Claim, ...]:
    try:
        _schema()(rows)
    except fastjsonschema.JsonSchemaValueException as error:
        _, *place = error.path
        if not place:
            raise LotteryError(f"{path} must be {error.definition['description']}") from error
        raise _malformed(path, rows[int(place[0])], *_fault(error, place[1:])) from error
    for row in rows:  # what a schema cannot say
        if ("figure" in row) == ("chapter" in row):
            allowed = _schema_text()["items"]["properties"]["figure"]["description"]
            raise _malformed(path, row, ["figure"], f"is missing: {allowed}, or give a chapter")
        for key, value in row.items():
            for each in value.values() if isinstance(value, dict) else [value]:
                if each != each or isinstance(each, list) and not each[0] < each[1]:
                    fault = f"has {each}: numbers are finite, and of two the lower comes first"
                    raise _malformed(path, row, [key], fault)
    claims = tuple(
        Claim(**{"as_" if key == "as" else key: value for key, value in row.items()})
        for row in rows
    )
    for claim, row in zip(claims, rows):
        if fault := _says_nothing(claim):
            raise _malformed(path, row, ["rule"], fault)
    return claims


def _says_nothing(claim: Claim) -> str:
    """What is wrong with a rule that every measurement keeps, or none; "" where nothing is."""
    least, most = {
        "value": (0, 100 if claim.unit == "pp" else np.inf),
        "difference": (-100, 100) if claim.unit == "pp" else (-np.inf, np.inf),
        "relative": (-100, np.inf),
        "ratio": (0, np.inf),
    }[claim.as_]
    if claim.unit == "plain":  # such as the mean of weights
        return ""
    low, high = claim.window
    if low >= most or high <= least:
        return f"is never true: a measurement lies between {least} and {most}"
    if (low < least or low == -np.inf) and (high > most or high == np.inf):
        return f"is always true: a measurement lies between {least} and {most}"
    return ""


@cache
def _schema():
    # 3 ms to import where jsonschema, with what Jupyter installs beside it, takes a second
    return fastjsonschema.compile(_schema_text(), use_default=False)


@cache
def _schema_text() -> dict:
    return json.loads(FILE.with_suffix(".schema.json").read_text())


def _fault(error: fastjsonschema.JsonSchemaValueException, place: list[str]) -> tuple[list, str]:
    """The keys that lead to what is wrong in a claim, and what is wrong and allowed there."""
    schema, value = error.definition, error.value
    keys = [key for key in place if not key.isdigit()]
    known = schema.get("properties", {})
    if error.rule == "required":
        lacks = next(key for key in schema["required"] if key not in value)
        return [*keys, lacks], f"is missing: {known.get(lacks, schema)['description']}"
    if error.rule == "additionalProperties":
        unknown = next(key for key in value if key not in known)
        return [*keys, unknown], f"is unknown: choose {', '.join(known)}"
    allowed = f"choose {', '.join(schema['enum'])}" if "enum" in schema else schema["description"]
    return keys, f"is {value!r:.60}: {allowed}"


def _malformed(path: Path, row, keys: list, fault: str) -> LotteryError:
    name = row.get("id", row) if isinstance(row, dict) else row
    where = " in ".join(f"`{key}`" for key in reversed(keys)) or "it"
    return LotteryError(" ".join(f"{path}: claim {name} is malformed: {where} {fault}".split()))


Points = dict[str, np.ndarray]  # of a line and a metric: "trial", "density", "iteration", …


def _points(rows: pd.DataFrame, line: str, metric: str) -> Points:
    chosen = ((rows.line == line) & (rows.metric == metric)).to_numpy(bool)
    rows = rows[chosen].reindex(columns=POINT)
    return {name: rows[name].to_numpy(float) for name in POINT}


def _chosen(points: Points, which: np.ndarray) -> Points:
    return {name: column[which] for name, column in points.items()}


def _value_at(points: Points, where: dict) -> float | None:
    """Mean value of the points at a place: density (one or a window) and iteration, where they are
    given; of a distribution, whose points have an "x", its moment or its probability density at
    `x`."""
    values = points["value"]
    chosen = np.ones(len(values), bool)
    if "iteration" in where:
        chosen &= points["iteration"] == where["iteration"]
    if "density" in where:
        chosen[chosen] = at_density(points["density"][chosen], where["density"])
    if not chosen.any():
        return None
    if "moment" in where:
        return _moment(points["x"][chosen], values[chosen], where["moment"])
    if "x" in where:
        return float(np.interp(where["x"], points["x"][chosen], values[chosen]))
    there = values[chosen]
    there = there[~np.isnan(there)]
    return float(there.mean()) if len(there) else float("nan")


def at_density(densities: np.ndarray, wanted: float | list[float]) -> np.ndarray:
    """Which of some densities a claim's place means: those in its window, or those nearest to its
    one density, if they are near."""
    if isinstance(wanted, list):
        return (densities >= wanted[0]) & (densities <= wanted[1])
    off = np.where(np.isnan(densities), np.inf, np.abs(densities - wanted))
    near = off <= DENSITY_TOLERANCE * min(wanted, 1 - wanted)
    return near & (off == off.min(initial=np.inf))


def _moment(x: np.ndarray, density: np.ndarray, which: str) -> float:
    """The "mean" or standard deviation ("sd") of a distribution given as points (x, density) from
    left to right."""
    area = np.trapezoid(density, x)
    mean = np.trapezoid(x * density, x) / area
    return float(
        mean if which == "mean" else np.sqrt(np.trapezoid((x - mean) ** 2 * density, x) / area)
    )


def on_papers_plot(claim: Claim) -> float | None:
    """The claim's measurement on the paper's own curve."""
    if not paper.plots(claim.notebook):
        return None
    points = paper.curves(claim.notebook)
    first = points.panel == points.groupby(
        ["line", "metric", "density"], dropna=False
    ).panel.transform("min")
    return claim.measure(points[first].assign(value=points["mean"], iteration=points.x))


def verdicts(figure: str, table: pd.DataFrame) -> pd.DataFrame:
    """The figure's claims, judged by a table.

    Lines at two scales are not compared with each other.

    Parameters
    ----------
    figure : str
        Such as "fig04".
    table : pandas.DataFrame
        Of `run`.

    Returns
    -------
    pandas.DataFrame
        One row a claim of the figure: `id`, `claim`, `values` (a measurement a trial), `ours`
        (their mean), `low`, `high`, `n` (how many trials; 0 where trainings are counted, not made),
        `outcome`, one of `OUTCOMES`, `evidence`, one of `EVIDENCE`, "" where not tested,
        `reduced`, by what a reduced network is, in words, and `unfinished`: whether one of two
        networks whose accuracies are compared stops near the end of our training, and the other
        does not.
    """
    claims, points, scales_of = of_notebook(figure), {}, {}
    wanted = {
        (place["line"], metric)
        for claim in claims
        for place in claim.places
        for metric in (place["metric"], STOP, END)
    }
    if wanted and len(table):
        told = table.reindex(columns=["line", "metric", "scale", *POINT])
        told.attrs = {}  # pandas copies them at every step
        told = told[told.metric.isin({metric for _, metric in wanted})]
        # Trials as numbers: -1 where nothing is trained and there are none.
        columns = {name: told[name].to_numpy(float) for name in POINT}
        columns["trial"] = np.nan_to_num(columns["trial"], nan=-1)
        scales = told.scale.to_numpy()
        for place, which in told.groupby(["line", "metric"], observed=True).indices.items():
            if place in wanted:
                points[place] = _chosen(columns, which)
                scales_of[place] = set(scales[which])
    rows = []
    for claim in claims:
        places = dict.fromkeys((place["line"], place["metric"]) for place in claim.places)
        measured = claim.by_trial(points)
        values = list(measured.values())
        scales = set().union(*(scales_of.get(place, ()) for place in places))
        by = table.attrs.get("reduced", {})
        reduced = list(dict.fromkeys(by[line] for line, _ in places if line in by))
        outcome = _outcome(claim, values, scales)
        n = sum(trial >= 0 for trial in measured)
        ours = (
            {"ours": sum(values) / len(values), "low": min(values), "high": max(values)}
            if values
            else dict.fromkeys(("ours", "low", "high"))
        )
        rows.append(
            {
                "id": claim.id,
                "claim": claim,
                "values": values,
                **ours,
                "n": n,
                "outcome": outcome,
                "evidence": "" if outcome == "not tested" else _evidence(n, scales, reduced),
                "reduced": "; ".join(reduced),
                "unfinished": scales != {"paper"} and _is_unfinished(claim, points),
            }
        )
    columns = ["id", "claim", "values", "ours", "low", "high", "n"]
    return pd.DataFrame(rows, columns=[*columns, "outcome", "evidence", "reduced", "unfinished"])


def _is_unfinished(claim: Claim, points: dict[tuple[str, str], "Points"]) -> bool:
    if "accuracy" not in claim.of["metric"] or claim.as_ != "difference":
        return False
    shares = []
    for place in claim.places:
        stops, ends = (points.get((place["line"], metric)) for metric in (STOP, END))
        if stops is None or ends is None or "density" not in place:
            return False
        stop = _value_at(stops, {"density": place["density"]})
        shares.append((stop or 0) / ends["iteration"].max())
    return max(shares) >= NEAR_THE_END > min(shares)


def _outcome(claim: Claim, values: list[float], scales: set[str]) -> str:
    order = list(SCALES)
    if not values or len(scales) > 1 or order.index(*scales) < order.index(claim.scale):
        return "not tested"
    sides = {claim.side(value) for value in values}
    if len(sides) > 1:
        return "direction holds" if all(map(claim.has_effect, values)) else "open"
    return "reproduced" if sides == {"keeps"} else "not reproduced"


def _evidence(n: int, scales: set[str], reduced: list[str]) -> str:
    if not n:
        return "counting"
    return "reduced network" if reduced else f"{next(iter(scales))} scale"


def check(figure: str, lines: Iterable[str]) -> None:
    """Raises LotteryError for a claim of the figure about a line that is none of these."""
    lines = list(lines)
    for claim in of_notebook(figure):
        for place in claim.places:
            if place["line"] not in lines:
                raise LotteryError(
                    f"{FILE}: claim {claim.id} is about a line {place['line']!r}, which the plan "
                    f"of {figure} lacks: choose {', '.join(lines)}"
                )


def counts(sheets: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """How many of the claims of some figures have which outcome (a row each) by which evidence (a
    column each); those not tested have none and stand in the column ""."""
    found = Counter(pair for sheet in sheets for pair in zip(sheet.outcome, sheet.evidence))
    columns = [*EVIDENCE, ""]
    rows = [[found[outcome, evidence] for evidence in columns] for outcome in OUTCOMES]
    return pd.DataFrame(rows, list(OUTCOMES), columns)


def of_notebook(notebook: str) -> list[Claim]:
    """The claims of a figure or a chapter, by its name."""
    claims = load(LATER) if notebook.startswith("chapter") else load()
    return [claim for claim in claims if claim.notebook == notebook]
