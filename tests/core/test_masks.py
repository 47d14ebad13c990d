import pytest
import torch

from lottery_nb import lenet
from lottery_nb.core import masks, networks
from lottery_nb.core.masks import magnitude
from lottery_nb.core.seeds import generator

PRINTED = [
    100, 80.04, 64.06, 51.28, 41.05, 32.87, 26.32, 21.07, 16.88, 13.52, 10.83, 8.68, 6.95, 5.57,
    4.47, 3.58, 2.87, 2.31, 1.85, 1.49, 1.19, 0.96, 0.77, 0.62, 0.50, 0.40, 0.33, 0.26, 0.21,
]  # fmt: skip


def test_prunes_exactly_the_rounded_count():
    weights = {"a": torch.randn(1000, generator=generator("w"))}
    pruned = masks.prune_layerwise(magnitude(weights), masks.ones(weights), {"a": 0.2})
    # Both public codebases of the paper's authors prune 201.
    assert int((~pruned["a"]).sum()) == 200
    assert weights["a"][~pruned["a"]].abs().max() <= weights["a"][pruned["a"]].abs().min()


def test_ties_go_by_position():
    weights = {"a": torch.tensor([1.0, -1.0, 1.0, 0.5, -1.0])}
    assert masks.prune_layerwise(magnitude(weights), masks.ones(weights), {"a": 0.4})[
        "a"
    ].tolist() == [
        False,
        True,
        True,
        False,
        True,
    ]


def test_the_largest_are_those_of_a_stable_sort():
    for seed in range(20):
        weight = torch.randn(300, generator=generator("w", seed)).mul(5).round() / 5  # many ties
        weight[:: 40 + seed] = torch.nan  # a training that diverged
        mask = torch.rand(300, generator=generator("m", seed)) < 0.7
        alive = mask.nonzero().squeeze(1)
        order = alive[torch.argsort(weight[alive].abs().nan_to_num(torch.inf), stable=True)]
        for pruned in (0, 1, 17, len(alive)):
            kept = masks.keep_largest(
                magnitude({"a": weight}), {"a": mask}, {"a": len(alive) - pruned}
            )["a"]
            assert set(kept.nonzero().squeeze(1).tolist()) == set(order[pruned:].tolist())


def test_global_pruning_takes_the_smallest_of_all_named_layers():
    weights = {
        "a": torch.tensor([[3.0, -0.1], [0.2, 5.0]]),
        "b": torch.tensor([0.3, -0.2, 4.0, 0.0, 6.0, 7.0]),
        "c": torch.tensor([0.0, 0.0]),
    }
    mask = masks.ones(weights) | {"b": torch.tensor([True, True, True, False, True, True])}
    # Two of nine: -0.1, then 0.2 before -0.2
    pruned = masks.prune_globally(magnitude(weights), mask, ["a", "b"], 0.2)
    assert pruned["a"].tolist() == [[True, False], [False, True]]
    assert pruned["b"].tolist() == [True, True, True, False, True, True]
    assert pruned["c"].all(), "what is not named is left alone"
    # Four of seven (3.5 to even): 0.2 0.3 3 4
    again = masks.prune_globally(magnitude(weights), pruned, ["a", "b"], 0.5)
    assert again["a"].tolist() == [[False, False], [False, True]]
    assert again["b"].tolist() == [False, False, False, False, True, True]


def test_only_survivors_are_pruned_and_only_by_magnitude():
    weights = {"a": torch.tensor([0.0, -5.0, 3.0, -2.0, 4.0])}
    mask = {"a": torch.tensor([False, True, True, True, True])}
    assert masks.prune_layerwise(magnitude(weights), mask, {"a": 0.25})["a"].tolist() == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert mask["a"].tolist() == [False, True, True, True, True], "the given mask stays as it was"


def test_ladder_of_lenet_is_the_papers_to_the_printed_digit():
    network = networks.build(lenet)
    node = lenet.iterative().nodes("paper", trials=1)[1]
    weights = networks.initialise(lenet, generator("ladder"))
    mask = masks.ones({layer.weight: weights[layer.weight] for layer in network.layers})
    rates = {layer.weight: node.rates[layer.kind] for layer in network.layers}
    ladder = []
    for _ in PRINTED:
        ladder.append(100 * masks.density(mask))
        mask = masks.prune_layerwise(magnitude(weights), mask, rates)
    assert [round(percent, 2) for percent in ladder] == pytest.approx(PRINTED, abs=0.0101)


def test_one_shot_grid_is_the_papers():
    rates = [node.rates for node in lenet.one_shot().nodes("paper", trials=1)]
    percent = [
        100 * (265_200 * (1 - r["fc"]) + 1000 * (1 - r["output"])) / 266_200 if i else 100
        for i, r in enumerate(rates)
    ]
    assert len(percent) == 40
    assert [percent[i] for i in (1, 2, 3, 13, 33, 38, 39)] == pytest.approx(
        [97.5, 95.01, 92.51, 67.56, 17.65, 5.18, 2.68], abs=0.0101
    )


def test_random_masks_have_the_counts_asked_for_at_random_positions():
    full = masks.ones({"a": torch.empty(10, 100), "b": torch.empty(50)})
    one, other = (
        masks.random_mask(full, {"a": 137, "b": 7}, generator("shuffle", draw)) for draw in range(2)
    )
    for mask in (one, other):
        assert {name: int(layer.sum()) for name, layer in mask.items()} == {"a": 137, "b": 7}
        assert mask["a"].shape == (10, 100)
    assert not torch.equal(one["a"], other["a"])
    halves = one["a"][:5].sum(), one["a"][5:].sum()
    assert abs(halves[0] - halves[1]) < 50, "positions are spread evenly"


def test_shuffled_by_input_each_input_keeps_its_count_and_each_layer_its_shape():
    given = {
        "fc": torch.rand(30, 20, generator=generator("given")) < torch.linspace(0, 1, 20),
        "conv": torch.rand(16, 3, 3, 3, generator=generator("given")) < 0.3,
    }
    one, other = (masks.shuffled_by_input(given, generator("shuffle", draw)) for draw in range(2))
    for name, layer in given.items():
        assert one[name].shape == layer.shape
        assert torch.equal(one[name].sum(0), layer.sum(0)), "of each input"
        assert not torch.equal(one[name].flatten(1).sum(1), layer.flatten(1).sum(1)), "of each unit"
        assert not torch.equal(one[name], other[name])
    assert torch.equal(one["fc"][:, 19], given["fc"][:, 19]), "what has all keeps all"
