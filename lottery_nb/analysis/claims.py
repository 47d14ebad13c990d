"""The paper's claims and what our runs say of them: `book/claims.yml` read, measured and judged.

A measurement is made on each trial of our table (draws of a trial averaged) and, the same way, on
the paper's own curve. Verdicts: "reproduced" where every trial keeps the rule, "not reproduced"
where all break it on the same side, "inconclusive" where the trials straddle it, "not tested at
this scale" where the scale is too small or the table lacks what is compared.
"""

import json
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
VERDICTS = {
    "reproduced": "✓",
    "not reproduced": "✗",
    "inconclusive": "≈",
    "not tested at this scale": "–",
}
HUNDREDTHS = ("pp", "%")
COUNTS = ("weights", "iterations")
DECIMALS = {"%": 1, "plain": 3}  # else 2
# Of the weights that are left or gone, whichever are fewer; neighbouring rounds are further apart
DENSITY_TOLERANCE = 0.03


@dataclass(frozen=True)
class Claim:
    """One row of `book/claims.yml`; `book/claims.schema.json` explains the keys."""

    id: str
    figure: int
    says: str
    of: dict
    unit: str
    rule: dict
    text: float | None
    plot: float | None
    against: dict | None = None
    as_: str = "value"
    scale: str = "laptop"
    erratum: str = ""

    @property
    def notebook(self) -> str:
        """Its figure's, such as "fig04"."""
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
    def disagrees(self) -> bool:
        """Whether the paper's text and its own plot differ by more than rounding and a tenth. A
        text that gives a bound, as in "more than 0.3", agrees with a plot beyond it."""
        if (
            self.text is None
            or self.plot is None
            or (self.text in self.rule.values() and self.side(self.plot) == "keeps")
        ):
            return False
        decimals = len(f"{self.text:g}".partition(".")[2])
        return abs(self.text - self.plot) > max(0.5 * 10**-decimals, 0.1 * abs(self.text))

    def measure(self, rows: pd.DataFrame) -> float | None:
        """The measurement on rows of one trial (or of the paper); None where they lack it."""
        value = _value_at(rows, self.of)
        base = value if self.against is None else _value_at(rows, self.places[1])
        if value is None or base is None:
            return None
        if self.as_ != "value":
            with np.errstate(all="ignore"):
                ratio = float(np.divide(value, base))
            value = {"difference": value - base, "relative": ratio - 1, "ratio": ratio}[self.as_]
        return value * (100 if self.unit in HUNDREDTHS else 1)

    def show(self, value: float | None) -> str:
        """A number with its unit; a dash for none."""
        if value is None or pd.isna(value):
            return "–"
        return self.number(value) + {"x": "×", **dict.fromkeys(("plain", *COUNTS), "")}.get(
            self.unit, f" {self.unit}"
        )

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
        for key, value in row.items():
            for each in value.values() if isinstance(value, dict) else [value]:
                if each != each or isinstance(each, list) and not each[0] < each[1]:
                    fault = f"has {each}: numbers are finite, and of two the lower comes first"
                    raise _malformed(path, row, [key], fault)
    return tuple(
        Claim(**{"as_" if key == "as" else key: value for key, value in row.items()})
        for row in rows
    )


@cache
def _schema():
    # 3 ms to import where jsonschema, with what Jupyter installs beside it, takes a second
    schema = json.loads(FILE.with_suffix(".schema.json").read_text())
    return fastjsonschema.compile(schema, use_default=False)


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


def _value_at(rows: pd.DataFrame, where: dict) -> float | None:
    """Mean value of the rows at a place: line, metric and, where given, density (one or a window)
    and iteration; of a distribution, whose rows have an `x`, its moment or its probability density
    at `x`."""
    chosen = ((rows.line == where["line"]) & (rows.metric == where["metric"])).to_numpy(bool)
    if "iteration" in where:
        chosen = chosen & (rows.iteration == where["iteration"]).to_numpy(bool)
    density = where.get("density")
    if isinstance(density, list):
        chosen = chosen & rows.density.between(*density).to_numpy(bool)
    elif density is not None and chosen.any():
        off = np.where(
            chosen & rows.density.notna(), np.abs(rows.density.to_numpy(float) - density), np.inf
        )
        chosen = (
            chosen & (off == off.min()) & (off <= DENSITY_TOLERANCE * min(density, 1 - density))
        )
    if not chosen.any():
        return None
    values = rows.value.to_numpy(float)[chosen]
    if "moment" in where:
        return _moment(rows.x.to_numpy()[chosen], values, where["moment"])
    if "x" in where:
        return float(np.interp(where["x"], rows.x.to_numpy()[chosen], values))
    return float(pd.Series(values).mean())


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
        One row a claim of the figure: `id`, `claim`, `text`, `plot`, `ours` (mean over trials),
        `low`, `high`, `n`, `verdict`.
    """
    slim = table.filter(
        ["line", "metric", "trial", "density", "iteration", "x", "value", "scale"]
    ).astype({"line": "category", "metric": "category"})
    rows, by_place = [], dict(tuple(slim.groupby(["line", "metric"], observed=True)))
    for claim in _of(figure):
        places = dict.fromkeys((place["line"], place["metric"]) for place in claim.places)
        compared = [by_place[place] for place in places if place in by_place]
        trials = (
            [
                claim.measure(trial)
                for _, trial in pd.concat(compared).groupby("trial", dropna=False)
            ]
            if compared
            else []
        )
        values = [value for value in trials if value is not None]
        row = {
            "id": claim.id,
            "claim": claim,
            "n": len(values),
            "verdict": _verdict(claim, values, set().union(*(rows.scale for rows in compared))),
        }
        ours = (
            {"ours": sum(values) / len(values), "low": min(values), "high": max(values)}
            if values
            else dict.fromkeys(("ours", "low", "high"))
        )
        rows.append(row | ours)
    return pd.DataFrame(rows, columns=["id", "claim", "ours", "low", "high", "n", "verdict"])


def _verdict(claim: Claim, values: list[float], scales: set[str]) -> str:
    order = list(SCALES)
    if not values or len(scales) > 1 or order.index(*scales) < order.index(claim.scale):
        return "not tested at this scale"
    sides = {claim.side(value) for value in values}
    return (
        "inconclusive"
        if len(sides) > 1
        else "reproduced"
        if sides == {"keeps"}
        else "not reproduced"
    )


def check(figure: str, lines: Iterable[str]) -> None:
    """Raises LotteryError for a claim of the figure about a line that is none of these."""
    lines = list(lines)
    for claim in _of(figure):
        for place in claim.places:
            if place["line"] not in lines:
                raise LotteryError(
                    f"{FILE}: claim {claim.id} is about a line {place['line']!r}, which the plan "
                    f"of {figure} lacks: choose {', '.join(lines)}"
                )


def _of(figure: str) -> list[Claim]:
    return [claim for claim in load() if claim.notebook == figure]


def compare(figure: str, table: pd.DataFrame):
    """The figure's claims beside the paper's text, its plot and our runs, as a table to look at.

    Every number of ours is also left in the notebook under its claim's id, for prose elsewhere in
    the book to quote.

    Parameters
    ----------
    figure : str
        Such as "fig04".
    table : pandas.DataFrame
        What `run` returned for the figure's plan.

    Returns
    -------
    IPython.display.HTML
        A row a claim: its verdict, our mean and [lowest, highest] trial, the paper's numbers.

    Raises
    ------
    LotteryError
        Where a claim is malformed, or is about a line that the plan lacks.
    """
    if "lines" in table.attrs:
        check(figure, table.attrs["lines"])
    judged = verdicts(figure, table)
    for row in judged.itertuples():
        _glue(row.id, row.claim.show(row.ours))
    from IPython.display import HTML

    return HTML(as_html(judged, figure))


def as_html(judged: pd.DataFrame, name: str) -> str:
    """Verdicts in words, as an HTML table whose name keeps it the same from run to run."""
    shown = pd.DataFrame(
        {
            "Claim": [
                f"{claim.says} (Erratum: {claim.erratum})" if claim.erratum else claim.says
                for claim in judged.claim
            ],
            "Verdict": [f"{VERDICTS[verdict]} {verdict}" for verdict in judged.verdict],
            "Ours [low, high]": [_with_spread(row) for row in judged.itertuples()],
            "Paper's text": [claim.show(claim.text) for claim in judged.claim],
            "Paper's plot": [claim.show(claim.plot) for claim in judged.claim],
        }
    )
    return as_table(shown, name)


def as_table(shown: pd.DataFrame, name: str) -> str:
    """A table of the book as HTML: its name keeps it the same from run to run."""
    return (
        shown.style.set_table_attributes('class="dataframe claims"').set_uuid(name).hide().to_html()
    )


def _with_spread(row) -> str:
    spread = f" [{row.claim.number(row.low)}, {row.claim.number(row.high)}]" if row.n > 1 else ""
    return row.claim.show(row.ours) + spread


def _glue(name: str, text: str) -> None:
    """Leave a text in the executed notebook under a name, where the book's `glue` role finds it."""
    from IPython.display import display

    prefix = "application/papermill.record/"
    display(
        {f"{prefix}text/plain": text},
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        raw=True,
    )
