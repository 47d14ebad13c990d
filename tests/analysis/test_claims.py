import json
import re
from dataclasses import fields

import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator

from lottery_nb import LotteryError, compare, conv2, lenet, run, vgg19
from lottery_nb.analysis import claims
from lottery_nb.core.scales import SCALES
from lottery_nb.runs.store import ROOT
from lottery_nb.site.notebooks import figures


def claim(**changes):
    row = {
        "id": "test", "figure": 4, "says": "It is so.", "where": "Section 2",
        "of": {"line": "a", "metric": "val_loss", "density": 0.2}, "against": {"density": 1},
        "as": "difference", "unit": "pp", "text": None, "plot": None, "rule": {"above": 0},
    }  # fmt: skip
    return claims.parse({**row, **changes}, "claims.yml")


def rows(*values, line="a", metric="val_loss", densities=(1, 0.2), iteration=100):
    """One trial a pair of values."""
    return pd.DataFrame(
        [
            {
                "line": line,
                "metric": metric,
                "trial": trial,
                "density": density,
                "iteration": iteration,
                "value": value,
            }
            for trial, pair in enumerate(values)
            for density, value in zip(densities, pair)
        ]
    )


def judge(a_claim, table, scale="laptop", monkeypatch=None):
    monkeypatch.setattr(claims, "load", lambda *_: (a_claim,))
    return claims.verdicts("fig04", table.assign(scale=scale)).iloc[0]


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([(0.90, 0.91), (0.90, 0.92)], "reproduced"),
        ([(0.90, 0.91), (0.90, 0.89)], "open"),
        ([(0.90, 0.89), (0.90, 0.90)], "not reproduced"),
    ],
)
def test_outcomes(values, outcome, monkeypatch):
    row = judge(claim(), rows(*values), monkeypatch=monkeypatch)
    assert row.outcome == outcome
    differences = [100 * (pruned - dense) for dense, pruned in values]
    assert row.ours == pytest.approx(sum(differences) / 2)
    assert (row.low, row.high) == pytest.approx((min(differences), max(differences)))


def test_what_is_missing_or_too_small_is_not_tested(monkeypatch):
    assert judge(claim(), rows((0.9, 0.91)), "smoke", monkeypatch).outcome == "not tested"
    assert (
        judge(claim(scale="paper"), rows((0.9, 0.91)), "laptop", monkeypatch).outcome
        == "not tested"
    )
    assert judge(claim(), rows((0.9, 0.91)), "paper", monkeypatch).outcome == "reproduced", (
        "a larger scale than is asked for"
    )
    assert (
        judge(claim(), rows((0.9, 0.91), densities=(1, 0.25)), "laptop", monkeypatch).outcome
        == "not tested"
    )
    assert (
        judge(
            claim(), pd.DataFrame(columns=["line", "metric", "trial"]), "laptop", monkeypatch
        ).outcome
        == "not tested"
    )
    # Ten rounds of small layers only, in a large network.
    after_ten_rounds = claim(of={"line": "a", "metric": "val_loss", "density": 0.9942})
    assert (
        judge(
            after_ten_rounds, rows((0.9, 0.91), densities=(1, 0.9953)), "laptop", monkeypatch
        ).outcome
        == "not tested"
    )
    assert (
        judge(
            after_ten_rounds, rows((0.9, 0.91), densities=(1, 0.99416)), "laptop", monkeypatch
        ).outcome
        == "reproduced"
    )


@pytest.mark.parametrize(
    ("scales", "verdict"),
    [
        (("laptop", "laptop"), "reproduced"),
        (("paper", "paper"), "reproduced"),
        (("laptop", "paper"), "not tested"),
        (("paper", "laptop"), "not tested"),
    ],
)
def test_lines_at_two_scales_are_not_compared(scales, verdict, monkeypatch):
    a_claim = claim(against={"line": "b"})
    monkeypatch.setattr(claims, "load", lambda *_: (a_claim,))
    table = pd.concat(
        [
            rows((0.90, 0.93)).assign(scale=scales[0]),
            rows((0.90, 0.91), line="b").assign(scale=scales[1]),
        ]
    )
    assert claims.verdicts("fig04", table).outcome.tolist() == [verdict]
    further = rows((0.90, 0.91), line="c").assign(scale="smoke")
    assert claims.verdicts("fig04", pd.concat([table, further])).outcome.tolist() == [verdict], (
        "only of the lines that are compared"
    )


def test_draws_of_a_trial_are_averaged(monkeypatch):
    table = pd.concat([rows((0.90, 0.93)), rows((0.90, 0.91))])
    row = judge(claim(), table, monkeypatch=monkeypatch)
    assert (row.ours, row.n) == (pytest.approx(2.0), 1)


@pytest.mark.parametrize(
    ("how", "unit", "value"),
    [("value", "x", 30), ("difference", "x", -10), ("relative", "%", -25), ("ratio", "x", 0.75)],
)
def test_measures(how, unit, value):
    against = None if how == "value" else {"density": 1}
    assert claim(**{"as": how}, unit=unit, against=against).measure(
        rows((40, 30))
    ) == pytest.approx(value)


def test_a_window_is_averaged_and_an_iteration_is_exact():
    table = rows((1, 2, 4, 50), densities=(1, 0.5, 0.2, 0.01))
    window = {"line": "a", "metric": "val_loss", "density": [0.1, 0.6]}
    assert claim(of=window, unit="x").measure(table) == 2
    at = {"line": "a", "metric": "val_loss", "density": 0.2, "iteration": 100}
    assert claim(of=at, unit="x").measure(table) == 3
    assert claim(of={**at, "iteration": 200}, unit="x").measure(table) is None


@pytest.mark.parametrize(
    ("rule", "value", "side"),
    [
        ({"above": 0.3}, 0.3, "below"),
        ({"above": 0.3}, 0.31, "keeps"),
        ({"below": 0}, -0.1, "keeps"),
        ({"below": 0}, 0, "above"),
        ({"between": [-1, 1]}, 1, "keeps"),
        ({"between": [-1, 1]}, 1.01, "above"),
        ({"between": [-1, 1]}, -1.01, "below"),
        ({"above": 0}, float("nan"), "nowhere"),
        ({"below": 0}, float("nan"), "nowhere"),
    ],
)
def test_rules(rule, value, side):
    assert claim(rule=rule).side(value) == side


def test_trials_on_both_sides_of_a_window_straddle_it(monkeypatch):
    window = claim(rule={"between": [-1, 1]})
    assert (
        judge(window, rows((0.90, 0.88), (0.90, 0.93)), monkeypatch=monkeypatch).outcome == "open"
    )
    assert (
        judge(window, rows((0.90, 0.92), (0.90, 0.93)), monkeypatch=monkeypatch).outcome
        == "not reproduced"
    )


@pytest.mark.parametrize(
    ("changes", "values", "outcome"),
    [
        # An effect of more than 0.3 is asked for.
        ({"rule": {"above": 0.3}}, (0.2, 0.5), "direction holds"),
        ({"rule": {"above": 0.3}}, (0.0, 0.5), "open"),
        ({"rule": {"above": 0.3}}, (0.1, 0.2), "not reproduced"),
        ({"rule": {"below": -10}}, (-20, -5), "direction holds"),
        ({"rule": {"below": -10}}, (-20, 5), "open"),
        ({"rule": {"between": [-48, -28]}}, (-60, -20), "direction holds"),
        ({"rule": {"between": [-48, -28]}}, (-60, 20), "open"),
        # Any effect at all, or none, is: a size is not the question.
        ({"rule": {"above": 0}}, (-1, 1), "open"),
        ({"rule": {"between": [-1, 1]}}, (0.5, 2), "open"),
        ({"rule": {"above": -0.3}}, (-0.5, 0.5), "open"),
        # Twice as early; a mere value has no "no effect".
        ({"rule": {"above": 2}, "as": "ratio", "unit": "x"}, (1.5, 2.5), "direction holds"),
        ({"rule": {"above": 2}, "as": "ratio", "unit": "x"}, (0.9, 2.5), "open"),
        ({"rule": {"above": 2}, "as": "value", "unit": "x", "against": None}, (1, 3), "open"),
    ],
)
def test_a_size_missed_is_not_a_direction_missed(changes, values, outcome, monkeypatch):
    a_claim = claim(**changes)
    base = 1.0 if a_claim.as_ == "ratio" else 0.0
    scale = 100 if a_claim.unit == "pp" else 1
    table = rows(*((base, value / scale) for value in values))
    assert judge(a_claim, table, monkeypatch=monkeypatch).outcome == outcome


@pytest.mark.parametrize(
    ("scale", "reduced", "evidence"),
    [
        ("paper", [], "paper scale"),
        ("laptop", [], "laptop scale"),
        ("laptop", ["other"], "laptop scale"),
        ("laptop", ["a"], "reduced network"),
        ("smoke", ["a"], ""),
    ],
)
def test_what_a_verdict_rests_on(scale, reduced, evidence, monkeypatch):
    monkeypatch.setattr(claims, "load", lambda *_: (claim(),))
    table = rows((0.90, 0.91), (0.90, 0.92)).assign(scale=scale)
    table.attrs["reduced"] = dict.fromkeys(reduced, "half as wide")
    row = claims.verdicts("fig04", table).iloc[0]
    assert (row.evidence, row.n) == (evidence, 2)
    assert row["values"] == pytest.approx([1, 2])
    counts = claims.counts([claims.verdicts("fig04", table)])
    assert counts.loc[row.outcome, evidence] == counts.to_numpy().sum() == 1


@pytest.mark.parametrize(
    ("stops", "unfinished"), [((10, 99), True), ((10, 50), False), ((99, 99), False)]
)
def test_a_network_that_may_not_be_finished_beside_one_that_is(stops, unfinished, monkeypatch):
    of = {"line": "a", "metric": claims.END, "density": 0.2}
    monkeypatch.setattr(claims, "load", lambda *_: (claim(of=of),))
    ends = rows((0.90, 0.91), metric=claims.END)
    told = pd.concat([ends, rows(stops, metric=claims.STOP)]).assign(scale="laptop", x=float("nan"))
    assert claims.verdicts("fig04", told).unfinished.tolist() == [unfinished]
    paper = told.assign(scale="paper")
    assert not claims.verdicts("fig04", paper).unfinished.any()


def test_an_early_stop_of_0_has_no_ratio(monkeypatch):
    of = {"line": "a", "metric": claims.STOP, "density": 0.2}
    later = claim(of=of, **{"as": "relative", "unit": "%"})
    table = rows((0.0, 500.0), metric=claims.STOP)
    assert judge(later, table, monkeypatch=monkeypatch).outcome == "not reproduced"


def test_a_measurement_on_the_bound_is_on_it(monkeypatch):
    """97.84 % less 97.54 % are 0.3 points, in floating point a little more."""
    table = rows((0.9754, 0.9784))
    within = claim(rule={"between": [-0.3, 0.3]})
    assert judge(within, table, monkeypatch=monkeypatch).outcome == "reproduced"
    above = claim(rule={"above": 0.3})
    assert judge(above, table, monkeypatch=monkeypatch).outcome == "not reproduced"


def test_reduced_is_narrower_or_under_a_fifth_of_the_iterations():
    assert not lenet.reduced_by("laptop")
    assert lenet.reduced_by("smoke") == "60 of 50,000 iterations"
    assert conv2.reduced_by("laptop") == "3,000 of 20,000 iterations"
    assert vgg19.reduced_by("laptop") == "a quarter as wide, 1,500 of 112,480 iterations"
    assert not conv2.reduced_by("paper")
    assert not conv2.but(iterations=1000).reduced_by("paper"), "its author asked for that"
    table = run({"a": lenet.iterative(), "b": conv2.iterative()}, scale="committed", quiet=True)
    assert table.attrs["reduced"] == {"b": "3,000 of 20,000 iterations"}


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": {"above": 100}},
        {"rule": {"below": -100}},
        {"rule": {"between": [101, 102]}},
        {"rule": {"below": 100.5}},
        {"rule": {"above": -100.5}},
        {"rule": {"between": [-101, 101]}},
        {"rule": {"above": -101}, "as": "relative", "unit": "%"},
        {"rule": {"below": -100}, "as": "relative", "unit": "%"},
        {"rule": {"above": -1}, "as": "ratio", "unit": "x"},
        {"rule": {"below": 0}, "as": "ratio", "unit": "x"},
        {"rule": {"below": 0}, "as": "value", "unit": "pp", "against": None},
    ],
)
def test_a_rule_that_is_always_or_never_true_is_named(changes):
    with pytest.raises(LotteryError, match="`rule` is (always|never) true: a measurement lies"):
        claim(**changes)


def test_a_metric_that_no_table_can_have_is_named():
    with pytest.raises(LotteryError, match="`metric` in `of` is 'test_acuracy'"):
        claim(of={"line": "a", "metric": "test_acuracy", "density": 0.2})
    pattern = SCHEMA["$defs"]["place"]["properties"]["metric"]["pattern"]
    tables = (ROOT / "book" / "results").glob("*.parquet")
    metrics = set().union(*(pd.read_parquet(each, columns=["metric"]).metric for each in tables))
    assert len(metrics) > 30
    for metric in metrics - {"diverged", "map of connections, fc1", "inputs of units, fc1"}:
        assert re.search(pattern, metric), metric


def test_numbers_in_words():
    assert claim().show(0.408) == "+0.41 points"
    assert claim().show(-0.004) == "0.00 points"
    level = claim(**{"as": "value"}, against=None, rule={"above": 90})
    assert level.show(99.516) == "99.52 %"
    assert claim(unit="%", **{"as": "relative"}).show(-19.54) == "−19.5 %"
    assert claim(unit="x", **{"as": "ratio"}).show(2.156) == "2.16×"
    assert claim().show(None) == claim().show(float("nan")) == "–"


def test_the_files_plot_values_are_those_of_the_papers_curves():
    compared = 0
    for each in claims.load():
        plot = claims.on_papers_plot(each)
        if plot is None:
            assert each.plot is None
        else:
            assert each.plot == pytest.approx(plot, abs=0.051 if each.unit == "%" else 0.0051), (
                each.id
            )
            compared += 1
    assert compared >= 24


def test_text_values_obey_the_rules_that_were_made_for_them():
    for each in claims.load():
        if each.text is not None and "above" not in each.rule:
            assert each.side(each.text) == "keeps", each.id


def test_a_rule_that_the_papers_own_plot_breaks_says_so():
    """A reader who sees the triangle outside the zone finds the reason beside it."""
    broken = [
        each
        for each in claims.load()
        if (plot := claims.on_papers_plot(each)) is not None and each.side(plot) != "keeps"
    ]
    assert len(broken) >= 10, "there are such claims"
    assert not [each.id for each in broken if not each.erratum]


def test_every_claim_has_a_figure():
    notebooks = {path.name[:5] for path in (ROOT / "notebooks").glob("fig*.ipynb")}
    assert {each.notebook for each in claims.load()} <= notebooks


def test_every_claim_is_about_lines_of_its_figure():
    for figure in figures():
        if figure.plan:
            claims.check(figure.name, figure.plan)


@pytest.mark.parametrize("place", ["of", "against"])
def test_a_line_that_the_plan_lacks_is_named(place, monkeypatch):
    of = {"line": "a", "metric": "val_loss"}
    a_claim = claim(**{"of": of, "against": {"line": "a"}, place: {**of, "line": "typo"}})
    monkeypatch.setattr(claims, "load", lambda *_: (a_claim,))
    table = rows((0.9, 0.91)).assign(scale="laptop")
    table.attrs["lines"] = ["a", "b"]
    with pytest.raises(LotteryError, match="claim test is about a line 'typo', .* choose a, b$"):
        compare("fig04", table)
    claims.check("fig05", [])


SCHEMA = json.loads(claims.FILE.with_suffix(".schema.json").read_text())
KEYS = SCHEMA["items"]["properties"]


def test_the_schema_is_one_for_editors_too():
    """They follow draft 2020-12, of which our own reader knows only a part."""
    Draft202012Validator.check_schema(SCHEMA)
    editor = Draft202012Validator(SCHEMA)
    text = claims.FILE.read_text()
    assert text.startswith("# yaml-language-server: $schema=claims.schema.json\n")
    whole = yaml.safe_load(text)
    assert editor.is_valid(whole)
    wrong = {
        "id": 4, "figure": 100, "chapter": 10, "says": "", "where": "somewhere",
        "of": {"line": "a"}, "against": ["density"],
        "as": "quotient", "unit": "miles", "text": "a lot", "plot": True,
        "rule": {"above": 1, "below": 2}, "scale": "desktop", "erratum": None, "why": "extra",
    }  # fmt: skip
    assert set(wrong) == {*KEYS, "why"}
    for key, value in wrong.items():
        assert not editor.is_valid([{**whole[0], key: value}]), key
        with pytest.raises(LotteryError, match=f"`{key}`"):
            claims.parse({**whole[0], key: value}, claims.FILE)
    for missing in ("against", "text"):
        row = {key: value for key, value in whole[0].items() if key != missing}
        assert not editor.is_valid([row])
        with pytest.raises(LotteryError, match=f"`{missing}` is missing"):
            claims.parse(row, claims.FILE)


def test_the_schema_knows_what_we_know():
    assert {"as_" if key == "as" else key for key in KEYS} == {f.name for f in fields(claims.Claim)}
    assert KEYS["scale"]["enum"] == list(SCALES)
    assert {*claims.HUNDREDTHS, *claims.COUNTS, *claims.DECIMALS} <= set(KEYS["unit"]["enum"])
    for place in (KEYS, SCHEMA["$defs"], SCHEMA["$defs"]["place"]["properties"]):
        assert all(key["description"] for key in place.values())


def test_moments_and_densities_of_distributions():
    x = [-1.0, 0.0, 1.0, 2.0]
    rows = pd.DataFrame(
        {
            "line": "a",
            "metric": "initial weights, fc1",
            "density": 0.5,
            "iteration": 9,
            "x": x,
            "value": [0.0, 1.0, 1.0, 0.0],
        }
    )
    of = {"line": "a", "metric": "initial weights, fc1", "density": 0.5}
    assert claim(
        of={**of, "moment": "mean"}, unit="plain", against=None, **{"as": "value"}
    ).measure(rows) == pytest.approx(0.5)
    assert claim(of={**of, "moment": "sd"}, unit="plain", against=None, **{"as": "value"}).measure(
        rows
    ) == pytest.approx(0.5)
    assert claim(of={**of, "x": -0.5}, unit="plain", against=None, **{"as": "value"}).measure(
        rows
    ) == pytest.approx(0.5)
    ratio = claim(of={**of, "x": 0.5}, against={"x": -1}, unit="x", **{"as": "ratio"})
    assert ratio.side(ratio.measure(rows)) == "keeps", "far above a density of zero is still above"
    assert claim(unit="plain").show(0.0312) == "+0.031"


@pytest.mark.parametrize(
    ("text", "plot", "rule", "disagrees"),
    [
        (2.51, 2.16, {"above": 1}, True),
        (0.3, 0.41, {"above": 0.3}, False),  # "more than 0.3"
        (0.3, 0.21, {"above": 0.3}, True),
        (1, 1.37, {"above": 0}, False),  # a text of one digit
        (3.5, 3.46, {"above": 1}, False),
        (0, 1.37, {"between": [-0.5, 0.5]}, True),
        (0, 0.2, {"above": -1}, False),
        (None, 2.16, {"above": 1}, False),
        (2.51, None, {"above": 1}, False),
    ],
)
def test_text_and_plot_disagree_beyond_rounding_and_bounds(text, plot, rule, disagrees):
    assert claim(text=text, plot=plot, rule=rule).disagrees is disagrees


def reached(line, place):
    """Whether a line has a round at laptop scale whose density a claim can be measured at."""
    asked = place.get("density")
    if asked is None or line.strategy == "one-shot":
        return True
    recipe = line.recipe.at("laptop")
    there = [recipe.remaining(node.round) / recipe.weights for node in line.nodes("laptop", 1)]
    if isinstance(asked, list):
        return any(asked[0] <= density <= asked[1] for density in there)
    tolerance = claims.DENSITY_TOLERANCE * min(asked, 1 - asked)
    return any(abs(density - asked) <= tolerance for density in there)


def test_claims_beyond_the_rounds_of_laptop_scale_say_that_they_need_the_papers():
    plans = {figure.name: figure.plan for figure in figures()}
    beyond = [
        claim.id
        for claim in claims.load()
        if claim.scale != "paper"
        for place in claim.places
        if place["line"] in plans[claim.notebook]
        and not reached(plans[claim.notebook][place["line"]], place)
    ]
    assert not beyond


def test_claims_of_later_papers_are_judged_alike_and_counted_apart():
    later = claims.load(claims.LATER)
    assert {each.notebook[:7] for each in later} == {"chapter"}
    assert {each.notebook[:3] for each in claims.load()} == {"fig"}
    ids = [each.id for each in [*later, *claims.load()]]
    assert len(ids) == len(set(ids))
    assert all(each.id.startswith(f"{each.notebook}-") for each in later)
    row = {"id": "a", "says": "b", "where": "Zhou et al. 2019, abstract", "unit": "pp"}
    row |= {"of": {"line": "a", "metric": "test_accuracy_at_end"}, "rule": {"above": 1}}
    row |= {"text": None, "plot": None}
    assert claims.parse({**row, "chapter": 2}, claims.LATER).notebook == "chapter2"
    for wrong in (row, {**row, "chapter": 2, "figure": 3}):
        with pytest.raises(LotteryError, match="`figure` is missing.*or give a chapter"):
            claims.parse(wrong, claims.LATER)
