"""The embedded digits."""

import pickle
from pathlib import Path

import numpy as np

from pipeline.rehearsal import digits
from tests.support import tree


def test_digits_are_the_same_every_time_and_complete(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        digits.write(folder, folder.with_suffix(".csv"))
    assert tree(first) == tree(second)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    below = first / "cifar-10-python" / "cifar-10-batches-py"
    batches = [pickle.loads(path.read_bytes(), encoding="bytes") for path in sorted(below.glob("*_batch*"))]
    assert [batch[b"data"].shape for batch in batches] == [(200, 3072)] * 5 + [(594, 3072)]
    red, green, blue = batches[0][b"data"].reshape(-1, 3, 1024).mean(axis=(0, 2))
    assert red > green > blue
    content = (first / "cifar_test_nolabel.pkl").read_bytes()
    hidden = pickle.loads(content)
    assert content[:2] == b"\x80\x04" and hidden[b"data"].shape == (1000, 32, 32, 3)
    assert hidden[b"ids"].dtype == np.int64
    assert not list(first.rglob("*.csv"))  # no labels among what is served
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1001


def test_digits_parts_share_no_image_and_are_stratified() -> None:
    train, test, hidden = digits.make()
    for _, labels in (train, test, hidden):
        counts = np.bincount(labels, minlength=10)
        assert counts.min() > 0.9 * len(labels) / 10
    assert not {image.tobytes() for image in train[0]} & {image.tobytes() for image in test[0]}
