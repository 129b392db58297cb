"""Name a file that we cannot read by its first bytes, and say what to do about it.  Nothing is loaded here."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import printable

HEAD = 512  # bytes that identify a format

REPLACE, UNPACK, PULL = "put the original in its place", "unpack it", "run `git lfs pull` in its folder"
LOAD, LOAD_PYTHON2 = "pickle.load(open(p, 'rb'))", "pickle.load({}, encoding='bytes')"


class Format(NamedTuple):
    """The first bytes of a format (a regular expression), its name, and the Python that loads a file `p`."""

    begins: bytes
    name: str
    load: str = ""  # gives a dictionary, a data frame, an array or a list
    cure: str = REPLACE  # if nothing loads it


FORMATS = (
    Format(rb"version https://git-lfs", "a Git LFS pointer, not the file itself", cure=PULL),
    Format(rb"\x93NUMPY", "a NumPy .npy", "np.load(p, allow_pickle=True)[()]"),
    Format(rb"PK\x03\x04.{26}[\w.-]{1,80}?\.npy", "a NumPy .npz", "np.load(p)"),
    Format(rb"(PK\x03\x04.{26}[^/]{1,80}/(data\.pkl|\.format_version|\.data/|byteorder|version)|\x80\x02\x8a\nl\xfc)",
           "a file of torch.save", "torch.load(p, weights_only=False)"),
    Format(rb"PK\x03\x04", "a zip archive", cure=UNPACK),
    Format(rb"(.{257}ustar|7z\xbc\xaf|Rar!)", "a tar, 7z or rar archive", cure=UNPACK),
    Format(rb"\x1f\x8b", "gzip-compressed", LOAD_PYTHON2.format("gzip.open(p)")),
    Format(rb"BZh", "bzip2-compressed", LOAD_PYTHON2.format("bz2.open(p)")),
    Format(rb"\xfd7zXZ", "xz-compressed", LOAD_PYTHON2.format("lzma.open(p)")),
    Format(rb"x[\x01\x5e\x9c\xda]", "zlib-compressed, by joblib", "joblib.load(p)"),
    Format(rb"(\x28\xb5\x2f\xfd|\x89HDF|PAR1|ARROW1|FEA1|.{6}\0\0\{)", "zstd, HDF5, Parquet, Arrow or safetensors"),
    Format(rb"(\(dp?\d|\(lp?\d|\}q|\]q|ccopy_reg|cnumpy)", "a pickle of protocol 0 or 1",
           LOAD_PYTHON2.format("open(p, 'rb')")),
    Format(rb"(\xef\xbb\xbf)?\s*<", "HTML: a login or error page"),
    Format(rb"(\xef\xbb\xbf)?\s*[{\[]", "JSON, perhaps an error"),
    Format(rb"\s*\Z", "empty"),
    Format(rb"[ -~\s]+\Z", "text, perhaps a CSV"),
)  # fmt: skip
# Packages whose objects a pickle may hold instead of plain arrays; no message suggests loading any other global.
OBJECTS = r"(pandas|PIL|joblib|torch|collections|sklearn|numpy\.str_|builtins\.range|__builtin__\.xrange)\b"


def named(head: bytes) -> Format | None:
    """The format of a file that begins with `head`."""
    return next((row for row in FORMATS if re.match(row.begins, head[:HEAD], re.DOTALL)), None)


def explained(path: str, head: bytes, wanted: str = "") -> str | None:
    """What the file is and what to do about it, in up to four lines; None if it is unknown.

    `wanted` is the global that a pickle asked for.
    """
    if not wanted:
        row = named(head)
    elif re.match(OBJECTS, wanted):
        row = Format(b"", f"a pickle of {wanted}", "joblib.load(p)" if wanted.startswith("joblib") else LOAD)
    else:
        return None
    if row is None:
        return None
    if row.load:
        return f"{printable(path)} is {row.name}, not a pickle of plain arrays.{again(path, row.load)}"
    return f"{printable(path)} is {row.name}; {row.cure}"


def again(path: str, load: str = LOAD) -> str:
    """Two lines of Python that save a file in our format and keep the original beside it."""
    own = os.path.realpath(path) if Path(path).is_symlink() else path
    modules = ", ".join(sorted({"os", "pickle", *re.findall(r"([\w.]+)\.\w+\(", load)} - {"np"}))
    second = "ids" if Path(path).name.startswith("cifar_test") else "labels"
    return (
        f'\n  If you trust it, save it again as {{b"data": uint8 (N, 32, 32, 3), b"{second}": N whole numbers}}:'
        f"\n  import {modules}, numpy as np; p = {own!r}; d = {load}; "
        "d = {'data': d} if hasattr(d, 'dtype') or isinstance(d, list) else d"
        "\n  a = {k: np.array(list(d[k])) for k in d}; os.rename(p, p + '.old'); "
        "pickle.dump({k: v if v.ndim > 1 else v.tolist() for k, v in a.items()}, open(p, 'wb'), 4)"
    )
