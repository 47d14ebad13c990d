"""What the paper's algorithm promises, on three rounds of a few iterations."""

import pytest
import torch
from shared import tiny, trained_store

from lottery_nb import LotteryError, lenet, resnet18
from lottery_nb.__main__ import main
from lottery_nb.analysis import tables
from lottery_nb.core import data, masks, training
from lottery_nb.core.seeds import generator
from lottery_nb.runs import batch, graph, runner, ticket_files
from lottery_nb.runs.plans import Request, requests_of
from lottery_nb.runs.store import Store


def left_by(store, node):
    return batch.outputs_of(store.arrays(node.key))


def trained_of(line, store):
    return {
        (node.round, node.trial, node.draw): left_by(store, node) for node in line.nodes("paper")
    }


@pytest.fixture
def store():
    tickets = tiny.iterative()
    return trained_store(None, tickets, tickets.reinitialised(2), tiny.one_shot())


def test_each_round_starts_from_the_first_rounds_weights_under_its_mask(store, monkeypatch):
    made = []
    monkeypatch.setattr(training, "train", lambda tickets, *_: made.extend(tickets) or [])
    nodes = tiny.iterative().nodes("paper")
    ancestries = [
        graph.Ancestry(*(other and store.arrays(other.key) for other in (node.parent, node.origin)))
        for node in nodes
    ]
    batch.train_batch(
        [Request(node) for node in nodes],
        ancestries,
        torch.device("cpu"),
        "",
        lambda steps: None,
    )
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
    from lottery_nb.core import tickets

    node = tiny.iterative().nodes("paper")[-1]
    parents = [left_by(store, other) for other in (node.parent, node.origin)]
    ticket = tickets.make(node, *parents)
    draws = [
        tickets.make(reinit, *parents)
        for reinit in tiny.iterative().reinitialised(2).nodes("paper")[-2:]
    ]
    for draw in draws:
        assert all(torch.equal(draw.mask[name], ticket.mask[name]) for name in ticket.mask)
        assert masks.density(draw.mask) == masks.density(ticket.mask)
        assert not any(
            torch.equal(draw.weights[name], ticket.weights[name]) for name in ticket.mask
        )
    assert not torch.equal(draws[0].weights["fc1.weight"], draws[1].weights["fc1.weight"])


@pytest.mark.parametrize(
    "changes", [{}, {"optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.9}]
)
def test_pruned_weights_stay_zero_and_a_batch_changes_nothing(changes, store):
    recipe = tiny.but(iterations=30, evaluate_every=10, **changes)
    from lottery_nb.core import tickets

    nodes = [node for node in tiny.iterative().nodes("paper") if node.round == 2]
    made = [
        tickets.make(node, left_by(store, node.parent), left_by(store, node.origin))
        for node in nodes
    ]
    digits = data.load("mnist5k", validation=500)
    together = training.train(made, digits, recipe, test_curves=True)
    alone = [training.train([ticket], digits, recipe, test_curves=True)[0] for ticket in made]
    for ticket, one, other in zip(made, together, alone):
        assert one.early_stop == other.early_stop
        assert one.curves["iterations"].tolist() == [10, 20, 30]
        assert one.curves["val_loss"].tolist() == other.curves["val_loss"].tolist()
        assert one.measures == other.measures
        for name, value in one.weights.items():
            assert torch.equal(value, other.weights[name])
            if name in ticket.mask:
                assert not value[~ticket.mask[name]].any()
                assert not torch.equal(value, ticket.weights[name])


def test_early_stop_is_the_smallest_validation_loss_and_its_accuracies_are_measured_there(
    monkeypatch,
):
    from lottery_nb.core import tickets

    recipe = tiny.but(iterations=300, evaluate_every=20, learning_rate=0.02)
    digits = data.load("mnist5k", validation=500)
    ticket = tickets.make(recipe.iterative().nodes("paper", 1)[0])
    record = training.train([ticket], digits, recipe, test_curves=True)[0]
    curves = record.curves
    stop, on_test = curves["val_loss"].argmin(), curves["test_loss"].argmin()
    assert 0 < stop < len(curves["iterations"]) - 1, "this training was chosen to overfit"
    assert record.early_stop == curves["iterations"][stop]
    assert record.measures["val_loss_at_early_stop"] == curves["val_loss"][stop]
    assert record.measures["test_accuracy_at_early_stop"] == curves["test_accuracy"][stop]
    assert record.measures["test_accuracy_at_end"] == curves["test_accuracy"][-1]
    assert record.measures["early_stop_iteration_test"] == curves["iterations"][on_test]
    assert record.measures["test_accuracy_at_early_stop_test"] == curves["test_accuracy"][on_test]
    assert record.measures["diverged"] == 0
    assert record.measures["train_loss_at_end"] < record.measures["train_loss_at_early_stop"]


def test_a_network_that_only_gets_worse_stops_at_iteration_0():
    """As some of the paper's do, in Figures 5 and 35."""
    from lottery_nb.core import tickets

    recipe = tiny.but(optimiser="sgd", learning_rate=1e9)
    digits = data.load("mnist5k", validation=500)
    ticket = tickets.make(recipe.iterative().nodes("paper", 1)[0])
    [record] = training.train([ticket], digits, recipe, test_curves=True)
    assert record.early_stop == record.measures["early_stop_iteration_test"] == 0
    for name in ("val_loss", "val_accuracy", "test_accuracy"):
        assert record.measures[f"{name}_at_early_stop"] == record.measures[f"{name}_at_start"]
    assert record.measures["diverged"] == 1


def test_the_start_is_measured_before_the_first_step():
    from torch.nn import functional as F

    from lottery_nb.core import tickets

    digits = data.load("mnist5k", validation=500)
    ticket = tickets.make(tiny.iterative().nodes("paper", 1)[0])
    measures = training.train([ticket], digits, tiny.but(learning_rate=0.5))[0].measures
    for name, split in (("val", digits.validation), ("test", digits.test)):
        h = split.images.flatten(1)
        for layer in tiny.layers:
            h = F.linear(h, ticket.weights[layer.weight], ticket.weights[layer.bias])
            h = h if layer.kind == "output" else h.relu()
        assert measures[f"{name}_loss_at_start"] == pytest.approx(
            F.cross_entropy(h, split.labels).item(), rel=1e-5
        )
        assert (
            measures[f"{name}_accuracy_at_start"]
            == (h.argmax(1) == split.labels).double().mean().item()
        )
    assert measures["val_loss_at_start"] != pytest.approx(measures["val_loss_at_end"], rel=0.01)


def test_batches_see_every_image_once_an_epoch():
    batches = training._batches(50, (2, 10), ("order", 1))
    stream = torch.cat([next(batches).flatten() for _ in range(5)])  # two epochs
    assert sorted(stream[:50].tolist()) == sorted(stream[50:].tolist()) == list(range(50))
    assert stream[:50].tolist() != stream[50:].tolist()


# --- controls and variants: each keeps its promise ------------------------------------------------


def ticket_of(node, store):
    from lottery_nb.core import tickets

    return tickets.make(
        node, *(left_by(store, other) if other else None for other in (node.parent, node.origin))
    )


def last(line):
    return line.nodes("paper")[-1]


@pytest.fixture
def winner(store):
    return ticket_of(last(tiny.iterative()), store)


def test_random_sparse_keeps_every_layers_count_and_stands_on_nothing(store, winner):
    node = last(tiny.random_sparse(2))
    assert (node.parent, node.origin, node.draw) == (None, None, 1)
    random, other = (
        ticket_of(node, store),
        ticket_of(tiny.random_sparse(2).nodes("paper")[-2], store),
    )
    for name, mask in random.mask.items():
        assert int(mask.sum()) == int(winner.mask[name].sum())
        assert not torch.equal(mask, winner.mask[name])
        assert not torch.equal(mask, other.mask[name])
        assert not random.weights[name][~mask].any()


def test_noise_has_the_stated_deviation_and_the_tickets_mask(store, winner):
    half, three = (
        ticket_of(last(tiny.iterative().with_noise(sigmas)), store) for sigmas in (0.5, 3)
    )
    for layer in tiny.layers[:2]:  # the output layer is too small to measure
        mask = winner.mask[layer.weight]
        for sigmas, noisy in ((0.5, half), (3, three)):
            assert torch.equal(noisy.mask[layer.weight], mask)
            noise = (noisy.weights[layer.weight] - winner.weights[layer.weight])[mask]
            assert noise.std().item() == pytest.approx(
                sigmas * (2 / sum(layer.fans)) ** 0.5, rel=0.15
            )
            assert noise.mean().abs() < noise.std() / 5
    assert torch.equal(half.weights["fc1.bias"], winner.weights["fc1.bias"])
    assert last(tiny.iterative().with_noise(0.5)).key != last(tiny.iterative().with_noise(3)).key


def test_a_reinit_from_the_ticket_draws_from_its_layers_own_initial_weights(store, winner):
    drawn = ticket_of(last(tiny.iterative().reinitialised_from_ticket()), store)
    for name, mask in winner.mask.items():
        assert torch.equal(drawn.mask[name], mask)
        assert set(drawn.weights[name][mask].tolist()) <= set(winner.weights[name][mask].tolist())
        assert not torch.equal(drawn.weights[name], winner.weights[name])


def test_pruning_before_training_looks_only_at_initial_weights(store, winner):
    node = last(tiny.pruned_before_training())
    assert (node.parent, node.origin) == (None, None)
    ticket, initial = ticket_of(node, store), left_by(store, last(tiny.iterative()).origin).initial
    for name, mask in ticket.mask.items():
        assert int(mask.sum()) == int(winner.mask[name].sum())
        assert torch.equal(ticket.weights[name], initial[name] * mask)
        assert initial[name][~mask].abs().max() <= initial[name][mask].abs().min()


def test_continued_training_never_resets_but_its_tickets_do(store):
    line = tiny.continued()
    runner.train_missing(requests_of([{"continued": line}], "paper"), store)
    node = last(line)
    chain = [node.parent, node.parent.parent, node.parent.parent.parent]
    assert [(each.strategy, each.control, each.round) for each in chain] == [
        ("continued", "continued training", 2),
        ("continued", "continued training", 1),
        ("iterative", "winning ticket", 0),
    ]
    for after, before in zip(chain, chain[1:]):
        ticket, left = ticket_of(after, store), left_by(store, before)
        for name, value in ticket.weights.items():  # biases too
            assert torch.equal(
                value,
                left.final[name] * ticket.mask[name] if name in ticket.mask else left.final[name],
            )
    shown, unpruned = ticket_of(node, store), left_by(store, node.origin)
    for name, mask in shown.mask.items():
        assert torch.equal(shown.weights[name], unpruned.initial[name] * mask)
        assert not (mask & ~left_by(store, node.parent).mask[name]).any()
    first = line.nodes("paper")[2]
    assert (first.round, first.strategy) == (1, "iterative"), (
        "the first pruning is the same either way, and trained once"
    )


def test_gaussian_initial_weights_have_one_deviation_in_all_layers():
    from lottery_nb.core import networks

    recipe = lenet.but(initialisation="gaussian", init_std=0.1)
    for layer, value in zip(
        recipe.layers,
        (
            value
            for name, value in networks.initialise(recipe, generator("std")).items()
            if "weight" in name
        ),
    ):
        assert value.std().item() == pytest.approx(0.088, rel=0.05), layer
        assert value.abs().max() <= 0.2


def test_a_training_that_diverges_is_recorded_and_those_after_it_go_on():
    recipe = tiny.but(optimiser="sgd", learning_rate=1e9, iterations=8)
    store = Store()
    runner.train_missing(requests_of([{"hopeless": recipe.iterative()}], "paper"), store)
    records = [store.record(node.key) for node in recipe.iterative().nodes("paper")]
    assert all(record["measures"]["diverged"] == 1 for record in records)
    assert all(record["early_stop"] == 0 for record in records)
    table = tables.run({"hopeless": recipe.iterative()}, scale="paper")
    assert table[table.metric == "diverged"].value.tolist() == [1.0] * 8
    assert (table[table.metric == "test_accuracy_at_early_stop"].value < 0.2).all()


def test_where_a_training_diverges_pruned_weights_are_zero_all_the_same(store):
    recipe = tiny.but(optimiser="sgd", learning_rate=1e30, iterations=8)
    ticket = ticket_of(last(tiny.iterative()), store)
    record = training.train([ticket], data.load("mnist5k", validation=500), recipe)[0]
    assert record.measures["diverged"] == 1 and not record.weights["fc1.weight"].isfinite().all()
    for name, mask in ticket.mask.items():
        assert (record.weights[name][~mask] == 0).all(), "even where a gradient was no number"


def test_a_layer_that_pruning_emptied_has_nothing_to_draw_from(store, winner):
    from lottery_nb.core import tickets

    node, origin = (
        last(tiny.iterative().reinitialised_from_ticket()),
        left_by(store, last(tiny.iterative()).origin),
    )
    emptied = winner.mask | {"fc2.weight": torch.zeros_like(winner.mask["fc2.weight"])}
    ticket = tickets.make(node, origin=origin, pruned=emptied)
    assert not ticket.weights["fc2.weight"].any()
    assert ticket.weights["fc1.weight"].any()


# --- the deep networks' training ------------------------------------------------------------------

deep = resnet18.but(
    data="mnist1k", validation=100, width=0.25, batch=20, iterations=12, evaluate_every=2,
    learning_rate=0.05, warmup=4, milestones=(8, 10), checkpoints=(4, 8), augment=False,
    rounds=2, trials=1,
)  # fmt: skip


@pytest.fixture
def deep_store():
    tickets = deep.iterative()
    return trained_store(None, tickets, tickets.reinitialised(), deep.random_sparse())


@pytest.fixture
def one_thread():
    """As the engine trains: on several, torch's own sums are others, and a few steps make much of
    them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_deep_network_trains_as_in_a_loop_of_torchs_own_parts(one_thread):
    from reference import filled, plain_deep
    from torch.nn import functional as F

    from lottery_nb.core import networks, tickets

    digits = data.load("mnist1k", deep.scaling, deep.validation, deep.split_seed)
    ticket = tickets.make(deep.iterative().nodes("paper")[0])
    record = training.train([ticket], digits, deep)[0]
    reference, learned, statistics = plain_deep(deep)
    filled(reference, learned, statistics, ticket.weights)
    weights, others = (
        [p for name, p in zip(learned, reference.parameters()) if name.endswith("weight") == of]
        for of in (True, False)
    )
    optimiser = torch.optim.SGD(
        [{"params": weights, "weight_decay": 1e-4}, {"params": others}], lr=0.05, momentum=0.9
    )
    images = networks.build(deep).prepare(digits.train.images).permute(0, 3, 1, 2)
    tests = networks.build(deep).prepare(digits.test.images).permute(0, 3, 1, 2)
    rates = [0, 0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005]
    batches = training._batches(len(images), (2, 20), ticket.order)
    for i, chosen in enumerate(chosen for _ in range(6) for chosen in next(batches)):
        for group in optimiser.param_groups:
            group["lr"] = rates[i]
        optimiser.zero_grad()
        F.cross_entropy(reference.train()(images[chosen]), digits.train.labels[chosen]).backward()
        optimiser.step()
        if i + 1 in (4, 8, 12):
            accuracy = (
                (reference.eval()(tests).argmax(1) == digits.test.labels).double().mean().item()
            )
            moment = {4: "checkpoint_1", 8: "checkpoint_2", 12: "end"}[i + 1]
            assert record.measures[f"test_accuracy_at_{moment}"] == pytest.approx(
                accuracy, abs=0.011
            ), "one image of a hundred"
    for name, theirs in zip(
        learned + statistics,
        [*reference.parameters(), *(b for b in reference.buffers() if b.ndim)],
        strict=True,
    ):
        torch.testing.assert_close(record.weights[name], theirs, rtol=1e-2, atol=1e-3, msg=name)
    assert record.measures["val_accuracy_at_checkpoint_2"] == record.curves["val_accuracy"][3]


def test_deep_tickets_are_pruned_globally_and_start_afresh(deep_store):
    trained = trained_of(deep.iterative(), deep_store)
    for r in (1, 2):
        before, after = trained[r - 1, 0, 0], trained[r, 0, 0]
        names = [layer.weight for layer in deep.layers if layer.kind == "conv"]
        survivors, left = (
            sum(int(each.mask[name].sum()) for name in names) for each in (before, after)
        )
        assert left == survivors - round(0.2 * survivors)
        smallest = min(
            before.final[name][after.mask[name]].abs().min()
            for name in names
            if after.mask[name].any()
        )
        assert all(
            before.final[name][before.mask[name] & ~after.mask[name]].abs().max() <= smallest
            for name in names
            if (before.mask[name] & ~after.mask[name]).any()
        )
        assert all(mask.all() for name, mask in after.mask.items() if name not in names), (
            "shortcuts and the output layer stay whole"
        )
        assert masks.density(after.mask) == pytest.approx(deep.remaining(r) / deep.weights)
        for name, value in after.final.items():
            assert name not in after.mask or not value[~after.mask[name]].any(), (
                "momentum and weight decay revive nothing"
            )
    ticket, first = ticket_of(last(deep.iterative()), deep_store), trained[0, 0, 0]
    for name, value in ticket.weights.items():
        assert torch.equal(
            value,
            first.initial[name] * ticket.mask[name] if name in ticket.mask else first.initial[name],
        )
    assert (
        not ticket.weights["conv5.mean"].any() and (ticket.weights["conv5.variance"] == 1).all()
    ), "statistics start afresh"
    assert first.final["conv5.mean"].any()


def test_random_sparse_deep_networks_keep_what_the_ticket_keeps_of_each_layer(deep_store):
    winner, random = (
        ticket_of(last(deep.iterative()), deep_store),
        ticket_of(last(deep.random_sparse()), deep_store),
    )
    assert last(deep.random_sparse()).parent.control == "winning ticket"
    for name, mask in winner.mask.items():
        assert int(random.mask[name].sum()) == int(mask.sum())
        assert mask.all() or not torch.equal(random.mask[name], mask)


def test_accuracy_at_checkpoints_is_told_with_its_iteration(deep_store):
    table = tables.run({"tickets": deep.iterative()}, scale="paper")
    marks = table[table.metric.str.contains("_at_checkpoint_")].groupby("metric").iteration.unique()
    assert {metric: list(at) for metric, at in marks.items()} == {
        f"{split}_accuracy_at_checkpoint_{i}": [4 * i] for split in ("test", "val") for i in (1, 2)
    }


SIGNED = ("reinit with its signs", "constants with its signs", "random signs", "flipped signs")


@pytest.mark.parametrize("control", [*SIGNED, "constants"])
def test_controls_of_signs_keep_the_mask_and_what_their_name_says(control, store, winner):
    made = ticket_of(last(tiny.iterative().with_control(control)), store)
    for layer in tiny.layers:
        mask = winner.mask[layer.weight]
        own, weight = winner.weights[layer.weight][mask], made.weights[layer.weight][mask]
        sigma = (2 / sum(layer.fans)) ** 0.5
        assert torch.equal(made.mask[layer.weight], mask)
        assert not made.weights[layer.weight][~mask].any()
        expected = {
            "constants with its signs": sigma * own.sign(),
            "constants": torch.full_like(own, sigma),
            "flipped signs": -own,
        }
        if control in expected:
            assert torch.allclose(weight, expected[control])
        elif control == "random signs":
            assert torch.equal(weight.abs(), own.abs())
            assert 0.3 < (weight == own).float().mean() < 0.7 or own.numel() < 50
        else:
            assert torch.equal(weight.sign(), own.sign())
            assert not torch.equal(weight, own) and weight.abs().max() <= 2 * sigma
    assert torch.equal(made.weights["fc1.bias"], winner.weights["fc1.bias"])


def test_the_dense_network_has_no_control():
    for control in (*SIGNED, "constants"):
        assert 0 not in {
            node.round for node in tiny.iterative().with_control(control).nodes("paper")
        }


def test_pruned_weights_keep_the_signs_of_their_zeros(store):
    """They are in the digests by which a mask's lineage is checked."""
    for node in tiny.iterative().at_rounds(2).nodes("paper"):
        ticket, final = ticket_of(node, store), left_by(store, node).final
        for name, mask in ticket.mask.items():
            zeros, start = final[name][~mask], ticket.weights[name][~mask]
            assert torch.equal(zeros.view(torch.int32), start.view(torch.int32))
            assert torch.signbit(zeros).any()


@pytest.mark.parametrize("recipe", [tiny.but(iterations=10), deep])
def test_a_rewound_ticket_starts_where_the_dense_network_was(recipe):
    """At an iteration between two evaluations: bit for bit what the whole dense training, looked at
    there, had."""
    rewound, store = recipe.but(rewind=5, trials=1), Store()
    line = rewound.iterative()
    runner.train_missing(requests_of([{"rewound": line}], "paper"), store)
    dense = line.nodes("paper")[0]
    engine = training._Batch(
        [ticket_of(dense, store)],
        [recipe.but(evaluate_every=5, checkpoints=(), milestones=())],
        (),
        training.networks.build(recipe),
        batch.data_of(recipe),
        torch.device("cpu"),
    )
    with training.arithmetic(), torch.no_grad():
        engine.train(0)
    for node in line.nodes("paper")[1:]:
        start = ticket_of(node, store)
        for name, value in engine.weights.items():
            assert torch.equal(start.weights[name], value[0] * start.mask.get(name, 1)), name
        assert not torch.equal(
            start.weights["output.weight"], ticket_of(dense, store).weights["output.weight"]
        )
    later = line.nodes("paper")[2]
    assert later.parent.recipe.rewind == 5, "its mask is that of the rewound ticket before it"


def test_a_rewound_ticket_is_not_exported_nor_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "book" / "results"))
    line = tiny.but(rewind=2).iterative()
    runner.train_missing(requests_of([{"rewound": line}], "paper"), Store())
    with pytest.raises(LotteryError, match="has no tickets of it"):
        ticket_files.export({"fig99": {"rewound": line}}, "paper")
    assert main(["store", "verify"]) == 0
