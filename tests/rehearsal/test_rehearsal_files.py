"""The embedded digits and their formats."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.rehearsal import digits
from tests.doubles import cpickle
from tests.support import tree


def test_batch_reads_as_the_original_files_do() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1500, 32, 32, 3), dtype=np.uint8)  # over 1,000: two APPENDS
    labels = rng.integers(0, 10, 1500).tolist()
    names = [f"cat_{i}.png" for i in range(1500)]
    content = cpickle.batch("training batch 1 of 5", images, labels, names)
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(content)
    assert content.startswith(b"\x80\x02}q\x01(U\x0bbatch_labelq\x02")  # protocol 2, Python 2 str, slots from 1
    read = pickle.loads(content, encoding="bytes")
    assert list(read) == [b"batch_label", b"labels", b"data", b"filenames"]
    assert read[b"batch_label"] == b"training batch 1 of 5"
    assert read[b"labels"] == labels
    assert read[b"filenames"] == [name.encode() for name in names]
    assert read[b"data"].dtype == np.uint8
    np.testing.assert_array_equal(read[b"data"].reshape(-1, 3, 32, 32), images.transpose(0, 3, 1, 2))


def test_digits_are_the_same_every_time_and_complete(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        digits.write(folder, folder.with_suffix(".csv"))
    assert tree(first) == tree(second)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    below = first / "cifar-10-python" / "cifar-10-batches-py"
    batches = [pickle.loads(path.read_bytes(), encoding="bytes") for path in sorted(below.glob("*_batch*"))]
    assert [batch[b"data"].shape for batch in batches] == [(200, 3072)] * 5 + [(891, 3072)]
    red, green, blue = batches[0][b"data"].reshape(-1, 3, 1024).mean(axis=(0, 2))
    assert red > green > blue
    content = (first / "cifar_test_nolabel.pkl").read_bytes()
    hidden = pickle.loads(content)
    assert content[:2] == b"\x80\x04" and hidden[b"data"].shape == (1500, 32, 32, 3)
    assert hidden[b"ids"].dtype == np.int64
    assert not list(first.rglob("*.csv"))  # no labels among what is served
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1501


def test_digits_parts_share_no_image_and_are_stratified() -> None:
    train, test, hidden = digits.make()
    for _, labels in (train, test, hidden):
        counts = np.bincount(labels, minlength=10)
        assert counts.min() > 0.9 * len(labels) / 10
    assert not {image.tobytes() for image in train[0]} & {image.tobytes() for image in test[0]}
