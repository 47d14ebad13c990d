"""The same training leaves the same bits: alone, in a batch, in another process; long enough that a
single rounding would show."""

import subprocess
import sys

import pytest
from shared import import_path, tiny

from lottery_nb import conv2, resnet18
from lottery_nb.core import data, tickets, training
from lottery_nb.runs import cluster, graph, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

# Round 0 is dense; nine tenths are pruned in round 1, whose first layer is trained as a sparse
# matrix. 300 and 100 units, as in the paper.
LONG = tiny.but(
    sizes=(300, 100), iterations=2000, evaluate_every=500, rounds=1, trials=5, prune_fc=0.9
)


def bits(store, key):
    """All that a training left, as text."""
    record = store.record(key)
    arrays = {name: array.tobytes() for name, array in store.arrays(key).items()}
    return record["mask"], record["initial"], record["weights"], repr(record["measures"]), arrays


def trained(recipe, folder, trials, executor=None):
    store = Store(folder)
    runner.train_missing(
        requests_of([{"ticket": recipe.iterative()}], "paper", trials), store, executor
    )
    return {key: bits(store, key) for key in store}


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9}],
    ids=["adam", "sgd"],
)
def test_2000_iterations_alone_in_a_batch_of_five_and_in_a_worker(changes, tmp_path, monkeypatch):
    recipe = LONG.but(**changes)
    monkeypatch.setitem(graph.BATCH, "cpu", 5)
    together = trained(recipe, tmp_path / "together", 5)
    alone = trained(recipe, tmp_path / "alone", 1)
    with cluster.local_workers(1, {"mnist5k"}) as executor:
        elsewhere = trained(recipe, tmp_path / "elsewhere", 2, executor)
    assert (len(together), len(alone), len(elsewhere)) == (10, 2, 4)
    assert all(together[key] == alone[key] for key in alone)
    assert all(together[key] == elsewhere[key] for key in elsewhere)
    packed = training._worth_packing(
        training.networks.build(recipe),
        tickets.make(recipe.iterative().nodes("paper", 1)[0]),
        "cpu",
    )
    assert not packed, "the dense network is not packed, so both ways of training were compared"


NARROW = {
    "data": "mnist1k",
    "validation": 100,
    "batch": 20,
    "width": 0.25,
    "iterations": 40,
    "evaluate_every": 20,
}
CONVOLUTIONAL = {
    "conv2, bf16": conv2.but(precision="bf16", dropout=0.5, **NARROW),
    "conv2, fp32": conv2.but(**NARROW),
    "resnet18, bf16": resnet18.but(precision="bf16", milestones=(), checkpoints=(), **NARROW),
}
ELSEWHERE = """
import sys
from test_bits import CONVOLUTIONAL, left
print(*left(CONVOLUTIONAL[sys.argv[1]], [0]))
"""


def left(recipe, trials):
    """Digests of what trials leave that are trained in one batch."""
    images = data.load(recipe.data, recipe.scaling, recipe.validation)
    made = [
        tickets.make(recipe.iterative().at_rounds(0).nodes("paper", 3)[trial]) for trial in trials
    ]
    return [tickets.fingerprint(record.weights) for record in training.train(made, images, recipe)]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_networks_alone_in_a_batch_and_in_another_process(name):
    recipe = CONVOLUTIONAL[name]
    if recipe.precision == "bf16" and not training._has_bf16(training.pick_device("cpu")):
        pytest.skip("this processor has no fast bf16")
    together = left(recipe, [0, 1, 2])
    assert left(recipe, [0]) == together[:1]
    assert left(recipe, [2, 1]) == together[:0:-1]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, name],
        env={"PYTHONPATH": import_path(__file__)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == together[:1], done.stderr


def test_whoever_trains_puts_back_what_it_set():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        left(CONVOLUTIONAL["conv2, fp32"].but(iterations=1, evaluate_every=1), [0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.tensor(1e-38) / 100 > 0, "small numbers are whole again"
