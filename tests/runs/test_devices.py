"""Too little memory, several GPUs, and nothing that makes a GPU wait, as far as a machine without
one can tell; and on a machine with one, that it trains as the CPU does."""

import os
import warnings
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

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
    runner.train_missing(TICKETS, store, executors.ThisProcess("cpu"), quiet=True)
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


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="needs none, or several GPUs")
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


RECIPES = {
    "lenet": tiny,
    "momentum": tiny.but(optimiser="sgd", learning_rate=0.1, momentum=0.9),
    "conv2": conv2.but(dropout=0.5, **NARROW),
    # At its own learning rate it is chaotic: rounding grows tenfold a step.
    "resnet18": resnet18.but(learning_rate=1e-4, milestones=(), checkpoints=(), **NARROW),
}


def some_tickets(recipe, trials):
    line = recipe.but(scope="layerwise").pruned_before_training().at_rounds(1)
    return [tickets.make(node) for node in line.nodes("paper", trials)]


def a_ticket(recipe):
    return some_tickets(recipe, 1)[0]


def images_of(recipe):
    return data.load(recipe.data, recipe.scaling, recipe.validation)


def a_batch(recipe, device):
    """Two trainings of a ticket, at two learning rates, begun."""
    both = [a_ticket(recipe)] * 2, [recipe, recipe.but(learning_rate=recipe.learning_rate / 2)]
    return training._Batch(*both, (), networks.build(recipe), images_of(recipe), device)


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_between_two_evaluations_waits_for_the_device(name):
    with torch.no_grad():
        batch = a_batch(RECIPES[name], torch.device("cpu"))
        with NoWaiting():
            batch.train(0)
    assert batch.pruned


class Imitated:
    """A CUDA graph that keeps what a step was recorded with, and takes that step again when it is
    launched."""

    recording = None

    def replay(self):
        self.step(*self.inputs)

    def __enter__(self):
        Imitated.recording = self

    def __exit__(self, *error):
        Imitated.recording = None


@pytest.mark.parametrize("name", ["lenet", "momentum", "conv2"])
def test_a_recorded_step_takes_what_each_step_takes(name, monkeypatch):
    """As far as a CPU can tell: the second step is recorded, and launched in place of others."""
    for part in ("Stream", "current_stream", "stream"):
        monkeypatch.setattr(torch.cuda, part, MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Imitated)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream: graph)
    step = training._Batch._step
    calls = []

    def recorded(batch, *inputs):
        calls.append(bool(Imitated.recording))
        if Imitated.recording:
            Imitated.recording.step, Imitated.recording.inputs = partial(step, batch), inputs
        else:
            step(batch, *inputs)

    monkeypatch.setattr(training._Batch, "_step", recorded)
    recipe = RECIPES[name].but(iterations=10, evaluate_every=5, warmup=3)
    with torch.no_grad():
        one, other = (a_batch(recipe, torch.device("cpu")) for _ in range(2))
        one.device = SimpleNamespace(type="cuda")
        monkeypatch.setattr(training, "_sent", lambda values, device: values)
        for batch in (one, other):
            batch.train(0), batch.train(5)
    assert calls == [False, True] + [False] * 10, "recorded once, then not called again"
    for weight, values in other.weights.items():
        torch.testing.assert_close(one.weights[weight], values, rtol=1e-4, atol=1e-5)


with_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda")


@with_a_gpu
@pytest.mark.parametrize("name", RECIPES)
def test_no_step_between_two_evaluations_waits_for_a_gpu(name):
    recipe = RECIPES[name].but(iterations=8)
    with torch.no_grad():
        batch = a_batch(recipe, GPU)
        done = batch.train(0)  # in which libraries are set up and a step is recorded, which waits
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it is a prototype
                torch.cuda.set_sync_debug_mode("error")
            batch.train(done)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def check_moved_alike(ticket, mine, theirs):
    """That two trainings moved alike: not to the bit, as rounding grows, and an optimiser can make
    a whole step of it where a gradient is almost zero."""

    def distance(here, there):
        return sum(float((here[name] - there[name]).square().sum()) for name in ticket.weights)

    apart, moved = (distance(at, theirs.weights) for at in (mine.weights, ticket.weights))
    assert apart < 0.05**2 * moved
    for name, mask in ticket.mask.items():
        assert not mine.weights[name][~mask].any()


@with_a_gpu
@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_trains_as_the_cpu_does(name):
    """The same images, views and dropped units, so the same weights but for rounding."""
    recipe = RECIPES[name].but(iterations=12)
    ticket, rates = a_ticket(recipe), [recipe, recipe.but(learning_rate=recipe.learning_rate / 2)]
    both = [ticket] * 2, images_of(recipe), rates
    for mine, theirs in zip(training.train(*both, GPU), training.train(*both, "cpu")):
        check_moved_alike(ticket, mine, theirs)
        assert mine.measures == pytest.approx(theirs.measures, rel=0.05, abs=0.05)


@with_a_gpu
@pytest.mark.parametrize("name", ["conv2", "resnet18"])
def test_beside_others_a_network_trains_on_a_gpu_as_it_does_alone(name):
    recipe = RECIPES[name].but(iterations=12)
    sixteen, images = some_tickets(recipe, 16), images_of(recipe)
    beside = training.train(sixteen, images, recipe, GPU)
    for i in (0, 7, 15):
        [alone] = training.train([sixteen[i]], images, recipe, GPU)
        check_moved_alike(sixteen[i], beside[i], alone)


@with_a_gpu
def test_a_gpu_rounds_weights_as_they_are():
    network = networks.build(RECIPES["resnet18"].but(precision="bf16"))
    parameters = {
        name: value.expand(2, *value.shape).to(GPU)
        for name, value in a_ticket(RECIPES["resnet18"]).weights.items()
    }
    for name, value in network.rounded(parameters).items():
        multiplied = name.endswith("weight") or name == "output.bias"
        assert torch.equal(value, parameters[name].bfloat16() if multiplied else parameters[name])


@with_a_gpu
def test_too_little_memory_of_a_gpu_halves_a_batch(tmp_path, capfd):
    recipe = conv2.but(data="mnist1k", validation=100, batch=60, iterations=8, evaluate_every=4)
    asked = requests_of([{"dense": recipe.iterative().at_rounds(0)}], "paper", 16)
    whole = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(4e9 / whole)
        runner.train_missing(asked, Store(tmp_path), quiet=True)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(list(Store(tmp_path))) == 16
    assert "take more memory than cuda has free: one half after the other" in capfd.readouterr().err


@with_a_gpu
def test_a_gpu_multiplies_in_bf16_where_it_can():
    if not training._has_bf16(GPU):
        pytest.skip("this GPU has no arithmetic for it")
    recipe = RECIPES["conv2"].but(iterations=40)
    exact, rounded = (
        training.train([a_ticket(each)], images_of(each), each, GPU)[0]
        for each in (recipe, recipe.but(precision="bf16"))
    )
    losses = rounded.curves["val_loss"]
    assert losses[-1] < losses[0]
    assert not torch.equal(exact.weights["output.weight"], rounded.weights["output.weight"])


@with_a_gpu
def test_a_hundred_trainings_on_a_gpu_go_on_where_they_were(tmp_path, monkeypatch):
    """Killed after the first evaluation, they end as those that were not."""
    asked = requests_of([{"ticket": tiny.iterative().at_rounds(0)}], "paper", 100)
    whole, stopped = Store(tmp_path / "whole"), Store(tmp_path / "stopped")
    runner.train_missing(asked, whole, quiet=True)
    monkeypatch.setenv("LOTTERY_CHECKPOINTS", "0.001")
    evaluate = training._Batch.evaluate

    def killed(batch, iteration, test):
        if iteration == tiny.iterations:
            raise KeyboardInterrupt
        evaluate(batch, iteration, test)

    with monkeypatch.context() as once:
        once.setattr(training._Batch, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            runner.train_missing(asked, stopped, quiet=True)
    resume, resumed = training._Batch.resume, []
    monkeypatch.setattr(
        training._Batch, "resume", lambda *told: (resumed.append(told[1]), resume(*told))
    )
    runner.train_missing(asked, stopped, quiet=True)
    assert set(resumed) == {tiny.iterations - tiny.evaluate_every}
    assert len(list(whole)) == 100
    for key in whole:
        here, there = whole.record(key), stopped.record(key)
        assert here["made_of"]["device"] == torch.cuda.get_device_name()
        assert here["measures"] == pytest.approx(there["measures"], abs=1e-3)
