"""Every crafted archive.  Most hold a whole competition in miniature, and one thing that must not be unpacked."""

import gzip
import io
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from tests.doubles import cpickle
from tests.hostile.pickles import SYSTEM, Maker, made
from tests.support import NAMES, images

Files = Mapping[str, bytes]

NOISE = random.Random(0).randbytes(100_000)
ESCAPE = "\x1b[31m\x1b]0;owned\x07\r\n\u202e"  # colours, the window's title, a new line, right to left

# --- archives put together by hand ------------------------------------------------------------------------------


def competition() -> dict[str, bytes]:
    """The files of a competition of two images a batch."""
    folder = "cifar-10-python/cifar-10-batches-py/"
    batches = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    files = {folder + batch: cpickle.batch(batch, images(2), [0, 1], ["a.png", "b.png"]) for batch in batches}
    files[folder + "batches.meta"] = cpickle.batches_meta(2, NAMES)
    files["cifar_test_nolabel.pkl"] = pickle.dumps({b"data": images(2), b"ids": np.arange(2)}, protocol=4)
    return files


def zip_of(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            target.writestr(info, content)
    return buffer.getvalue()


def zip_and(others: Files, *members: tuple[str, bytes], mode: int = 0) -> bytes:
    """A zip with more members, whose names may be there already; `mode`: the kind of file that Unix would give them."""
    buffer = io.BytesIO(zip_of(others))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as target:
        warnings.filterwarnings("ignore", "Duplicate name")
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            target.writestr(info, content)
    return buffer.getvalue()


def tar_of(files: Files, form: int = tarfile.PAX_FORMAT, then: Sequence[tarfile.TarInfo] = ()) -> bytes:
    """A tar of files, and then of empty members, whose names may be there already."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as target:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime, info.size = 1.5, len(content)  # as from a file system: PAX writes a header for the time
            target.addfile(info, io.BytesIO(content))
        for info in then:
            target.addfile(info)
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """A member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def header(name: str, kind: bytes, size: int) -> bytes:
    """A tar's header block of 512 bytes, with any size."""
    return member(name, kind, size=size).tobuf(tarfile.GNU_FORMAT)


def pax_record(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


def with_pax(*records: bytes) -> bytes:
    """A tar of one file under an extended header."""
    content = b"".join(records)
    block = header("pax", tarfile.XHDTYPE, len(content)) + content.ljust(-(-len(content) // 512) * 512, b"\0")
    return block + tar_of({"a": b"abc"}, tarfile.GNU_FORMAT)


def patched_zip(offset: int, value: bytes, local_offset: int | None = None) -> bytes:
    """The competition as a zip of stored files, with bytes of the first central (and local) header changed."""
    data = bytearray(zip_of(_HONEST, zipfile.ZIP_STORED))
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    if local_offset is not None:
        data[local_offset : local_offset + len(value)] = value
    return bytes(data)


def as_zip64(data: bytes, directory: int | None = None) -> bytes:
    """The same zip with zip64's end records, as some writers always write them."""
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = int.from_bytes(data[end + 10 : end + 12], "little")
    size = end - at if directory is None else directory
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, at)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    return data[:end] + record + locator + data[end : end + 8] + b"\xff" * 12 + data[end + 20 :]


def overlapping_zip() -> bytes:
    """500 members that are all the same packed bytes."""
    data = zip_of({"a": b"\0" * 1_000_000})
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = b"".join(
        data[at:end].replace(b"a", b"%03d" % n).replace(b"\x01\0\0\0", b"\x03\0\0\0", 1) for n in range(500)
    )
    record = data[end : end + 8] + struct.pack("<HHI", 500, 500, len(entries)) + data[end + 16 :]
    return data[:at] + entries + record


def with_gzip_name(name: bytes) -> bytes:
    """The competition as tar.gz whose header names the file."""
    return _TAR_GZ[:3] + b"\x08" + _TAR_GZ[4:10] + name + b"\0" + _TAR_GZ[10:]


def with_folder(name: str) -> bytes:
    """The competition as a zip, with a folder in the place of a file."""
    return zip_of({f"{key}/inside" if key == name else key: data for key, data in _HONEST.items()})


def with_packed(training: bytes, name: str = "cifar-10-python.tar.gz") -> bytes:
    """The competition as a zip, with CIFAR-10 as it comes from its home page."""
    return zip_of({"cifar_test_nolabel.pkl": _HONEST["cifar_test_nolabel.pkl"], name: training})


# --- the corpus -------------------------------------------------------------------------------------------------

UNSAFE_NAMES = {
    "parent": "../evil",
    "absolute": "/tmp/evil",
    "drive": "C:evil",
    "backslash": "..\\evil",
    "backslash within": "folder\\..\\..\\evil",
    "backslash first": "\\evil",
    "drive and backslash": "C:\\evil",
    "share": "\\\\server\\share\\evil",
    "empty part": "folder//evil",
    "trailing dot": "folder./evil",
    "escape sequence": "\x1b[31mevil",
    "long part": "a" * 256,
    "long name": "a/" * 600 + "a",
}
MEETING_NAMES = [
    ["a", "b", "a"],
    ["a", "A"],
    ["\u00e9", "e\u0301"],  # composed and decomposed
    ["a", "./a"],
    ["a", "a/b"],
    ["."],
]
EXTENDED = {
    "large pax header": with_pax(pax_record("comment", "x" * 5000)),
    "gigabytes of long name": header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 2**32) + b"\0" * 512,
    "many pax headers": with_pax(pax_record("comment", "x"))[:1024] * 2000 + tar_of({"a": b""}),
    "negative size": header("a", tarfile.REGTYPE, -512) + tar_of({"a": b""}),
    "path by pax": with_pax(pax_record("path", "../evil")),
    "huge size": header("a", tarfile.REGTYPE, 2**80) + tar_of({"a": b""}),
    "sparse 0.1": with_pax(pax_record("GNU.sparse.map", "0,1")),
    "sparse 1.0": with_pax(pax_record("GNU.sparse.major", "1"), pax_record("GNU.sparse.minor", "0")),
    "malformed pax": with_pax(b"0 x=y\n"),
    "charset by pax": with_pax(b"21 hdrcharset=\xff\xfe\xfd\n"),
}
_MODES = {"a link": 0o120777, "a device": 0o020666, "a FIFO": 0o010666, "a socket": 0o140777}
_KINDS = {"a FIFO": tarfile.FIFOTYPE, "a sparse file": tarfile.GNUTYPE_SPARSE, "an unknown kind": b"Z"}

_HONEST = competition()
_ZIP, _TAR = zip_of(_HONEST), tar_of(_HONEST)
_TAR_GZ = gzip.compress(_TAR, mtime=0)
_PACKED = gzip.compress(tar_of({name.partition("/")[2]: data for name, data in _HONEST.items() if "/" in name}))
_MANY = {f"{n:x}": b"" for n in range(1001)}
_MANY_FOLDERS = {"/".join(f"{n}.{k}" for k in range(30)) + "/a": b"" for n in range(40)}
_ZEROS = b"\0" * 20_000_000


_POWERSHELL = {name.replace("/", "\\"): data for name, data in {**_HONEST, "cifar-10-python/empty/": b""}.items()}


def _names() -> dict[str, Maker]:
    found: dict[str, Maker] = {
        f"zip with names that meet, {name!r}": partial(zip_of, {**_POWERSHELL, name: b""})
        for name in ("cifar-10-python/empty", "cifar-10-python/cifar-10-batches-py/data_batch_3")
    }
    for kind, name in UNSAFE_NAMES.items():
        found[f"zip with a name, {kind}"] = partial(zip_of, {**_HONEST, name: b"abc"})
        found[f"tar with a name, {kind}"] = partial(tar_of, {**_HONEST, name: b"abc"})
    for names in MEETING_NAMES:
        what = f"with names that meet, {' and '.join(names)}"
        found[f"zip {what}"] = partial(zip_and, _HONEST, *((name, b"abc") for name in names))
        found[f"tar {what}"] = partial(tar_of, _HONEST, then=[member(name) for name in names])
    return found


LINKS: dict[str, Maker] = {
    **{
        f"zip with {kind}": partial(zip_and, _HONEST, ("a", b"/etc/passwd"), mode=mode) for kind, mode in _MODES.items()
    },
    **{f"tar with {kind}": partial(tar_of, _HONEST, then=[member("a", code)]) for kind, code in _KINDS.items()},
    "zip with a link, and a file through it": lambda: zip_and(
        {**_HONEST, "out/evil": b"abc"}, ("out", b"../.."), mode=0o120777
    ),
    "tar with a link, and a file through it": lambda: tar_of(
        _HONEST, then=[member("out", tarfile.SYMTYPE, "../.."), member("out/evil")]
    ),
    "tar with a hard link": lambda: tar_of(
        _HONEST, then=[member("out", tarfile.LNKTYPE, "../../kept.txt"), member("out")]
    ),
}

BOMBS: dict[str, Maker] = {
    "zip": lambda: zip_of({"a": _ZEROS}),
    "tar.gz": lambda: gzip.compress(tar_of({"a": _ZEROS})),
    "endless tar.gz": lambda: gzip.compress(header("a", tarfile.REGTYPE, 8 * 1024**3) + _ZEROS),
    "tail": lambda: gzip.compress(tar_of({"a": b"abc"}) + _ZEROS),
    "overlapping members": overlapping_zip,
    "many members": lambda: zip_of({**_HONEST, **_MANY}),
    "many members of a tar": lambda: tar_of({**_HONEST, **_MANY}, tarfile.GNU_FORMAT),
    "folders in each other": lambda: zip_of({**_HONEST, "/".join("a" * 33): b""}),
    "many folders": lambda: zip_of({**_HONEST, **_MANY_FOLDERS}),
    "many members of a gzip": lambda: gzip.compress(b"", mtime=0) * 500_000 + _TAR_GZ,
    "a gzip with a long name": lambda: with_gzip_name(b"x" * 10_000_000)[:-8] + b"\0" * 8,
    "a huge table of contents": lambda: zip_of({f"{n:0900}": b"" for n in range(600)}),
    "a table of contents of exabytes": lambda: as_zip64(_ZIP, directory=2**62),
}

DAMAGED: dict[str, Maker] = {
    "zip encrypted": lambda: patched_zip(8, b"\x01\x00", 6),
    "zip in LZMA": lambda: zip_of(_HONEST, zipfile.ZIP_LZMA),
    "zip with a wrong CRC": lambda: patched_zip(16, b"\0\0\0\0", 14),
    "zip with a larger size": lambda: patched_zip(24, struct.pack("<I", 100_000)),
    "zip with a folder of contents": lambda: zip_of({**_HONEST, "folder/": b"abc"}),
    "zip with a zero byte in a name": lambda: zip_of({**_HONEST, "a_b": b""}).replace(b"a_b", b"a\0b"),
    "zip of nothing": lambda: zip_of({}),
    "tar with a changed header": lambda: _TAR[:512] + _TAR[512:].replace(b"cifar_test", b"cifar-test", 1),
    "tar.gz with a wrong checksum": lambda: _TAR_GZ[:-8] + b"\0" * 8,
    "tar.gz with a tail": lambda: _TAR_GZ + b"<html>",
    "gzip of no tar": lambda: gzip.compress(b"no tar" * 1000, mtime=0),
    **{f"zip without {n} bytes": made(_ZIP[:-n]) for n in (1, 22, 500)},
    **{f"tar after {size} bytes": made(_TAR[:size]) for size in (1, 300, 7000)},
}

OTHER_FILES: Mapping[str, bytes] = {
    "empty": b"",
    "HTML": b"\n<!DOCTYPE html><html>Sign in</html>" + b" " * 600,
    "HTML before a zip": b"<html>" + _ZIP,
    "JSON": b'{"code":403,"message":"' + ESCAPE.encode() + b'"}',
    "a pickle": b"\x80\x02" + SYSTEM + b".",
}

# What unpacks, and is another competition's or nobody's.
MISUNDERSTOOD: dict[str, Maker] = {
    "two test sets": lambda: zip_of({**_HONEST, "again/cifar_test_nolabel.pkl": b""}),
    "two sets of batches": lambda: zip_of({**_HONEST, "again/test_batch": b""}),
    "a batch too few": lambda: zip_of({name: data for name, data in _HONEST.items() if not name.endswith("_3")}),
    "the manifest is a folder": lambda: zip_of({**_HONEST, "manifest.json/inside": b""}),
    "the manifest's partial is a folder": lambda: zip_of({**_HONEST, ".manifest.json.partial/inside": b""}),
    "the training data is a folder": lambda: with_packed(_PACKED, "cifar-10-python.tar.gz/inside"),
    "the training data is packed twice": lambda: with_packed(tar_of({"cifar-10-python.tar.gz": _PACKED})),
    "a batch is a folder": lambda: with_folder("cifar-10-python/cifar-10-batches-py/data_batch_3"),
    "a bomb as the training data": lambda: with_packed(gzip.compress(header("a", b"0", 2**33) + _ZEROS)),
    "a link in the training data": lambda: with_packed(tar_of({}, then=[member("a", tarfile.SYMTYPE, "/etc/passwd")])),
}

WITHOUT_HIDDEN: dict[str, Maker] = {
    "no test set": lambda: zip_of({name: data for name, data in _HONEST.items() if "/" in name}),
    "the test set is a folder": lambda: with_folder("cifar_test_nolabel.pkl"),
}

REFUSED: dict[str, Maker] = {
    **_names(),
    **LINKS,
    **{f"bomb: {kind}": make for kind, make in BOMBS.items()},
    **DAMAGED,
    **{f"tar with {kind}": made(content) for kind, content in EXTENDED.items()},
    **{f"tar.gz with {kind}": made(gzip.compress(content)) for kind, content in EXTENDED.items()},
    **{f"no archive: {kind}": made(content) for kind, content in OTHER_FILES.items()},
    **MISUNDERSTOOD,
}

# Harmless, and a whole competition: an archive inside is just a file.
TAKEN: dict[str, Maker] = {
    "a tar.gz with a name": lambda: with_gzip_name(b"competition.tar"),
    "the training data packed": lambda: with_packed(_PACKED),
    "the training data packed, in its folder": lambda: with_packed(_PACKED, "cifar-10-python/cifar-10-python.tar.gz"),
    "a zip by PowerShell": lambda: zip_of(_POWERSHELL),
    "a zip inside": lambda: zip_of({**_HONEST, "inside.zip": zip_of({"../evil": b"abc"})}),
    "a pickle that calls inside": lambda: zip_of({**_HONEST, "inside.pkl": b"\x80\x02" + SYSTEM + b"."}),
    "modules inside": lambda: zip_of({**_HONEST, "numpy.py": b"open('canary', 'w')", "sitecustomize.py": b"1/0"}),
    "a manifest inside": lambda: zip_of({**_HONEST, "manifest.json": b"{}", ".tiny.lock": b"", "a/manifest.json": b""}),
}
