import pytest
import torch
from torch.nn import functional as F

from lottery_nb import LotteryError, lenet, models, training
from lottery_nb.training import generator


@pytest.fixture
def network():
    return models.build(lenet)


def stacked(network, trials):
    each = [models.initialise(lenet, generator("test", trial)) for trial in range(trials)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def test_lenet_has_the_papers_weights(network):
    assert sum(layer.shape[0] * layer.shape[1] for layer in network.layers) == 266_200
    assert [layer.kind for layer in network.layers] == ["fc", "fc", "output"]


def test_any_sizes():
    assert [layer.shape for layer in models.build(lenet.but(sizes=(25, 9))).layers] == [(25, 784), (9, 25), (10, 9)]


def test_initial_weights_are_a_normal_truncated_at_two_sigma(network):
    parameters = models.initialise(lenet, generator("test"))
    for layer, limit in zip(network.layers, (0.0859, 0.1414, 0.2697)):  # where the paper's Figure 15 stops
        weight = parameters[layer.weight]
        assert weight.abs().max() <= limit + 5e-5
        assert weight.abs().max() > 0.98 * limit
        assert weight.std() == pytest.approx(0.88 * limit / 2, rel=0.05)
        assert not parameters[layer.bias].any()


@pytest.fixture
def batch():
    """Images (batch, trials, inputs) and labels (batch, trials)."""
    return torch.rand(7, 3, 784, generator=generator("x")), torch.randint(0, 10, (7, 3), generator=generator("y"))


def of_autograd(network, parameters, x, labels, trial):
    leaves = {name: value[trial].clone().requires_grad_() for name, value in parameters.items()}
    h = x[:, trial]
    for layer in network.layers:
        h = F.linear(h, leaves[layer.weight], leaves[layer.bias])
        h = h if layer.kind == "output" else h.relu()
    F.cross_entropy(h, labels[:, trial]).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def test_gradients_are_those_of_autograd(network, batch):
    parameters = stacked(network, 3)
    for name, value in parameters.items():
        if name.endswith("bias"):
            value.normal_(generator=generator("bias"))
    ours = {name: torch.full_like(value, torch.nan) for name, value in parameters.items()}
    network.gradients(parameters, *batch, into=ours)
    for trial in range(3):
        for name, gradient in of_autograd(network, parameters, *batch, trial).items():
            torch.testing.assert_close(ours[name][trial], gradient)


def test_packed_gradients_are_the_survivors_of_autograd(network, batch):
    each = [models.initialise(lenet, generator("test", trial)) for trial in range(3)]
    mask = torch.rand(3, 300, 784, generator=generator("mask")) < 0.05
    for trial, parameters in enumerate(each):
        parameters["fc1.weight"] *= mask[trial]
    values, gradients = (training._Stack(each, "cpu", {"fc1.weight": mask}) for _ in range(2))
    assert values.flat.numel() == int(mask.sum()) + 3 * (300 + 30_000 + 100 + 1000 + 10)
    network.gradients(values.views, *batch, into=gradients.views)
    full = values.full()
    assert all(torch.equal(full[name][trial], each[trial][name]) for name in full for trial in range(3))
    for trial in range(3):
        for name, gradient in of_autograd(network, full, *batch, trial).items():
            torch.testing.assert_close(gradients.full()[name][trial], gradient * mask[trial] if name == "fc1.weight" else gradient)
    gradients.flat.fill_(2.0)
    assert (gradients.views["fc1.weight"].values() == 2).all(), "the sparse matrix shares the flat buffer"


def test_logits_are_those_of_each_trial(network):
    parameters = stacked(network, 2)
    x = torch.rand(5, 784, generator=generator("x"))
    for trial, logits in enumerate(network.logits(parameters, x)):
        h = x
        for layer in network.layers:
            h = F.linear(h, parameters[layer.weight][trial], parameters[layer.bias][trial])
            h = h if layer.kind == "output" else h.relu()
        torch.testing.assert_close(logits.T, h)


def test_images_of_another_shape_are_refused(network):
    with pytest.raises(LotteryError, match="784"):
        network.prepare(torch.zeros(3, 32, 32))


def test_unknown_network():
    with pytest.raises(LotteryError, match="no network 'lenot'"):
        models.build(lenet.but(network="lenot"))
