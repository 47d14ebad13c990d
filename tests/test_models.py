import pytest
import torch
from torch.nn import functional as F

from lottery_nb import LotteryError, lenet, models
from lottery_nb.training import generator


@pytest.fixture
def network():
    return models.build(lenet)


def stacked(network, trials):
    each = [models.initialise(network, "glorot", generator("test", trial)) for trial in range(trials)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def test_lenet_has_the_papers_weights(network):
    assert sum(layer.shape[0] * layer.shape[1] for layer in network.layers) == 266_200
    assert [layer.kind for layer in network.layers] == ["fc", "fc", "output"]


def test_any_sizes():
    assert [layer.shape for layer in models.build(lenet.but(sizes=(25, 9))).layers] == [(25, 784), (9, 25), (10, 9)]


def test_initial_weights_are_a_normal_truncated_at_two_sigma(network):
    parameters = models.initialise(network, "glorot", generator("test"))
    for layer, limit in zip(network.layers, (0.0859, 0.1414, 0.2697)):  # where the paper's Figure 15 stops
        weight = parameters[layer.weight]
        assert weight.abs().max() <= limit + 5e-5
        assert weight.abs().max() > 0.98 * limit
        assert weight.std() == pytest.approx(0.88 * limit / 2, rel=0.05)
        assert not parameters[layer.bias].any()


def test_gradients_are_those_of_autograd(network):
    parameters = stacked(network, 3)
    for name, value in parameters.items():
        if name.endswith("bias"):
            value.normal_(generator=generator("bias"))
    x = torch.rand(3, 7, 784, generator=generator("x"))
    labels = torch.randint(0, 10, (3, 7), generator=generator("y"))
    ours = {name: torch.full_like(value, torch.nan) for name, value in parameters.items()}
    network.gradients(parameters, x, labels, into=ours)
    for trial in range(3):
        leaves = {name: value[trial].clone().requires_grad_() for name, value in parameters.items()}
        h = x[trial]
        for layer in network.layers:
            h = F.linear(h, leaves[layer.weight], leaves[layer.bias])
            h = h if layer.kind == "output" else h.relu()
        F.cross_entropy(h, labels[trial]).backward()
        for name, leaf in leaves.items():
            torch.testing.assert_close(ours[name][trial], leaf.grad)


def test_logits_of_shared_images_are_those_of_each_trial(network):
    parameters = stacked(network, 2)
    x = torch.rand(5, 784, generator=generator("x"))
    torch.testing.assert_close(network.logits(parameters, x), network.logits(parameters, x.expand(2, 5, 784)))


def test_images_of_another_shape_are_refused(network):
    with pytest.raises(LotteryError, match="784"):
        network.prepare(torch.zeros(3, 32, 32))


def test_unknown_network():
    with pytest.raises(LotteryError, match="no network 'lenot'"):
        models.build(lenet.but(network="lenot"))
