"""Pruning at initialisation, each criterion beside a second way of reckoning it."""

import numpy as np
import pytest
import torch
from shared import tiny

from lottery_nb import LotteryError, conv2, lenet, resnet18
from lottery_nb.core import data, masks, saliency, tickets
from lottery_nb.core.seeds import generator
from lottery_nb.runs import batch, graph, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store

LINE = tiny.iterative()


def node(control, round=3, trial=0, recipe=tiny, draw=0):
    nodes = recipe.iterative().with_control(control, draw + 1).nodes("paper")
    return next(n for n in nodes if (n.round, n.trial, n.draw) == (round, trial, draw))


def ticket(of):
    return batch.ticket(of, graph.Ancestry())[0]


@pytest.fixture(scope="module")
def network():
    dense = LINE.nodes("paper", 1)[0]
    parameters = {name: value.double() for name, value in tickets.dense_weights(dense).items()}
    images, labels = saliency.examples(batch.data_of(tiny).train, generator("some"))
    return saliency.Untrained(tiny, parameters, images.double(), labels)


def leaves(network):
    return {
        layer.weight: network.parameters[layer.weight].clone().requires_grad_()
        for layer in tiny.layers
    }


def plain(network):
    """The same network of torch's own parts."""
    linears = []
    for layer in tiny.layers:
        linear = torch.nn.Linear(layer.shape[1], layer.shape[0], dtype=torch.float64)
        linear.load_state_dict(
            {"weight": network.parameters[layer.weight], "bias": network.parameters[layer.bias]}
        )
        linears.append(linear)
    relu = torch.nn.ReLU()
    return torch.nn.Sequential(
        torch.nn.Flatten(), linears[0], relu, linears[1], relu, linears[2]
    ), linears


def test_snip_is_weight_times_gradient(network):
    model, linears = plain(network)
    torch.nn.functional.cross_entropy(model(network.images), network.labels).backward()
    scores = saliency.snip(network, leaves(network))
    for layer, linear in zip(tiny.layers, linears):
        expected = (linear.weight * linear.weight.grad).abs()
        assert torch.allclose(scores[layer.weight], expected, rtol=1e-9, atol=1e-15)
        assert expected.max() > 0


def test_grasp_is_weight_times_the_gradients_change_along_itself(network):
    """The Hessian's product with the gradient, by two steps along the gradient."""
    model, linears = plain(network)

    def gradients():
        model.zero_grad()
        logits = model(network.images) / saliency.TEMPERATURE
        torch.nn.functional.cross_entropy(logits, network.labels).backward()
        return [linear.weight.grad.clone() for linear in linears]

    weights, along, step = [each.weight.data.clone() for each in linears], gradients(), 1e-3

    def moved(by):
        for linear, weight, direction in zip(linears, weights, along):
            linear.weight.data = weight + by * direction
        return gradients()

    products = [(after - before) / (2 * step) for after, before in zip(moved(step), moved(-step))]
    scores = saliency.grasp(network, leaves(network))
    for layer, weight, product in zip(tiny.layers, weights, products):
        expected, found = weight * product, scores[layer.weight]
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert expected.min() < 0 < expected.max()


def test_synflow_is_the_flow_through_a_weight(network):
    """By products of matrices, without gradients; every layer's scores add up to the whole flow."""
    sizes = [network.parameters[layer.weight].abs().numpy() for layer in tiny.layers]
    scores = saliency.synflow(network, leaves(network))
    whole = (sizes[2] @ sizes[1] @ sizes[0]).sum()
    for i, layer in enumerate(tiny.layers):
        into = np.ones(784)
        for weight in sizes[:i]:
            into = weight @ into
        out = np.ones(10)
        for weight in reversed(sizes[i + 1 :]):
            out = out @ weight
        expected = out[:, None] * sizes[i] * into
        np.testing.assert_allclose(scores[layer.weight].detach().numpy(), expected, rtol=1e-9)
        assert scores[layer.weight].sum().item() == pytest.approx(whole)


def test_a_step_keeps_the_largest_of_the_whole_network():
    weights = {"fc1.weight": torch.tensor([[0.1, -0.9]]), "output.weight": torch.tensor([[0.5]])}
    kept = masks.keep_largest_globally(
        masks.magnitude(weights), masks.ones(weights), list(weights), 2
    )
    assert kept["fc1.weight"].tolist() == [[False, True]]
    assert kept["output.weight"].tolist() == [[True]]


@pytest.mark.parametrize("criterion", saliency.CRITERIA)
def test_masks_have_the_tickets_density_and_what_their_name_says(criterion):
    first, again = ticket(node(criterion)), ticket(node(criterion))
    shuffled = ticket(node(f"shuffled {criterion}"))
    by_input = ticket(node(f"shuffled by input {criterion}"))
    fresh = ticket(node(f"reinitialised {criterion}"))
    dense = tickets.dense_weights(node(criterion))
    counts = {name: int(mask.sum()) for name, mask in first.mask.items()}
    assert sum(counts.values()) == tiny.remaining(3)
    assert {name: int(mask.sum()) for name, mask in shuffled.mask.items()} == counts
    for name, mask in first.mask.items():
        assert torch.equal(mask, again.mask[name])
        assert torch.equal(mask, fresh.mask[name])
        assert mask.all() or not torch.equal(mask, shuffled.mask[name])
        assert torch.equal(mask.sum(0), by_input.mask[name].sum(0))
        assert torch.equal(first.weights[name], dense[name] * mask)
        assert torch.equal(shuffled.weights[name], dense[name] * shuffled.mask[name])
        assert not torch.equal(fresh.weights[name], first.weights[name])
    assert not torch.equal(by_input.mask["fc1.weight"], first.mask["fc1.weight"])
    other = ticket(node(criterion, trial=1))
    assert not torch.equal(other.mask["fc1.weight"], first.mask["fc1.weight"])


def test_synflow_empties_no_layer_where_magnitude_does():
    """What it was made for (Tanaka et al. 2020): of the largest initial weights none is in the
    first layer, whose weights are drawn with the smallest deviation."""
    recipe = lenet.at("smoke").but(rounds=19, trials=1)
    counts = {
        criterion: {
            name: int(mask.sum())
            for name, mask in ticket(node(criterion, 19, recipe=recipe)).mask.items()
        }
        for criterion in ("initial magnitude", "SynFlow")
    }
    assert counts["initial magnitude"]["fc1.weight"] == 0
    assert min(counts["SynFlow"].values()) > 500


def test_a_network_with_an_empty_layer_trains():
    recipe = lenet.at("smoke").but(rounds=19, trials=1, iterations=4, evaluate_every=2)
    line = recipe.iterative().with_control("initial magnitude").at_rounds(19)
    store = Store()
    runner.train_missing(requests_of([{"empty": line}], "paper"), store)
    assert 0.05 < store.record(line.nodes("paper")[0].key)["measures"]["test_accuracy_at_end"] < 0.2


@pytest.mark.parametrize("recipe", [conv2, resnet18])
def test_other_networks_keep_what_their_recipe_does_not_prune(recipe):
    small = recipe.at("smoke").but(trials=1, rounds=2)
    for criterion in saliency.CRITERIA:
        made = ticket(node(criterion, 2, recipe=small))
        assert sum(int(mask.sum()) for mask in made.mask.values()) == small.remaining(2)
        for layer in small.layers:
            if not small.rates[layer.kind]:
                assert made.mask[layer.weight].all()


def test_batch_norm_is_scored_with_the_statistics_of_the_images():
    """Then a filter's size changes nothing, so its weights times their gradients cancel out."""
    small = resnet18.at("smoke").but(trials=1)
    dense = tickets.dense_weights(small.iterative().nodes("paper")[0])
    parameters = {name: value.double() for name, value in dense.items()}
    before = {name: value.clone() for name, value in parameters.items()}
    images, labels = saliency.examples(batch.data_of(small).train, generator("some"))
    network = saliency.Untrained(small, parameters, images.double(), labels)
    leaves = {
        layer.weight: parameters[layer.weight].clone().requires_grad_()
        for layer in small.layers
        if layer.normed
    }
    gradients = torch.autograd.grad(network.loss(leaves), list(leaves.values()))
    for weight, gradient in zip(leaves.values(), gradients):
        shares = (weight * gradient).detach().flatten(1)
        assert (shares.sum(1).abs() < 1e-3 * shares.abs().sum(1)).all()
    assert all(torch.equal(parameters[name], before[name]) for name in before)


@pytest.mark.parametrize("control", ["SNIP", "pruned before training"])
def test_what_is_pruned_before_training_cannot_be_rewound(control):
    with pytest.raises(LotteryError, match="prunes before training and starts from initial weig"):
        ticket(node(control, recipe=tiny.but(rewind=2)))


def test_examples_are_ten_of_each_class_of_the_training_images():
    split = data.load("mnist5k", "unit", 500).train
    images, labels = saliency.examples(split, generator("some"))
    assert labels.bincount().tolist() == [10] * 10
    assert all((split.images == image).all((1, 2)).any() for image in images)


@pytest.mark.parametrize("control", ["SNIP", "random sparse", "pruned before training"])
def test_what_looks_at_no_ticket_is_asked_of_iterative_lines(control):
    with pytest.raises(LotteryError, match="as many weights as iterative rounds leave: ask it of"):
        tiny.one_shot().with_control(control)
