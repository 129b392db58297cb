"""What a file is that is not ours to read, by how it begins, and what to do about it.  Nothing of it is loaded here."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import printable

HEAD = 512  # bytes, which tell what a file is

REPLACE, UNPACK, PULL = "put the original in its place", "unpack it", "run `git lfs pull` in its folder"


class Format(NamedTuple):
    """How files of a format begin (a regular expression), its name, and the Python that loads one named `p`."""

    begins: bytes
    name: str
    module: str = ""  # that `load` needs besides numpy, os and pickle
    load: str = ""  # what gives a dictionary of arrays, or of lists
    cure: str = REPLACE  # where nothing loads it


LOAD = "pickle.load(open(p, 'rb'))"
ARRAY = f"{{'data': {LOAD}}}"
_TABLE = "{'ids': (t := np.loadtxt(p, int, delimiter=',', skiprows=1))[:, 0], 'data': t[:, 1:].astype('u1')}"
FORMATS = (
    Format(rb"version https://git-lfs", "a Git LFS pointer, not the file itself", cure=PULL),
    Format(rb"(/annex/objects/|\.\./.*annex/objects)", "a git-annex pointer", cure="run `git annex get` in its folder"),
    Format(rb"\x93NUMPY.{,200}'\|O'", "a NumPy .npy of objects", load="np.load(p, allow_pickle=True).item()"),
    Format(rb"\x93NUMPY", "a NumPy .npy", load="{'data': np.load(p)}"),
    Format(rb"PK\x03\x04.{26}[\w.-]{1,80}?\.npy", "a NumPy .npz", load="np.load(p)"),
    Format(rb"PK\x03\x04.{26}[^/]{1,80}/(data\.pkl|\.format_version|\.data/|byteorder|version)",
           "a file of torch.save", "torch", "torch.load(p, weights_only=False)"),
    Format(rb"\x80\x02\x8a\nl\xfc\x9cF\xf9", "a file of torch.save", "torch", "torch.load(p, weights_only=False)"),
    Format(rb"PK\x03\x04", "a zip archive", cure=UNPACK),
    Format(rb"(.{257}ustar|7z\xbc\xaf|Rar!)", "a tar, 7z or rar archive", cure=UNPACK),
    Format(rb"\x1f\x8b", "gzip-compressed", "gzip", "pickle.load(gzip.open(p), encoding='bytes')"),
    Format(rb"BZh", "bzip2-compressed", "bz2", "pickle.load(bz2.open(p), encoding='bytes')"),
    Format(rb"\xfd7zXZ", "xz-compressed", "lzma", "pickle.load(lzma.open(p), encoding='bytes')"),
    Format(rb"\x28\xb5\x2f\xfd", "zstd-compressed", "zstandard", "pickle.load(zstandard.open(p), encoding='bytes')"),
    Format(rb"x[\x01\x5e\x9c\xda]", "zlib-compressed, by joblib", "joblib", "joblib.load(p)"),
    Format(rb"\x89HDF", "an HDF5 file", "h5py", "h5py.File(p)"),
    Format(rb"PAR1", "a Parquet file", "pandas", "pandas.read_parquet(p).to_dict('list')"),
    Format(rb"(ARROW1|FEA1)", "an Arrow or Feather file", "pandas", "pandas.read_feather(p).to_dict('list')"),
    Format(rb".{6}\0\0\{", "a safetensors file", "safetensors.numpy", "safetensors.numpy.load_file(p)"),
    Format(rb"MATLAB", "a MATLAB file", "scipy.io", "scipy.io.loadmat(p)"),
    Format(rb".{4}\0{4}.{4}\n", "a TFRecord", cure="save it again with TensorFlow and pickle"),
    Format(rb"(\x89PNG|\xff\xd8\xff|GIF8|BM)", "a single picture"),
    Format(rb"(\(dp?\d|\(lp?\d|\}q|\]q|ccopy_reg|cnumpy)", "a pickle of protocol 0 or 1",
           load="pickle.load(open(p, 'rb'), encoding='bytes')"),
    Format(rb"(\xef\xbb\xbf)?\s*<", "HTML: a login or error page"),
    Format(rb"\s*\{\s*\"(code|error|message|status)", "JSON: an error"),
    Format(rb"(\xef\xbb\xbf)?\s*[{\[]", "JSON", "json",
           "{'ids': (t := json.load(open(p)))['ids'], 'data': np.array(t['data'], 'u1')}"),
    Format(rb"(\xef\xbb\xbf)?\s*\Z", "empty"),
    Format(rb"(\xef\xbb\xbf)?[ -~\s]*[,;\t][ -~\s]*\Z", "a CSV", load=_TABLE),
    Format(rb"[ -~\s]+\Z", "plain text"),
)  # fmt: skip
# The same for pickles, by the first thing that they ask for.
GLOBALS = (
    Format(rb"pandas.* Series", "a pandas Series", "pandas", "{'data': pandas.read_pickle(p)}"),
    Format(rb"pandas", "a pandas DataFrame", "pandas", "pandas.read_pickle(p).to_dict('list')"),
    Format(rb"PIL", "a pickle of PIL images", load=ARRAY),
    Format(rb"joblib", "a file of joblib.dump", "joblib", "joblib.load(p)"),
    Format(rb"torch", "a pickle of torch's tensors", load=ARRAY),
    Format(rb"(collections|sklearn|scipy|datasets|jax|tensorflow)", "a pickle of other objects", load=LOAD),
)  # fmt: skip


def named(head: bytes, wanted: str = "") -> Format | None:
    """The format of a file that begins with `head`, or of a pickle that asked for the global `wanted`."""
    rows, text = (GLOBALS, wanted.encode()) if wanted else (FORMATS, head[:HEAD])
    return next((row for row in rows if re.match(row.begins, text, re.DOTALL)), None)


def explained(path: str, head: bytes, wanted: str = "") -> str | None:
    """What the file is and what to do about it, in up to three lines; None if it is not known.  See `named`."""
    if (row := named(head, wanted)) is None:
        return None
    if not row.load:
        return f"{printable(path)} is {row.name}; {row.cure}"
    module, load = row.module, row.load
    if wanted and row.module != "joblib" and re.match(rb"\x80.(\x95.{8})?\}", head, re.DOTALL):  # a dictionary of such
        module, load = "", LOAD
    return f"{printable(path)} is {row.name}, not a pickle of arrays.{again(path, module, load)}"


def again(path: str, module: str, load: str) -> str:
    """How a file is saved as what we read, in two lines of Python; what it was stays beside it."""
    own = os.path.realpath(path) if Path(path).is_symlink() else path  # who linked it has it elsewhere
    modules = ", ".join(filter(None, ("os", "pickle", module)))
    second = "ids" if Path(path).name.startswith("cifar_test") else "labels"
    return (
        f'\n  If you trust it, save it again as {{b"data": uint8 (N, 32, 32, 3), b"{second}": N whole numbers}}:'
        f"\n  import {modules}, numpy as np; p = {own!r}; d = {load}; a = {{k: np.array(list(d[k])) for k in d}}"
        "\n  os.rename(p, p + '.old'); "
        "pickle.dump({k: v if v.ndim > 1 else v.tolist() for k, v in a.items()}, open(p, 'wb'), 4)"
    )
