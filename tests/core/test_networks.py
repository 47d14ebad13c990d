import pytest
import torch
from reference import filled, plain_deep
from torch.nn import functional as F

from lottery_nb import LotteryError, conv2, conv4, conv6, lenet, resnet18, vgg19
from lottery_nb.core import networks, training
from lottery_nb.core.seeds import generator


@pytest.fixture
def network():
    return networks.build(lenet)


def stacked(network, trials):
    each = [networks.initialise(lenet, generator("test", trial)) for trial in range(trials)]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


@pytest.mark.parametrize("drawn", networks.DRAWS)
def test_both_ways_of_drawing_give_a_normal_truncated_at_two_sigma(drawn):
    layer = networks.DRAWS[drawn]((300, 784), 0.05, generator("draws"))
    assert layer.abs().max() <= 0.1 + 1e-8 and (layer.abs() > 0.0995).any()
    assert layer.mean().abs() < 5e-4
    assert layer.std() == pytest.approx(0.88 * 0.05, rel=5e-3)


def test_rejection_is_how_the_pinned_torch_draws():
    ours = networks.DRAWS["by rejection"]((300, 784), 0.05, generator("draws"))
    torchs = torch.empty(300, 784)
    torch.nn.init.trunc_normal_(torchs, 0.0, 0.05, -0.1, 0.1, generator=generator("draws"))
    assert torch.equal(ours, torchs)


def test_lenet_has_the_papers_weights(network):
    assert sum(layer.shape[0] * layer.shape[1] for layer in network.layers) == 266_200
    assert [layer.kind for layer in network.layers] == ["fc", "fc", "output"]


def test_any_sizes():
    assert [layer.shape for layer in networks.build(lenet.but(sizes=(25, 9))).layers] == [
        (25, 784),
        (9, 25),
        (10, 9),
    ]


def test_initial_weights_are_a_normal_truncated_at_two_sigma(network):
    parameters = networks.initialise(lenet, generator("test"))
    # The limits are where the paper's Figure 15 stops.
    for layer, limit in zip(network.layers, (0.0859, 0.1414, 0.2697)):
        weight = parameters[layer.weight]
        assert weight.abs().max() <= limit + 5e-5
        assert weight.abs().max() > 0.98 * limit
        assert weight.std() == pytest.approx(0.88 * limit / 2, rel=0.05)
        assert not parameters[layer.bias].any()


@pytest.fixture
def batch():
    """Images (batch, trials, inputs) and labels (batch, trials)."""
    return torch.rand(7, 3, 784, generator=generator("x")), torch.randint(
        0, 10, (7, 3), generator=generator("y")
    )


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
    each = [networks.initialise(lenet, generator("test", trial)) for trial in range(3)]
    mask = torch.rand(3, 300, 784, generator=generator("mask")) < 0.05
    for trial, parameters in enumerate(each):
        parameters["fc1.weight"] *= mask[trial]
    places = torch.stack([training._pattern(of_trial) for of_trial in mask])
    more = (places & ~mask).sum((1, 2))
    assert (places >= mask).all() and (more < 64).all() and more.any(), "survivors and a few more"
    values, gradients = (
        training._Stack(each, "cpu", {"fc1.weight": places}, vector=64) for _ in range(2)
    )
    held = int(places.sum()) + 3 * (320 + 30_016 + 128 + 1024 + 64)
    assert values.flat.numel() == held, "each trial's values fill whole vectors"
    assert places.sum((1, 2)).remainder(64).tolist() == [0, 0, 0]
    network.gradients(values.views, *batch, into=gradients.views)
    full = values.full()
    assert all(
        torch.equal(full[name][trial], each[trial][name]) for name in full for trial in range(3)
    )
    for trial in range(3):
        for name, gradient in of_autograd(network, full, *batch, trial).items():
            torch.testing.assert_close(
                gradients.full()[name][trial],
                gradient * places[trial] if name == "fc1.weight" else gradient,
            )
    gradients.flat.fill_(2.0)
    assert (gradients.views["fc1.weight"].values() == 2).all(), (
        "the sparse matrix shares the flat buffer"
    )


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
        networks.build(lenet.but(network="lenot"))


# --- convolutional networks -----------------------------------------------------------------------

COUNTED = {
    "conv2": (4_300_992, 38_592),
    "conv4": (2_425_024, 259_776),
    "conv6": (1_667_264, 812_736),
    "conv6-256": (2_261_184, 1_144_512),
}
PRINTED = {  # percent of the weights that the paper prints on ticks and in its text
    "conv2": {1: 80.10, 3: 51.41, 6: 26.47, 11: 8.81, 14: 4.57, 18: 1.93, 22: 0.83},
    "conv4": {1: 81.08, 4: 43.63, 11: 11.06, 12: 9.18, 13: 7.65, 15: 5.37, 26: 0.97},
    "conv6": {1: 82.45, 3: 56.21, 7: 26.42, 10: 15.14, 12: 10.49, 15: 6.09, 26: 0.88},
}


@pytest.mark.parametrize("network", COUNTED)
def test_convolutional_networks_have_the_papers_weights(network):
    recipe = conv2.but(network=network)
    assert (
        recipe.weights,
        sum(layer.count for layer in recipe.layers if layer.kind == "conv"),
    ) == COUNTED[network]


@pytest.mark.parametrize("recipe", [conv2, conv4, conv6], ids=lambda recipe: recipe.network)
def test_ladders_of_the_convolutional_networks_are_the_papers(recipe):
    for r, percent in PRINTED[recipe.network].items():
        assert 100 * sum(recipe.survivors(r).values()) / recipe.weights == pytest.approx(
            percent, abs=0.0051
        )


def test_pruning_one_kind_of_layer_leaves_the_others():
    only = {kind: conv2.but(pruned=kind).survivors(2) for kind in ("conv", "fc")}
    full = conv2.survivors(0)
    assert {name.split(".")[0] for name in full if only["conv"][name] == full[name]} == {
        "fc1",
        "fc2",
        "output",
    }
    assert {name.split(".")[0] for name in full if only["fc"][name] == full[name]} == {
        "conv1",
        "conv2",
    }


def plain(recipe):
    """The same network of torch's own modules."""
    modules, flat = [], False
    for i, layer in enumerate(recipe.layers):
        out, into = layer.shape[:2]
        if layer.kind == "conv":
            modules += [
                torch.nn.Conv2d(into, out, 3, padding=1),
                torch.nn.ReLU(),
                *([torch.nn.MaxPool2d(2)] if i % 2 else []),
            ]
            continue
        modules += [] if flat else [torch.nn.Flatten()]
        flat = True
        modules += [torch.nn.Linear(into, out), *([torch.nn.ReLU()] if layer.kind == "fc" else [])]
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize(
    "recipe", [conv2.but(width=0.125), conv6.but(width=0.0625)], ids=lambda recipe: recipe.network
)
def test_convolutional_gradients_are_those_of_torchs_modules(recipe):
    network, reference = networks.build(recipe), plain(recipe)
    each = [networks.initialise(recipe, generator("conv", trial)) for trial in range(2)]
    parameters = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    x, labels = (
        torch.rand(6, 2, 32, 32, 3, generator=generator("x")),
        torch.randint(0, 10, (6, 2), generator=generator("y")),
    )
    ours = {name: torch.full_like(value, torch.nan) for name, value in parameters.items()}
    network.gradients(parameters, x, labels, ours)
    for trial in range(2):
        with torch.no_grad():
            for theirs, value in zip(reference.parameters(), each[trial].values()):
                theirs.copy_(value)
            first = next(module for module in reference if isinstance(module, torch.nn.Linear))
            side = int((first.in_features / recipe.layers[-4].shape[0]) ** 0.5)
            # Ours has channels last.
            first.weight.copy_(
                first.weight.view(-1, side, side, recipe.layers[-4].shape[0])
                .permute(0, 3, 1, 2)
                .flatten(1)
            )
        images = x[:, trial].permute(0, 3, 1, 2).contiguous()
        torch.testing.assert_close(
            network.logits(parameters, x[:, trial])[trial].T,
            reference(images),
            rtol=1e-4,
            atol=1e-4,
        )
        reference.zero_grad()
        F.cross_entropy(reference(images), labels[:, trial]).backward()
        for name, theirs in zip(each[trial], reference.parameters()):
            gradient = theirs.grad
            if name == "fc1.weight":
                gradient = (
                    gradient.view(-1, recipe.layers[-4].shape[0], side, side)
                    .permute(0, 2, 3, 1)
                    .flatten(1)
                )
            torch.testing.assert_close(ours[name][trial], gradient, rtol=1e-3, atol=1e-5)


def test_dropout_drops_its_share_in_training_only_and_repeats():
    recipe = conv2.but(width=0.125, dropout=0.5)
    network, parameters = networks.build(recipe), networks.initialise(recipe, generator("dropout"))
    x = torch.rand(8, 32, 32, 3, generator=generator("x"))
    kept = [network.kept_units(50, 8, generator("drop", seed)) for seed in (0, 0, 1)]
    assert kept[0].shape == (50, 8, 64) and 0.48 < kept[0].float().mean() < 0.52
    drawn = [network.forward(parameters, x, True, each[0]) for each in kept]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    everything = torch.ones(8, 64, dtype=torch.bool)
    assert not torch.equal(
        network.forward(parameters, x, True, everything), network.forward(parameters, x)
    )
    without = networks.build(recipe.but(dropout=0.0))
    assert torch.equal(network.forward(parameters, x), without.forward(parameters, x, True))


def test_bf16_is_close_to_fp32():
    recipe = conv2.but(width=0.125)
    parameters = networks.initialise(recipe, generator("bf16"))
    x = torch.rand(8, 32, 32, 3, generator=generator("x"))
    full, half = (
        networks.build(recipe.but(precision=precision)).forward(parameters, x)
        for precision in ("fp32", "bf16")
    )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)
    assert not torch.equal(half, full)


def test_digits_are_shown_to_convolutional_networks_in_the_middle_of_three_channels():
    digits = torch.rand(4, 28, 28)
    shown = networks.build(conv2).prepare(digits)
    assert shown.shape == (4, 32, 32, 3)
    assert torch.equal(shown[:, 2:30, 2:30, 1], digits)
    assert not shown[:, :2].any()
    with pytest.raises(LotteryError, match="takes images of 32x32x3, the data set has 40x40"):
        networks.build(conv2).prepare(torch.rand(4, 40, 40))
    with pytest.raises(LotteryError, match="784 values"):
        networks.build(lenet).prepare(torch.rand(4, 32, 32, 3))


# --- Resnet-18 and VGG-19 -------------------------------------------------------------------------


DEEP = [resnet18.but(width=0.25), vgg19.but(width=0.0625)]


@pytest.mark.parametrize("recipe", DEEP, ids=lambda recipe: recipe.network)
def test_deep_gradients_and_statistics_are_those_of_torchs_modules(recipe):
    network = networks.build(recipe)
    parameters = networks.initialise(recipe, generator("deep"))
    for name, value in parameters.items():
        if not name.endswith("weight"):
            # So that no part can hide in another.
            value.add_(torch.rand(value.shape, generator=generator(name)))
    reference, learned, statistics = plain_deep(recipe)
    assert sorted(learned + statistics) == sorted(parameters)
    filled(reference, learned, statistics, parameters)
    x, labels = (
        torch.rand(12, 1, 32, 32, 3, generator=generator("x")),
        torch.randint(0, 10, (12, 1), generator=generator("y")),
    )
    images = x[:, 0].permute(0, 3, 1, 2).contiguous()
    stacked = {name: value.clone().unsqueeze(0) for name, value in parameters.items()}
    torch.testing.assert_close(
        network.logits(stacked, x[:, 0])[0].T, reference.eval()(images), rtol=1e-4, atol=1e-4
    )

    ours = {name: torch.zeros_like(value) for name, value in stacked.items()}
    network.gradients(stacked, x, labels, ours)
    F.cross_entropy(reference.train()(images), labels[:, 0]).backward()
    for name, theirs in zip(learned, reference.parameters()):
        torch.testing.assert_close(ours[name][0], theirs.grad, rtol=2e-3, atol=2e-4, msg=name)
    for name, theirs in zip(statistics, (b for b in reference.buffers() if b.ndim)):
        torch.testing.assert_close(stacked[name][0], theirs, rtol=1e-4, atol=1e-5, msg=name)
        assert not ours[name].any(), "no optimiser moves them"
    before = {name: stacked[name].clone() for name in statistics}
    network.logits(stacked, x[:, 0])
    assert all(torch.equal(before[name], stacked[name]) for name in statistics), (
        "evaluating leaves the statistics alone"
    )


def test_emulated_bf16_and_builds_without_its_library_do_not_count(monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert not training._has_bf16(torch.device("cuda"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not training._has_bf16(torch.device("cpu"))
