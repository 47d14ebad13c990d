"""A training that was killed goes on from its checkpoint to the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from shared import import_path, tiny

from lottery_nb import LotteryError, conv2, resnet18
from lottery_nb.core import data, tickets, training
from lottery_nb.runs import checkpoints, lineage, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

NARROW = {
    "data": "mnist1k", "validation": 100, "batch": 20, "width": 0.25, "precision": "fp32",
    "iterations": 20, "evaluate_every": 3,
}  # fmt: skip
LENET = tiny.but(sizes=(60, 20), iterations=110, evaluate_every=10, prune_fc=0.9, rounds=1)
RECIPES = {
    "lenet, adam": LENET,
    "lenet, momentum": LENET.but(optimiser="sgd", learning_rate=0.1, momentum=0.9),
    "lenet, sgd": LENET.but(optimiser="sgd", learning_rate=0.1),
    "conv2, dropout": conv2.but(dropout=0.5, **NARROW),
    "resnet18, augmentation": resnet18.but(milestones=(9,), checkpoints=(6, 12), **NARROW),
}


class Killed(Exception):
    pass


class Kept:
    """A `Saved` in memory, which kills the training at an evaluation."""

    def __init__(self, states, evaluations):
        self.states, self.left = states, evaluations

    def read(self, number):
        return self.states.get(number)

    def due(self, after=None):
        return True

    def write(self, states):
        self.states |= states
        self.left -= 1
        if self.left < 0:
            raise Killed


def tickets_of(recipe):
    """The dense network of two trials; of Lenet also what is pruned by initial magnitudes, whose
    first layer is trained as a sparse matrix."""
    nodes = recipe.iterative().at_rounds(0).nodes("paper", 2)
    if recipe.network == "lenet":
        nodes += recipe.pruned_before_training().at_rounds(1).nodes("paper", 2)
    return [tickets.make(node) for node in nodes]


def told(records):
    """All that trainings left, as text."""
    return [
        (
            tickets.fingerprint(each.weights),
            each.early_stop,
            repr(each.measures),
            {name: curve.tobytes() for name, curve in each.curves.items()},
        )
        for each in records
    ]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_it_goes_on_to_the_same_bits(name, seed):
    recipe, dice = RECIPES[name], random.Random(seed)
    images = data.load(recipe.data, recipe.scaling, recipe.validation)
    made = tickets_of(recipe)
    whole = told(training.train(made, images, recipe, test_curves=True))
    states, kills = {}, 0
    while True:
        try:
            kept = Kept(states, dice.randint(0, 4))
            found = told(training.train(made, images, recipe, test_curves=True, saved=kept))
            break
        except Killed:
            kills += 1
    assert kills and found == whole


def test_trials_go_on_in_other_batches_and_from_other_iterations():
    """One was killed later than the other; each goes on from where it was."""
    recipe = RECIPES["lenet, adam"]
    images = data.load(recipe.data, recipe.scaling, recipe.validation)
    made = tickets_of(recipe)
    whole = told(training.train(made, images, recipe))
    states = {}
    for number, evaluations in enumerate((3, 6, 8, 1)):
        mine = Kept({}, evaluations)
        with pytest.raises(Killed):
            training.train([made[number]], images, recipe, saved=mine)
        states[number] = mine.states[0]
    assert len({int(state["iterations"][-1]) for state in states.values()}) == 4
    assert told(training.train(made, images, recipe, saved=Kept(states, 1000))) == whole


def test_a_sweep_in_one_batch_goes_on_to_the_same_bits():
    recipe = RECIPES["lenet, adam"]
    sweep = [recipe, recipe.but(learning_rate=0.01), recipe.but(adam_betas=(0.5, 0.9))]
    images = data.load(recipe.data, recipe.scaling, recipe.validation)
    made = [tickets.make(each.iterative().nodes("paper", 1)[0]) for each in sweep]
    whole = told(training.train(made, images, sweep))
    mine = Kept({}, 3)
    with pytest.raises(Killed):
        training.train(made, images, sweep, saved=mine)
    assert told(training.train(made, images, sweep, saved=Kept(mine.states, 1000))) == whole


def test_trials_with_and_without_momentum_that_began_alone_go_on_together():
    plain = RECIPES["lenet, adam"].but(optimiser="sgd", learning_rate=0.1)
    sweep = [plain, plain.but(momentum=0.9), plain.but(momentum=0.5, weight_decay=1e-3)]
    images = data.load(plain.data, plain.scaling, plain.validation)
    made = [tickets.make(each.iterative().nodes("paper", 1)[0]) for each in sweep]
    whole = told(training.train(made, images, sweep))
    states = {}
    for number, (ticket, recipe) in enumerate(zip(made, sweep)):
        mine = Kept({}, 3)
        with pytest.raises(Killed):
            training.train([ticket], images, recipe, saved=mine)
        states[number] = mine.states[0]
    assert told(training.train(made, images, sweep, saved=Kept(states, 1000))) == whole


# --- beside a store -------------------------------------------------------------------------------

LONG = tiny.but(sizes=(100, 50), iterations=1500, evaluate_every=50, rounds=1, trials=2)
RUN = """
from test_checkpoints import LONG
from lottery_nb.runs import cluster, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store
import sys
if __name__ == "__main__":
    wanted = requests_of([{"ticket": LONG.iterative()}], "paper")
    if sys.argv[1] == "here":
        runner.train_missing(wanted, Store(sys.argv[2]), quiet=True)
    else:
        with cluster.local_workers(1, {"mnist5k"}) as workers:
            runner.train_missing(wanted, Store(sys.argv[2]), workers, quiet=True)
"""


def started(tmp_path, where, folder):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": import_path(__file__), "LOTTERY_CHECKPOINTS": "0.05"}
    return subprocess.Popen(
        [sys.executable, script, where, folder], env=environment, start_new_session=True
    )


def bits(store):
    return {
        key: (store.record(key)["weights"], repr(store.record(key)["measures"]),
              {name: array.tobytes() for name, array in store.arrays(key).items()})
        for key in store
    }  # fmt: skip


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_store(tmp_path):
    """With -9, at random moments, now in this process, now in a worker."""
    dice, folder = random.Random(0), tmp_path / "killed"
    went_on = 0
    for where in ("here", "worker", "here"):
        process = started(tmp_path, where, folder)
        kept = folder / checkpoints.FOLDER
        for _ in range(2000):
            if process.poll() is not None or len(list(kept.glob("*.npz"))) > 0:
                break
            time.sleep(0.02)
        time.sleep(dice.random() * 0.2)
        went_on += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert went_on >= 2, "it was killed on its way"
    assert started(tmp_path, "here", folder).wait() == 0
    assert started(tmp_path, "here", tmp_path / "whole").wait() == 0
    assert bits(Store(folder)) == bits(Store(tmp_path / "whole"))
    assert not list((folder / checkpoints.FOLDER).glob("*.npz")), "none outlives its training"
    whole, wrong = lineage.verify(Store(folder))
    assert (whole, wrong) == (4, {})


def interrupted(monkeypatch):
    """A store in which the dense network of `LONG` has a checkpoint, and its path."""
    monkeypatch.setattr(checkpoints, "SECONDS", 1e-9)
    store, line = Store(), LONG.iterative().at_rounds(0)
    wanted = requests_of([{"ticket": line}], "paper", 1)
    write = checkpoints.Checkpoints.write

    def killed(self, states):
        write(self, states)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.Checkpoints, "write", killed)
        with pytest.raises(LotteryError):
            store.folder.mkdir()
            runner.train_missing(wanted, store, quiet=True)
    [path] = (store.folder / checkpoints.FOLDER).glob("*.npz")
    return store, wanted, path


def begins_at(monkeypatch):
    """The iterations at which trainings begin."""
    seen, train = [], training._Batch.train

    def looked(self, start):
        seen.append(start)
        return train(self, start)

    monkeypatch.setattr(training._Batch, "train", looked)
    return seen


def test_one_goes_on_and_its_record_tells_all_its_seconds(monkeypatch):
    store, wanted, path = interrupted(monkeypatch)
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    content["seconds"] = np.array(5000.0)
    np.savez(path, allow_pickle=False, **content)
    seen = begins_at(monkeypatch)
    runner.train_missing(wanted, store, quiet=True)
    assert seen[0] == 100, "two tries were killed, the second went on from the first"
    [key] = wanted
    assert 5000 < store.record(key)["seconds"] < 5100
    assert not path.exists()


@pytest.mark.parametrize("other", ["code", "data", "mask", "device", "cut", "empty"])
def test_one_of_anything_else_is_set_aside(other, monkeypatch, capfd):
    store, wanted, path = interrupted(monkeypatch)
    if other in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 5000 * (other == "cut")])
    else:
        with np.load(path) as file:
            content = {name: file[name] for name in file.files}
        made_of = json.loads(str(content["made_of"])) | {other: "another"}
        content["made_of"] = np.array(json.dumps(made_of, sort_keys=True))
        np.savez(path, allow_pickle=False, **content)
    seen = begins_at(monkeypatch)
    runner.train_missing(wanted, store, quiet=True)
    assert seen[0] == 0
    why = "is damaged" if other in ("cut", "empty") else f"is of other {other}"
    assert f"the checkpoint of {path.stem} {why}: it begins anew" in capfd.readouterr().err
    [aside] = path.parent.glob("*.aside")
    os.utime(aside, (0, 0))
    lineage.verify(store)
    assert not list(path.parent.iterdir())


def test_short_trainings_write_nothing():
    runner.train_missing(requests_of([{"ticket": tiny.iterative()}], "paper"), Store(), quiet=True)
    assert not (Store().folder / checkpoints.FOLDER).exists()


@pytest.mark.parametrize("wrong", ["soon", "0", "-5", "nan"])
def test_bad_intervals(wrong, monkeypatch):
    monkeypatch.setenv("LOTTERY_CHECKPOINTS", wrong)
    with pytest.raises(LotteryError, match=f"LOTTERY_CHECKPOINTS is '{wrong}': give the seconds"):
        checkpoints.Checkpoints(Store().folder, [], [])
