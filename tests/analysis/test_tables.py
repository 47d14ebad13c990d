import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared import tiny

from lottery_nb import LotteryError, conv2, lenet, run
from lottery_nb.analysis import results, tables
from lottery_nb.core import training
from lottery_nb.core.errors import Stopped
from lottery_nb.runs import executors, graph, lineage, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

TINY = (
    "Recipe(network='lenet', data='mnist5k', sizes=(20, 10), iterations=4, evaluate_every=2, "
    "validation=500, rounds=3, trials=2, draws=2)"
)
PLAN = {"ticket": tiny.iterative(), "reinit": tiny.iterative().reinitialised(2)}


@pytest.fixture
def trained(monkeypatch):
    """Keys of what is trained, in order."""
    keys, real = [], executors.ThisProcess.train

    def spy(here, batch, commit):
        keys.extend(request.node.key for request in batch.requests)
        real(here, batch, commit)

    monkeypatch.setattr(executors.ThisProcess, "train", spy)
    return keys


def test_a_table_is_tidy_and_says_where_it_came_from(capsys):
    table = run(PLAN, scale="paper")
    assert tuple(table.columns) == tables.COLUMNS
    assert not table.drop(columns="x").isna().any().any()
    assert not table.duplicated(["line", "node", "metric", "iteration"]).any()
    assert table.groupby("line").node.nunique().to_dict() == {"ticket": 8, "reinit": 12}
    stops = table[table.metric == "early_stop_iteration"]
    assert stops.value.tolist() == stops.iteration.tolist()
    for metric, iteration in {
        "test_accuracy_at_end": 4,
        "test_accuracy_at_start": 0,
        "val_loss_at_start": 0,
    }.items():
        assert table.iteration[table.metric == metric].tolist() == [iteration] * 20, metric
    assert set(table.scale) == {table.attrs["scale"]} == {"paper"}
    said = capsys.readouterr().out
    assert "trainings 20" in said
    assert table.commit.iloc[0] in said
    assert "lineage   recorded: controls have their tickets' masks" in said
    again = run(PLAN, scale="paper", quiet=True)
    assert capsys.readouterr().out == "", "quiet says nothing"
    pd.testing.assert_frame_equal(again, table)


def test_only_what_is_new_is_trained(trained):
    run(PLAN, scale="paper", trials=1)
    first = list(trained)
    assert len(first) == len(set(first)) == 4 + 6
    run(PLAN, scale="paper", trials=1)
    assert trained == first
    run({**PLAN, "longer": tiny.but(rounds=5).iterative()}, scale="paper", trials=1)
    assert len(trained) == 12, "two more rounds of the same recipe"
    run({"one-shot": tiny.one_shot().at_rounds(0, 4, 8)}, scale="paper", trials=1)
    assert len(trained) == 14, "one-shot tickets share the unpruned network"


def test_lines_of_two_plans_share_nodes():
    wanted = requests_of(
        [PLAN, {"same, other label": tiny.iterative().at_rounds(3).with_curves()}], "paper"
    )
    assert len(wanted) == 8 + 12
    assert [request.node.round for request in wanted.values() if request.needs] == [3, 3]


def test_ancestors_of_a_drawn_round_are_trained_and_not_shown(trained):
    table = run({"last": tiny.iterative().at_rounds(3)}, scale="paper", trials=1)
    assert len(trained) == 4
    assert set(table["round"]) == {3}


def test_curves_only_where_asked(trained):
    plain = run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=1)
    assert not plain.metric.isin(["test_accuracy", "val_loss"]).any()
    curves = run({"ticket": tiny.iterative().at_rounds(0).with_curves()}, scale="paper", trials=1)
    assert curves[curves.metric == "test_accuracy"].iteration.tolist() == [2, 4]
    assert len(trained) == 2, (
        "a record without its curves is trained again, and they are added to it"
    )
    again = run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=1)
    assert len(trained) == 2, "a record with its curves serves both"
    pd.testing.assert_frame_equal(plain, again)


def test_a_watcher_ends_a_run_and_what_was_done_stays(trained):
    def watch():
        if len(list(Store())) == 3:
            raise Stopped

    tickets = {"ticket": tiny.iterative()}
    with pytest.raises(Stopped):
        run(tickets, scale="paper", trials=1, watch=watch)
    assert len(list(Store())) == 3, "the fourth round was not begun, or cut short"
    run(tickets, scale="paper", trials=1)
    assert len(list(Store())) == 4


def test_a_damaged_training_is_trained_again(trained, capsys):
    before = run(PLAN, scale="paper", trials=1)
    victim = tiny.iterative().nodes("paper", 1)[2].key
    path = Store().folder / victim / "record.json"
    path.write_text(path.read_text().replace("early_stop", "early_stap", 1))
    after = run(PLAN, scale="paper", trials=1)
    assert trained[-1] == victim
    assert victim in capsys.readouterr().err
    renewed = ["started", "seconds"]
    pd.testing.assert_frame_equal(before.drop(columns=renewed), after.drop(columns=renewed))


def test_a_distribution_needs_the_whole_network_and_whole_arrays(trained, capsys):
    plan = {"ticket": tiny.iterative().at_rounds(1).distribution("growth in the ticket", "fc1")}
    table = run(plan, scale="paper", trials=1)
    [ticket], [whole] = (
        plan["ticket"].nodes("paper", 1),
        tiny.iterative().at_rounds(0).nodes("paper", 1),
    )
    store = Store()
    store.set_aside(whole.key, "is gone")
    trained.clear()
    again = run(plan, scale="paper", trials=1)
    assert trained == [whole.key]
    pd.testing.assert_frame_equal(again, table)
    (store.folder / ticket.key / "arrays.npz").write_bytes(b"")
    with pytest.raises(
        LotteryError,
        match=f"{ticket.key} was damaged after it was stored; run again to train it anew",
    ):
        run(plan, scale="paper", trials=1)
    assert run(plan, scale="paper", trials=1).value.tolist() == table.value.tolist()


@pytest.fixture
def frozen(tmp_path, monkeypatch):
    """The committed table of Lenet at paper scale, once there is one."""
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    return tmp_path / "frozen" / "lenet-paper.parquet"


def freeze(plan, trials=None, name="fig99"):
    """Freeze a figure's plan, of a book that has no other, and return the one line that says what
    was done."""
    [said] = results.freeze({name: plan}, "paper", trials, [plan])
    return said


def test_a_committed_table_serves_without_a_store_and_without_torch(tmp_path, monkeypatch, frozen):
    table = run(PLAN, scale="paper")
    assert freeze(PLAN) == f"{frozen}: 20 of 20 trainings, 20 in all"
    assert "line" not in pd.read_parquet(frozen)
    first = frozen.read_bytes()
    freeze(PLAN)
    assert frozen.read_bytes() == first, "freezing is repeatable byte for byte"
    assert [path.name for path in frozen.parent.iterdir()] == ["lenet-paper.parquet"]
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "empty"))
    code = (
        f"from lottery_nb import Recipe, run; tiny = {TINY}\n"
        "table = run({'ticket': tiny.iterative(), 'reinit': tiny.iterative().reinitialised(2)}, "
        "scale='paper', figure='fig99')\n"
        "import sys; assert 'torch' not in sys.modules; print(len(table), table.value.sum())"
    )
    out = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        .stdout.splitlines()[-1]
        .split()
    )
    assert int(out[0]) == len(table)
    assert float(out[1]) == pytest.approx(table.value.sum())
    read = run(PLAN, scale="paper")
    order = ["line", "node", "metric"]
    pd.testing.assert_frame_equal(
        read.sort_values(order, ignore_index=True), table.sort_values(order, ignore_index=True)
    )
    assert not (tmp_path / "empty").exists()


def test_a_part_can_be_frozen_and_what_is_missing_is_said(
    tmp_path, monkeypatch, capsys, trained, frozen
):
    run({"ticket": tiny.iterative()}, scale="paper", trials=1)
    assert freeze(PLAN) == f"{frozen}: 4 of 20 trainings, 4 in all"
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "empty"))
    monkeypatch.setenv("LOTTERY_MISSING", "skip")
    table = run(PLAN, scale="paper", figure="fig99")
    assert table.node.nunique() == 4
    said = capsys.readouterr().out
    assert "16 trainings, not drawn" in said
    assert "python -m lottery_nb run fig99 --scale paper" in said
    monkeypatch.delenv("LOTTERY_MISSING")
    assert run(PLAN, scale="committed", figure="fig99").node.nunique() == 4, (
        "and nothing is trained for it"
    )
    assert "trainings, not drawn" in capsys.readouterr().out
    assert len(trained) == 4


def test_a_table_begun_elsewhere_is_finished_here(tmp_path, monkeypatch, trained, frozen):
    run({"ticket": tiny.iterative()}, scale="paper", trials=1)
    freeze(PLAN)
    begun = pd.read_parquet(frozen)
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "another"))
    trained.clear()
    table = run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=2)
    assert trained == list(Store()) == [table.node[table.trial == 1].iloc[0]], (
        "what is committed is not trained again"
    )
    assert freeze(PLAN) == f"{frozen}: 1 of 20 trainings, 5 in all"
    both = pd.read_parquet(frozen)
    again, kept = both.node.isin(trained), begun.node.isin(both.node)
    assert kept.all() and again.any() and not again.all()
    pd.testing.assert_frame_equal(both[~again].reset_index(drop=True), begun)


def test_freezing_nothing_is_an_error(tmp_path, frozen):
    said = (
        f"fig04: the store {Store().folder} has none of the .* trainings at laptop scale: "
        "python -m lottery_nb run fig04 --scale laptop"
    )
    with pytest.raises(LotteryError, match=said):
        results.freeze({"fig04": {"ticket": lenet.iterative()}}, "laptop")
    assert not frozen.parent.exists()


def test_bad_input_stops_before_anything_trains(trained):
    for arguments in ({"scale": "desktop"}, {"scale": "smoke", "trials": 0}):
        with pytest.raises(LotteryError):
            run(PLAN, **arguments)
    assert not trained


def test_batches_hold_no_more_than_fits_and_are_filled_by_a_sweep(monkeypatch):
    rates, real = [], training.train

    def spy(tickets, data, recipes, *rest):
        rates.append([recipe.learning_rate for recipe in recipes])
        return real(tickets, data, recipes, *rest)

    monkeypatch.setattr(training, "train", spy)
    other = tiny.but(learning_rate=0.01)
    run({"one": tiny.iterative(), "other": other.iterative()}, scale="paper", trials=3)
    assert max(map(len, rates)) == graph.BATCH["cpu"] == 4
    assert len(rates) == 6, "all full; recipe by recipe they would be eight of three"
    assert max(len(set(batch)) for batch in rates) == 2
    trained = [rate for batch in rates for rate in batch]
    assert trained.count(0.01) == len(trained) / 2 == 4 * 3


def test_convolutional_networks_train_one_at_a_time(monkeypatch):
    sizes, real = [], training.train
    monkeypatch.setattr(
        training, "train", lambda tickets, *rest: sizes.append(len(tickets)) or real(tickets, *rest)
    )
    run({"one": conv2.iterative().at_rounds(0)}, scale="smoke", trials=2)
    assert sizes == [1, 1]


# Of a record: what the same training has everywhere on one kind of processor.
RESULT = ("mask", "initial", "weights", "measures", "early_stop")


def script(folder, iterations=4):
    code = (
        f"from lottery_nb import Recipe, run; tiny = {TINY}.but(iterations={iterations})\n"
        "run({'ticket': tiny.iterative(), 'one-shot': tiny.one_shot()}, scale='paper')"
    )
    # Tests in the background ignore Ctrl-C
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"
    environment = {**os.environ, "LOTTERY_STORE": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_two_runs_at_once_train_nothing_twice(tmp_path):
    runs = [script(tmp_path / "shared") for _ in range(2)]
    done = [process.communicate(timeout=120) for process in runs]
    assert [process.returncode for process in runs] == [0, 0], done
    store = Store(tmp_path / "shared")
    assert lineage.verify(store) == (8 + 78, {})
    assert len(list(store.folder.glob(".damaged/*"))) == 0
    alone = Store(tmp_path / "alone")
    script(alone.folder).communicate(timeout=120)
    assert list(alone) == list(store)
    for key in alone:
        assert [store.record(key)[name] for name in RESULT] == [
            alone.record(key)[name] for name in RESULT
        ]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_was(sign, tmp_path):
    store = Store(tmp_path / "interrupted")
    process = script(store.folder, iterations=100)
    while len(list(store)) < 10 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sign)
    process.communicate(timeout=60)
    assert process.returncode != 0
    kept = {key: store.record(key)["started"] for key in store}
    assert 10 <= len(kept) < 86
    assert lineage.verify(store) == (len(kept), {})
    script(store.folder, iterations=100).communicate(timeout=120)
    assert len(list(store)) == 86
    assert {key: store.record(key)["started"] for key in kept} == kept, (
        "nothing finished was trained again"
    )


def test_provenance_names_commit_device_and_versions():
    table = run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=1)
    record = Store().record(tiny.iterative().nodes("paper", 1)[0].key)
    made = record["made_of"]
    assert "torch" in made["versions"]
    assert "1 thread" in made["device"]
    assert record["seconds"] >= 0
    told = {name: made[name] for name in ("commit", "versions", "device")} | {
        "data": made["data"]["said"],
        "dataset": made["data"]["digest"],
        "parents": "",
    }
    told |= {name: record[name] for name in ("started", "seconds", "mask", "weights")}
    assert table[list(results.PROVENANCE)].drop_duplicates().to_dict("records") == [told]
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert not head or made["commit"].startswith(head[:7])


def test_the_same_result_from_one_process_or_thread_and_from_two(tmp_path):
    """Two rounds of 200 iterations of the whole Lenet: the same bits."""

    def start(name, batch, threads):
        code = (
            f"import torch; torch.set_num_threads({threads})\n"
            "from lottery_nb import lenet; from lottery_nb.runs import graph, runner\n"
            "from lottery_nb.runs.plans import requests_of\n"
            "from lottery_nb.runs.store import Store\n"
            f"graph.BATCH['cpu'] = {batch}\n"
            "small = lenet.at('smoke').but(rounds=2, trials=2, iterations=200)\n"
            "tickets = small.iterative()\n"
            "requests = requests_of([dict(a=tickets, b=tickets.reinitialised())], 'paper')\n"
            f"runner.train_missing(requests, Store({str(tmp_path / name)!r}))"
        )
        return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)

    runs = [
        [start("together", 12, 1)],
        [start("threads", 12, 2)],
        [start("two", 3, 1), start("two", 3, 1)],
    ]
    for processes in runs:
        assert [process.wait(timeout=300) for process in processes] == [0] * len(processes)
    together = Store(tmp_path / "together")
    assert len(list(together)) == 2 * (3 + 2)
    for name in ("threads", "two"):
        other = Store(tmp_path / name)
        for key in together:
            ours, theirs = together.arrays(key), other.arrays(key)
            assert set(ours) == set(theirs)
            for array in ours:
                assert np.array_equal(ours[array], theirs[array]), (name, key, array)
            assert [together.record(key)[each] for each in RESULT] == [
                other.record(key)[each] for each in RESULT
            ], (name, key)


@pytest.fixture
def committed_twice(tmp_path, monkeypatch, frozen):
    """Two trials of a plan in a committed table, and an empty store."""
    run(PLAN, scale="paper", trials=2)
    freeze(PLAN, trials=2)
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "another"))
    return frozen


ONE_TRIAL = {label: replace(line, recipe=tiny.but(trials=1)) for label, line in PLAN.items()}


def test_a_figure_draws_all_trials_that_are_committed(committed_twice, trained, capsys):
    table = run(ONE_TRIAL, scale="paper", figure="fig99")
    assert table.groupby("line").node.nunique().to_dict() == {"ticket": 8, "reinit": 12}
    assert "nothing shrunk" in capsys.readouterr().out, "more trials than asked for are no less"
    assert set(run(ONE_TRIAL, scale="paper", trials=1, figure="fig99").trial) == {0}, (
        "unless fewer are asked for"
    )
    assert not trained


def test_freezing_drops_no_trial(committed_twice, trained):
    before = pd.read_parquet(committed_twice)
    [dense] = requests_of([{"ticket": ONE_TRIAL["ticket"].at_rounds(0)}], "paper").items()
    runner.train_missing(dict([dense]), Store())
    assert trained == [dense[0]]
    assert freeze(ONE_TRIAL, trials=1) == f"{committed_twice}: 1 of 10 trainings, 20 in all"
    after = pd.read_parquet(committed_twice)
    assert set(after.node) == set(before.node)
    pd.testing.assert_frame_equal(
        after[~after.node.isin(trained)].reset_index(drop=True),
        before[~before.node.isin(trained)].reset_index(drop=True),
    )
    renewed = ["started", "seconds"]
    pd.testing.assert_frame_equal(after.drop(columns=renewed), before.drop(columns=renewed))


def test_what_is_committed_for_one_figure_serves_all(committed_twice, trained):
    other = {"other": tiny.but(rounds=1).continued().at_rounds(1).with_curves()}
    with pytest.raises(
        LotteryError,
        match=f"fig98: the store {Store().folder} has none of the 4 trainings at paper scale",
    ):
        freeze(other, name="fig98")
    before = committed_twice.read_bytes()
    with pytest.raises(
        LotteryError,
        match=f"fig98: the store {Store().folder} has none of the 8 trainings at paper scale",
    ):
        freeze({"winning": tiny.iterative()}, name="fig98")
    assert committed_twice.read_bytes() == before, "there is nothing to add"
    own, lent = (
        run(PLAN, scale="paper", figure="fig99"),
        run({"winning": ONE_TRIAL["ticket"]}, scale="paper", figure="fig98"),
    )
    assert set(lent.line) == {"winning"}
    assert set(lent.trial) == {0, 1}
    pd.testing.assert_frame_equal(
        lent.drop(columns="line"),
        own[own.line == "ticket"].drop(columns="line").reset_index(drop=True),
    )
    assert not trained
    table = run({"winning": tiny.iterative(), "other": tiny.random_sparse()}, scale="paper")
    assert trained == [node.key for node in tiny.random_sparse().nodes("paper")], (
        "only what is not committed is trained"
    )
    assert table.groupby("line").node.nunique().to_dict() == {"winning": 8, "other": 6}
