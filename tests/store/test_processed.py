import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.download import download
from pipeline.errors import BadData, MissingInput
from pipeline.kaggle_api.client import Kaggle
from pipeline.preprocess import preprocess
from pipeline.store.processed import Processed, even_rows
from tests.support import SLUG, paths_in, prepare


@pytest.fixture
def data(tmp_path: Path) -> Processed:
    return Processed.open(prepare(tmp_path) / "data/processed" / SLUG)


@pytest.mark.parametrize("rows", [[], [3], [0, 1, 2, 29], [5, 4, 4, 20], list(range(30))])
def test_rows_are_those_of_the_array(data: Processed, rows: list[int]) -> None:
    chosen = np.array(rows, dtype=np.int64)
    for name in ("hidden_images", "hidden_ids"):
        found = data.rows(name, chosen)
        assert np.array_equal(found, data.array(name)[chosen])
        assert found.dtype == data.array(name).dtype


def test_images_in_fortran_order_are_no_others(data: Processed, tmp_path: Path) -> None:
    images = np.asfortranarray(data.array("test_images"))
    np.save(data.folder / "test_images.npy", images)  # as an older version has written them
    assert np.array_equal(data.rows("test_images", np.array([3, 4, 9])), images[[3, 4, 9]])
    hidden = tmp_path / "source/cifar_test_nolabel.pkl"
    hidden.write_bytes(pickle.dumps({b"data": np.asfortranarray(data.array("hidden_images"))}))
    batch = tmp_path / "source/cifar-10-python/cifar-10-batches-py/test_batch"
    batch.write_bytes(pickle.dumps({b"data": images, b"labels": data.array("test_labels").tolist()}))
    download(SLUG, paths_in(tmp_path), Kaggle({}), print, source=tmp_path / "source", force=True)
    preprocess(SLUG, paths_in(tmp_path), print)
    again = Processed.open(data.folder)
    for name, expected in (("test_images", images), ("hidden_images", data.array("hidden_images"))):
        assert again.array(name).flags.c_contiguous and np.array_equal(again.array(name), expected)  # type: ignore[arg-type]


def test_a_file_that_became_shorter_meanwhile_is_named(data: Processed) -> None:
    path = data.folder / "hidden_images.npy"
    data.array("hidden_images")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(BadData, match=r"hidden_images\.npy .*--force"):
        data.rows("hidden_images", np.array([29]))


@pytest.mark.parametrize("at", [0, 20, 122])
def test_a_damaged_header_is_named(data: Processed, at: int) -> None:
    path = data.folder / "hidden_images.npy"
    content = bytearray(path.read_bytes())
    content[at : at + 4] = b"????"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"hidden_images\.npy is damaged .*--force"):
        data.array("hidden_images")


def test_a_folder_without_a_manifest_or_with_a_lost_file(data: Processed) -> None:
    (data.folder / "test_labels.npy").unlink()
    with pytest.raises(BadData, match=r"test_labels\.npy is missing or damaged: .*--force"):
        Processed.open(data.folder)
    place = data.folder.with_name("other")
    with pytest.raises(MissingInput, match=f"pipeline.preprocess --competition {SLUG} --processed {place}` first"):
        Processed.open(data.folder.with_name("other") / SLUG)


def test_even_rows_go_from_the_first_to_the_last() -> None:
    assert even_rows(10, 4).tolist() == [0, 3, 6, 9]
    assert even_rows(3, 10).tolist() == [0, 1, 2]
