import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lottery_nb import bench
from lottery_nb.__main__ import main

SECONDS = {"_plain": 0.4, "_ours": 0.1, "_products_alone": 4e-4, "_plain_conv": 3.0, "_plain_resnet": 5.0}


@pytest.fixture
def timed(monkeypatch):
    """Parts that take what they are told to."""
    monkeypatch.setattr(bench, "_as_large_as_mnist", lambda: None)
    monkeypatch.setattr(bench, "_as_large_as_a_fifth_of_cifar", lambda: None)
    monkeypatch.setattr(bench, "_with_few", lambda digits, n: None)
    monkeypatch.setattr(bench, "_ours_conv", lambda few, recipe: 2.0 if recipe.network == "resnet18" else {"fp32": 1.5, "bf16": 1.0}[recipe.precision])
    for name, seconds in SECONDS.items():
        monkeypatch.setattr(bench, name, lambda *_, seconds=seconds: seconds)
    monkeypatch.setattr(bench, "_side_by_side", lambda processes, threads, trials: 6e-4 / processes if threads == 1 else 4.5e-4)
    monkeypatch.setattr(bench.running, "processors", lambda: 2)
    monkeypatch.setattr(bench, "_iteration", lambda digits, density: 6e-4 * (0.5 if density == 0.036 else 1))


def test_ratios_are_those_of_the_parts(timed):
    measured = bench.measure()
    assert measured["ratios"] == {
        "lenet_processes_vs_threads": 1.5,
        "lenet_vs_plain": 4.0, "lenet_limit": 1.5, "lenet_sparse_vs_dense": 0.5, "conv2_vs_plain_fp32": 2.0, "conv2_vs_plain_laptop": 3.0,
        "resnet18_vs_plain_laptop": 2.5,
    }  # fmt: skip
    assert set(measured["ratios"]) | {"lenet_gpu_vs_plain"} == set(bench.TARGETS) == set(bench.EXPLAINED)


def test_a_gpu_is_measured_where_there_is_one(timed, monkeypatch):
    monkeypatch.setattr(bench.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench, "_ours", lambda digits, device="cpu", trials=5: {("cpu", 5): 0.1, ("cuda", 100): 0.002}[device, trials])
    assert bench.measure()["ratios"]["lenet_gpu_vs_plain"] == 200


def test_parts_are_measured_on_one_thread_and_the_others_are_put_back(timed, monkeypatch):
    seen, before = [], bench.torch.get_num_threads()
    monkeypatch.setattr(bench, "_plain", lambda *_: seen.append(bench.torch.get_num_threads()) or 0.4)
    bench.torch.set_num_threads(2)
    try:
        bench.measure()
        assert bench.torch.get_num_threads() == 2
    finally:
        bench.torch.set_num_threads(before)
    assert set(seen) == {1}


def test_json_ends_in_one_object(timed, capsys):
    assert main(["bench", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(measured) == {"ratios", "machine", "details"}
    assert measured["machine"]["cores"] == 2
    assert main(["bench"]) == 0
    assert "lenet_vs_plain" in capsys.readouterr().out


def test_the_parts_run(monkeypatch):
    """Every real part once, on few images: seconds above zero, no judgement of how many."""
    digits = bench._with_few(bench.data.load("mnist5k", validation=500), 50)
    real = bench.Recipe.but
    monkeypatch.setattr(bench.Recipe, "but", lambda self, **changes: real(self, **{**changes, "iterations": 4, "evaluate_every": 2}))
    assert bench._iteration(digits, 0.036) > 0
    assert bench._ours(digits) > 0
    assert bench._products_alone() > 0
    assert bench._plain(digits) > 0
    few = bench._as_large_as_a_fifth_of_cifar()
    tiny = bench.Data(few.name, *(bench.Split(split.images[:60], split.labels[:60]) for split in (few.train, few.validation, few.test)))
    monkeypatch.setattr(bench, "FIFTH", 2)
    for recipe in (bench.conv2, bench.resnet18):
        assert bench._ours_conv(tiny, recipe) > 0
    assert bench._plain_conv(tiny) > 0
    assert bench._plain_resnet(tiny) > 0
    monkeypatch.setattr(bench.training, "THREADS", 1)
    monkeypatch.setattr(bench, "ProcessPoolExecutor", lambda processes, context: ThreadPoolExecutor(processes))
    assert bench._side_by_side(1, 1, 2) > 0


def test_a_store_of_made_up_trainings_is_planned_and_looked_up(monkeypatch):
    figures = bench.book.figures(["fig04"])
    monkeypatch.setattr(bench.book, "figures", lambda: figures)
    said = bench.growth(sizes=(50, 400)).splitlines()
    assert len(said) == 3
    assert said[0].startswith("planning all figures at paper scale, ")
    assert [line.split(" trainings: ")[0].split()[-1] for line in said[1:]] == ["50", "400"]
