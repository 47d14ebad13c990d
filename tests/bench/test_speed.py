import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lottery_nb.__main__ import main
from lottery_nb.bench import growth, speed

SECONDS = {
    "plain_lenet": 0.4,
    "ours": 0.1,
    "image_by_image": 3e-3,
    "_products_alone": 4e-4,
    "plain_conv": 3.0,
    "plain_resnet": 5.0,
}


@pytest.fixture
def timed(monkeypatch):
    """Parts that take what they are told to."""
    monkeypatch.setattr(speed, "as_large_as_mnist", lambda: None)
    monkeypatch.setattr(speed, "as_large_as_a_fifth_of_cifar", lambda: None)
    monkeypatch.setattr(speed, "_with_few", lambda digits, n: None)
    monkeypatch.setattr(
        speed,
        "ours_conv",
        lambda few, recipe: (
            2.0 if recipe.network == "resnet18" else {"fp32": 1.5, "bf16": 1.0}[recipe.precision]
        ),
    )
    for name, seconds in SECONDS.items():
        monkeypatch.setattr(speed, name, lambda *_, seconds=seconds: seconds)
    monkeypatch.setattr(
        speed,
        "_side_by_side",
        lambda processes, threads, trials: 6e-4 / processes if threads == 1 else 4.5e-4,
    )
    monkeypatch.setattr(speed.executors, "processors", lambda: 2)
    monkeypatch.setattr(
        speed, "_iteration", lambda digits, density: 6e-4 * (0.5 if density == 0.036 else 1)
    )


def test_ratios_are_those_of_the_parts(timed):
    measured = speed.measure()
    assert measured["ratios"] == {
        "lenet_processes_vs_threads": 1.5,
        "lenet_vs_plain": 4.0,
        "lenet_vs_image_by_image": 5.0,
        "lenet_limit": 1.5,
        "lenet_sparse_vs_dense": 0.5,
        "conv2_vs_plain_fp32": 2.0,
        "conv2_vs_plain_laptop": 3.0,
        "resnet18_vs_plain_laptop": 2.5,
    }
    assert (
        set(measured["ratios"]) | {"lenet_gpu_vs_plain"}
        == set(speed.TARGETS)
        == set(speed.EXPLAINED)
    )


def test_a_gpu_is_measured_where_there_is_one(timed, monkeypatch):
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        speed,
        "ours",
        lambda digits, device="cpu", trials=5: {("cpu", 5): 0.1, ("cuda", 100): 0.002}[
            device, trials
        ],
    )
    assert speed.measure()["ratios"]["lenet_gpu_vs_plain"] == 200


def test_parts_are_measured_on_one_thread_and_the_others_are_put_back(timed, monkeypatch):
    seen, before = [], speed.torch.get_num_threads()
    monkeypatch.setattr(
        speed, "plain_lenet", lambda *_: seen.append(speed.torch.get_num_threads()) or 0.4
    )
    speed.torch.set_num_threads(2)
    try:
        speed.measure()
        assert speed.torch.get_num_threads() == 2
    finally:
        speed.torch.set_num_threads(before)
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
    digits = speed._with_few(speed.data.load("mnist5k", validation=500), 50)
    real = speed.Recipe.but
    monkeypatch.setattr(
        speed.Recipe,
        "but",
        lambda self, **changes: real(self, **{**changes, "iterations": 4, "evaluate_every": 2}),
    )
    assert speed._iteration(digits, 0.036) > 0
    assert speed.ours(digits) > 0
    assert speed._products_alone() > 0
    assert speed.plain_lenet(digits) > 0
    assert speed.image_by_image(digits, 3) > 0
    few = speed.as_large_as_a_fifth_of_cifar()
    tiny = speed.Data(
        few.name,
        *(
            speed.Split(split.images[:60], split.labels[:60])
            for split in (few.train, few.validation, few.test)
        ),
    )
    monkeypatch.setattr(speed, "FIFTH", 2)
    for recipe in (speed.conv2, speed.resnet18):
        assert speed.ours_conv(tiny, recipe) > 0
    assert speed.plain_conv(tiny, 2) > 0
    assert speed.plain_resnet(tiny, 2) > 0
    monkeypatch.setattr(speed.training, "THREADS", 1)
    monkeypatch.setattr(
        speed, "ProcessPoolExecutor", lambda processes, context: ThreadPoolExecutor(processes)
    )
    assert speed._side_by_side(1, 1, 2) > 0


def test_a_store_of_made_up_trainings_is_planned_and_looked_up(monkeypatch):
    figures = growth.notebooks.named(["fig04"])
    monkeypatch.setattr(growth.notebooks, "figures", lambda: figures)
    said = growth.growth(sizes=(50, 400)).splitlines()
    assert len(said) == 3
    assert said[0].startswith("planning all figures at paper scale, ")
    assert [line.split(" trainings: ")[0].split()[-1] for line in said[1:]] == ["50", "400"]
