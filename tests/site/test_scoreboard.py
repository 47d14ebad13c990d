"""Claims as rows, marks and bars: what a reader sees of a verdict."""

import json
import re

import pandas as pd
import pytest

from lottery_nb.analysis import claims
from lottery_nb.runs.store import ROOT
from lottery_nb.site import progress, scoreboard

ROW = {
    "id": "fig04-a", "figure": 4, "says": "A ticket of 21 % is < 2 points better.",
    "where": "Section 2, Figure 4", "of": {"line": "a", "metric": "test_accuracy", "density": 0.2},
    "against": {"density": 1}, "as": "difference", "unit": "pp", "text": 1, "plot": 2.5,
    "rule": {"between": [0.5, 2]},
}  # fmt: skip


def judged(monkeypatch, *values, reduced=(), scale="laptop", **changes):
    """The only claim of Figure 4, judged by trials of these values."""
    claim = claims.parse({**ROW, **changes}, "claims.yml")
    monkeypatch.setattr(claims, "load", lambda *_: (claim,))
    rows = [
        {"line": "a", "metric": "test_accuracy", "trial": trial, "density": density, "value": value}
        for trial, pruned in enumerate(values)
        for density, value in ((1, 0.0), (0.2, pruned / 100))
    ]
    table = pd.DataFrame(rows).assign(scale=scale, iteration=1, x=float("nan"))
    table.attrs["reduced"] = dict.fromkeys(reduced, "half as wide")
    return claims.verdicts("fig04", table)


def classes(html):
    return set(re.search(r'class="(mark[^"]*)"', html)[1].split())


def test_a_mark_tells_outcome_trials_and_evidence(monkeypatch):
    def mark(*values, **changes):
        return scoreboard.mark(next(judged(monkeypatch, *values, **changes).itertuples()))

    assert classes(mark(1, 1.5)) == {"mark", "reproduced"}
    assert classes(mark(1)) == {"mark", "reproduced", "single"}
    assert classes(mark(0.1, 1.5)) == {"mark", "direction-holds"}
    assert classes(mark(-0.1, 1.5)) == {"mark", "open"}
    assert classes(mark(3, reduced=["a"])) == {"mark", "not-reproduced", "single", "reduced"}
    assert classes(mark(1, scale="smoke")) == {"mark", "not-tested"}
    assert ">✓<" in mark(1) and ">≈<" in mark(0.1, 1.5)


def test_a_row_says_why(monkeypatch):
    html = scoreboard.rows(judged(monkeypatch, 0.1, 1.5, erratum="We <first> erred."))
    text = re.sub(r"<[^>]+>", "", html)
    assert 'id="fig04-a"' in html and 'href="#fig04-a"' in html
    assert "A ticket of 21 % is &lt; 2 points better." in html
    assert "Inconclusive: the direction holds (2 trials, laptop scale)." in text
    assert "The paper: Section 2, Figure 4." in text
    assert "ours +0.80 points [+0.10, +1.50] · paper’s text +1.00 points" in text
    assert "The paper’s own plot does not keep this rule." in text
    assert "Note: We &lt;first&gt; erred." in html
    single = scoreboard.rows(judged(monkeypatch, 1.5, plot=1.5))
    assert "(one trial, laptop scale)" in single and "own plot" not in single
    assert "[" not in re.sub(r"<[^>]+>", "", single), "one trial has no range"


def test_the_number_line_is_to_scale(monkeypatch):
    [row] = judged(monkeypatch, 0.1, 1.5).itertuples()
    svg = scoreboard.number_line(row)
    trials = [float(x) for x in re.findall(r'<circle[^>]*cx="([\d.]+)"', svg)]
    none = float(re.search(r'class="none" d="M([\d.]+) ', svg)[1])
    zone = re.search(r'class="zone" x="([\d.]+)" y="9" width="([\d.]+)"', svg)
    start, width = map(float, zone.groups())
    a_point = (trials[1] - trials[0]) / 1.4
    assert trials[0] - none == pytest.approx(0.1 * a_point, abs=0.2)
    assert start - none == pytest.approx(0.5 * a_point, abs=0.2)
    assert width == pytest.approx(1.5 * a_point, abs=0.3)
    assert svg.count('class="paper"') == 2
    label = re.search('aria-label="([^"]+)"', svg)[1]
    assert "between +0.50 points and +2.00 points" in label
    assert "our trials: +0.10 points, +1.50 points" in label


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ((float("nan"), 1), {}),
        ((float("nan"),), {"text": None, "plot": None}),
        ((0, 0), {"rule": {"above": 0}, "text": None, "plot": None}),
        ((0,), {"rule": {"above": 0}, "as": "value", "against": None, "text": None, "plot": None}),
    ],
)
def test_a_number_line_can_be_drawn_of_anything(values, changes, monkeypatch):
    [row] = judged(monkeypatch, *values, **changes).itertuples()
    svg = scoreboard.number_line(row)
    numbers = re.findall(r' (?:x|cx|width)="([^"]*)"', svg)
    assert all(0 <= float(number) <= scoreboard.WIDTH for number in numbers)


@pytest.fixture(scope="module")
def sheets():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOTTERY_RESULTS", raising=False)
        return progress.judged()


def test_bar_and_summary_count_every_claim_once(sheets):
    total = len(claims.load())
    bar = scoreboard.bar(sheets)
    segments = [int(n) for n in re.findall(r">(\d+)</a>", bar)]
    assert sum(segments) == total
    assert f"{total} checkable claims" in scoreboard.summary(sheets)
    counts = claims.counts(sheets.values())
    assert counts.to_numpy().sum() == total
    assert counts["reduced network"].sum() > 0 and counts["laptop scale"].sum() > 0
    for evidence, outcome in (("reduced network", "reproduced"), ("", "not tested")):
        where = f"#outcome={outcome}" + f"&evidence={evidence}" * bool(evidence)
        assert where.replace(" ", "%20").replace("&", "&amp;") in bar


def test_no_page_quotes_a_claim_that_is_not_tested(sheets):
    """Its number would be a dash in the middle of a sentence."""
    outcomes = pd.concat(sheets.values()).set_index("id").outcome
    quoted = {
        (page.name, claim)
        for page in (ROOT / "book").glob("*.md")
        for claim in re.findall(r"ipynb::(fig[\w.-]+):s`", page.read_text())
    }
    assert len(quoted) > 50
    assert not {each for each in quoted if outcomes[each[1]] == "not tested"}


def test_the_table_by_network_counts_all_claims_about_trainings(sheets):
    rows = [line.split(" | ") for line in scoreboard.by_network(sheets).splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == list(scoreboard.NAMES.values())
    for _, total, *outcomes, _evidence in rows:
        assert int(total) == sum(map(int, outcomes))
    counted = next(sheet for figure, sheet in sheets.items() if not figure.plan)
    assert sum(int(row[1]) for row in rows) == len(claims.load()) - len(counted)


def test_the_page_has_each_claim_once_and_fits_its_filters(sheets):
    page = scoreboard.page(sheets)
    rows = re.findall(r'<li id="([^"]+)"([^>]*)>', page)
    assert [name for name, _ in rows] == [claim.id for claim in claims.load()]
    for name in ("network", "subject", "outcome", "evidence"):
        select = re.search(f'<select name="{name}">(.*?)</select>', page)[1]
        options = set(re.findall('<option value="([^"]*)"', select))
        for _, said in rows:
            values = re.search(f'data-{name}="([^"]*)"', said)[1]
            assert set(values.split(", ")) <= options
    assert len(re.findall('<a class="mark', page)) == len(rows)


def test_as_data(sheets):
    rows = scoreboard.as_rows(sheets)
    assert len(rows) == len(claims.load())
    assert "NaN" not in json.dumps(rows)
    by_id = {row["id"]: row for row in rows}
    assert by_id["fig04-accuracy-gain"]["networks"] == "Lenet"
    assert by_id["fig04-accuracy-gain"]["subject"] == "accuracy"
    assert {row["evidence"] for row in rows} | {"paper scale"} == {*claims.EVIDENCE, ""}
