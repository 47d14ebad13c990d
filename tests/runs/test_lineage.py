"""One truth a training: what it was made of is told, nothing replaces it, and a control has its
ticket's mask."""

import json
import shutil

import numpy as np
import pytest
from shared import tiny, trained_store

from lottery_nb import LotteryError
from lottery_nb.__main__ import main
from lottery_nb.analysis import tables
from lottery_nb.core import data, networks, tickets
from lottery_nb.runs import batch, lineage, runner
from lottery_nb.runs.plans import requests_of
from lottery_nb.runs.store import Store, _signed

TICKETS = tiny.iterative()
PLAN = {
    "ticket": TICKETS,
    "reinit": TICKETS.reinitialised(2),
    "noise": TICKETS.with_noise(1),
    "sparse": tiny.random_sparse(),
    "continued": tiny.continued(),
}


@pytest.fixture
def store():
    runner.train_missing(requests_of([PLAN], "paper"), Store())
    return Store()


def weights(store):
    return {key: store.record(key)["weights"] for key in store}


def changed(store, key, **arrays):
    """Store another training in place of one, as if another machine had made it."""
    record, before = store.record(key), store.arrays(key)
    after = before | arrays
    kept = batch.outputs_of(after)
    shutil.rmtree(store.folder / key)
    store.write(
        key,
        record
        | {"weights": tickets.fingerprint(kept.final), "mask": tickets.fingerprint(kept.mask)},
        after,
    )


def nudged(store, key):
    """One final weight of the first layer, far from zero, is another."""
    final = store.arrays(key)["final/fc1.weight"].copy()
    final.flat[np.flatnonzero(final)[:200]] *= -3
    return {"final/fc1.weight": final}


def key_of(line, round, trial=0):
    return next(
        node.key for node in line.nodes("paper") if (node.round, node.trial) == (round, trial)
    )


def test_a_record_tells_what_it_was_made_of(store):
    node = TICKETS.reinitialised().nodes("paper")[-1]
    made, parent = store.record(node.key)["made_of"], store.record(node.parent.key)
    assert made["parents"] == {
        node.parent.key: {"mask": parent["mask"], "weights": parent["weights"]}
    }
    assert made["data"] == {"digest": data.digest("mnist5k"), "said": "mnist5k"}
    assert set(made) == {"data", "parents", "code", "commit", "versions", "device"}
    assert "1 thread" in made["device"]


def test_every_control_has_its_tickets_mask(store):
    for control in (TICKETS.reinitialised(2), TICKETS.with_noise(1)):
        for node in control.nodes("paper"):
            assert (
                store.record(node.key)["mask"]
                == store.record(key_of(TICKETS, node.round, node.trial))["mask"]
            )


def test_a_later_look_at_the_test_set_is_added_and_replaces_nothing(store):
    before, files = (
        weights(store),
        {key: (store.folder / key / "record.json").read_bytes() for key in store},
    )
    table = tables.run(
        {
            "ticket": TICKETS.at_rounds(0, 1).with_curves(),
            "reinit": TICKETS.at_rounds(2).reinitialised().with_curves(),
        },
        "paper",
        2,
    )
    assert weights(store) == before
    assert {key: (store.folder / key / "record.json").read_bytes() for key in store} == files
    looked = [key for key in store if (store.folder / key / "added.json").exists()]
    assert len(looked) == 2 * 2 + 2
    assert table[table.metric == "test_accuracy"].node.nunique() == 6
    assert all("early_stop_iteration_test" in store.record(key)["measures"] for key in looked)
    assert lineage.verify(store)[1] == {}


def test_what_was_looked_at_first_is_the_same_as_what_was_added_later(store, tmp_path):
    looked = {"ticket": TICKETS.with_curves()}
    runner.train_missing(requests_of([looked], "paper"), store)
    at_once = Store(tmp_path / "at once")
    runner.train_missing(requests_of([looked], "paper"), at_once)
    for node in TICKETS.nodes("paper"):
        ours, theirs = (each.record(node.key) for each in (store, at_once))
        assert (ours["weights"], ours["measures"], ours["holds"]) == (
            theirs["weights"],
            theirs["measures"],
            theirs["holds"],
        )
        assert {name: curve.tolist() for name, curve in store.arrays(node.key).items()} == {
            n: c.tolist() for n, c in at_once.arrays(node.key).items()
        }


def test_a_damaged_parent_comes_back_as_it_was_and_its_children_stay(store, capsys):
    before, key = weights(store), key_of(TICKETS, 1)
    (store.folder / key / "arrays.npz").write_bytes(b"")
    assert store.arrays(key) is None
    tables.run(PLAN, "paper")
    assert weights(store) == before
    assert capsys.readouterr().err.count("set aside") == 1
    assert lineage.verify(store)[1] == {}


def test_children_of_another_parent_are_named_set_aside_and_trained_anew(store, capsys):
    before, key = weights(store), key_of(TICKETS, 1)
    changed(store, key, **nudged(store, key))
    after = store.record(key)["weights"]
    assert after != before[key]
    _, wrong = lineage.verify(store)
    assert {said.split(" than ")[0] for said in wrong.values()} >= {f"was made from another {key}"}
    capsys.readouterr()
    table = tables.run(PLAN, "paper")
    said = capsys.readouterr().err
    assert f"was made from another {key} than is stored now; set aside in" in said
    assert store.record(key)["weights"] == after, "what is stored stays"
    assert lineage.verify(store)[1] == {}, "the whole chain stands on what is stored"
    assert table.node.nunique() == len(requests_of([PLAN], "paper"))
    for node in TICKETS.reinitialised(2).nodes("paper"):
        assert (
            store.record(node.key)["mask"]
            == store.record(key_of(TICKETS, node.round, node.trial))["mask"]
        )


def test_other_weights_never_replace_stored_ones(store):
    key = key_of(TICKETS, 2)
    record, arrays = store.record(key), store.arrays(key)
    with pytest.raises(
        LotteryError,
        match=f"{key} is stored with other weights than were trained now.*LOTTERY_STORE",
    ):
        store.write(key, record | {"weights": "0" * 16, "holds": ["test looks"]}, arrays)
    store.write(key, record, arrays)
    assert store.record(key) == record


def test_verify_prunes_again_and_finds_another_mask(store):
    key = key_of(TICKETS, 2)
    mask = store.arrays(key)["mask/fc1.weight"].copy()
    mask[:20] ^= 255
    changed(store, key, **{"mask/fc1.weight": mask})
    _, wrong = lineage.verify(store)
    assert wrong[key] == "has another mask than its parents give"


def test_verify_finds_a_digest_that_does_not_fit(store, capsys):
    key = key_of(TICKETS, 3)
    path = store.folder / key / "record.json"
    record = json.loads(path.read_text())
    del record["sha256"]
    path.write_bytes(_signed(record | {"weights": "0" * 16}))
    assert main(["store", "verify"]) == 1
    said = capsys.readouterr()
    assert f"{key} does not have the weights or the mask that its record tells" in said.err
    assert f"{len(list(store)) - 1} trainings are what they say, 1 are not" in said.out


def test_a_store_of_the_former_form_is_refused_in_one_line(store, capsys):
    key = key_of(TICKETS, 0)
    path = store.folder / key / "record.json"
    record = json.loads(path.read_text())
    for name in ("sha256", "form", "made_of"):
        del record[name]
    path.write_bytes(_signed(record))
    with pytest.raises(
        LotteryError, match="is of a former form.*nothing in it can be adopted.*LOTTERY_STORE"
    ):
        tables.run(PLAN, "paper")
    assert path.exists(), "it is left alone"


# --- data -----------------------------------------------------------------------------------------


MNIST = tiny.but(data="mnist", validation=5000, sizes=(8,), rounds=1, trials=1)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Two folders with a data set of MNIST's shape that differ in the label of one image; the first
    is at hand."""
    rng = np.random.default_rng(0)
    images = {
        f"x_{part}": np.broadcast_to(rng.integers(0, 256, (n, 1, 28), dtype=np.uint8), (n, 28, 28))
        for part, n in (("train", 60_000), ("test", 10_000))
    }
    labels = {
        f"y_{part}": rng.integers(0, 10, n).astype(np.uint8)
        for part, n in (("train", 60_000), ("test", 10_000))
    }
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        np.savez_compressed(tmp_path / name / "mnist.npz", **images, **labels)
        labels["y_train"][-1] ^= 1
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path / "one"))
    yield {name: tmp_path / name for name in ("one", "other")}


def test_two_copies_of_a_data_set_never_meet(copies, monkeypatch, tmp_path):
    tables.run({"ticket": MNIST.iterative().at_rounds(0)}, "paper")
    one = data.digest("mnist")
    monkeypatch.setenv("LOTTERY_DATA", str(copies["other"]))
    other = data.digest("mnist")
    assert one != other
    for rounds in ((0,), (1,)):
        with pytest.raises(
            LotteryError,
            match=f"of mnist, copy {one[:8]} .* data at hand are mnist, copy {other[:8]} "
            ".*never mixed.*LOTTERY_STORE",
        ):
            tables.run({"ticket": MNIST.iterative().at_rounds(*rounds)}, "paper")
    assert len(list(Store())) == 1
    monkeypatch.setenv("LOTTERY_STORE", str(tmp_path / "for the other"))
    table = tables.run({"ticket": MNIST.iterative()}, "paper")
    assert set(table.data) == {f"mnist, copy {other[:8]}"}
    assert set(table.dataset) == {other}


def test_without_data_at_hand_what_is_stored_serves(copies, monkeypatch, tmp_path):
    tables.run({"ticket": MNIST.iterative().at_rounds(0)}, "paper")
    monkeypatch.delenv("LOTTERY_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert tables.run({"ticket": MNIST.iterative().at_rounds(0)}, "paper").node.nunique() == 1


# --- merging --------------------------------------------------------------------------------------


def test_merge_brings_whole_lineages_and_looks_that_were_added(
    store, tmp_path, monkeypatch, capsys
):
    here = Store(tmp_path / "here")
    runner.train_missing(requests_of([{"ticket": TICKETS.at_rounds(0, 1)}], "paper"), here)
    runner.train_missing(
        requests_of([{"ticket": TICKETS.at_rounds(0).with_curves()}], "paper"), store
    )
    monkeypatch.setenv("LOTTERY_STORE", str(here.folder))
    assert main(["store", "merge", str(store.folder)]) == 0
    assert (
        f"{len(list(store)) - 4} trainings copied in, 2 measured more, 2 were here"
        in capsys.readouterr().out
    )
    assert weights(here) == weights(store)
    assert lineage.verify(here)[1] == {}


def test_merge_calls_other_weights_another_machines_or_a_conflict(store, tmp_path):
    other = Store(tmp_path / "other")
    shutil.copytree(store.folder, other.folder)
    far, near = key_of(TICKETS, 1), key_of(TICKETS, 1, trial=1)
    for key in (far, near):
        changed(other, key, **nudged(other, key))
    record, arrays = other.record(far), other.arrays(far)
    shutil.rmtree(other.folder / far)
    other.write(
        far,
        record | {"made_of": record["made_of"] | {"device": "a processor of another kind"}},
        arrays,
    )
    before = weights(store)
    fates = lineage.merge(store, other)
    assert fates["another machine's"] == [far]
    assert fates["conflict"] == [near]
    assert weights(store) == before


def test_merge_refuses_trainings_whose_parents_are_missing(store, tmp_path, capsys):
    other, key = Store(tmp_path / "other"), key_of(TICKETS, 2)
    shutil.copytree(store.folder / key, other.folder / key)
    for parent in (TICKETS.nodes("paper")[0].key,):
        shutil.copytree(store.folder / parent, other.folder / parent)
    empty = Store(tmp_path / "empty")
    assert lineage.merge(empty, other) == {
        "copied": [TICKETS.nodes("paper")[0].key],
        "without parents": [key],
    }
    assert list(empty) == [TICKETS.nodes("paper")[0].key]


def test_merge_tells_what_is_damaged_or_of_other_code_and_brings_the_rest(store, tmp_path, capsys):
    there, key = tmp_path / "there", key_of(TICKETS, 2)
    shutil.copytree(store.folder, there)
    other, root = Store(there), TICKETS.nodes("paper")[0].key
    record, arrays = other.record(root), other.arrays(root)
    strange = record | {"recipe": record["recipe"] | {"new field": 1}}
    own = ("key", "arrays_sha256", "form")
    other.write("of-tomorrow", {k: v for k, v in strange.items() if k not in own}, arrays)
    file = there / key / "arrays.npz"
    file.write_bytes(file.read_bytes()[:-1])
    here = Store(tmp_path / "here")
    fates = lineage.merge(here, other)
    assert (fates["of other code"], fates["damaged"]) == (["of-tomorrow"], [key])
    assert set(store) - set(here) == {key, *fates["without parents"]}
    assert lineage.report(there, fates) == 1
    assert "were trained by other code" in capsys.readouterr().err
    assert "this one has no new field" in lineage.verify(other)[1]["of-tomorrow"]


# --- before the first step ------------------------------------------------------------------------


def test_accuracy_before_the_first_step_is_that_of_the_ticket_as_it_is(store):
    from torch.nn import functional as F

    node = TICKETS.nodes("paper")[-1]
    ticket = tickets.make(
        node, *(batch.outputs_of(store.arrays(other.key)) for other in (node.parent, node.origin))
    )
    digits = data.load("mnist5k", validation=500)
    for split, images in (("val", digits.validation), ("test", digits.test)):
        h = images.images.flatten(1)
        for layer in ("fc1", "fc2"):
            h = F.linear(
                h, ticket.weights[f"{layer}.weight"], ticket.weights[f"{layer}.bias"]
            ).relu()
        logits = F.linear(h, ticket.weights["output.weight"], ticket.weights["output.bias"])
        measures = store.record(node.key)["measures"]
        assert measures[f"{split}_accuracy_at_start"] == pytest.approx(
            (logits.argmax(1) == images.labels).double().mean().item()
        )
        assert measures[f"{split}_loss_at_start"] == pytest.approx(
            F.cross_entropy(logits, images.labels).item(), rel=1e-5
        )
    table = tables.run({"ticket": TICKETS}, "paper")
    assert set(table.iteration[table.metric == "test_accuracy_at_start"]) == {0}


def test_the_digest_of_a_data_set_is_of_all_its_images_and_labels(copies):
    import hashlib

    total = hashlib.sha256()
    with np.load(copies["one"] / "mnist.npz") as arrays:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            total.update(str(arrays[name].shape).encode() + arrays[name].tobytes())
    assert data.digest("mnist") == total.hexdigest()[:16]
    assert json.loads((copies["one"] / "mnist.digest.json").read_text())["digest"] == data.digest(
        "mnist"
    )


def test_a_store_of_a_torch_that_draws_otherwise_is_whole(tmp_path, monkeypatch):
    draws, store = dict(networks.DRAWS), Store(tmp_path / "theirs")
    monkeypatch.setitem(networks.DRAWS, "by rejection", draws["by inversion"])
    trained_store(store.folder, TICKETS, TICKETS.reinitialised())
    monkeypatch.setitem(networks.DRAWS, "by rejection", draws["by rejection"])
    whole, wrong = lineage.verify(store)
    assert whole and not wrong
