import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lottery_nb import LotteryError
from lottery_nb.runs.store import ROOT, Store

MADE = {"device": "a processor", "versions": "a torch"}
RECORD = {
    "measures": {"a": 1.0},
    "holds": [],
    "weights": "0123",
    "made_of": MADE,
    "seconds": 1.0,
    "strange": False,
}
LOOKED = {**RECORD, "measures": {"a": 1.0, "b": 2.0}, "holds": ["test looks"]}
ARRAYS = {"x": np.arange(5.0)}


@pytest.fixture
def store():
    store = Store()
    store.write("one", RECORD, ARRAYS)
    return store


def test_what_is_written_is_read(store):
    assert store.record("one")["measures"] == {"a": 1.0}
    assert store.arrays("one")["x"].tolist() == [0, 1, 2, 3, 4]
    assert list(store) == ["one"]
    assert "one" in store
    assert "two" not in store
    assert store.arrays("two") is None


def test_a_record_stays_and_what_was_measured_later_is_added(store):
    before = (store.folder / "one" / "record.json").read_bytes()
    store.write(
        "one",
        {**LOOKED, "measures": {"a": 5.0, "b": 2.0}},
        {**ARRAYS, "x": np.zeros(5), "test_loss": np.array([0.1, 0.3])},
    )
    assert (store.folder / "one" / "record.json").read_bytes() == before
    assert store.record("one")["measures"] == {"a": 1.0, "b": 2.0}, "what was there stays as it was"
    assert store.record("one")["holds"] == ["test looks"]
    assert {name: array.tolist() for name, array in store.arrays("one").items()} == {
        "x": [0, 1, 2, 3, 4],
        "test_loss": [0.1, 0.3],
    }
    assert not list(store.folder.glob(".draft-*"))


def test_other_weights_are_refused(store):
    with pytest.raises(
        LotteryError,
        match="one is stored with other weights than were trained now.*stored: a processor, "
        "a torch; now: another, a torch",
    ):
        store.write(
            "one", {**LOOKED, "weights": "4567", "made_of": {**MADE, "device": "another"}}, ARRAYS
        )
    assert store.record("one")["measures"] == {"a": 1.0}


def test_a_damaged_addition_is_set_aside_and_the_training_stays(store, capsys):
    store.write("one", LOOKED, ARRAYS)
    flip_a_bit(store.folder / "one" / "added.json")
    assert store.record("one")["measures"] == {"a": 1.0}
    assert "one/added.json is damaged" in capsys.readouterr().err
    store.write("one", LOOKED, ARRAYS)
    assert store.record("one")["measures"] == {"a": 1.0, "b": 2.0}


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_a_bit(folder / "arrays.npz"),
        lambda folder: flip_a_bit(folder / "record.json"),
        lambda folder: (folder / "arrays.npz").unlink(),
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: (folder / "record.json").write_text(""),
        lambda folder: (folder / "record.json").write_text("[]"),
        lambda folder: (folder / "arrays.npz").write_bytes(
            (folder / "arrays.npz").read_bytes()[:50]
        ),
        lambda folder: (folder / "record.json").write_text(
            json.dumps({**json.loads((folder / "record.json").read_text()), "strange": True})
        ),
    ],
)
def test_damage_is_named_set_aside_and_never_used(store, damage, capsys):
    damage(store.folder / "one")
    assert store.arrays("one") is None
    assert "one" not in store
    assert "one" in capsys.readouterr().err
    assert len(list((store.folder / ".damaged").iterdir())) == 1
    store.write("one", RECORD, ARRAYS)
    assert "one" in store


def test_a_record_under_another_name_is_not_used(store):
    (store.folder / "one").rename(store.folder / "two")
    assert "two" not in store


def test_old_drafts_only_are_swept_out(store):
    old, new = (store.folder / f".draft-{age}" for age in ("old", "new"))
    for draft in (old, new):
        draft.mkdir()
    file = store.folder / ".draft-file.json"
    file.write_text("")
    for draft in (old, file):
        os.utime(draft, (0, 0))
    # another process finishes one between the look at the folder and that at the file
    (store.folder / ".draft-gone").symlink_to(store.folder / "nowhere")
    store.sweep()
    assert (old.exists(), file.exists(), new.exists()) == (False, False, True)


def test_a_full_disk_loses_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LotteryError, match="the disk is full.*LOTTERY_STORE"):
        store.write("two", RECORD, ARRAYS)
    with pytest.raises(LotteryError, match="the disk is full"):
        store.write("one", LOOKED, ARRAYS)
    assert list(store) == ["one"]
    assert store.record("one")["measures"] == {"a": 1.0}
    assert not list(store.folder.glob(".draft-*"))


def test_a_store_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LotteryError, match="cannot be used: it is no folder"):
        Store(tmp_path / "file").write("one", RECORD, ARRAYS)
    with pytest.raises(LotteryError, match="cannot be used"):
        Store(tmp_path / "file").lock("one")


KILLED = """
import os, signal, sys, numpy as np
from pathlib import Path
from lottery_nb.runs.store import Store
from test_store import LOOKED, RECORD
store, left = Store(sys.argv[1]), [int(sys.argv[2])]
def killing(real):
    def step(*arguments):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return step
os.fsync, Path.rename, Path.replace = map(killing, (os.fsync, Path.rename, Path.replace))
for i in range(9):
    store.write(f"node{i}", RECORD, {"x": np.arange(100.0)})
    store.write(f"node{i}", LOOKED, {"x": np.arange(100.0)})
"""
# Of a training and what is added: two files and a rename, the same again, which is refused, a file
# and a replacement
STEPS = 8


@pytest.mark.parametrize("moment", range(1, 2 * STEPS + 1))
def test_a_kill_at_any_step_loses_nothing_that_was_there(moment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "killed", str(moment)],
        cwd=Path(__file__).parent,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -9
    store = Store(tmp_path / "killed")
    whole, rest = divmod(moment - 1, STEPS)
    assert list(store) == [f"node{i}" for i in range(whole + (rest >= 3))]
    for key in store:
        assert store.arrays(key)["x"].tolist() == list(range(100))
        assert set(store.record(key)["measures"]) >= {"a"}
    assert all("b" in store.record(f"node{i}")["measures"] for i in range(whole))
    store.write("node7", RECORD, ARRAYS)
    assert "node7" in store and all(key in store for key in list(store))
    assert not list(store.folder.glob(".replaced-*"))
