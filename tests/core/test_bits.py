"""The same training leaves the same bits: alone, in a batch, in another process; long enough that a
single rounding would show."""

import subprocess
import sys

import pytest
from shared import import_path, tiny

from lottery_nb import conv2, resnet18
from lottery_nb.core import data, tickets, training
from lottery_nb.core.errors import LotteryError
from lottery_nb.runs import batch, cluster, graph, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

# Round 0 is dense; nine tenths are pruned in round 1, whose first layer is trained as a sparse
# matrix. 300 and 100 units, as in the paper.
LONG = tiny.but(
    sizes=(300, 100), iterations=2000, evaluate_every=500, rounds=1, trials=3, prune_fc=0.9
)


def bits(store, key):
    """All that a training left, as text."""
    record = store.record(key)
    arrays = {name: array.tobytes() for name, array in store.arrays(key).items()}
    return record["mask"], record["initial"], record["weights"], repr(record["measures"]), arrays


BOTH = {"adam": LONG, "sgd": LONG.but(optimiser="sgd", learning_rate=0.1, momentum=0.9)}


def trained(folder, trials, executor=None):
    store, plan = Store(folder), {name: recipe.iterative() for name, recipe in BOTH.items()}
    runner.train_missing(requests_of([plan], "paper", trials), store, executor)
    return {key: bits(store, key) for key in store}


def test_2000_iterations_alone_in_a_batch_of_three_and_in_a_worker(tmp_path, monkeypatch):
    monkeypatch.setitem(graph.BATCH, "cpu", 3)
    together = trained(tmp_path / "together", 3)
    alone = trained(tmp_path / "alone", 1)
    with cluster.local_workers(1, {"mnist5k"}) as executor:
        elsewhere = trained(tmp_path / "elsewhere", 2, executor)
    assert (len(together), len(alone), len(elsewhere)) == (12, 4, 8)
    assert all(together[key] == alone[key] for key in alone)
    assert all(together[key] == elsewhere[key] for key in elsewhere)
    packed = training._worth_packing(
        training.networks.build(LONG),
        tickets.make(LONG.iterative().nodes("paper", 1)[0]),
        "cpu",
    )
    assert not packed, "the dense network is not packed, so both ways of training were compared"


# Layers of odd sizes, so that no trial's values end where a vector does.
ODD = LONG.but(sizes=(37, 11), iterations=600, evaluate_every=200)
SGD = ODD.but(optimiser="sgd", learning_rate=0.1)
SWEEPS = {
    "adam": [
        ODD,
        ODD.but(learning_rate=1e-4),
        ODD.but(learning_rate=0.01, warmup=150),
        ODD.but(milestones=(100, 250), adam_eps=1e-3),
        ODD.but(adam_betas=(0.5, 0.9)),
        ODD.but(initialisation="gaussian", init_std=0.05),
        ODD.but(prune_fc=0.5),
    ],
    "sgd": [
        SGD,
        SGD.but(learning_rate=1e9),  # it diverges
        SGD.but(momentum=0.9, learning_rate=0.01),
        SGD.but(momentum=0.5, weight_decay=1e-3),
        SGD.but(warmup=150),
    ],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_in_one_batch_leaves_what_each_leaves_alone(name):
    recipes = [recipe for recipe in SWEEPS[name] for _ in range(2)]
    images = data.load(ODD.data, ODD.scaling, ODD.validation)
    made = [
        tickets.make(line.nodes("paper", 1)[-1])  # dense, and pruned: some of them are packed
        for recipe in SWEEPS[name]
        for line in (
            recipe.iterative().at_rounds(0),
            recipe.pruned_before_training().at_rounds(1),
        )
    ]

    def left(ticket, recipe):
        return [said(record) for record in training.train(ticket, images, recipe)]

    def said(record):
        return tickets.fingerprint(record.weights), repr(record.measures)

    together = left(made, recipes)
    assert together == [left([ticket], recipe)[0] for ticket, recipe in zip(made, recipes)]
    assert ["'diverged': 1.0" in measures for _, measures in together].count(True) == (
        2 if name == "sgd" else 0
    )


def test_recipes_that_differ_in_more_than_numbers_are_not_trained_together():
    images = data.load(ODD.data, ODD.scaling, ODD.validation)
    recipes = [ODD, ODD.but(batch=30)]
    made = [tickets.make(recipe.iterative().nodes("paper", 1)[0]) for recipe in recipes]
    with pytest.raises(LotteryError, match="cannot be trained together: they differ in batch"):
        training.train(made, images, recipes)


def test_a_sweep_fills_batches(tmp_path, monkeypatch):
    """Through the runner: as many batches as there are rounds, and the store of one by one."""
    short = SGD.but(iterations=50, evaluate_every=25)
    changes = [{}, {"momentum": 0.9}, {"learning_rate": 0.3}, {"prune_fc": 0.2}]
    recipes = [short.but(**change) for change in changes]
    plan = {str(i): recipe.iterative() for i, recipe in enumerate(recipes)}
    batches = []

    def counted(batch, *rest):
        batches.append(len(batch))
        return train_batch(batch, *rest)

    train_batch = batch.train_batch
    monkeypatch.setattr(batch, "train_batch", counted)

    def stored(size):
        monkeypatch.setitem(graph.BATCH, "cpu", size)
        store = Store(tmp_path / str(size))
        runner.train_missing(requests_of([plan], "paper", 1), store)
        return {key: bits(store, key) for key in store}

    together = stored(len(recipes))
    assert batches == [len(recipes)] * 2
    assert together == stored(1)


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

    before, matmul = torch.get_num_threads(), torch.backends.cuda.matmul
    torch.set_num_threads(2)
    matmul.allow_tf32 = True
    try:
        left(CONVOLUTIONAL["conv2, fp32"].but(iterations=1, evaluate_every=1), [0])
        assert torch.get_num_threads() == 2 and matmul.allow_tf32
    finally:
        torch.set_num_threads(before)
        matmul.allow_tf32 = False
    assert torch.tensor(1e-38) / 100 > 0, "small numbers are whole again"
