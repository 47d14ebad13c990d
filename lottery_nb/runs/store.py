"""Finished trainings on disk, one folder a node: `record.json` and `arrays.npz`, which never change
once they are there, and `added.json`, what was measured beside them later.

Written under a temporary name and renamed, so that a kill at any moment leaves whole records only;
checksummed, so that a damaged one is set aside and trained again, never used. No pickle.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

from ..core.errors import LotteryError

ROOT = Path(__file__).resolve().parents[2]
FORM = 2  # of records: these tell what a training was made of
TEST_CURVES = (
    "test_loss",
    "test_accuracy",
)  # which a training leaves where it is asked for test looks


def results_folder() -> Path | None:
    """Where the committed tables are: LOTTERY_RESULTS, else `book/results`; none where
    LOTTERY_RESULTS is empty."""
    named = os.environ.get("LOTTERY_RESULTS")
    return ROOT / "book" / "results" if named is None else Path(named) if named else None


class Store:
    """A folder of finished trainings; `LOTTERY_STORE` names it, else `results/` in the project."""

    def __init__(self, folder: str | os.PathLike | None = None):
        self.folder = Path(folder or os.environ.get("LOTTERY_STORE") or ROOT / "results").absolute()

    def __contains__(self, key: str) -> bool:
        return self.record(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Keys of all records, damaged ones included, sorted."""
        return iter(
            sorted(
                path.parent.name
                for path in self.folder.glob("*/record.json")
                if not path.parent.name.startswith(".")
            )
        )

    def record(self, key: str) -> dict | None:
        """The record of a training and what was added to it, or None where there is none; a damaged
        one is set aside and counts as none. Raises LotteryError for one of the former form."""
        path = self.folder / key / "record.json"
        record = self._checked(path)
        if record is None:
            if path.parent.is_dir() and not path.exists():  # nor come in the meantime
                self.set_aside(key, "has no record.json")
            return None
        if record.get("key") != key:
            self.set_aside(
                key,
                f"is damaged: its record is of {record['key']}"
                if record
                else "is damaged: record.json does not match its checksum",
            )
            return None
        if record.get("form") != FORM:
            raise LotteryError(
                f"the store {self.folder} is of a former form: {key} does not tell on what data "
                "and parents it was trained, so nothing in it can be adopted. "
                "Move the folder away, or set LOTTERY_STORE to another; committed results do not "
                "need it"
            )
        return _joined(record, self.added(key))

    def added(self, key: str) -> dict:
        """What was measured of a training after it was stored; {} where nothing was."""
        added = self._checked(self.folder / key / "added.json")
        if added == {}:
            self.set_aside(f"{key}/added.json", "is damaged: it does not match its checksum")
        return added or {}

    def _checked(self, path: Path) -> dict | None:
        """A file that carries its checksum; None where there is none, {} where it is damaged."""
        try:
            content = json.loads(path.read_text())
            return (
                content
                if content.pop("sha256", None) == digest(canonical(content)) and content.get("key")
                else {}
            )
        except FileNotFoundError:
            return None
        except (ValueError, AttributeError, TypeError):
            return {}
        except OSError as error:
            raise self._unusable(error) from error

    def arrays(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of a training, or None where there are none; damaged ones are set aside,
        record included."""
        record = self.record(key)
        if record is None:
            return None
        try:
            data = (self.folder / key / "arrays.npz").read_bytes()
            if digest(data) != record["arrays_sha256"]:
                raise ValueError("checksum")
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files} | {
                    name: np.array(curve)
                    for name, curve in self.added(key).get("curves", {}).items()
                }
        except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile):
            self.set_aside(key, "is damaged: arrays.npz does not match its checksum")
            return None
        except OSError as error:
            raise self._unusable(error) from error

    def needed_record(self, key: str) -> dict:
        """The record of a training that is stored, as an earlier look told; raises LotteryError
        where it turns out damaged."""
        return _needed(key, self.record(key))

    def needed_arrays(self, key: str) -> dict[str, np.ndarray]:
        """The arrays of a training that is stored, as its record told; raises LotteryError where
        they turn out damaged."""
        return _needed(key, self.arrays(key))

    def write(self, key: str, record: dict, arrays: dict[str, np.ndarray]) -> None:
        """Keep a training, all of it or nothing. One that is there stays; what the new one measured
        besides is added to it, as long as it has the same weights. Raises LotteryError where it has
        others."""
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        draft = self.folder / f".draft-{uuid.uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            _write_through(draft / "arrays.npz", packed.getvalue())
            _write_through(
                draft / "record.json",
                _signed(
                    {"key": key, **record, "form": FORM, "arrays_sha256": digest(packed.getvalue())}
                ),
            )
            while True:
                try:
                    draft.rename(self.folder / key)
                    return
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                stored = self.record(key)
                if stored:  # else it was damaged, and has just been set aside
                    return self._add(key, stored, record, arrays)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _add(self, key: str, stored: dict, record: dict, arrays: dict[str, np.ndarray]) -> None:
        if stored["weights"] != record["weights"]:
            theirs, ours = (each["made_of"] for each in (stored, record))
            raise LotteryError(
                f"store: {key} is stored with other weights than were trained now, so nothing is "
                "added to it "
                f"(stored: {theirs['device']}, {theirs['versions']}; now: {ours['device']}, "
                f"{ours['versions']}). "
                "It stays; train on a machine like the first, or set LOTTERY_STORE to another "
                "folder"
            )
        fresh = {
            name: value
            for name, value in record["measures"].items()
            if name not in stored["measures"]
        }
        if set(record["holds"]) <= set(stored["holds"]):
            return
        before = self.added(key).get("curves", {})
        curves = before | {
            name: curve.tolist() for name, curve in arrays.items() if name in TEST_CURVES
        }
        added = {
            "key": key,
            "holds": record["holds"],
            "measures": fresh,
            "curves": curves,
            "made_of": record["made_of"],
            "seconds": record["seconds"],
        }
        draft = self.folder / f".draft-{uuid.uuid4().hex}.json"
        try:
            _write_through(draft, _signed(added))
            draft.replace(self.folder / key / "added.json")
        finally:
            draft.unlink(missing_ok=True)

    def lock(self, key: str) -> FileLock:
        """A lock on one training, held while it runs so that no other process trains it too."""
        folder = self.folder / ".locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{key}.lock").touch()
        except OSError as error:
            raise self._unusable(error) from error
        return FileLock(folder / f"{key}.lock", blocking=False)

    def set_aside(self, key: str, why: str) -> None:
        """Move a training that cannot be used out of the way, and say so."""
        aside = self.folder / ".damaged" / f"{key.replace('/', '-')}-{uuid.uuid4().hex[:6]}"
        try:
            aside.parent.mkdir(exist_ok=True)
            (self.folder / key).rename(aside)
        except FileNotFoundError:
            return  # another process was first
        except OSError as error:
            print(
                f"store: {key} {why}; it cannot be moved out of the way ({error.strerror}) and "
                "counts as not there",
                file=sys.stderr,
            )
            return
        print(
            f"store: {key} {why}; set aside in {aside}, it will be trained again", file=sys.stderr
        )

    def sweep(self) -> None:
        """Delete what killed runs left half-written, once it is an hour old."""
        for draft in self.folder.glob(".draft-*"):
            with suppress(FileNotFoundError):  # another process has just finished it
                if time.time() - draft.stat().st_mtime > 3600:
                    shutil.rmtree(draft) if draft.is_dir() else draft.unlink()

    def _unusable(self, error: OSError) -> LotteryError:
        what = {
            errno.ENOSPC: "the disk is full",
            errno.EROFS: "it is read-only",
            errno.EACCES: "it is not yours to write",
            errno.ENOTDIR: "it is no folder",
        }
        why = what.get(error.errno or 0, str(error.strerror))
        return LotteryError(
            f"the store {self.folder} cannot be used: {why}. "
            "Finished trainings are safe; "
            "free some space or set LOTTERY_STORE to a folder you can write to, and run again"
        )


def _needed(key: str, found: dict | None) -> dict:
    if found is None:
        raise LotteryError(
            f"store: {key} was damaged after it was stored; run again to train it anew"
        )
    return found


def _joined(record: dict, added: dict) -> dict:
    """A record with what was added to it."""
    if not added:
        return record
    return record | {
        "measures": record["measures"] | added["measures"],
        "holds": sorted({*record["holds"], *added["holds"]}),
    }


def _signed(content: dict) -> bytes:
    """A file's content with its checksum."""
    return json.dumps(
        content | {"sha256": digest(canonical(content))}, indent=1, sort_keys=True
    ).encode()


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def digests_of(record: dict) -> dict[str, str]:
    """By which those that stand on a training know it: those of its mask and its final weights."""
    return {name: record[name] for name in ("mask", "weights")}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to write, which then takes the place of a file: all of it or nothing. Raises
    LotteryError where it cannot be written."""
    draft = path.with_suffix(".draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        draft.replace(path)
    except OSError as error:
        why = error.strerror or " ".join(str(error).split())
        raise LotteryError(
            f"{path} cannot be written ({why}): it stays as it was; free some space, or have it "
            "in a folder that you can write to"
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a committed folder, which is made, for a process that reads what it has, adds to it, and
    writes it. Raises LotteryError where it cannot be held."""
    folder = folder.absolute()
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise LotteryError(
            f"{error.filename} cannot be written ({error.strerror}): set LOTTERY_RESULTS to a "
            "folder in one that you can write to"
        ) from error
    try:
        yield
    finally:
        lock.release()


def canonical(record: dict | float) -> bytes:
    """What the checksum of a record is of."""
    return json.dumps(record, sort_keys=True).encode()


def digest(data: bytes) -> str:
    """The checksum of records and arrays."""
    return hashlib.sha256(data).hexdigest()
