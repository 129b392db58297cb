"""What is not ours to read is named, with what to do about it."""

import bz2
import collections
import gzip
import importlib
import io
import lzma
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.errors import BadData
from pipeline.store import cifar, formats
from tests.hostile.archives import tar_of, zip_of
from tests.support import SLUG, error_line, here, images, write_download

joblib: Any = importlib.import_module("joblib")  # comes with scikit-learn

HIDDEN = "cifar_test_nolabel.pkl"
PIXELS, IDS = images(20, 9), np.arange(100, 120)
SET: dict[str, Any] = {"data": PIXELS, "ids": IDS}
TENSORS = {name: torch.from_numpy(value.copy()) for name, value in SET.items()}
FLAT = [*PIXELS.transpose(0, 3, 1, 2).reshape(20, -1)]


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


PLAIN = {
    "a NumPy .npz": written(lambda f: np.savez_compressed(f, **SET)),
    "a NumPy .npy": written(lambda f: np.save(f, PIXELS)),
    "gzip-compressed": gzip.compress(pickle.dumps(SET)),
    "bzip2-compressed": bz2.compress(pickle.dumps(SET)),
    "xz-compressed": lzma.compress(pickle.dumps(SET)),
    "a pickle of joblib.numpy_pickle.NumpyArrayWrapper": written(lambda f: joblib.dump(SET, f)),
    "zlib-compressed, by joblib": written(lambda f: joblib.dump(SET, f, compress=3)),
    "a file of torch.save": written(lambda f: torch.save(TENSORS, f)),
    "a file of torch.save ": written(lambda f: torch.save(TENSORS, f, _use_new_zipfile_serialization=False)),
    "a pickle of torch._utils._rebuild_tensor_v2": pickle.dumps(TENSORS),
    "a pickle of pandas": written(lambda f: pd.DataFrame({"data": FLAT, "ids": IDS}).to_pickle(f)),
    "a pickle of PIL.Image.Image": pickle.dumps([Image.fromarray(one) for one in PIXELS]),
    "a pickle of protocol 0 or 1": pickle.dumps(SET, protocol=0),
    "a pickle of protocol 0 or 1 ": pickle.dumps(SET, protocol=1),
    "a pickle of collections.OrderedDict": pickle.dumps(collections.OrderedDict(SET)),
    "holds one array": pickle.dumps(PIXELS),
    "data is list": pickle.dumps({**SET, "data": [*PIXELS]}),
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 30730000\n"
NAMED = {
    "a Git LFS pointer, not the file itself; run `git lfs pull` in its folder": POINTER,
    "HTML: a login or error page; put the original in its place": b"\xef\xbb\xbf\n<!DOCTYPE html><html>Sign in</html>",
    "JSON, perhaps an error; put": b'{"code":403,"message":"no"}',
    "empty; put": b"",
    "text, perhaps a CSV; put": b"ID,Labels\n0,1\n",
    "a zip archive; unpack it": zip_of({"a": b"b"}),
    "a tar, 7z or rar archive; unpack it": tar_of({"a": b"b"}),
    "zstd, HDF5, Parquet, Arrow or safetensors; put": b"\x89HDF\r\n\x1a\n",
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of one's own, laid out like the download."""
    return write_download(tmp_path / "mine")


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(BadData) as error:
        cifar.read_hidden(path)
    return str(error.value)


@pytest.mark.parametrize("says", PLAIN)
def test_arrays_in_another_format_are_named_and_may_be_saved_again(tmp_path: Path, says: str) -> None:
    told = refusal(tmp_path / HIDDEN, PLAIN[says])
    assert says.strip() in told and told.endswith(formats.SAVE)


@pytest.mark.parametrize("says", NAMED)
def test_what_cannot_be_read_is_named_with_its_cure(tmp_path: Path, says: str) -> None:
    assert f"{HIDDEN} is {says}" in refusal(tmp_path / HIDDEN, NAMED[says])


@pytest.mark.parametrize("says", list(NAMED)[:4])
def test_a_packed_cifar_that_is_none_is_named(tmp_path: Path, mine: Path, says: str) -> None:
    shutil.rmtree(mine / "cifar-10-python")
    (mine / cifar.ARCHIVE).write_bytes(NAMED[says])
    line = error_line(here("download", "--competition", SLUG, "--from", mine, cwd=tmp_path), 4)
    name, cure = says.split("; ")
    assert f"{cifar.ARCHIVE}: is {name}, neither zip nor tar; {cure}" in line and "download" not in line


def test_a_pointer_in_place_of_a_known_file_is_named(tmp_path: Path, mine: Path) -> None:
    (mine / HIDDEN).write_bytes(POINTER)
    assert "`git lfs pull`" in error_line(here("download", "--from", mine, cwd=tmp_path), 4)


def test_a_crafted_pickle_is_never_to_be_loaded(tmp_path: Path) -> None:
    for asks in (b"cos\nsystem\n", b"cbuiltins\nexec\n", b"cnumpy\nmemmap\n"):
        told = refusal(tmp_path / HIDDEN, b"\x80\x04" + asks + b"\x8c\x01a\x85R.")
        assert "a global that no array needs" in told and told.endswith(formats.REPLACE)
