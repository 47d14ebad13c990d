import gc
import gzip
import hashlib
import http.server
import io
import json
import os
import struct
import tarfile
import threading

import numpy as np
import pytest
import torch

from lottery_nb import LotteryError
from lottery_nb.core import data
from lottery_nb.core.seeds import generator

# urllib leaves the connection of a refused download to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")


def mnist_arrays():
    rng = np.random.default_rng(0)
    images = [
        np.broadcast_to(rng.integers(0, 256, (n, 1, 28), dtype=np.uint8), (n, 28, 28))
        for n in (60_000, 10_000)
    ]
    labels = [rng.integers(0, 10, n).astype(np.uint8) for n in (60_000, 10_000)]
    return {"x_train": images[0], "y_train": labels[0], "x_test": images[1], "y_test": labels[1]}


def test_mnist5k_is_balanced_and_split():
    digits = data.load("mnist5k", validation=500)
    assert [len(split.labels) for split in (digits.train, digits.validation, digits.test)] == [
        4000,
        500,
        500,
    ]
    for split, each in ((digits.train, 400), (digits.validation, 50), (digits.test, 50)):
        assert torch.bincount(split.labels).tolist() == [each] * 10
        assert split.images.shape[1:] == (28, 28)
        assert (split.images.min(), split.images.max()) == (0, 1)
    together = torch.cat(
        [split.images for split in (digits.train, digits.validation, digits.test)]
    ).flatten(1)
    assert len(together.unique(dim=0)) == 5000, "no image is in two splits"


def test_validation_is_drawn_from_a_seed():
    first, again, other = (
        data.load("mnist5k", validation=500, split_seed=seed).validation.images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_mnist_from_a_folder(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "mnist.npz", **mnist_arrays())
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    digits = data.load("mnist")
    assert [len(split.labels) for split in (digits.train, digits.validation, digits.test)] == [
        55_000,
        5_000,
        10_000,
    ]
    assert torch.equal(
        digits.test.labels, torch.from_numpy(mnist_arrays()["y_test"].astype(np.int64))
    )


def keep(folder, **changes):
    """A copy of MNIST in a folder, some arrays changed."""
    np.savez_compressed(folder / "mnist.npz", **{**mnist_arrays(), **changes})


def test_a_copy_is_known_by_every_image_and_label_however_it_is_packed(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    keep(tmp_path)
    first = data.digest("mnist")
    np.savez(tmp_path / "mnist.npz", **mnist_arrays())
    assert data.digest("mnist") == first
    for key, array in mnist_arrays().items():
        altered = array.copy()
        altered[-1] ^= 1
        keep(tmp_path, **{key: altered})
        assert data.digest("mnist") != first, key
    keep(tmp_path)
    assert data.digest("mnist") == first
    assert len(first) == 16 and int(first, 16)


def test_a_digest_is_found_once_and_noted_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    keep(tmp_path)
    first, note = data.digest("mnist"), tmp_path / "mnist.digest.json"
    assert json.loads(note.read_text())["digest"] == first
    reads, real = [], data._read
    monkeypatch.setattr(
        data, "_read", lambda *arguments: reads.append(arguments) or real(*arguments)
    )
    data._read_note.cache_clear()  # as in another process
    assert (data.digest("mnist"), data.digest_at_hand("mnist"), len(reads)) == (first, first, 0)
    for text in ("", "[]", "{}", "1", note.read_text().replace(first, "")[:-1]):
        note.write_text(text)
        data._read_note.cache_clear()
        assert data.digest("mnist") == first
        assert json.loads(note.read_text())["digest"] == first
    assert len(reads) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist.digest.json", "mnist.npz"]


def test_where_no_note_can_be_kept_the_digest_is_found_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    keep(tmp_path)
    first = data.digest("mnist")
    (tmp_path / "mnist.digest.json").unlink()
    (tmp_path / "mnist.digest.json").mkdir()
    data._read_note.cache_clear()
    assert data.digest("mnist") == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist.digest.json", "mnist.npz"]


def test_the_digits_that_come_along_are_known_and_nothing_else_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "_download", None)
    assert [data.digest_at_hand(name) for name in data.SHAPES] == [None] * 4
    for name in data.EMBEDDED:
        digits = data.load(name, validation=100)
        assert data.KNOWN[digits.digest] == data.said(name) == name
        assert digits.digest == data.digest(name) == data.digest_at_hand(name)
    assert [data.digest_at_hand(name) for name in ("mnist", "cifar10")] == [None, None]


def spoil(path, how):
    arrays = mnist_arrays()
    if how == "truncated":
        np.savez_compressed(path, **arrays)
        path.write_bytes(path.read_bytes()[:20_000])
    elif how.startswith("altered"):
        at = {"altered code": 60, "altered header": 150}[how]
        np.savez_compressed(path, **arrays)
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + b"\xff" * 64 + whole[at + 64 :])
    elif how == "missing array":
        np.savez_compressed(
            path, **{key: value for key, value in arrays.items() if key != "y_test"}
        )
    elif how == "wrong shape":
        np.savez_compressed(path, **{**arrays, "x_test": arrays["x_test"][:, :14]})
    elif how == "wrong labels":
        np.savez_compressed(path, **{**arrays, "y_test": arrays["y_test"] + 1})
    elif how == "pickled":
        np.savez_compressed(path, **{**arrays, "y_test": np.array([{}], dtype=object)})
    elif how == "text":
        path.write_text("not a zip file")


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "altered code",
        "altered header",
        "missing array",
        "wrong shape",
        "wrong labels",
        "pickled",
        "text",
        "absent",
    ],
)
def test_a_bad_folder_is_named(how, tmp_path, monkeypatch):
    spoil(tmp_path / "mnist.npz", how)
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    with pytest.raises(LotteryError, match="mnist.npz") as caught:
        data.load("mnist")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_smaller_digits_are_every_fifth_of_the_small_ones():
    few = data.load("mnist1k", validation=100)
    assert [len(split.labels) for split in (few.train, few.validation, few.test)] == [800, 100, 100]
    for split, each in ((few.train, 80), (few.validation, 10), (few.test, 10)):
        assert torch.bincount(split.labels).tolist() == [each] * 10


def test_the_views_of_an_image_are_all_its_shifts_mirrored_and_not():
    image = torch.rand(32, 32, 3, generator=generator("image"))
    padded = torch.nn.functional.pad(image, (0, 0, 4, 4, 4, 4))
    windows = [padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    seen = data.augmented(image.expand(data.VIEWS, 32, 32, 3), torch.arange(data.VIEWS))
    assert 2 * len(windows) == data.VIEWS
    for view, expected in zip(seen, [w for window in windows for w in (window, window.flip(1))]):
        assert torch.equal(view, expected)


@pytest.mark.parametrize("look", [data.load, data.file_of, data.digest_at_hand])
def test_unknown_names(look, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(LotteryError, match="no data set 'cifr10': choose mnist"):
        look("cifr10")
    assert not [*tmp_path.iterdir()]


def test_torchvision_imports_beside_any_torch():
    """Also where a CUDA build of torchvision meets a CPU build of torch, which fails on a plain
    import."""
    datasets = data.torchvision_datasets()
    assert datasets.MNIST.resources
    assert data.torchvision_datasets() is datasets


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A web server on this machine that offers small files in MNIST's own format, with their
    checksums."""
    datasets = data.torchvision_datasets()
    folder, resources, arrays = tmp_path / "mirror", [], mnist_arrays()
    folder.mkdir()
    for (name, _), key in zip(datasets.MNIST.resources, ("x_train", "y_train", "x_test", "y_test")):
        array = arrays[key]
        header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
            f">{array.ndim}I", *array.shape
        )
        packed = gzip.compress(header + np.ascontiguousarray(array).tobytes(), compresslevel=1)
        (folder / name).write_bytes(packed)
        resources.append((name, hashlib.md5(packed).hexdigest()))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield folder
    server.shutdown()
    server.server_close()
    gc.collect()


def test_mnist_is_downloaded_once_and_checked(mirror, tmp_path):
    digits = data.load("mnist")
    assert len(digits.train.labels) == 55_000
    for name in mirror.iterdir():
        name.unlink()
    again = data.load("mnist")
    assert torch.equal(again.train.images, digits.train.images)
    assert again.digest == digits.digest
    assert data.said("mnist") == "mnist", "what was downloaded and checked has the published name"


def test_an_altered_download_is_refused(mirror):
    altered = next(mirror.glob("train-images*"))
    altered.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(LotteryError, match="could not be downloaded"):
        data.load("mnist")


def test_no_network_and_no_data_names_three_ways(mirror):
    for name in mirror.iterdir():
        name.unlink()
    with pytest.raises(LotteryError, match="Three ways to get it") as caught:
        data.load("mnist")
    assert "LOTTERY_DATA" in str(caught.value)
    assert "mnist.npz" in str(caught.value)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(LotteryError, match="XDG_CACHE_HOME"):
        data.load("mnist5k", validation=500)


# --- CIFAR-10 -------------------------------------------------------------------------------------


def cifar_arrays():
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (50_000, 10_000)]
    labels = [rng.integers(0, 10, n, dtype=np.uint8) for n in (50_000, 10_000)]
    return {"x_train": images[0], "y_train": labels[0], "x_test": images[1], "y_test": labels[1]}


@pytest.fixture(scope="module")
def cifar():
    return cifar_arrays()


def test_scalings(cifar, tmp_path, monkeypatch):
    np.savez(tmp_path / "cifar10.npz", **cifar)
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    raw, unit, centred, standardised = (
        data.load("cifar10", scaling) for scaling in ("raw", "unit", "centred", "standardised")
    )
    assert [len(split.labels) for split in (raw.train, raw.validation, raw.test)] == [
        45_000,
        5_000,
        10_000,
    ]
    assert raw.train.images.shape == (45_000, 32, 32, 3)
    assert (raw.train.images.min(), raw.train.images.max()) == (0, 255)
    assert torch.allclose(unit.test.images * 255, raw.test.images)
    assert centred.train.images.mean((0, 1, 2)).abs().max() < 0.1
    assert torch.allclose(
        centred.test.images - centred.test.images[0, 0, 0],
        raw.test.images - raw.test.images[0, 0, 0],
        atol=1e-3,
    )
    flat = standardised.train.images.flatten(0, 2)
    assert flat.mean(0).abs().max() < 1e-3
    assert (flat.std(0) - 1).abs().max() < 1e-3
    assert (
        raw.digest == unit.digest == centred.digest == standardised.digest == data.digest("cifar10")
    )


def test_a_copy_with_other_pixels_is_said_so(cifar, tmp_path, monkeypatch):
    np.savez(tmp_path / "cifar10.npz", **cifar)
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    first = data.load("cifar10", "raw").digest
    assert data.said("cifar10") == f"cifar10, copy {first[:8]}"
    np.savez(tmp_path / "cifar10.npz", **{**cifar, "x_train": cifar["x_train"] // 2})
    other = data.load("cifar10", "raw").digest
    assert other != first
    assert data.said("cifar10") == f"cifar10, copy {other[:8]}"
    monkeypatch.setitem(data.KNOWN, other, "cifar10, the darker copy")
    assert data.said("cifar10") == "cifar10, the darker copy"


def test_the_published_binary_archive_is_read_without_pickle(cifar, tmp_path):
    archive = tmp_path / "cifar.tar.gz"
    train = np.concatenate(
        [cifar["y_train"][:, None], cifar["x_train"].transpose(0, 3, 1, 2).reshape(50_000, -1)],
        axis=1,
    )
    test = np.concatenate(
        [cifar["y_test"][:, None], cifar["x_test"].transpose(0, 3, 1, 2).reshape(10_000, -1)],
        axis=1,
    )
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, part in (
            *((f"data_batch_{i + 1}", train[10_000 * i : 10_000 * (i + 1)]) for i in range(5)),
            ("test_batch", test),
        ):
            content = part.tobytes()
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    for key, array in zip(
        ("x_train", "y_train", "x_test", "y_test"), data._cifar10_binary(archive)
    ):
        assert np.array_equal(array, cifar[key]), key


def test_a_copy_of_the_same_size_and_time_is_looked_at_anew(tmp_path, monkeypatch):
    arrays = mnist_arrays()
    np.savez(tmp_path / "mnist.npz", **arrays)
    os.utime(tmp_path / "mnist.npz", (0, 0))
    monkeypatch.setenv("LOTTERY_DATA", str(tmp_path))
    first = data.digest("mnist")
    arrays["y_train"] = (arrays["y_train"] + 1) % 10
    np.savez(tmp_path / "other.npz", **arrays)
    os.utime(tmp_path / "other.npz", (0, 0))
    (tmp_path / "other.npz").replace(tmp_path / "mnist.npz")
    assert data.digest("mnist") != first
