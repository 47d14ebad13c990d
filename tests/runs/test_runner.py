"""What is trained when, what happens when it fails, and who does it."""

import os
import subprocess
import sys

import pytest
from shared import import_path, tiny

from lottery_nb import lenet, resnet18
from lottery_nb.__main__ import main
from lottery_nb.analysis import tables
from lottery_nb.core import training
from lottery_nb.core.errors import FailedTrainings, LotteryError
from lottery_nb.runs import graph, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

PLAN = {
    "ticket": tiny.iterative(),
    "reinit": tiny.iterative().reinitialised(2),
    "one-shot": tiny.one_shot(),
}


def frontier(plan, trials=None):
    return graph.Frontier(graph.with_ancestors(requests_of([plan], "paper", trials)))


def everything(front, device="cpu", workers=1):
    """Batches in the order in which they are trained, one after another."""
    while batch := front.take(device, workers):
        yield [request.node for request in batch]
        for request in batch:
            front.done(request.node.key)


def test_nothing_is_trained_before_what_it_stands_on_or_twice():
    done = set()
    for batch in everything(frontier(PLAN)):
        for node in batch:
            assert node.key not in done
            assert {before.key for before in graph.parents_of(node)} <= done
        done.update(node.key for node in batch)
    assert done == set(requests_of([PLAN], "paper"))


def test_tickets_go_first_and_batches_share_all_but_numbers():
    swept, other = tiny.but(learning_rate=0.01).iterative(), tiny.but(batch=30).iterative()
    batches = list(everything(frontier({**PLAN, "swept": swept, "other": other})))
    assert all(len({node.recipe.batch for node in batch}) == 1 for batch in batches)
    assert max(len({node.recipe for node in batch}) for batch in batches) == 2
    assert max(map(len, batches)) == 4
    controls = [batch[0].control for batch in batches if batch[0].strategy == "iterative"]
    assert controls.index("random reinit") > max(
        i for i, control in enumerate(controls) if control == "winning ticket"
    )


def test_workers_share_what_is_ready():
    front = frontier({"ticket": tiny.iterative()}, trials=5)
    assert [len(front.take("cuda", workers=2)) for _ in range(4)] == [3, 1, 1, 0]
    assert len(front) == 20


def test_convolutional_networks_go_one_at_a_time_but_on_a_gpu():
    plan = {"ticket": resnet18.iterative().at_rounds(0)}
    for device, sizes in (("cpu", [1] * 20), ("cuda", [16, 4])):
        front = frontier(plan, trials=20)
        assert [len(batch) for batch in everything(front, device)] == sizes


def test_what_stands_on_a_failure_is_given_up():
    front = frontier(PLAN, trials=1)
    [first] = [request for request in front.take("cuda") if request.node.round == 0]
    front.done(first.node.key)
    second = next(
        request
        for batch in iter(lambda: front.take("cpu"), [])
        for request in batch
        if (request.node.strategy, request.node.round) == ("iterative", 1)
    )
    assert front.give_up(second.node.key) == 2 + 2 * 2, "two more rounds, and the reinits of those"
    assert len(front) == 39 + 2, "one-shot tickets and the reinits of the first round"


def test_a_wide_plan_is_gone_through_whole():
    wide = {f"rate {i}": lenet.but(learning_rate=0.001 + i / 1e6).iterative() for i in range(40)}
    assert sum(len(batch) for batch in everything(frontier(wide), workers=64)) == 40 * 29 * 5


@pytest.fixture
def failing(monkeypatch):
    """Lets trainings of round 1 fail so many times."""
    left, real = {"times": 0}, training.train

    def train(tickets, *rest):
        if left["times"] and any(
            ticket.order[4] == 1 and ticket.order[1:3] == ("iterative", "winning ticket")
            for ticket in tickets
        ):
            left["times"] -= 1
            raise RuntimeError("out of memory")
        return real(tickets, *rest)

    monkeypatch.setattr(training, "train", train)
    return left


def test_a_failure_is_tried_again_alone(failing):
    failing["times"] = 1
    table = tables.run(PLAN, scale="paper")
    assert table.node.nunique() == len(requests_of([PLAN], "paper"))


def test_what_fails_twice_is_reported_and_the_rest_goes_on(failing, capsys):
    failing["times"] = 99
    with pytest.raises(
        FailedTrainings, match="2 trainings failed twice, 12 that stand on them were not begun"
    ):
        tables.run(
            {"ticket": tiny.iterative(), "reinit": tiny.iterative().reinitialised(2)}, scale="paper"
        )
    stored = [key for key in Store() if "iterative" in key]
    assert len(stored) == 2 + 4, (
        "whole networks, and reinits of the first round: their masks are there"
    )
    said = capsys.readouterr().err
    assert said.count("failed twice: lenet-mnist5k-iterative-winning-ticket-t0-r01") == 1
    assert "'learning_rate'" in said or "'sizes': (20, 10)" in said
    assert "RuntimeError: out of memory" in said


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner.commit.__wrapped__() == "unknown"


def test_bad_input_is_not_tried_again(monkeypatch):
    tries = []

    def train(*_):
        tries.append(1)
        raise LotteryError("no such thing")

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(LotteryError, match="no such thing"):
        tables.run(PLAN, scale="paper")
    assert len(tries) == 1


def test_the_command_line_tells_a_failure_from_bad_input(failing, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(training, "train", fail)
    assert main(["run", "fig03", "--trials", "1"]) == 1
    assert "trainings failed twice" in capsys.readouterr().err


RUN = """import os
from lottery_nb.runs import runner
from lottery_nb.core.errors import LotteryError
from lottery_nb.runs.store import Store
from test_runner import ON_DISK

try:
    runner.train_missing(ON_DISK, Store())
except LotteryError as error:
    print("error:", error)
stored = len(list(Store()))
print(stored, "stored,", sum(Store().arrays(key) is not None for key in Store()), "whole")
"""
ON_DISK = requests_of([{"ticket": tiny.but(sizes=(60, 20), trials=4).iterative()}], "paper")
DISK = """
mount -t tmpfs -o size=1m tmpfs "$LOTTERY_STORE" || exit 77
"$0" -c "$1"
mount -o remount,size=100m tmpfs "$LOTTERY_STORE"
find "$LOTTERY_STORE" -name record.json -exec stat -c %Y%i {} + | sort > "$LOTTERY_STORE/.before"
"$0" -c "$1"
find "$LOTTERY_STORE" -name record.json -exec stat -c %Y%i {} + | sort |
    comm -23 "$LOTTERY_STORE/.before" - | wc -l
rm -r "$LOTTERY_STORE"/*r02*
mount -o remount,ro tmpfs "$LOTTERY_STORE"
"$0" -c "$1"
"""


def test_a_full_disk_and_one_that_cannot_be_written(tmp_path):
    """A real file system of a megabyte, then a larger, then one mounted to be read only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    environment = {
        **os.environ,
        "LOTTERY_STORE": str(disk),
        "PYTHONPATH": import_path(__file__),
    }
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", DISK, sys.executable, RUN],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode in (1, 77) and "Operation not permitted" in done.stderr:
        pytest.skip("this user may mount nothing")
    full, some, whole, trained_again, read_only, fewer = done.stdout.splitlines()
    assert "the disk is full. Finished trainings are safe" in full
    stored = int(some.split()[0])
    assert 0 < stored < len(ON_DISK)
    assert some == f"{stored} stored, {stored} whole"
    assert whole == f"{len(ON_DISK)} stored, {len(ON_DISK)} whole"
    assert trained_again == "0"
    assert "it is read-only. Finished trainings are safe" in read_only
    assert 0 < int(fewer.split()[0]) < len(ON_DISK)


def test_the_bar_tells_of_no_training_that_is_not_finished():
    bar = runner._bar(2, quiet=False)
    bar.update(0.6)
    assert "30%" in str(bar)
    assert "0.6 of 2 " in str(bar)
    bar.close()
