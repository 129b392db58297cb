import mmap
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.store import cifar
from tests.support import images, write_download

N = 40


def dump(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "holds a list"),
        ({"x": 1}, "has no 'data'; its keys are x"),
        ({"data": [1]}, "data is list"),
        ({"data": np.zeros((2, 5), np.uint8)}, r"data is uint8 \(2, 5\)"),
        ({"data": np.zeros((2, 32, 32, 3), np.float32)}, "data is float32"),
        ({"data": np.zeros((0, 32, 32, 3), np.uint8)}, r"data is uint8 \(0, 32"),
        ({"data": images(2), "ids": np.array([1, 1])}, "not unique: 1 is there 2 times"),
        ({"data": images(2), "ids": np.array([1, 2, 3])}, r"not 2 whole numbers.* but ndarray of shape \(3,\)"),
        ({"data": images(2), "ids": np.zeros((2, 2), int)}, r"not 2 whole numbers.* but ndarray of shape \(2, 2\)"),
        ({"data": images(2), "ids": (1, 2, 3)}, r"not 2 whole numbers.* but tuple of shape \(3,\)"),
        ({"data": images(2), "ids": {"1": 2}}, "not 2 whole numbers.* but dict"),
        ({"data": images(2), "ids": np.array([1.0, np.nan])}, "not 2 whole numbers.*: number 1 is nan"),
        ({"data": images(2), "ids": [0.5, 1.0]}, "not 2 whole numbers.*: number 0 is 0.5"),
        ({"data": images(2), "ids": ["1", "b.png"]}, "not 2 whole numbers.*: number 1 is b.png"),
        ({"data": images(2), "ids": [1, [[2], [3, 4]]]}, "not 2 whole numbers.*: number 1 is"),
        ({"data": images(2), "ids": [0, -1]}, "not 2 whole numbers from 0 on.*: number 1 is -1"),
        (
            {"data": images(2), "ids": np.array([1, 2**63], np.uint64)},
            "not 2 whole numbers.*: number 1 is 9223372036854775808",
        ),
    ],
)
def test_a_wrong_hidden_set_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(BadData, match=said):
        cifar.read_hidden(dump(tmp_path / "hidden.pkl", content))


@pytest.mark.parametrize("flat", [False, True])
def test_a_large_hidden_set_is_mapped_and_read_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat: bool
) -> None:
    pixels = images(50)
    stored = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(50, -1) if flat else pixels
    path = tmp_path / "cifar_test_nolabel.pkl"
    path.write_bytes(pickle.dumps({b"data": stored, b"ids": np.arange(50, 0, -1)}))
    monkeypatch.setattr(cifar, "IN_MEMORY", 1000)
    monkeypatch.setattr(cifar, "CHUNK", 7)
    monkeypatch.setattr(cifar, "SAMPLE", 20)
    monkeypatch.setattr(cifar, "STRETCHES", 4)
    hidden = cifar.read_hidden(path)
    owner: object = hidden.raw.base
    assert isinstance(owner, mmap.mmap)
    assert [len(chunk) for chunk in hidden.chunks() if chunk.sum()] == [*(7 * [7]), 1]
    maps = Path("/proc/self/smaps").read_text().partition(str(path))[2]
    assert re.search(r"Rss: +0 kB", maps.partition("VmFlags")[0])  # what was read was forgotten
    assert np.array_equal(np.concatenate(list(hidden.chunks())), pixels)
    assert np.array_equal(hidden.sample(), pixels[[*range(5), *range(15, 20), *range(30, 35), *range(45, 50)]])
    assert hidden.ids.tolist() == list(range(50, 0, -1))


def test_colours_are_judged_by_more_images_than_the_layout(tmp_path: Path) -> None:
    hidden = cifar.read_hidden(dump(tmp_path / "hidden.pkl", {"data": images(2 * cifar.LAYOUT_SAMPLE)}))
    assert len(hidden.sample()) == len(hidden)


@pytest.mark.parametrize(
    ("order", "labels", "said"),
    [
        ((0, 1, 2, 3), [1, 2], r"scrambled \(flat HWC\)"),
        ((0, 3, 1, 2), [1], "not 2 whole numbers"),
        ((0, 3, 1, 2), [1, 10], "outside 0..9"),
        ((0, 3, 1, 2), [1, -1], "not 2 whole numbers"),
    ],
)
def test_a_wrong_batch_is_refused(tmp_path: Path, order: tuple[int, ...], labels: list[int], said: str) -> None:
    data = np.ascontiguousarray(images(2).transpose(order)).reshape(2, 3072)
    dump(tmp_path / "test_batch", {b"data": data, b"labels": labels})
    with pytest.raises(BadData, match=said):
        cifar.read_batches(tmp_path, ("test_batch",))


@pytest.mark.parametrize("name", ["cifar_test_nolabel.pkl", "cifar-10-python/cifar-10-batches-py/data_batch_2"])
def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, name: str) -> None:
    source = write_download(tmp_path)
    with (source / name).open("r+b") as stream:
        stream.truncate(cifar.MAX_BYTES + 1)  # takes no disk
    find = cifar.find_hidden if name.endswith(".pkl") else cifar.find_batches
    with pytest.raises(BadData, match="the limit is"):
        find(source)


# --- how the pixels lie ---


@pytest.mark.parametrize(
    ("shape", "axes", "then", "name"),
    [
        ((N, 3072), (0, 3, 1, 2), None, "flat CHW"),
        ((N, 3072), (0, 1, 2, 3), None, "flat HWC"),
        ((N, 3, 32, 32), (0, 3, 1, 2), None, "CHW"),
        ((N, 3, 32, 32), (0, 1, 2, 3), None, "HWC data in a CHW shape"),
        ((N, 32, 32, 3), (0, 1, 2, 3), None, "HWC"),
        ((N, 32, 32, 3), (0, 3, 1, 2), None, "CHW data in an HWC shape"),
        ((N, 3, 32, 32), (0, 1, 2, 3), (0, 2, 3, 1), "HWC data that was reshaped to CHW and transposed"),
    ],
)
def test_every_way_to_store_images_is_found_and_undone(
    shape: tuple[int, ...], axes: tuple[int, ...], then: tuple[int, ...] | None, name: str
) -> None:
    pixels = images(N)
    stored = np.ascontiguousarray(pixels.transpose(axes)).reshape(shape)
    found = cifar.detect(stored if then is None else stored.transpose(then))
    assert found == name
    assert (found in cifar.EXPECTED) == (name in ("flat CHW", "CHW", "HWC"))
    assert np.array_equal(cifar.read(stored if then is None else stored.transpose(then), found), pixels)


def test_noise_does_not_overrule_the_shape() -> None:
    for seed in range(5):  # of three readings, another than the expected one is the smoothest more often than not
        noise = np.random.default_rng(seed).integers(0, 256, size=(N, 32, 32, 3), dtype=np.uint8)
        assert cifar.detect(noise) in cifar.EXPECTED


def test_channel_order() -> None:
    reference, other, few = images(500), images(500, seed=1), images(cifar.FEW - 1)
    grey = np.repeat(other[..., :1], 3, axis=3)
    assert cifar.channel_order(other, reference) == "RGB"
    assert cifar.channel_order(other[..., ::-1], reference) == "BGR"
    assert {cifar.channel_order(*pair) for pair in ((grey, other), (few, other), (other, few))} == {"unclear"}
