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
from test_lottery import tiny

from lottery_nb import LotteryError, conv2, graph, lenet, plans, run, running, training
from lottery_nb.errors import Stopped
from lottery_nb.store import Store

TINY = "Recipe(network='lenet', data='mnist5k', sizes=(20, 10), iterations=4, evaluate_every=2, validation=500, rounds=3, trials=2, draws=2)"
PLAN = {"ticket": tiny.iterative(), "reinit": tiny.iterative().reinitialised(2)}


@pytest.fixture
def trained(monkeypatch):
    """Keys of what is trained, in order."""
    keys, real = [], running.Here.train

    def spy(here, batch, commit):
        keys.extend(wish.node.key for wish in batch.wishes)
        real(here, batch, commit)

    monkeypatch.setattr(running.Here, "train", spy)
    return keys


def test_a_table_is_tidy_and_says_where_it_came_from(capsys):
    table = run(PLAN, scale="paper")
    assert tuple(table.columns) == plans.COLUMNS
    assert not table.drop(columns="x").isna().any().any()
    assert not table.duplicated(["line", "node", "metric", "iteration"]).any()
    assert table.groupby("line").node.nunique().to_dict() == {"ticket": 8, "reinit": 12}
    stops = table[table.metric == "early_stop_iteration"]
    assert stops.value.tolist() == stops.iteration.tolist()
    assert set(table.iteration[table.metric == "test_accuracy_at_end"]) == {4}
    said = capsys.readouterr().out
    assert "trainings 20" in said
    assert table.commit.iloc[0] in said


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
    wanted = graph.wanted_nodes([PLAN, {"same, other label": tiny.iterative().at_rounds(3).with_curves()}], "paper")
    assert len(wanted) == 8 + 12
    assert [wish.node.round for wish in wanted.values() if wish.needs] == [3, 3]


def test_ancestors_of_a_drawn_round_are_trained_and_not_shown(trained):
    table = run({"last": tiny.iterative().at_rounds(3)}, scale="paper", trials=1)
    assert len(trained) == 4
    assert set(table["round"]) == {3}


def test_curves_only_where_asked(trained):
    plain = run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=1)
    assert not plain.metric.isin(["test_accuracy", "val_loss"]).any()
    curves = run({"ticket": tiny.iterative().at_rounds(0).with_curves()}, scale="paper", trials=1)
    assert curves[curves.metric == "test_accuracy"].iteration.tolist() == [2, 4]
    assert len(trained) == 2, "a record without its curves is trained again"
    again = run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=1)
    assert len(trained) == 2, "a record with its curves serves both"
    pd.testing.assert_frame_equal(plain.drop(columns=["started", "seconds"]), again.drop(columns=["started", "seconds"]))


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
    assert (before.value - after.value).abs().max() < 1e-6


def test_a_distribution_needs_the_whole_network_and_whole_arrays(trained, capsys):
    plan = {"ticket": tiny.iterative().at_rounds(1).distribution("growth in the ticket", "fc1")}
    table = run(plan, scale="paper", trials=1)
    [ticket], [whole] = plan["ticket"].nodes("paper", 1), tiny.iterative().at_rounds(0).nodes("paper", 1)
    store = Store()
    store.set_aside(whole.key, "is gone")
    trained.clear()
    again = run(plan, scale="paper", trials=1)
    assert trained == [whole.key]
    pd.testing.assert_series_equal(again.value, table.value)
    (store.folder / ticket.key / "arrays.npz").write_bytes(b"")
    with pytest.raises(LotteryError, match=f"{ticket.key} was damaged after it was stored; run again to train it anew"):
        run(plan, scale="paper", trials=1)
    assert run(plan, scale="paper", trials=1).value.tolist() == table.value.tolist()


def test_a_frozen_table_serves_without_a_store_and_without_torch(tmp_path, monkeypatch):
    table = run(PLAN, scale="paper")
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    path, done, wanted = plans.freeze("fig99", PLAN, "paper")
    assert (path.name, done, wanted) == ("fig99-paper.parquet", 20, 20)
    first = path.read_bytes()
    plans.freeze("fig99", PLAN, "paper")
    assert path.read_bytes() == first, "freezing is repeatable byte for byte"
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "empty"))
    code = (
        f"from lottery_nb import Recipe, run; tiny = {TINY}\n"
        "table = run({'ticket': tiny.iterative(), 'reinit': tiny.iterative().reinitialised(2)}, scale='paper', figure='fig99')\n"
        "import sys; assert 'torch' not in sys.modules; print(len(table), table.value.sum())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert int(out[0]) == len(table)
    assert float(out[1]) == pytest.approx(table.value.sum())
    assert not (tmp_path / "empty").exists()


def test_a_part_can_be_frozen_and_what_is_missing_is_said(tmp_path, monkeypatch, capsys, trained):
    run({"ticket": tiny.iterative()}, scale="paper", trials=1)
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    assert plans.freeze("fig99", PLAN, "paper")[1:] == (4, 20)
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "empty"))
    monkeypatch.setenv("LOTTERY_MISSING", "skip")
    table = run(PLAN, scale="paper", figure="fig99")
    assert table.node.nunique() == 4
    assert "16 trainings, not drawn" in capsys.readouterr().out
    assert len(trained) == 4


def test_a_table_begun_elsewhere_is_finished_here(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    run({"ticket": tiny.iterative()}, scale="paper", trials=1)
    first = plans.freeze("fig99", PLAN, "paper")[0]
    begun = pd.read_parquet(first)
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "another"))
    run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=2)
    assert plans.freeze("fig99", PLAN, "paper")[1:] == (5, 20)
    both = pd.read_parquet(first)
    again, kept = both.node.isin(Store()), begun.node.isin(both.node)
    assert kept.all() and again.any() and not again.all()
    pd.testing.assert_frame_equal(both[~again].reset_index(drop=True), begun[~begun.node.isin(Store())].reset_index(drop=True))


def test_freezing_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    with pytest.raises(LotteryError, match="no trainings at laptop scale"):
        plans.freeze("fig04", {"ticket": lenet.iterative()}, "laptop")


def test_bad_input_stops_before_anything_trains(trained):
    for arguments in ({"scale": "desktop"}, {"scale": "smoke", "trials": 0}):
        with pytest.raises(LotteryError):
            run(PLAN, **arguments)
    assert not trained


def test_batches_hold_one_recipe_and_no_more_than_fit(monkeypatch):
    sizes, real = [], training.train

    def spy(tickets, data, recipe, *rest):
        sizes.append((len(tickets), recipe.learning_rate))
        return real(tickets, data, recipe, *rest)

    monkeypatch.setattr(training, "train", spy)
    other = tiny.but(learning_rate=0.01)
    run({"one": tiny.iterative(), "other": other.iterative()}, scale="paper", trials=14)
    assert max(size for size, _ in sizes) == graph.BATCH["cpu"] == 12
    assert sum(size for size, rate in sizes if rate == 0.01) == sum(size for size, rate in sizes if rate != 0.01) == 4 * 14


def test_convolutional_networks_train_one_at_a_time(monkeypatch):
    sizes, real = [], training.train
    monkeypatch.setattr(training, "train", lambda tickets, *rest: sizes.append(len(tickets)) or real(tickets, *rest))
    run({"one": conv2.iterative().at_rounds(0)}, scale="smoke", trials=2)
    assert sizes == [1, 1]


def script(folder, iterations=4):
    code = (
        f"from lottery_nb import Recipe, run; tiny = {TINY}.but(iterations={iterations})\n"
        "run({'ticket': tiny.iterative(), 'one-shot': tiny.one_shot()}, scale='paper')"
    )
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{code}"  # tests in the background ignore Ctrl-C
    environment = {**os.environ, "LOTTERY_STORE": str(folder)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def test_two_runs_at_once_train_nothing_twice(tmp_path):
    runs = [script(tmp_path / "shared") for _ in range(2)]
    done = [process.communicate(timeout=120) for process in runs]
    assert [process.returncode for process in runs] == [0, 0], done
    store = Store(tmp_path / "shared")
    assert store.verify() == (8 + 78, 0)
    assert len(list(store.folder.glob(".damaged/*"))) == 0
    alone = Store(tmp_path / "alone")
    script(alone.folder).communicate(timeout=120)
    for key in alone:
        assert store.record(key)["measures"] == pytest.approx(alone.record(key)["measures"], abs=1e-4)


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
    assert store.verify() == (len(kept), 0)
    script(store.folder, iterations=100).communicate(timeout=120)
    assert len(list(store)) == 86
    assert {key: store.record(key)["started"] for key in kept} == kept, "nothing finished was trained again"


def test_provenance_names_commit_device_and_versions():
    run({"ticket": tiny.iterative().at_rounds(0)}, scale="paper", trials=1)
    record = Store().record(tiny.iterative().nodes("paper", 1)[0].key)
    assert set(plans.PROVENANCE) <= set(record)
    assert "torch" in record["versions"]
    assert "thread" in record["device"]
    assert record["seconds"] >= 0
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    assert not head or record["commit"].startswith(head[:7])


def test_the_same_result_alone_in_a_batch_and_from_two_processes(tmp_path):
    """Two rounds of 200 iterations of the whole Lenet: the same masks, and records equal to 1e-4."""

    def start(name, batch, threads):
        code = (
            f"import torch; torch.set_num_threads({threads})\nfrom lottery_nb import graph, lenet, running; from lottery_nb.store import Store\n"
            f"graph.BATCH = dict(cpu={batch}); tickets = lenet.at('smoke').but(rounds=2, trials=2, iterations=200).iterative()\n"
            f"running.train_missing(graph.wanted_nodes([dict(a=tickets, b=tickets.reinitialised())], 'paper'), Store({str(tmp_path / name)!r}))"
        )
        return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)

    runs = [[start("together", 12, 1)], [start("threads", 12, 2)], [start("alone", 1, 1)], [start("two", 3, 1), start("two", 3, 1)]]
    for processes in runs:
        assert [process.wait(timeout=300) for process in processes] == [0] * len(processes)
    together = Store(tmp_path / "together")
    assert len(list(together)) == 2 * (3 + 2)
    for name in ("threads", "alone", "two"):
        other = Store(tmp_path / name)
        for key in together:
            ours, theirs = together.arrays(key), other.arrays(key)
            for array in ours:
                if array.startswith("mask/"):
                    assert np.array_equal(ours[array], theirs[array]), (name, key)
                elif "loss" in array:
                    np.testing.assert_allclose(ours[array], theirs[array], atol=1e-4)
            assert together.record(key)["measures"] == pytest.approx(other.record(key)["measures"], abs=1e-4)


@pytest.fixture
def committed_twice(tmp_path, monkeypatch):
    """Two trials of a plan in a committed table, and an empty store."""
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "frozen"))
    run(PLAN, scale="paper", trials=2)
    path = plans.freeze("fig99", PLAN, "paper", trials=2)[0]
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "another"))
    return path


ONE_TRIAL = {label: replace(line, recipe=tiny.but(trials=1)) for label, line in PLAN.items()}


def test_a_figure_draws_all_trials_that_are_committed(committed_twice, trained, capsys):
    table = run(ONE_TRIAL, scale="paper", figure="fig99")
    assert table.groupby("line").node.nunique().to_dict() == {"ticket": 8, "reinit": 12}
    assert "2 of 1 trials" in capsys.readouterr().out
    assert set(run(ONE_TRIAL, scale="paper", trials=1, figure="fig99").trial) == {0}, "unless fewer are asked for"
    other_label = {"same tickets": ONE_TRIAL["ticket"]}
    assert set(run(other_label, scale="paper", figure="fig99").trial) == {0}
    assert not trained


def test_freezing_drops_no_trial(committed_twice, trained):
    before = pd.read_parquet(committed_twice)
    run({"ticket": ONE_TRIAL["ticket"].at_rounds(0)}, scale="paper")
    assert plans.freeze("fig99", ONE_TRIAL, "paper", trials=1)[1:] == (10, 10)
    after = pd.read_parquet(committed_twice)
    assert len(trained) == 1
    assert set(after.node) == set(before.node)
    pd.testing.assert_frame_equal(after[~after.node.isin(trained)].reset_index(drop=True), before[~before.node.isin(trained)].reset_index(drop=True))


def test_freezing_takes_what_other_committed_tables_have(committed_twice, trained):
    with pytest.raises(LotteryError, match="fig98 has no trainings"):
        plans.freeze("fig98", {"other": tiny.but(rounds=1).continued().at_rounds(1).with_curves()}, "paper")
    path, done, wanted = plans.freeze("fig98", {"winning": tiny.iterative()}, "paper")
    assert (done, wanted) == (8, 8)
    lent, own = pd.read_parquet(path), pd.read_parquet(committed_twice).query("line == 'ticket'")
    assert set(lent.line) == {"winning"}
    pd.testing.assert_frame_equal(lent.drop(columns="line"), own.drop(columns="line").reset_index(drop=True))
    assert not trained
