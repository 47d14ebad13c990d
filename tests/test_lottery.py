"""What the paper's algorithm promises, on three rounds of a few iterations."""

import pytest
import torch

from lottery_nb import Recipe, data, masks, plans, training
from lottery_nb.store import Store

tiny = Recipe(network="lenet", data="mnist5k", sizes=(20, 10), iterations=4, evaluate_every=2, validation=500, rounds=3, trials=2, draws=2)


def trained_of(line, store):
    return {(node.round, node.trial, node.draw): plans._trained(store, node) for node in line.nodes("paper")}


@pytest.fixture
def store():
    plan = {"tickets": tiny.iterative(), "reinit": tiny.iterative().reinitialised(2), "one-shot": tiny.one_shot()}
    store = Store()
    plans.train_missing(plans.wanted_nodes([plan], "paper"), store)
    return store


def test_each_round_starts_from_the_first_rounds_weights_under_its_mask(store, monkeypatch):
    made = []
    monkeypatch.setattr(training, "train", lambda tickets, *_: made.extend(tickets) or [])
    nodes = tiny.iterative().nodes("paper")
    plans._train_batch([plans.Wanted(node, False) for node in nodes], store, torch.device("cpu"), None)
    first = {node.trial: ticket for node, ticket in zip(nodes, made) if node.round == 0}
    for node, ticket in zip(nodes, made):
        for name, value in ticket.weights.items():
            start = first[node.trial].weights[name]
            assert torch.equal(value, start * ticket.mask[name] if name in ticket.mask else start)


def test_masks_are_nested_counted_and_all_that_lives(store):
    trained = trained_of(tiny.iterative(), store)
    for trial in range(2):
        for r in range(1, 4):
            before, after = trained[r - 1, trial, 0], trained[r, trial, 0]
            for name, mask in after.mask.items():
                rate = 0.1 if name == "output.weight" else 0.2
                survivors = int(before.mask[name].sum())
                assert not (mask & ~before.mask[name]).any()
                assert int(mask.sum()) == survivors - round(rate * survivors)
                assert not after.final[name][~mask].any(), "a pruned weight moved"
                assert after.final[name][mask].all()
                gone = before.mask[name] & ~mask
                assert before.final[name][gone].abs().max() <= before.final[name][mask].abs().min()


def test_one_shot_prunes_the_unpruned_network_once(store):
    trained = trained_of(tiny.one_shot(), store)
    dense = trained[0, 1, 0]
    for r in (1, 20, 39):
        for name, mask in trained[r, 1, 0].mask.items():
            rate = 0.025 * r / (2 if name == "output.weight" else 1)
            assert int(mask.sum()) == mask.numel() - round(rate * mask.numel())
            assert dense.final[name][~mask].abs().max() <= dense.final[name][mask].abs().min()


def test_a_reinit_has_its_tickets_mask_and_other_weights_each_draw(store):
    from lottery_nb import tickets

    node = tiny.iterative().nodes("paper")[-1]
    parents = [plans._trained(store, other) for other in (node.parent, node.origin)]
    ticket = tickets.make(node, *parents)
    draws = [tickets.make(reinit, *parents) for reinit in tiny.iterative().reinitialised(2).nodes("paper")[-2:]]
    for draw in draws:
        assert all(torch.equal(draw.mask[name], ticket.mask[name]) for name in ticket.mask)
        assert masks.density(draw.mask) == masks.density(ticket.mask)
        assert not any(torch.equal(draw.weights[name], ticket.weights[name]) for name in ticket.mask)
    assert not torch.equal(draws[0].weights["fc1.weight"], draws[1].weights["fc1.weight"])


@pytest.mark.parametrize("changes", [{}, {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9}])
def test_pruned_weights_stay_zero_and_a_batch_changes_nothing(changes, store):
    recipe = tiny.but(iterations=30, evaluate_every=10, **changes)
    from lottery_nb import tickets

    nodes = [node for node in tiny.iterative().nodes("paper") if node.round == 2]
    made = [tickets.make(node, plans._trained(store, node.parent), plans._trained(store, node.origin)) for node in nodes]
    digits = data.load("mnist5k", validation=500)
    together = training.train(made, digits, recipe, curves=True)
    alone = [training.train([ticket], digits, recipe, curves=True)[0] for ticket in made]
    for ticket, one, other in zip(made, together, alone):
        assert one.early_stop == other.early_stop
        assert one.iterations.tolist() == [10, 20, 30]
        torch.testing.assert_close(one.val_loss, other.val_loss, rtol=1e-4, atol=1e-5)
        for name, value in one.weights.items():
            torch.testing.assert_close(value, other.weights[name], rtol=1e-4, atol=1e-5)
            if name in ticket.mask:
                assert not value[~ticket.mask[name]].any()
                assert not torch.equal(value, ticket.weights[name])


def test_early_stop_is_the_smallest_validation_loss_and_its_accuracies_are_measured_there(monkeypatch):
    from lottery_nb import tickets

    recipe = tiny.but(iterations=300, evaluate_every=20, learning_rate=0.02)
    digits = data.load("mnist5k", validation=500)
    ticket = tickets.make(recipe.iterative().nodes("paper", 1)[0])
    record = training.train([ticket], digits, recipe, curves=True)[0]
    stop = record.val_loss.argmin()
    assert 0 < stop < len(record.iterations) - 1, "this training was chosen to overfit"
    assert record.early_stop == record.iterations[stop]
    assert record.measures["val_loss_at_early_stop"] == record.val_loss[stop]
    assert record.measures["test_accuracy_at_early_stop"] == record.test_accuracy[stop]
    assert record.measures["test_accuracy_at_end"] == record.test_accuracy[-1]
    assert record.measures["train_loss_at_end"] < record.measures["train_loss_at_early_stop"]


def test_batches_see_every_image_once_an_epoch():
    batches = training._batches(50, (2, 10), ("order", 1))
    stream = torch.cat([next(batches).flatten() for _ in range(5)])  # two epochs
    assert sorted(stream[:50].tolist()) == sorted(stream[50:].tolist()) == list(range(50))
    assert stream[:50].tolist() != stream[50:].tolist()
