"""Name a file that we cannot read by its first bytes, and say what to do about it.  Nothing is loaded here."""

import re
from typing import NamedTuple

from pipeline.errors import printable

HEAD = 512  # bytes that identify a format

REPLACE, UNPACK, PULL = "put the original in its place", "unpack it", "run `git lfs pull` in its folder"
SAVE = (
    "if you trust it, load it in Python and pickle.dump a dictionary of plain arrays in its place: "
    "data, uint8 (N, 32, 32, 3), and ids (of a batch, labels), N whole numbers"
)


class Format(NamedTuple):
    """The first bytes of a format (a regular expression), its name, and what to do about it."""

    begins: bytes
    name: str
    cure: str = REPLACE


FORMATS = (
    Format(rb"version https://git-lfs", "a Git LFS pointer, not the file itself", PULL),
    Format(rb"\x93NUMPY", "a NumPy .npy", SAVE),
    Format(rb"PK\x03\x04.{26}[\w.-]{1,80}?\.npy", "a NumPy .npz", SAVE),
    Format(rb"(PK\x03\x04.{26}[^/]{1,80}/(data\.pkl|\.format_version|\.data/|byteorder|version)|\x80\x02\x8a\nl\xfc)",
           "a file of torch.save", SAVE),
    Format(rb"PK\x03\x04", "a zip archive", UNPACK),
    Format(rb"(.{257}ustar|7z\xbc\xaf|Rar!)", "a tar, 7z or rar archive", UNPACK),
    Format(rb"\x1f\x8b", "gzip-compressed", SAVE),
    Format(rb"BZh", "bzip2-compressed", SAVE),
    Format(rb"\xfd7zXZ", "xz-compressed", SAVE),
    Format(rb"x[\x01\x5e\x9c\xda]", "zlib-compressed, by joblib", SAVE),
    Format(rb"(\x28\xb5\x2f\xfd|\x89HDF|PAR1|ARROW1|FEA1|.{6}\0\0\{)", "zstd, HDF5, Parquet, Arrow or safetensors"),
    Format(rb"(\(dp?\d|\(lp?\d|\}q|\]q|ccopy_reg|cnumpy)", "a pickle of protocol 0 or 1",
           SAVE),
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
    """What the file is and what to do about it; None if it is unknown.

    `wanted` is the global that a pickle asked for.
    """
    objects = Format(b"", f"a pickle of {wanted}", SAVE) if re.match(OBJECTS, wanted) else None
    row = objects if wanted else named(head)
    return row and f"{printable(path)} is {row.name}; {row.cure}"
