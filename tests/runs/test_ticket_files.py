"""Tickets that are committed: trained from anywhere, and taken into other code."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shared import tiny, trained_store

from lottery_nb import LotteryError, lenet, load_ticket
from lottery_nb.__main__ import main
from lottery_nb.analysis import results, tables
from lottery_nb.core import data, tickets
from lottery_nb.runs import batch, runner, ticket_files
from lottery_nb.runs.plans import Request, requests_of
from lottery_nb.runs.store import ROOT, Store

PLAN = {"ticket": tiny.iterative(), "continued": tiny.continued(), "one-shot": tiny.one_shot()}


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A store with tickets, their masks exported, and then an empty store at hand."""
    monkeypatch.setenv("LOTTERY_RESULTS", str(tmp_path / "book" / "results"))
    monkeypatch.setitem(ticket_files.RECIPES, "lenet", tiny)
    first = trained_store(tmp_path / "first", *PLAN.values())
    monkeypatch.setenv("LOTTERY_STORE", str(first.folder))
    ticket_files.export({"fig99": PLAN}, "paper")
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "second"))
    return first


def test_masks_come_back_bit_for_bit(committed):
    for line in PLAN.values():
        for node in line.nodes("paper"):
            if node.round:
                kept = committed.arrays(node.key)
                for name, bits in ticket_files.ancestry(node).pruned.items():
                    assert bits.tobytes() == kept[f"mask/{name}"].tobytes()


def test_a_control_is_trained_from_a_committed_mask_and_is_the_same(committed, capsys):
    """Two draws, noise, and the ticket itself: in an empty store, without any training they stand
    on, and with the same bits."""
    controls = {
        "reinit": tiny.iterative().reinitialised(2),
        "noise": tiny.iterative().with_noise(1).at_rounds(3),
        "ticket": tiny.one_shot().at_rounds(20),
    }
    tables.run(controls, "paper")
    fresh = Store()
    assert set(fresh) == set(requests_of([controls], "paper")), "and nothing else was trained"
    runner.train_missing(requests_of([controls], "paper"), committed)
    for key in fresh:
        ours, theirs = fresh.record(key), committed.record(key)
        assert all(
            ours[name] == theirs[name] for name in ("mask", "initial", "weights", "measures")
        )
        assert ours["made_of"]["parents"] == theirs["made_of"]["parents"]
    assert main(["store", "verify"]) == 0


def test_a_control_that_needs_more_than_the_mask_has_it(committed, monkeypatch):
    """Training images come with a committed mask; where final weights are needed, the round before
    is trained."""
    monkeypatch.setattr(tickets, "CONTROLS", dict(tickets.CONTROLS))

    @tickets.control("as bright", needs=("mask", "initial weights", "training images"))
    def as_bright(at):
        bright = 1 + at.images.images.mean()
        return at.mask, at.with_layers(lambda layer, weight: weight * bright)

    @tickets.control("trained on", needs=("mask", "final weights"))
    def trained_on(at):
        return at.mask, at.parent_final

    for control, stands_on in (("as bright", 0), ("trained on", 1)):
        line = tiny.iterative().with_control(control).at_rounds(2)
        wanted = requests_of([{control: line}], "paper", 1)
        before = len(list(Store()))
        runner.train_missing(wanted, Store(), quiet=True)
        assert len(list(Store())) - before == 1 + stands_on
        runner.train_missing(wanted, committed, quiet=True)
        [key] = wanted
        assert Store().record(key)["initial"] == committed.record(key)["initial"]


@pytest.mark.parametrize("another", [False, True])
def test_a_stored_dense_network_does_not_ask_for_its_chain_unless_it_is_another(committed, another):
    """Such as where another line has trained it already."""
    dense, *chain = tiny.iterative().nodes("paper", 1)
    runner.train_missing({dense.key: Request(dense)}, Store(), quiet=True)
    if another:
        record, arrays = Store().record(dense.key), Store().arrays(dense.key)
        arrays["final/fc1.weight"] = arrays["final/fc1.weight"][::-1].copy()
        weights = tickets.fingerprint(batch.outputs_of(arrays).final)
        shutil.rmtree(Store().folder / dense.key)
        Store().write(dense.key, record | {"weights": weights}, arrays)
    wanted = {chain[0].key: Request(chain[0])} if another else {chain[-1].key: Request(chain[-1])}
    runner.train_missing(wanted, Store(), quiet=True)
    assert set(Store()) == {dense.key, *wanted}
    same = Store().record(*wanted)["mask"] == committed.record(*wanted)["mask"]
    assert same != another, "pruned from what is stored"
    assert main(["store", "verify"]) == 0


def test_where_the_ticket_is_wanted_too_its_chain_is_trained(committed):
    tables.run({"ticket": tiny.iterative(), "reinit": tiny.iterative().reinitialised()}, "paper")
    assert all(
        Store().record(key)["weights"] == committed.record(key)["weights"]
        for key in Store()
        if key in committed
    )


def test_a_ticket_in_plain_pytorch(committed):
    ticket = load_ticket("lenet", trial=1, round=3)
    network = torch.nn.Sequential()
    for name, into, out in (("fc1", 784, 20), ("fc2", 20, 10), ("output", 10, 10)):
        network.add_module(name, torch.nn.Linear(into, out))
    network.load_state_dict(ticket.weights)
    node = tiny.iterative().nodes("paper")[-1]
    record = committed.record(node.key)
    assert tickets.fingerprint(ticket.mask) == record["mask"]
    assert tickets.fingerprint(ticket.weights) == record["initial"]
    assert load_ticket("lenet", round=0).mask["fc1.weight"].all()


@pytest.mark.parametrize(
    "asked, said",
    [
        (
            {"round": 9},
            "no ticket of lenet, iterative, trial 0, round 9 is committed; "
            "there are at paper scale, iterative: trials 0, 1, rounds 0, 1, 2, 3",
        ),
        ({"trial": 7}, "no ticket of lenet, iterative, trial 7"),
        ({"network": "conv9"}, "there is no network 'conv9': choose lenet, conv2"),
        ({"network": "conv2"}, "no ticket of conv2.*none of it"),
        (
            {"strategy": "rewound"},
            "there is no strategy 'rewound': choose iterative, one-shot, continued",
        ),
        ({"scale": "huge"}, "there is no scale 'huge'"),
        ({"round": -1}, "round is -1: a whole number of 0 or more"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(committed, asked, said):
    with pytest.raises(LotteryError, match=said):
        load_ticket(**{"network": "lenet"} | asked)


def file_of(trial):
    node = tiny.iterative().nodes("paper")[trial]
    return ticket_files.chains()[node.key][0].path


def test_a_file_cut_in_half_or_of_other_things_is_named(committed):
    path = file_of(0)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"{}"):
        path.write_bytes(content)
        with pytest.raises(
            LotteryError, match=f"{path.name} cannot be read as a ticket file.*restore it with git"
        ):
            load_ticket("lenet", round=1)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(LotteryError, match="it has no ticket of this book"):
        load_ticket("lenet", round=1)


def test_a_file_of_another_network_or_with_an_altered_mask_is_named(committed):
    path = file_of(0)
    with safe_open(path, "numpy") as file:
        told = file.metadata()
    tensors = load_file(path)
    tensors["fc1.weight"][0, :50] ^= 1
    save_file(tensors, path, told)
    with pytest.raises(LotteryError, match="a mask does not match its digest"):
        load_ticket("lenet", round=3)
    save_file(
        tensors,
        path,
        told | {"shapes": json.dumps(json.loads(told["shapes"]) | {"fc1.weight": [10, 784]})},
    )
    with pytest.raises(LotteryError, match="its layers are not those of lenet"):
        load_ticket("lenet", round=3)


def test_a_mask_found_on_other_data_is_not_used(committed, monkeypatch):
    monkeypatch.setattr(data, "digest_at_hand", lambda name: "f" * 16)
    with pytest.raises(
        LotteryError, match="was found on mnist5k .* data at hand are .*never mixed"
    ):
        tables.run({"reinit": tiny.iterative().reinitialised()}, "paper")
    assert not list(Store())


def test_a_processor_that_draws_other_weights_is_told(committed, monkeypatch):
    drawn = tickets.networks.initialise
    monkeypatch.setattr(
        tickets.networks,
        "initialise",
        lambda *a: {name: value + 1e-7 for name, value in drawn(*a).items()},
    )
    with pytest.raises(LotteryError, match="draws other initial weights than the ticket's"):
        load_ticket("lenet", round=20, strategy="one-shot")


def test_the_papers_lenet_carries_its_weights(committed, monkeypatch):
    node = tiny.iterative().nodes("paper")[0]
    chain, _ = ticket_files.chains()[node.key]
    assert chain.carries_weights == (tiny.identity == lenet.identity)


def test_the_pages_own_code_races_a_ticket_of_the_book(monkeypatch, capsys):
    """The code that the page of tickets shows, as it stands there, on a committed ticket."""
    monkeypatch.delenv("LOTTERY_RESULTS")
    page = (ROOT / "book" / "tickets.md").read_text()
    race, draws = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    torch.manual_seed(0)
    exec(compile(race, "tickets.md", "exec"), {})
    untrained, trained = (
        [float(number) for number in re.findall(r"([\d.]+)%", line)]
        for line in capsys.readouterr().out.splitlines()
    )
    assert f"after 0 steps: ticket {untrained[0]}%" in page
    assert untrained[0] > 60 > 25 > untrained[1]
    assert trained[0] > trained[1] > 80
    assert 'scale="laptop"' in draws
    assert ticket_files.given(
        lenet.iterative().reinitialised(2).at_rounds(7).nodes("laptop", 1)[0]
    ), "the page says that it costs its own trainings only"


def test_exporting_again_keeps_a_file_that_has_more(committed, monkeypatch):
    before = {path: path.read_bytes() for path in ticket_files.folder().iterdir()}
    monkeypatch.setenv("LOTTERY_STORE", str(committed.folder))
    said = ticket_files.export({"fig99": {"ticket": tiny.iterative().at_rounds(0, 1)}}, "paper")
    assert all(line.endswith("has all rounds") for line in said)
    assert {path: path.read_bytes() for path in ticket_files.folder().iterdir()} == before
    assert results.committed().rows.empty


def content(path):
    """What a ticket file says and holds; its header's order is left to chance."""
    told = safe_open(path, "numpy").metadata()
    return told, {name: each.tobytes() for name, each in load_file(path).items()}


def test_a_store_of_later_rounds_adds_them_to_a_file(committed, tmp_path, monkeypatch):
    """As where another machine goes on from the committed masks: the file is what one store with
    all rounds gives."""
    plan = {"ticket": tiny.iterative()}
    [whole] = ticket_files.folder().glob("*-iterative-t0-*")
    wanted = content(whole)
    for path in ticket_files.folder().iterdir():
        path.unlink()
    early = trained_store(tmp_path / "early", tiny.iterative().at_rounds(0, 1, 2))
    monkeypatch.setenv("LOTTERY_STORE", str(early.folder))
    ticket_files.export({"fig99": plan}, "paper", 1)
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "later"))
    last = tiny.iterative().nodes("paper", 1)[-1]
    assert ticket_files.chains()[last.key][0].told(3)["weights"] == "", "found, not trained yet"
    runner.train_missing({last.key: Request(last)}, Store(), quiet=True)
    assert set(Store()) == {last.key}, "nothing before it is made anew"
    assert main(["store", "verify"]) == 0
    ticket_files.export({"fig99": plan}, "paper", 1)
    assert content(whole) == wanted


def test_a_file_learns_of_the_next_round_when_it_is_wanted(committed, tmp_path, monkeypatch):
    for path in ticket_files.folder().iterdir():
        path.unlink()
    early = tiny.iterative().at_rounds(0, 1, 2)
    monkeypatch.setenv("LOTTERY_STORE", str(trained_store(tmp_path / "early", early).folder))
    last = tiny.iterative().nodes("paper", 1)[-1]
    for plan, told in (({"early": early}, False), ({"ticket": tiny.iterative()}, True)):
        ticket_files.export({"fig99": plan}, "paper", 1)
        assert (last.key in ticket_files.chains()) == told


def test_a_file_of_other_tickets_is_not_replaced(committed, tmp_path, monkeypatch):
    [path] = ticket_files.folder().glob("*-iterative-t0-*")
    told, tensors = safe_open(path, "numpy").metadata(), load_file(path)
    rounds = json.loads(told["rounds"])[:-1]
    rounds[1]["mask"] = "0" * 16
    save_file(tensors, path, told | {"rounds": json.dumps(rounds)})
    before = path.read_bytes()
    monkeypatch.setenv("LOTTERY_STORE", str(committed.folder))
    with pytest.raises(LotteryError, match="has other tickets than the store.*delete the file"):
        ticket_files.export({"fig99": {"ticket": tiny.iterative()}}, "paper", 1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("network", ["conv2", "conv4", "conv6"])
def test_every_committed_ticket_of_a_network_loads(network, monkeypatch):
    """Whichever release of torch drew its initial weights."""
    monkeypatch.delenv("LOTTERY_RESULTS")
    dense = ticket_files.load_ticket("lenet")
    if not torch.equal(dense.weights["fc1.weight"], redrawn("lenet")["fc1.weight"]):
        pytest.skip("this processor draws other weights")
    trials = range(len(list(ticket_files.folder().glob(f"{network}-laptop-iterative-t*"))))
    assert trials
    for trial in trials:
        ticket = ticket_files.load_ticket(network, trial, round=5, scale="laptop")
        assert 0.2 < sum(map(torch.count_nonzero, ticket.mask.values())) / size_of(network) < 0.4


def redrawn(network):
    line = ticket_files.RECIPES[network].iterative()
    return tickets.dense_weights(line.nodes("laptop", 1)[0])


def size_of(network):
    return sum(layer.count for layer in ticket_files.RECIPES[network].layers)
