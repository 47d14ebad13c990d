"""Too little memory, several GPUs, and nothing that makes a GPU wait, as far as a machine without
one can tell."""

import os

import pytest
import torch
from shared import tiny
from torch.utils._python_dispatch import TorchDispatchMode

from lottery_nb import LotteryError, conv2, resnet18
from lottery_nb.core import data, networks, tickets, training
from lottery_nb.runs import cluster, executors, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

TICKETS = requests_of([{"ticket": tiny.iterative()}], "paper", 4)


def left(folder):
    store = Store(folder)
    runner.train_missing(TICKETS, store, quiet=True)
    return {key: store.record(key)["weights"] for key in store}


def with_memory_for(trainings, monkeypatch):
    train = training.train

    def limited(made, *arguments):
        if len(made) > trainings:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(made, *arguments)

    monkeypatch.setattr(training, "train", limited)


def test_a_batch_that_does_not_fit_is_halved_until_it_does(tmp_path, monkeypatch, capfd):
    whole = left(tmp_path / "whole")
    with_memory_for(1, monkeypatch)
    assert left(tmp_path / "halves") == whole
    said = capfd.readouterr().err
    for size in (4, 2):
        assert f"{size} trainings of lenet at once take more memory than cpu has free" in said


def test_one_that_does_not_fit_alone_says_so(monkeypatch):
    with_memory_for(0, monkeypatch)
    with pytest.raises(LotteryError, match="a training of lenet takes more memory than cpu has"):
        left(None)


def test_of_several_gpus_each_local_worker_sees_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert executors.jobs() == 2
    with cluster.local_workers(3, {"mnist5k"}) as workers:
        seen = workers._client.run(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert sorted(seen.values()) == ["0", "0", "1"]


class NoWaiting(TorchDispatchMode):
    """Fails where a number is read off the device, which would wait for all it was given before."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, (
            "a chunk waits for the device"
        )
        return func(*args, **(kwargs or {}))


NARROW = {
    "data": "mnist1k", "validation": 100, "batch": 20, "width": 0.125, "precision": "fp32",
    "iterations": 4, "evaluate_every": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [
        tiny,
        tiny.but(optimiser="sgd", learning_rate=0.1, momentum=0.9),
        conv2.but(dropout=0.5, **NARROW),
        resnet18.but(milestones=(), checkpoints=(), **NARROW),
    ],
    ids=["lenet", "momentum", "conv2", "resnet18"],
)
def test_no_step_between_two_evaluations_waits_for_the_device(recipe):
    images = data.load(recipe.data, recipe.scaling, recipe.validation)
    node = recipe.but(scope="layerwise").pruned_before_training().at_rounds(1).nodes("paper", 1)[0]
    network = networks.build(recipe)
    with torch.no_grad():
        both = [tickets.make(node)] * 2, [recipe, recipe.but(learning_rate=0.01)]
        batch = training._Batch(*both, (), network, images, "cpu")
        with NoWaiting():
            batch.train(0)
    assert batch.pruned
