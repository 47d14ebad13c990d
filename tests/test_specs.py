from dataclasses import fields

import pytest

from lottery_nb import LotteryError, Recipe, lenet
from lottery_nb.specs import SCALES


def test_keys_stay_as_they_are():
    """A changed key orphans every training made so far: change RESULTS_VERSION instead, and mean it."""
    ticket = lenet.iterative().nodes("laptop")[5 * 7 + 1]
    reinit = lenet.one_shot().reinitialised(3).nodes("paper")[-1]
    assert ticket.key == "lenet-mnist-iterative-winning-ticket-t1-r07-b38184cb4084"
    assert reinit.key == "lenet-mnist-one-shot-random-reinit-t4-r39-d2-08abc2f463ae"


def test_defaults_stay_as_they_are():
    """Keys leave defaults out, so a default may never change its value."""
    assert {f.name: f.default for f in fields(Recipe) if f.name not in ("network", "data", "iterations")} == {
        "sizes": (300, 100), "width": 1.0, "scaling": "unit", "dropout": 0.0, "precision": "fp32", "initialisation": "glorot", "init_std": 0.0,
        "optimiser": "adam", "learning_rate": 1.2e-3, "momentum": 0.0,
        "adam_betas": (0.9, 0.999), "adam_eps": 1e-8, "batch": 60, "evaluate_every": 100, "validation": 5000, "split_seed": 0, "prune_fc": 0.2,
        "prune_output": 0.1, "prune_conv": 0.1, "pruned": "all", "one_shot_step": 0.025, "rounds": 28, "trials": 5, "draws": 3, "one_shot_every": 1,
        "effort": "main",
    }  # fmt: skip


def test_a_key_says_what_decides_a_result_and_nothing_else():
    def key(recipe):
        return recipe.iterative().nodes("paper", 1)[1].key

    assert key(lenet) == key(lenet.but(rounds=5, trials=9, draws=1))
    changes = [{"learning_rate": 0.002}, {"sizes": (300, 99)}, {"batch": 61}, {"iterations": 49_999}, {}]
    assert len({key(lenet.but(**change)) for change in changes}) == 5


def test_lines_share_the_unpruned_network():
    iterative, one_shot = (line.nodes("paper", 1)[0].key for line in (lenet.iterative(), lenet.one_shot()))
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
    assert (laptop.data, laptop.iterations, laptop.rounds, laptop.trials) == ("mnist", 12_000, 20, 5)
    assert lenet.iterative().what_shrank("laptop") == ["12,000 of 50,000 iterations", "20 of 28 rounds"]
    assert lenet.one_shot().reinitialised(3).what_shrank("laptop", trials=3) == [
        "12,000 of 50,000 iterations", "3 of 5 trials", "13 of 39 one-shot densities", "1 of 3 reinitialisations a ticket",
    ]  # fmt: skip
    assert lenet.iterative().reinitialised(3).what_shrank("paper") == []
    assert lenet.at("paper") == lenet
    assert lenet.but(trials=2).at("laptop").trials == 2, "a scale is an upper limit"
    assert len(lenet.one_shot().nodes("laptop", 1)) == 14


def test_rounds_beyond_a_scale_are_left_out():
    assert [node.round for node in lenet.iterative().at_rounds(0, 7, 18).nodes("smoke", 1)] == [0, 7]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0}, "learning_rate is 0: it must be a number above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"prune_fc": 1.0}, "between 0 and 1"),
        ({"prune_output": 0}, "between 0 and 1"),
        ({"sizes": (300, 0)}, "positive whole number"),
        ({"sizes": ()}, "positive whole number"),
        ({"iterations": 0}, "iterations is 0"),
        ({"trials": True}, "trials is True"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"optimiser": "adamw"}, "choose adam or sgd"),
        ({"momentum": 0.9}, "momentum belongs to sgd"),
        ({"evaluate_every": 60_000}, "evaluate_every is 60000"),
        ({"one_shot_step": 0}, "one_shot_step"),
        ({"learning_rate": -0.1}, "above 0"),
        ({"learning_rate": float("inf")}, "above 0"),
        ({"prune_fc": -0.2}, "between 0 and 1"),
        ({"sizes": (300, 2.5)}, "positive whole number"),
        ({"initialisation": "uniform"}, "choose glorot or gaussian"),
        ({"initialisation": "gaussian"}, "init_std is 0.0: gaussian needs a deviation above 0"),
        ({"init_std": 0.1}, "glorot has none to choose"),
        ({"effort": "none"}, "choose main, control, sweep"),
        ({"precision": "bf16"}, "Lenet has no such switch"),
        ({"dropout": 0.5}, "Lenet has no such switch"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"pruned": "conv"}, "Lenet has no convolution"),
        ({"pruned": "bias"}, "choose all, conv, fc"),
        ({"width": 0}, "width is 0"),
        ({"scaling": "log"}, "choose unit, raw, standardised"),
        ({"prune_conv": 1}, "between 0 and 1"),
        ({"learning_rat": 0.1}, "a recipe has no learning_rat"),
    ],
)
def test_bad_recipes_stop_when_they_are_written(changes, said):
    with pytest.raises(LotteryError, match=said):
        lenet.but(**changes)


@pytest.mark.parametrize("trials", [0, -1, "three", 2.0, True])
def test_bad_trials(trials):
    with pytest.raises(LotteryError, match="whole number of 1 or more"):
        lenet.iterative().nodes("smoke", trials)


def test_unknown_scale():
    with pytest.raises(LotteryError, match="no scale 'desktop': choose smoke, laptop, paper"):
        lenet.at("desktop")
    assert list(SCALES) == ["smoke", "laptop", "paper"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: lenet.iterative().reinitialised(0),
        lambda: lenet.iterative().at_rounds(),
        lambda: lenet.iterative().at_rounds(-1),
        lambda: lenet.iterative().with_noise(-1),
        lambda: lenet.iterative().with_noise(0),
        lambda: lenet.iterative().with_noise(float("nan")),
        lambda: lenet.random_sparse(0),
        lambda: lenet.iterative().distribution("colours", "fc1"),
        lambda: lenet.iterative().distribution("growth in the ticket", "fc9"),
    ],
)
def test_bad_lines(make):
    with pytest.raises(LotteryError):
        make()


def test_more_rounds_than_weights():
    with pytest.raises(LotteryError, match=r"28 rounds are too many for sizes \(25, 9\): after .* of them fc2 is down to 2 weights, .* rounds=.* at most"):
        lenet.but(sizes=(25, 9)).iterative().nodes("paper")
    assert lenet.but(sizes=(25, 9)).iterative().nodes("smoke", 1), "a scale with fewer rounds has enough"


def test_every_control_of_a_figure_has_a_key_of_its_own():
    tickets = lenet.iterative()
    lines = [
        tickets, tickets.reinitialised(), tickets.reinitialised_from_ticket(), tickets.with_noise(1), tickets.with_noise(2), lenet.random_sparse(),
        lenet.pruned_before_training(), lenet.continued(), lenet.one_shot(),
    ]  # fmt: skip
    assert len({line.at_rounds(5).nodes("paper", 1)[0].key for line in lines}) == len(lines)
    assert lenet.sweep().iterative().nodes("laptop")[3].key == tickets.nodes("laptop", 1)[3].key, "a sweep shares the default recipe's trainings"


def test_less_effort_shrinks_further():
    assert (lenet.but(effort="control").at("laptop").trials, lenet.but(effort="control").at("paper").trials) == (3, 5)
    sweep = lenet.sweep(learning_rate=0.1)
    assert [(sweep.at(scale).rounds, sweep.at(scale).trials) for scale in SCALES] == [(3, 1), (15, 1), (28, 3)]


def test_what_lines_show():
    tickets = lenet.iterative()
    assert not tickets.needs_test_looks
    assert tickets.with_curves().needs_test_looks
    assert tickets.reinitialised().stopped_on_test().needs_test_looks
    plan = tickets.by_layer("initial weights", "one", "two", "three")
    assert [line.shows for line in plan.values()] == [("initial weights, fc1",), ("initial weights, fc2",), ("initial weights, output",)]
    with pytest.raises(ValueError, match="zip"):
        tickets.by_layer("initial weights", "one", "two")
