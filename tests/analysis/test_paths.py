"""The line between two trainings of one network, on another order of batches each."""

import pytest
import torch
from shared import tiny

from lottery_nb import LotteryError, resnet18
from lottery_nb.__main__ import main
from lottery_nb.analysis import paths, tables
from lottery_nb.core import data, tickets
from lottery_nb.runs import batch, ticket_files
from lottery_nb.runs.store import Store

TICKETS = tiny.but(iterations=60, evaluate_every=20, trials=1).iterative().at_rounds(0, 2)
REINITS = TICKETS.reinitialised()
PLAN = {
    "once": TICKETS.trained_again(1),
    "again": TICKETS.trained_again(2).with_path(),
    "reinit once": REINITS.trained_again(1),
    "reinit again": REINITS.trained_again(2).with_path(),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paths")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTERY_STORE", str(folder))
        patch.setenv("LOTTERY_RESULTS", "")
        return folder, tables.run(PLAN, "paper", quiet=True)


def test_another_order_is_the_same_network_with_other_batches(table):
    store = Store(table[0])
    for round in (0, 2):
        first, again = (
            next(n for n in PLAN[label].nodes("paper") if n.round == round)
            for label in ("once", "again")
        )
        plain = next(n for n in TICKETS.nodes("paper") if n.round == round)
        assert len({first.key, again.key, plain.key}) == 3
        assert first.parent == again.parent == plain.parent
        assert len({n.batches for n in (first, again, plain)}) == 3
        made = [batch.outputs_of(store.arrays(n.key)) for n in (first, again)]
        starts = [store.record(n.key)["initial"] for n in (first, again)]
        assert starts[0] == starts[1]
        assert tickets.fingerprint(made[0].mask) == tickets.fingerprint(made[1].mask)
        assert tickets.fingerprint(made[0].final) != tickets.fingerprint(made[1].final)


def test_a_point_of_the_path_is_the_network_of_the_weights_between(table):
    """The middle, evaluated by torch's own layers."""
    store, rows = Store(table[0]), table[1]
    node = PLAN["reinit again"].nodes("paper")[0]
    ends = [store.arrays(each.key) for each in (node.start_of_path, node)]
    between = {
        name.removeprefix("final/"): torch.from_numpy((value + ends[1][name]) / 2)
        for name, value in ends[0].items()
        if name.startswith("final/")
    }
    test = data.load("mnist5k", "unit", 500).test
    h = test.images.flatten(1)
    for layer in tiny.layers:
        h = torch.nn.functional.linear(h, between[layer.weight], between[layer.bias])
        h = h if layer.kind == "output" else h.relu()
    expected = (h.argmax(1) == test.labels).double().mean().item()
    mine = rows[(rows.line == "reinit again") & (rows.metric == "test_accuracy_on_path")]
    assert len(mine) == paths.PLACES
    assert mine.value[mine.x == 0.5].item() == pytest.approx(expected, abs=0.0021)
    measured = [store.record(n.key)["measures"] for n in (node.start_of_path, node)]
    for place, measures in zip((0, 1), measured):
        assert mine.value[mine.x == place].item() == measures["test_accuracy_at_end"]
    barrier = rows.value[(rows.line == "reinit again") & (rows.metric == "error_barrier")].item()
    low, high = mine.value.min(), (mine.value.iloc[0] + mine.value.iloc[-1]) / 2
    assert barrier == pytest.approx(high - low)


def test_similarity_is_the_cosine_of_what_survives(table):
    store, rows = Store(table[0]), table[1]
    for node in PLAN["again"].nodes("paper"):
        one, other = (
            torch.cat([left.final[name][mask] for name, mask in left.mask.items()])
            for left in (
                batch.outputs_of(store.arrays(each.key)) for each in (node.start_of_path, node)
            )
        )
        mine = rows[(rows.node == node.key) & (rows.metric == "similarity_of_ends")]
        expected = torch.nn.functional.cosine_similarity(one, other, 0).item()
        assert mine.value.item() == pytest.approx(expected, abs=1e-5)
        assert 0 < expected < 1
    start = store.arrays(node.key)
    assert paths.similarity(start, start) == pytest.approx(1)


def test_a_barrier_is_how_far_the_error_rises_above_the_mean_of_its_ends():
    assert paths.error_barrier([(0, 0.9), (0.5, 0.6), (1, 0.8)]) == pytest.approx(0.25)
    assert paths.error_barrier([(0, 0.9), (0.5, 0.95), (1, 0.9)]) == 0


def test_what_has_no_path_is_said(table):
    store = Store(table[0])
    dense, ticket = (store.arrays(node.key) for node in PLAN["once"].nodes("paper"))
    with pytest.raises(LotteryError, match="these two have different masks"):
        paths.accuracy_on_path(tiny, dense, ticket)
    with pytest.raises(LotteryError, match="resnet18 has batch-norm"):
        paths.accuracy_on_path(resnet18, dense, dense)
    with pytest.raises(LotteryError, match="this line is of order 0: ask for trained_again"):
        TICKETS.with_path()
    with pytest.raises(LotteryError, match="order is 0: a whole number of 1 or more"):
        TICKETS.trained_again(0)


def test_orders_are_verified_and_no_tickets_to_export(table, tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_STORE", str(table[0]))
    assert main(["store", "verify"]) == 0
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "book" / "results"))
    monkeypatch.setitem(ticket_files.RECIPES, "lenet", TICKETS.recipe)
    ticket_files.export({"fig99": {"a": TICKETS, **PLAN}}, "paper")
    rounds = [each for chain, _ in ticket_files.chains().values() for each in chain.rounds]
    keys = {each["key"] for each in rounds if each["weights"]}
    trained = {n.key for n in TICKETS.recipe.iterative().nodes("paper") if n.key in Store()}
    assert len(trained) == 2, "those that the other orders stand on, of rounds 0 and 1"
    assert keys == trained
