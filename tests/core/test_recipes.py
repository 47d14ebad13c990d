from dataclasses import fields

import pytest

from lottery_nb import LotteryError, Recipe, conv2, lenet, resnet18, vgg19
from lottery_nb.core.scales import SCALES
from lottery_nb.runs.plans import needs_of


def test_keys_stay_as_they_are():
    """A changed key orphans every training made so far: change RESULTS_VERSION instead, and mean
    it."""
    ticket = lenet.iterative().nodes("laptop")[5 * 7 + 1]
    reinit = lenet.one_shot().reinitialised(3).nodes("paper")[-1]
    assert ticket.key == "lenet-mnist-iterative-winning-ticket-t1-r07-b38184cb4084"
    assert reinit.key == "lenet-mnist-one-shot-random-reinit-t4-r39-d2-08abc2f463ae"


def test_defaults_stay_as_they_are():
    """Keys leave defaults out, so a default may never change its value."""
    required = ("network", "data", "iterations")
    defaults = {f.name: f.default for f in fields(Recipe) if f.init and f.name not in required}
    assert defaults == {
        "sizes": (300, 100), "width": 1.0, "scaling": "unit", "dropout": 0.0, "precision": "fp32",
        "initialisation": "glorot", "init_std": 0.0, "optimiser": "adam", "learning_rate": 1.2e-3,
        "momentum": 0.0, "adam_betas": (0.9, 0.999), "adam_eps": 1e-8, "batch": 60,
        "evaluate_every": 100, "validation": 5000, "split_seed": 0, "prune_fc": 0.2,
        "prune_output": 0.1, "prune_conv": 0.1, "pruned": "all", "one_shot_step": 0.025,
        "rounds": 28, "trials": 5, "draws": 3, "one_shot_every": 1, "effort": "main",
        "augment": False, "checkpoints": (), "milestones": (), "scope": "layerwise", "warmup": 0,
        "weight_decay": 0.0, "criterion": "magnitude", "rewind": 0,
    }  # fmt: skip


def test_a_key_says_what_decides_a_result_and_nothing_else():
    def key(recipe):
        return recipe.iterative().nodes("paper", 1)[1].key

    assert key(lenet) == key(lenet.but(rounds=5, trials=9, draws=1)) == key(lenet.but(batch=60))
    changes = [
        {"learning_rate": 0.002},
        {"sizes": (300, 99)},
        {"batch": 61},
        {"iterations": 49_999},
        {},
    ]
    assert len({key(lenet.but(**change)) for change in changes}) == 5


def test_lines_share_the_unpruned_network():
    iterative, one_shot = (
        line.nodes("paper", 1)[0].key for line in (lenet.iterative(), lenet.one_shot())
    )
    assert iterative == one_shot


def test_parents():
    ticket, shot = lenet.iterative().nodes("paper", 1)[5], lenet.one_shot().nodes("paper", 1)[5]
    reinit = lenet.iterative().reinitialised().nodes("paper", 1)[4]
    assert (ticket.parent.round, ticket.origin.round, shot.parent.round) == (4, 0, 0)
    assert reinit.round == 5
    assert reinit.parent == ticket.parent, "a reinit has its ticket's mask"
    assert (ticket.origin.parent, ticket.origin.origin) == (None, None)
    assert reinit.origin is None, "its weights are its own"


def test_scales_shrink_what_they_say():
    laptop = lenet.at("laptop")
    assert (laptop.data, laptop.iterations, laptop.rounds, laptop.trials) == (
        "mnist",
        12_000,
        20,
        5,
    )
    assert lenet.iterative().what_shrank("laptop") == [
        "12,000 of 50,000 iterations",
        "20 of 28 rounds",
    ]
    assert lenet.one_shot().reinitialised(3).what_shrank("laptop", trials=(3, 3)) == [
        "12,000 of 50,000 iterations",
        "3 of 5 trials",
        "13 of 39 one-shot densities",
        "1 of 3 reinitialisations a ticket",
    ]
    assert lenet.iterative().reinitialised(3).what_shrank("paper") == []
    assert lenet.at("paper") == lenet
    assert lenet.but(trials=2).at("laptop").trials == 2, "a scale is an upper limit"
    assert len(lenet.one_shot().nodes("laptop", 1)) == 14


def test_scales_leave_alone_what_is_chosen():
    assert conv2.but(precision="fp32", width=0.5).at("laptop").precision == "fp32"
    assert conv2.sweep(width=0.5).at("laptop").width == 0.5
    assert lenet.but(data="mnist").at("smoke").data == "mnist"
    assert conv2.but(iterations=10_000).at("laptop").iterations == 1_500


def test_a_scale_leaves_alone_what_is_chosen_though_its_value_is_the_default():
    """Whichever of two such lines is asked first."""
    given, chosen = conv2.iterative(), conv2.but(width=1.0).iterative()
    assert given.nodes("smoke", 1)[0].recipe.width == 0.125
    assert chosen.nodes("smoke", 1)[0].recipe.width == 1
    assert given.nodes("paper", 1) == chosen.nodes("paper", 1)


def test_rewinding_shares_the_dense_network_and_scales_with_the_training():
    line = lenet.but(rewind=500).iterative()
    dense, first, second = line.nodes("laptop", 1)[:3]
    assert dense.key == lenet.iterative().nodes("laptop", 1)[0].key
    assert first.parent.key == dense.key
    assert second.parent.key == first.key
    assert (first.recipe.rewind, first.origin.recipe.iterations) == (120, 120)
    assert first.origin.recipe.evaluate_every == 100
    assert lenet.but(rewind=500).iterative().nodes("smoke", 1)[1].recipe.rewind == 1
    reinit = line.reinitialised().nodes("laptop", 1)[0]
    assert (reinit.origin, reinit.parent.key) == (None, dense.key)


def test_a_short_training_is_still_looked_at():
    assert conv2.but(iterations=5_000).at("smoke").evaluate_every == 3


def test_rounds_beyond_a_scale_are_left_out():
    assert [node.round for node in lenet.iterative().at_rounds(0, 7, 18).nodes("smoke", 1)] == [
        0,
        7,
    ]


def test_global_pruning_needs_convolutions():
    for recipe in (lenet, conv2):
        with pytest.raises(
            LotteryError,
            match="global pruning takes the smallest weights of all convolutions: "
            "choose pruned='conv'",
        ):
            recipe.but(scope="global")
    assert conv2.but(scope="global", pruned="conv").remaining(1) == conv2.weights - 3859
    with pytest.raises(
        LotteryError,
        match="100 rounds are too many: the last would prune none of the 3,202 weights left",
    ):
        resnet18.but(rounds=100).iterative().nodes("paper", 1)
    with pytest.raises(LotteryError, match="what a training decides"):
        resnet18.survivors(3)


LADDERS = {  # percent of the weights that the paper prints
    resnet18: {2: 64.4, 4: 41.7, 6: 27.1, 8: 17.8, 10: 11.8, 12: 8.0, 14: 5.5},
    vgg19: {4: 41.0, 8: 16.8, 12: 6.9, 16: 2.8, 20: 1.2, 24: 0.5, 28: 0.2, 32: 0.1},
}


def test_deep_networks_have_the_papers_weights_and_ladders():
    counts = {
        kind: sum(layer.count for layer in resnet18.layers if layer.kind == kind)
        for kind in ("conv", "shortcut", "output")
    }
    assert counts == {"conv": 267_696, "shortcut": 2_560, "output": 640}
    assert (resnet18.weights, vgg19.weights) == (270_896, 20_024_000)
    assert [layer.count for layer in vgg19.layers[:2]] == [1_728, 36_864]
    for recipe, ladder in LADDERS.items():
        assert {r: round(100 * recipe.remaining(r) / recipe.weights, 1) for r in ladder} == ladder


def test_learning_rates_at_the_corners_of_the_schedules():
    def rates(recipe, *iterations):
        return pytest.approx([recipe.rate_at(i) for i in iterations])

    assert rates(resnet18, 0, 19_999, 20_000, 24_999, 25_000, 29_999) == [
        0.1,
        0.1,
        0.01,
        0.01,
        0.001,
        0.001,
    ]
    assert rates(vgg19, 56_239, 56_240, 84_359, 84_360) == [0.1, 0.01, 0.01, 0.001]
    warmed = resnet18.but(learning_rate=0.03, warmup=20_000)
    assert rates(warmed, 0, 1, 10_000, 19_999, 20_000) == [0, 0.0000015, 0.015, 0.0299985, 0.003]
    assert rates(vgg19.but(warmup=10_000), 5_000, 10_000) == [0.05, 0.1]
    assert {lenet.rate_at(i) for i in (0, 49_999)} == {lenet.learning_rate}


def test_schedules_shrink_with_the_run():
    small = resnet18.but(learning_rate=0.03, warmup=20_000).at("laptop")
    assert (small.iterations, small.warmup, small.milestones, small.checkpoints) == (
        1500,
        1000,
        (1000, 1250),
        (500, 1000),
    )
    for recipe in (resnet18, vgg19):
        for scale in SCALES:
            assert all(
                mark % recipe.at(scale).evaluate_every == 0 for mark in recipe.at(scale).checkpoints
            )


def test_more_rounds_than_weights():
    with pytest.raises(
        LotteryError,
        match=r"28 rounds are too many for sizes \(25, 9\): after .* of them fc2 is down to "
        r"2 weights, .* rounds=.* at most",
    ):
        lenet.but(sizes=(25, 9)).iterative().nodes("paper")
    assert lenet.but(sizes=(25, 9)).iterative().nodes("smoke", 1), (
        "a scale with fewer rounds has enough"
    )


def test_every_control_of_a_figure_has_a_key_of_its_own():
    tickets = lenet.iterative()
    lines = [
        tickets,
        tickets.reinitialised(),
        tickets.reinitialised_from_ticket(),
        tickets.with_noise(1),
        tickets.with_noise(2),
        lenet.random_sparse(),
        lenet.pruned_before_training(),
        lenet.continued(),
        lenet.one_shot(),
    ]
    assert len({line.at_rounds(5).nodes("paper", 1)[0].key for line in lines}) == len(lines)
    assert lenet.sweep().iterative().nodes("laptop")[3].key == tickets.nodes("laptop", 1)[3].key, (
        "a sweep shares the default recipe's trainings"
    )


def test_less_effort_shrinks_further():
    assert (
        lenet.but(effort="control").at("laptop").trials,
        lenet.but(effort="control").at("paper").trials,
    ) == (3, 5)
    sweep = lenet.sweep(learning_rate=0.1)
    assert [(sweep.at(scale).rounds, sweep.at(scale).trials) for scale in SCALES] == [
        (3, 1),
        (15, 1),
        (28, 3),
    ]


def test_what_lines_show():
    tickets = lenet.iterative()
    assert not needs_of(tickets.shows)
    assert needs_of(tickets.with_curves().shows)
    assert needs_of(tickets.reinitialised().stopped_on_test().shows)
    plan = tickets.by_layer("initial weights", "one", "two", "three")
    assert [line.shows for line in plan.values()] == [
        ("initial weights, fc1",),
        ("initial weights, fc2",),
        ("initial weights, output",),
    ]
    with pytest.raises(ValueError, match="zip"):
        tickets.by_layer("initial weights", "one", "two")


def test_whole_numbers_and_decimals_are_one_recipe_with_one_key():
    one, other = (
        lenet.but(optimiser="sgd", learning_rate=1),
        lenet.but(optimiser="sgd", learning_rate=1.0),
    )
    assert one == other
    assert one.iterative().nodes("paper")[3].key == other.iterative().nodes("paper")[3].key
