"""What a person may get wrong, and the one line that says so: what was wrong, what is allowed, what
to do."""

import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import tiny

from lottery_nb import LotteryError, compare, conv2, lenet, play, resnet18, run
from lottery_nb.__main__ import main
from lottery_nb.analysis import claims, paper, results
from lottery_nb.core import data, networks, training
from lottery_nb.core.tickets import control
from lottery_nb.runs import lineage, runner, ticket_files
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import ROOT, Store, replacing
from lottery_nb.site import notebooks

RECIPES = [
    ({"learning_rate": 0}, "learning_rate is 0.0: it must be a number above 0"),
    ({"learning_rate": float("nan")}, "above 0"),
    ({"prune_fc": 1.0}, "between 0 and 1"),
    ({"prune_output": 0}, "between 0 and 1"),
    ({"sizes": (300, 0)}, "positive whole number"),
    ({"sizes": ()}, "positive whole number"),
    ({"iterations": 0}, "iterations is 0"),
    ({"trials": True}, "trials is True"),
    ({"batch": 2.5}, "batch is 2.5"),
    ({"optimiser": "adamw"}, "choose adam or sgd"),
    ({"momentum": 0.9}, "momentum is 0.9: it belongs to sgd"),
    ({"evaluate_every": 60_000}, "evaluate_every is 60000"),
    ({"one_shot_step": 0}, "one_shot_step"),
    ({"learning_rate": -0.1}, "above 0"),
    ({"learning_rate": float("inf")}, "above 0"),
    ({"prune_fc": 10**400}, "a pruning rate lies between 0 and 1"),
    ({"prune_fc": -0.2}, "between 0 and 1"),
    ({"sizes": (300, 2.5)}, "positive whole number"),
    ({"initialisation": "uniform"}, "choose glorot or gaussian"),
    ({"initialisation": "gaussian"}, "init_std is 0.0: gaussian needs a deviation above 0"),
    ({"init_std": 0.1}, "glorot has none to choose"),
    ({"effort": "none"}, "choose main, control, sweep"),
    ({"criterion": "size"}, "criterion is 'size': choose magnitude"),
    ({"precision": "bf16"}, "Lenet has no such switch"),
    ({"dropout": 0.5}, "Lenet has no such switch"),
    ({"dropout": 1.0}, "dropout is 1.0"),
    ({"pruned": "conv"}, "Lenet has no convolution"),
    ({"pruned": "bias"}, "choose all, conv, fc"),
    ({"width": 0}, "width is 0"),
    ({"scaling": "log"}, "choose unit, raw, centred, standardised"),
    ({"prune_conv": 1}, "between 0 and 1"),
    ({"learning_rat": 0.1}, "a recipe has no learning_rat"),
    ({"chosen": ()}, "a recipe has no chosen: its fields are network"),
    (
        {"sizes": 300},
        r"sizes is 300: several values are needed, in parentheses and with a comma, "
        r"such as \(300, 100\)",
    ),
    ({"sizes": "300"}, "sizes is '300': several values"),
    ({"learning_rate": "fast"}, "learning_rate is 'fast': a number is needed"),
    ({"prune_fc": None}, "prune_fc is None: a number is needed"),
    ({"adam_betas": (0.9,)}, r"adam_betas is \(0.9,\): two numbers in \[0, 1\)"),
    ({"adam_betas": (0.9, 1)}, "two numbers in"),
    ({"adam_eps": 0}, "adam_eps is 0.0: it must be a number above 0"),
    ({"split_seed": -1}, "split_seed is -1: a whole number of 0 or more"),
    ({"split_seed": "a"}, "split_seed is 'a'"),
    ({"rewind": 50_000}, "rewind is 50000: it must be 0, or .* to below the 50,000 iterations"),
    ({"rewind": -1}, "rewind is -1"),
]
DEEP_RECIPES = [
    ({"milestones": (20_000, 30_000)}, "milestones is .* lie before the end, iteration 30,000"),
    ({"milestones": (25_000, 20_000)}, "whole numbers are needed that rise"),
    ({"checkpoints": (10_050,)}, "multiples of evaluate_every=100"),
    (
        {"warmup": 30_001},
        "warmup is 30001: it must be a whole number from 0 to the 30,000 iterations",
    ),
    ({"warmup": 0.5}, "warmup is 0.5"),
    ({"warmup": 20_000, "rewind": 500}, "from the end of the warm-up, iteration 20,000"),
    ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
    ({"optimiser": "adam"}, "momentum is 0.9: it belongs to sgd"),
    ({"optimiser": "adam", "momentum": 0.0}, "weight_decay is 0.0001: it belongs to sgd"),
    (
        {"pruned": "all"},
        "pruned is 'all' for resnet18: only its convolutions are pruned; choose conv",
    ),
    ({"pruned": "fc"}, "choose conv"),
    ({"scope": "everywhere"}, "scope is 'everywhere': choose layerwise or global"),
    (
        {"sizes": (300,)},
        r"for resnet18: it has no fully-connected hidden layer, so it must be \(\)",
    ),
    ({"dropout": 0.5}, "dropout is 0.5 for resnet18: it has no layer for it"),
]


@pytest.mark.parametrize(("changes", "said"), RECIPES)
def test_recipes(changes, said):
    with pytest.raises(LotteryError, match=said):
        lenet.but(**changes)


@pytest.mark.parametrize(("changes", "said"), DEEP_RECIPES)
def test_deep_recipes(changes, said):
    with pytest.raises(LotteryError, match=said):
        resnet18.but(**changes)


tickets = lenet.iterative()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tickets.reinitialised(0), "draws is 0: a whole number of 1 or more is needed"),
        (lambda: tickets.at_rounds(), "rounds"),
        (lambda: tickets.at_rounds(-1), "rounds"),
        (lambda: tickets.with_noise(-1), "noise is -1: it must be a number above 0"),
        (lambda: tickets.with_noise(0), "noise is 0"),
        (lambda: tickets.with_control("noise"), "noise is 0.0: it must be a number above 0"),
        (
            lambda: tickets.with_control("random reinit", noise=1),
            "noise is 1: random reinit takes none",
        ),
        (lambda: tickets.with_control("new"), "there is no control 'new': choose winning ticket"),
        (
            lambda: control("new", needs=("masks",)),
            "the control 'new' needs 'masks', which is not among mask, final weights",
        ),
        (lambda: tickets.with_noise(float("nan")), "noise is nan"),
        (lambda: lenet.random_sparse(0), "draws is 0"),
        (lambda: tickets.distribution("colours", "fc1"), "colours"),
        (lambda: tickets.distribution("growth in the ticket", "fc9"), "fc9"),
        (lambda: tickets.with_curves("colour"), "colour"),
        (lambda: tickets.nodes("desktop"), "no scale 'desktop': choose smoke, laptop, paper"),
        (lambda: tickets.nodes("smoke", 0), "trials is 0: give a whole number of 1 or more"),
        (lambda: tickets.nodes("smoke", -1), "trials is -1"),
        (lambda: tickets.nodes("smoke", "three"), "trials is 'three'"),
        (lambda: tickets.nodes("smoke", 2.0), "trials is 2.0"),
        (lambda: tickets.nodes("smoke", True), "trials is True"),
        (
            lambda: conv2.but(prune_conv=0.5).one_shot().nodes("paper"),
            "round 39 would prune 243.75 % of each conv layer: "
            "its rate may be at most prune_fc=0.2",
        ),
        (
            lambda: run({"a": tickets.distribution("growth in the ticket", "fc1").reinitialised()}),
            "'a' shows a distribution over networks of random reinit",
        ),
        (lambda: run({"ticket": tickets}, scale="Laptop"), "no scale 'Laptop'"),
        (lambda: run({"ticket": tickets}, scale=None), "no scale None"),
        (lambda: run({"ticket": tickets}, scale=["smoke"]), r"no scale \['smoke'\]"),
        (
            lambda: run({"ticket": lenet}),
            "'ticket' is a Recipe, not a line: give one such as lenet.iterative",
        ),
        (lambda: run([tickets]), "a plan is a dict of lines by their labels, not a list"),
        (lambda: run({1: tickets}), "the label 1"),
        (lambda: data.load("imagenet"), "there is no data set 'imagenet': choose mnist"),
        (lambda: data.load("mnist5k", validation=5000), "validation is 5000: mnist5k has 4,500"),
        (lambda: data.load("mnist5k", validation=0), "validation is 0"),
        (lambda: data.load("mnist5k", validation=15), "validation is 15: .* a multiple of 10"),
        (lambda: tickets.with_noise("a"), "noise is 'a': it must be a number above 0"),
        (lambda: next(play(rate="0.5")), "rate is '0.5': give a number between 0 and 1"),
        (lambda: next(play(rounds=99)), "rounds is 99: give a whole number from 1 to 8"),
        (lambda: compare("fig4", None), "no figure 'fig4': name it .* such as fig04"),
        (
            lambda: conv2.but(scaling="log"),
            "scaling is 'log': choose unit, raw, centred, standardised",
        ),
        (
            lambda: training.pick_device("gpu"),
            "device 'gpu' cannot be used here: choose auto, cpu or cuda",
        ),
        (
            lambda: networks.build(lenet).prepare(
                data.load("mnist5k", validation=500).train.images[:, :14]
            ),
            "takes images of 784 values",
        ),
        (lambda: paper.curves("fig99"), "the paper plots no curves in fig99"),
        (lambda: paper.curves("figure 4"), "'figure 4' is no figure: name one such as fig04"),
        (lambda: paper.curves("fig04", 9), "no curves in fig04, panel 9"),
        (
            lambda: results.freeze({"fig04": {"ticket": tickets}}, "smoke"),
            "LOTTERY_RESULTS is empty",
        ),
        (
            lambda: ticket_files.export({"fig04": {"ticket": tickets}}, "smoke"),
            "LOTTERY_RESULTS is empty",
        ),
        (lambda: run({"ticket": lenet}, scale="committed"), "'ticket' is a Recipe, not a line"),
        (
            lambda: run([tickets], scale="committed"),
            "a plan is a dict of lines by their labels, not a list",
        ),
        (
            lambda: run({"ticket": tickets}, scale="committed", trials=0),
            "trials is 0: give a whole number of 1 or more",
        ),
    ],
)
def test_plans_and_calls(make, said):
    with pytest.raises(LotteryError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


GOOD = {
    "id": "test", "figure": 4, "says": "It does.", "where": "Section 2, Figure 4",
    "of": {"line": "a", "metric": "val_loss", "density": 0.5}, "against": {"density": 1},
    "as": "difference", "unit": "pp", "text": 1.0, "plot": 0.9, "rule": {"above": 0.3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": {"over": 1}}, "`rule`"),
        ({"rule": {"between": [1]}}, "`rule`"),
        ({"rule": {"between": [1, 2, 3]}}, "`rule`"),
        ({"rule": {"between": [2, 1]}}, "`rule`"),
        ({"rule": {"above": "much"}}, "`rule`"),
        ({"rule": {"above": True}}, "`rule`"),
        ({"rule": {"above": float("nan")}}, "`rule`"),
        ({"rule": None}, "`rule`"),
        ({"as": "quotient"}, "`as`"),
        ({"against": None}, "`as`"),
        ({"against": ["density"]}, "`against`"),
        ({"against": {"colour": 1}}, "`against`"),
        ({"unit": "miles"}, "`unit`"),
        ({"scale": "desktop"}, "`scale`"),
        ({"of": {"line": "a"}}, "`of`"),
        ({"of": {"line": "a", "metric": "val_loss", "colour": 1}}, "`of`"),
        ({"of": None}, "`of`"),
        ({"of": {"line": "a", "metric": "val_loss", "density": "half"}}, "`of`"),
        ({"of": {"line": "a", "metric": "val_loss", "density": [0.1]}}, "`of`"),
        ({"of": {"line": "a", "metric": "val_loss", "moment": "median"}}, "`of`"),
        ({"text": "a lot"}, "`text`"),
        ({"plot": [1]}, "`plot`"),
        ({"figure": 100}, "`figure`"),
        ({"figure": "4"}, "`figure`"),
        ({"says": ""}, "`says`"),
        ({"where": "page 3"}, "`where`"),
        ({"where": None}, "`where`"),
        ({"id": 4}, "`id`"),
        ({"why": "extra"}, "`why` is unknown: choose id, figure"),
    ],
)
def test_claims(changes, said):
    with pytest.raises(LotteryError, match=rf"claims.yml.*claim .* is malformed: .*{said}"):
        claims.parse({**GOOD, **changes}, ROOT / "book" / "claims.yml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- id: [", "is not valid YAML"),
        ("a: 1", "must be a list of claims"),
        ("", "must be a list of claims"),
        ("- 1", "claim 1 is malformed"),
        ("- {id: a}", "claim a is malformed: .*missing"),
        (yaml.safe_dump([GOOD, GOOD]), "test stands there more than once"),
        ("- !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_claims_files(text, said, tmp_path):
    (tmp_path / "claims.yml").write_text(text)
    with pytest.raises(LotteryError, match=said):
        claims.load(tmp_path / "claims.yml")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"PAR1 but not really"), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cannot be read"),
        (lambda path: pd.read_parquet(path).drop(columns="value").to_parquet(path), "lacks value"),
        (lambda path: path.write_text("line,round,value\n"), "cannot be read"),
    ],
)
def test_committed_tables(spoil, said, tmp_path, monkeypatch):
    plan = {"ticket": tiny.iterative().at_rounds(0)}
    run(plan, scale="paper", trials=1)
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    results.freeze({"fig99": plan}, "paper", 1, [plan])
    spoil(tmp_path / "frozen" / "lenet-paper.parquet")
    again = "restore it with git, or delete it and make it anew with run and store freeze"
    for read in (
        results.committed,
        lambda: run(plan, scale="paper", trials=1),
        lambda: results.freeze({"fig99": plan}, "paper", 1, [plan]),
    ):
        with pytest.raises(
            LotteryError, match=f"lenet-paper.parquet .*{said}.*: {again}"
        ) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "lenet",
            "lenet.parquet is no table of results: their names are NETWORK-SCALE.parquet, "
            "and scales are smoke, laptop, paper",
        ),
        (
            "conv2-paper",
            "frozen: lenet-mnist5k-iterative-winning-ticket-t0-r00-.* stands there twice; "
            "restore the tables with git",
        ),
    ],
)
def test_committed_tables_under_other_names(name, said, tmp_path, monkeypatch):
    plan = {"ticket": tiny.iterative().at_rounds(0)}
    run(plan, scale="paper", trials=1)
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    results.freeze({"fig99": plan}, "paper", 1, [plan])
    shutil.copy(
        tmp_path / "frozen" / "lenet-paper.parquet", tmp_path / "frozen" / f"{name}.parquet"
    )
    with pytest.raises(LotteryError, match=said) as caught:
        run(plan, scale="paper", trials=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda source: source[:100], "is no notebook"),
        (lambda source: "[]", "is no notebook"),
        (
            lambda source: source.replace('"parameters"', '"parametres"'),
            "no cell tagged parameters",
        ),
        (
            lambda source: source.replace("one_shot()", "one_shto()"),
            "its cells tagged imports, plan fail: AttributeError",
        ),
        (lambda source: source.replace("# Figure", "Figure"), "no title"),
    ],
)
def test_notebooks(change, said, tmp_path):
    source = notebooks.named(["fig04"])[0].path
    broken = tmp_path / source.name
    broken.write_text(change(source.read_text()))
    figure = notebooks.Notebook(broken)
    with pytest.raises(LotteryError, match=rf"{source.name}.*{said}"):
        figure.title, figure.parameters, figure.plan  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "fig03", "--scale", "desktop"], "no scale 'desktop': choose smoke, laptop, paper"),
        (["run", "fig99"], "no notebook of fig99: choose fig01, fig02, fig03, fig04, fig05"),
        (["run", ""], "no notebook of"),
        (["run", "4.5"], "no notebook of 4.5"),
        (["run", "fig03", "--trials", "0"], "trials is '0': give a whole number of 1 or more"),
        (["run", "fig03", "--trials", "-1"], "trials is '-1'"),
        (["run", "fig03", "--trials", "three"], "trials is 'three'"),
        (["run", "fig03", "--trials", "1.5"], "trials is '1.5'"),
        (["run", "fig03", "--trials", "²"], "trials is '²'"),
        (["run", "fig03", "--jobs", "0"], "jobs is '0': give a whole number of 1 or more"),
        (["run", "fig03", "--jobs", "two"], "jobs is 'two'"),
        (
            ["run", "fig03", "--scale", "paper", "--jobs", "2"],
            "no mnist.npz in it: put it there, or unset LOTTERY_DATA",
        ),
        (
            ["bench", "--growth", "--json"],
            "--growth tells its figures as lines only: leave --json out",
        ),
        (["store", "freeze", "fig04", "--scale", "huge"], "no scale 'huge'"),
        (["store", "freeze", "fig04", "--trials", "many"], "trials is 'many'"),
        (["store", "freeze", "fig99"], "no notebook of fig99"),
        (["store", "export", "fig04", "--scale", "huge"], "no scale 'huge'"),
        (["store", "export", "fig04", "--trials", "many"], "trials is 'many'"),
        (["store", "export", "fig99"], "no notebook of fig99"),
        (["store", "merge", "nowhere"], "no folder nowhere: name a store to merge"),
        (["store", "merge", "README.md"], "no folder README.md"),
    ],
)
def test_command_lines(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


# --- whatever stands in a file --------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
fuzz = partial(
    settings,
    deadline=None,
    max_examples=int(os.environ.get("LOTTERY_FUZZ", 100)),
    suppress_health_check=list(HealthCheck),
    database=None,
)


@fuzz()
@given(
    changes=st.dictionaries(
        st.sampled_from([*GOOD, "scale", "erratum"]), ANYTHING, min_size=1, max_size=3
    )
)
def test_any_claim_is_taken_or_named(changes):
    try:
        claim = claims.parse({**GOOD, **changes}, Path("claims.yml"))
    except LotteryError as error:
        assert "claims.yml: claim" in str(error)
        return
    rows = pd.DataFrame(
        [
            {
                "line": "a",
                "metric": "val_loss",
                "trial": 0,
                "density": d,
                "iteration": 1,
                "x": np.nan,
                "value": d,
            }
            for d in (1.0, 0.5)
        ]
    )
    value = claim.measure(rows)
    assert isinstance(claim.show(value), str)
    assert value is None or claim.side(value) in ("keeps", "below", "above", "nowhere")


@fuzz()
@given(text=st.text() | ANYTHING.map(json.dumps) | st.binary())
def test_any_record_file_is_read_or_set_aside(text, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("fuzzed"))
    store.write("one", {"measures": {}}, {})
    path = store.folder / "one" / "record.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    assert store.record("one") is None
    assert "one" not in store
    assert lineage.verify(store) == (0, {})


LOOKED = {"weights": "w", "made_of": {"device": "d", "versions": "v"}, "seconds": 1.0}
MEASURES = {"a": 1.0}, {"a": 1.0, "b": 2.0}


def store_with_additions(folder):
    """One training, and what was measured of it later."""
    store = Store(folder)
    arrays = {"x": np.arange(9.0)}
    store.write("one", {**LOOKED, "measures": MEASURES[0], "holds": []}, arrays)
    store.write(
        "one",
        {**LOOKED, "measures": MEASURES[1], "holds": ["test looks"]},
        arrays | {"test_loss": np.arange(2.0)},
    )
    assert store.record("one")["measures"] == MEASURES[1]
    assert set(store.arrays("one")) == {"x", "test_loss"}
    return store


@fuzz()
@given(text=st.text() | ANYTHING.map(json.dumps) | st.binary())
def test_any_file_of_additions_is_read_or_set_aside_and_the_training_stays(text, tmp_path_factory):
    store = store_with_additions(tmp_path_factory.mktemp("fuzzed"))
    path = store.folder / "one" / "added.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    assert (store.record("one")["measures"], store.record("one")["holds"]) == (MEASURES[0], [])
    assert list(store.arrays("one")) == ["x"]
    assert not path.exists()


@fuzz()
@given(
    where=st.integers(0, 10_000),
    bits=st.integers(1, 255),
    which=st.sampled_from(["record.json", "arrays.npz", "added.json"]),
)
def test_any_altered_byte_is_noticed(where, bits, which, tmp_path_factory):
    store = store_with_additions(tmp_path_factory.mktemp("fuzzed"))
    path = store.folder / "one" / which
    spoiled = bytearray(path.read_bytes())
    spoiled[where % len(spoiled)] ^= bits
    path.write_bytes(spoiled)
    record, arrays = store.record("one"), store.arrays("one")
    if which == "added.json" and not path.exists():
        assert (record["measures"], set(arrays)) == (MEASURES[0], {"x"}), (
            "the training itself stays"
        )
    else:
        assert arrays is None or (
            which != "arrays.npz"
            and record["measures"] == MEASURES[1]
            and set(arrays) == {"x", "test_loss"}
        ), "white space only"


def test_two_notebooks_of_one_name_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    source = ROOT / "notebooks" / "fig04_one_shot_and_iterative.ipynb"
    for name in ("fig04_one_shot_and_iterative", "fig04_one_shot_and_iterative-Copy1"):
        shutil.copyfile(source, tmp_path / f"{name}.ipynb")
    with pytest.raises(LotteryError, match="iterative-Copy1.ipynb and .* are both fig04: give one"):
        notebooks.figures()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["store", "freeze", "2"], "fig02: nothing is trained for it"),
        (["store", "export", "2"], "fig02: nothing is trained for it"),
        (["store", "merge", "{empty}"], "{empty} has no trainings: name a store to merge"),
        (["run", "29", "--trials", "1000000"], "trials is 1000000: 1,000 are the most"),
        (["run", "29", "--other-versions", "any"], "are to be 'any': choose refuse or record"),
    ],
)
def test_commands_that_cannot_be_carried_out(command, said, tmp_path, capsys):
    places = {"empty": str(tmp_path)}
    assert main([each.format(**places) for each in command]) == 2
    assert said.format(**places) in capsys.readouterr().err


def test_what_is_missing_is_trained_or_skipped_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setenv("LOTTERY_MISSING", "Skip")
    with pytest.raises(LotteryError, match="LOTTERY_MISSING is 'Skip': set it to skip or train"):
        run({"ticket": tiny.iterative()}, scale="paper")
    monkeypatch.setenv("LOTTERY_MISSING", "skip")
    assert main(["run", "29"]) == 0
    assert not list(Store())


def test_a_merge_goes_on_past_a_control_that_is_not_here(tmp_path, monkeypatch):
    from lottery_nb.core import tickets

    @control("for a while", needs=("mask",))
    def kept(at):
        return at.mask, at.fresh_weights()

    other = Store(tmp_path / "other")
    plan = {"a": tiny.iterative().at_rounds(1)}
    plan["b"] = plan["a"].with_control("for a while")
    runner.train_missing(requests_of([plan], "paper", 1), other)
    monkeypatch.delitem(tickets.CONTROLS, "for a while")
    fates = lineage.merge(Store(), other)
    assert (len(fates["copied"]), len(fates["of other code"])) == (2, 1)


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path):
    path = tmp_path / "table"
    path.write_text("before")
    refused = pytest.raises(LotteryError, match="table cannot be written .No space left.*stays")
    with refused, replacing(path) as draft:
        draft.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


def test_a_notebook_runs_with_this_interpreter_whatever_kernel_it_names(tmp_path):
    import nbformat

    cells = nbformat.read(next(notebooks.FOLDER.glob("fig02_*")), as_version=4)
    cells.metadata.kernelspec = {"name": "conda-foo", "display_name": "foo"}
    path = tmp_path / "fig02_architectures.ipynb"
    nbformat.write(cells, path)
    notebooks.execute(notebooks.Notebook(path), {"scale": "smoke"}, tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").exists()
