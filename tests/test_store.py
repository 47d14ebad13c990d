import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lottery_nb import LotteryError
from lottery_nb.store import Store

RECORD = {"measures": {"a": 1.0}, "strange": False}
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


def test_a_record_is_replaced_whole(store):
    store.write("one", {**RECORD, "strange": True}, {"y": np.zeros(2)})
    assert store.record("one")["strange"]
    assert list(store.arrays("one")) == ["y"]
    assert not list(store.folder.glob(".replaced-*")) + list(store.folder.glob(".draft-*"))


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
        lambda folder: (folder / "arrays.npz").write_bytes((folder / "arrays.npz").read_bytes()[:50]),
        lambda folder: (folder / "record.json").write_text(json.dumps({**json.loads((folder / "record.json").read_text()), "strange": True})),
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


def test_verify_sweeps_out_old_drafts_only(store):
    old, new = (store.folder / f".draft-{age}" for age in ("old", "new"))
    for draft in (old, new):
        draft.mkdir()
    os.utime(old, (0, 0))
    assert store.verify() == (1, 0)
    assert (old.exists(), new.exists()) == (False, True)


def test_verify(store):
    store.write("two", RECORD, ARRAYS)
    flip_a_bit(store.folder / "two" / "arrays.npz")
    assert store.verify() == (1, 1)
    assert store.verify() == (1, 0)


def test_merge(store, tmp_path):
    other = Store(tmp_path / "other")
    other.write("one", {**RECORD, "measures": {"a": 2.0}}, ARRAYS)
    other.write("two", RECORD, ARRAYS)
    assert store.merge(other) == (1, ["one"])
    assert store.record("one")["measures"] == {"a": 1.0}
    assert store.arrays("two")["x"].tolist() == [0, 1, 2, 3, 4]
    assert store.verify() == (2, 0)


def test_merging_keeps_the_one_that_holds_more(store, tmp_path):
    other = Store(tmp_path / "other")
    nan = float("nan")
    store.write("both", {**RECORD, "holds": ["test looks"], "measures": {"a": nan, "b": 2.0}}, ARRAYS)
    other.write("both", {**RECORD, "holds": [], "measures": {"a": nan}}, ARRAYS)
    assert store.merge(other) == (0, [])
    assert store.record("both")["measures"]["b"] == 2.0
    assert other.merge(store) == (2, [])
    assert other.record("both")["measures"]["b"] == 2.0


def test_arrays_replaced_while_they_are_read_are_read_again(store, monkeypatch):
    stale, read = store.record("one"), store.record
    store.write("one", RECORD, {"x": np.arange(7)})
    told = iter([stale])
    monkeypatch.setattr(store, "record", lambda key: next(told, None) or read(key))
    assert store.arrays("one")["x"].tolist() == list(range(7))


def test_a_full_disk_loses_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LotteryError, match="the disk is full.*LOTTERY_STORE"):
        store.write("two", RECORD, ARRAYS)
    with pytest.raises(LotteryError, match="the disk is full"):
        store.write("one", {**RECORD, "strange": True}, ARRAYS)
    assert list(store) == ["one"]
    assert not store.record("one")["strange"]
    assert not list(store.folder.glob(".draft-*"))


def test_a_store_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LotteryError, match="cannot be used: it is no folder"):
        Store(tmp_path / "file").write("one", RECORD, ARRAYS)
    with pytest.raises(LotteryError, match="cannot be used"):
        Store(tmp_path / "file").lock("one")


KILLED = """
import os, signal, sys, numpy as np
from lottery_nb.store import Store
store = Store(sys.argv[1])
real, left = os.fsync, [int(sys.argv[2])]
def fsync(handle):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    real(handle)
os.fsync = fsync
for i in range(9):
    store.write(f"node{i}", {"measures": {}, "strange": False}, {"x": np.arange(100.0)})
"""


@pytest.mark.parametrize("moment", [1, 2, 7, 8])
def test_a_kill_leaves_whole_records_only(moment, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "killed", str(moment)], cwd=Path(__file__).parents[1])
    assert done.returncode == -9
    store = Store(tmp_path / "killed")
    assert list(store) == [f"node{i}" for i in range((moment - 1) // 2)]
    assert store.verify() == (len(list(store)), 0)
    store.write("node7", RECORD, ARRAYS)
    assert "node7" in store
