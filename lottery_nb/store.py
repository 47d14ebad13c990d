"""Finished trainings on disk, one folder a node: `record.json` and `arrays.npz`.

Written under a temporary name and renamed, so that a kill at any moment leaves whole records only; checksummed, so that
a damaged one is set aside and trained again, never used. No pickle.
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
from pathlib import Path

import numpy as np
from filelock import FileLock

from .errors import LotteryError

ROOT = Path(__file__).resolve().parents[1]


class Store:
    """A folder of finished trainings; `LOTTERY_STORE` names it, else `results/` in the project."""

    def __init__(self, folder: str | os.PathLike | None = None):
        self.folder = Path(folder or os.environ.get("LOTTERY_STORE") or ROOT / "results").absolute()

    def __contains__(self, key: str) -> bool:
        return self.record(key) is not None

    def __iter__(self) -> Iterator[str]:
        """Keys of all records, damaged ones included, sorted."""
        return iter(sorted(path.parent.name for path in self.folder.glob("*/record.json") if not path.parent.name.startswith(".")))

    def record(self, key: str) -> dict | None:
        """The record of a training, or None where there is none; a damaged one is set aside and counts as none."""
        try:
            text = (self.folder / key / "record.json").read_text()
            record = json.loads(text)
            whole = record.pop("sha256", None) == digest(canonical(record)) and record["key"] == key
        except FileNotFoundError:
            if (self.folder / key).is_dir() and not (self.folder / key / "record.json").exists():  # nor come in the meantime
                self.set_aside(key, "has no record.json")
            return None
        except (ValueError, AttributeError, KeyError, TypeError):
            whole = False
        except OSError as error:
            raise self._unusable(error) from error
        if not whole:
            self.set_aside(key, "is damaged: record.json does not match its checksum")
            return None
        return record

    def arrays(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of a training, or None where there are none; damaged ones are set aside, record included."""
        record = self.record(key)
        if record is None:
            return None
        try:
            data = (self.folder / key / "arrays.npz").read_bytes()
            if digest(data) != record["arrays_sha256"]:
                raise ValueError("checksum")
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (FileNotFoundError, ValueError, KeyError, zipfile.BadZipFile):
            now = self.record(key)
            if now and now.get("arrays_sha256") != record.get("arrays_sha256"):
                return self.arrays(key)  # another process has replaced it in the meantime
            self.set_aside(key, "is damaged: arrays.npz does not match its checksum")
            return None
        except OSError as error:
            raise self._unusable(error) from error

    def needed_arrays(self, key: str) -> dict[str, np.ndarray]:
        """The arrays of a training that is stored, as its record told; raises LotteryError where they turn out damaged."""
        arrays = self.arrays(key)
        if arrays is None:
            raise LotteryError(f"store: {key} was damaged after it was stored; run again to train it anew")
        return arrays

    def write(self, key: str, record: dict, arrays: dict[str, np.ndarray]) -> None:
        """Keep a training, all of it or nothing; one that is there under the key is replaced."""
        packed = io.BytesIO()
        np.savez(packed, **arrays)
        record = {"key": key, **record, "arrays_sha256": digest(packed.getvalue())}
        record["sha256"] = digest(canonical(record))
        draft = self.folder / f".draft-{uuid.uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            _write_through(draft / "arrays.npz", packed.getvalue())
            _write_through(draft / "record.json", json.dumps(record, indent=1, sort_keys=True).encode())
            if (self.folder / key).exists():
                (self.folder / key).rename(self.folder / f".replaced-{uuid.uuid4().hex}")
            draft.rename(self.folder / key)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            for leftover in (draft, *self.folder.glob(".replaced-*")):
                shutil.rmtree(leftover, ignore_errors=True)

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
        """Move a damaged training out of the way, and say so."""
        aside = self.folder / ".damaged" / f"{key}-{uuid.uuid4().hex[:6]}"
        try:
            aside.parent.mkdir(exist_ok=True)
            (self.folder / key).rename(aside)
        except FileNotFoundError:
            return  # another process was first
        except OSError as error:
            raise self._unusable(error) from error
        print(f"store: {key} {why}; set aside in {aside}, it will be trained again", file=sys.stderr)

    def verify(self) -> tuple[int, int]:
        """Check every training against its checksums and set aside what is damaged: (whole, damaged). Also sweeps out
        what a killed run left half-written, once it is an hour old."""
        for draft in self.folder.glob(".draft-*"):
            if time.time() - draft.stat().st_mtime > 3600:
                shutil.rmtree(draft, ignore_errors=True)
        keys = list(self)
        whole = sum(self.arrays(key) is not None for key in keys)
        return whole, len(keys) - whole

    def merge(self, other: "Store") -> tuple[int, list[str]]:
        """Copy in the other store's trainings that are not here, or hold less here: (how many, keys that both have with other results)."""
        copied, conflicts = 0, []
        for key in other:
            theirs, ours = other.record(key), self.record(key)
            if theirs is None:
                continue
            if ours and not _agree(ours["measures"], theirs["measures"]):
                conflicts.append(key)
            elif not ours or set(theirs.get("holds", ())) > set(ours.get("holds", ())):
                arrays = other.arrays(key)
                if arrays is not None:
                    self.write(key, {name: value for name, value in theirs.items() if name not in ("key", "arrays_sha256")}, arrays)
                    copied += 1
        return copied, conflicts

    def _unusable(self, error: OSError) -> LotteryError:
        what = {errno.ENOSPC: "the disk is full", errno.EROFS: "it is read-only", errno.EACCES: "it is not yours to write", errno.ENOTDIR: "it is no folder"}
        return LotteryError(
            f"the store {self.folder} cannot be used: {what.get(error.errno, error.strerror)}. Finished trainings are safe; "
            "free some space or set LOTTERY_STORE to a folder you can write to, and run again"
        )


def _agree(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Whether what both have measured is the same; one may have looked at more."""
    return all(canonical(value) == canonical(theirs[name]) for name, value in ours.items() if name in theirs)  # as text: NaN is NaN


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def canonical(record: dict | float) -> bytes:
    """What the checksum of a record is of."""
    return json.dumps(record, sort_keys=True).encode()


def digest(data: bytes) -> str:
    """The checksum of records and arrays."""
    return hashlib.sha256(data).hexdigest()
