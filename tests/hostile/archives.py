"""Every crafted archive.  Most hold a whole competition in miniature, and one thing that must not be unpacked."""

import gzip
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial

from tests.hostile.bombs import made
from tests.hostile.calls import SYSTEM
from tests.hostile.meanings import ESCAPE
from tests.hostile.packing import (
    as_zip64,
    competition,
    header,
    overlapping_zip,
    patched_zip,
    pax_record,
    tar_named,
    tar_of,
    tar_with,
    with_mode,
    with_pax,
    zip_named,
    zip_of,
    zip_with,
)

Maker = Callable[[], bytes]

UNSAFE_NAMES = {
    "parent": "../evil",
    "parent within": "folder/../../evil",
    "absolute": "/tmp/evil",
    "drive": "C:evil",
    "backslash": "..\\evil",
    "UNC": "\\\\host\\evil",
    "stream": "file.txt:evil",
    "empty part": "folder//evil",
    "trailing dot": "folder./evil",
    "trailing space": "evil ",
    "escape sequence": "\x1b[31mevil",
    "newline": "e\nvil",
    "wildcard": "ev?l",
    "long part": "a" * 256,
    "long name": "a/" * 600 + "a",
}

MEETING_NAMES = [
    ["a", "b", "a"],
    ["a", "A"],
    ["folder/a", "folder/A"],
    ["straße", "STRASSE"],
    ["\u00e9", "e\u0301"],  # composed and decomposed
    ["a", "./a"],
    ["a", "a/b"],
    ["a/b/c", "A"],
    ["."],
]

EXTENDED = {
    "large pax header": with_pax(pax_record("comment", "x" * 5000)),
    "gigabytes of long name": header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 2**32) + b"\0" * 512,
    "many pax headers": with_pax(pax_record("comment", "x"))[:1024] * 2000 + tar_of({"a": b""}),
    "negative size": header("a", tarfile.REGTYPE, -512) + tar_of({"a": b""}),
    "negative size by pax": with_pax(pax_record("size", "-512")),
    "path by pax": with_pax(pax_record("path", "../evil")),
    "huge size by pax": with_pax(pax_record("size", "9" * 100)),
    "huge size": header("a", tarfile.REGTYPE, 2**80) + tar_of({"a": b""}),
    "sparse 0.1": with_pax(pax_record("GNU.sparse.map", "0,1")),
    "sparse 1.0": with_pax(pax_record("GNU.sparse.major", "1"), pax_record("GNU.sparse.minor", "0")),
    "malformed pax": with_pax(b"0 x=y\n"),
    "charset by pax": with_pax(b"21 hdrcharset=\xff\xfe\xfd\n"),
}

# --- the whole corpus ---

_HONEST = competition()
_ZIP, _TAR = zip_of(_HONEST), tar_of(_HONEST)
_INNER = {name.partition("/")[2]: content for name, content in _HONEST.items() if "/" in name}
_PACKED = gzip.compress(tar_of(_INNER), mtime=0)
_MODES = {"a link": 0o120777, "a device": 0o020666, "a disk": 0o060666, "a FIFO": 0o010666, "a socket": 0o140777}
_KINDS = {
    "a FIFO": tarfile.FIFOTYPE, "a sparse file": tarfile.GNUTYPE_SPARSE, "an unknown kind": b"Z",
}  # fmt: skip


def _names() -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    for kind, name in UNSAFE_NAMES.items():
        found[f"zip with a name, {kind}"] = partial(zip_of, {**_HONEST, name: b"abc"})
        found[f"tar with a name, {kind}"] = partial(tar_of, {**_HONEST, name: b"abc"})
    for names in MEETING_NAMES:
        found[f"zip with names that meet, {' and '.join(names)}"] = partial(zip_named, names, _HONEST)
        found[f"tar with names that meet, {' and '.join(names)}"] = partial(tar_named, names, _HONEST)
    return found


def _links() -> dict[str, Maker]:
    found: dict[str, Maker] = {}
    for kind, mode in _MODES.items():
        found[f"zip with {kind}"] = partial(zip_with, with_mode(mode), "a", b"/etc/passwd", _HONEST)
    for kind, code in _KINDS.items():
        found[f"tar with {kind}"] = partial(tar_with, code, "a", "/etc/passwd", "b", _HONEST)
    return found | {
        "tar with a link, and a file through it": lambda: tar_with(b"2", "out", "../..", "out/evil", _HONEST),
        "tar with a hard link, and a file over it": lambda: tar_with(b"1", "out", "../../kept.txt", "out", _HONEST),
        "zip with a link, and a file through it": lambda: zip_with(
            with_mode(0o120777), "out", b"../..", {**_HONEST, "out/evil": b"abc"}
        ),
    }


BOMBS: dict[str, Maker] = {
    "zip": lambda: zip_of({"a": b"\0" * 20_000_000}),
    "tar.gz": lambda: gzip.compress(tar_of({"a": b"\0" * 20_000_000})),
    "endless tar.gz": lambda: gzip.compress(header("a", tarfile.REGTYPE, 8 * 1024**3) + b"\0" * 20_000_000),
    "tail": lambda: gzip.compress(tar_of({"a": b"abc"}) + b"\0" * 20_000_000),
    "many files": lambda: zip_of({str(n): b"\0" * 200_000 for n in range(100)}),
    "overlapping members": overlapping_zip,
    "huge by its header": lambda: patched_zip(24, struct.pack("<I", 2**32 - 2), files=_HONEST),
    "many members": lambda: zip_of({**_HONEST, **{f"{n:x}": b"" for n in range(1001)}}),
    "many members of a tar": lambda: tar_of({**_HONEST, **{f"{n:x}": b"" for n in range(1001)}}, tarfile.GNU_FORMAT),
    "folders in each other": lambda: zip_of({**_HONEST, "/".join("a" * 33): b""}),
    "many folders": lambda: zip_of(
        {**_HONEST, **{"/".join(f"{n}.{k}" for k in range(30)) + "/a": b"" for n in range(40)}}
    ),
    "many members of a gzip": lambda: gzip.compress(b"", mtime=0) * 500_000 + gzip.compress(_TAR, mtime=0),
    "a gzip with a long name": lambda: _with_gzip_name(b"x" * 10_000_000)[:-8] + b"\0" * 8,
    "a gzip with a long tail": lambda: gzip.compress(_TAR, mtime=0) + b"\0" * 10_000_000,
    "a huge table of contents": lambda: zip_of({f"{n:0900}": b"" for n in range(600)}),
    "a table of contents of exabytes": lambda: as_zip64(_ZIP, directory=2**62),
}

DAMAGED: dict[str, Maker] = {
    "zip encrypted": lambda: patched_zip(8, b"\x01\x00", 6, _HONEST),
    "zip encrypted strongly": lambda: patched_zip(8, b"\x40\x00", 6, _HONEST),
    "zip in LZMA": lambda: zip_of(_HONEST, zipfile.ZIP_LZMA),
    "zip in an unknown compression": lambda: patched_zip(10, b"\x63\x00", 8, _HONEST),
    "zip with a wrong CRC": lambda: patched_zip(16, b"\0\0\0\0", 14, _HONEST),
    "zip with a smaller size": lambda: patched_zip(24, struct.pack("<I", 2), files=_HONEST),
    "zip with a larger size": lambda: patched_zip(24, struct.pack("<I", 100_000), files=_HONEST),
    "zip with another name inside": lambda: patched_zip(46, b"b", files=_HONEST),
    "zip with a folder of contents": lambda: zip_of({**_HONEST, "folder/": b"abc"}),
    "zip with a zero byte in a name": lambda: zip_of({**_HONEST, "a_b": b""}).replace(b"a_b", b"a\0b"),
    "zip of nothing": lambda: zip_of({}),
    "zip of a folder": lambda: zip_of({"folder/": b""}),
    "tar with a changed header": lambda: _TAR[:512] + _TAR[512:].replace(b"cifar_test", b"cifar-test", 1),
    "tar.gz with a wrong checksum": lambda: gzip.compress(_TAR, mtime=0)[:-8] + b"\0" * 8,
    "tar.gz with a tail": lambda: gzip.compress(_TAR, mtime=0) + b"<html>",
    "gzip of no tar": lambda: gzip.compress(b"no tar" * 1000, mtime=0),
    "gzip of nothing": lambda: gzip.compress(b"", mtime=0),
    **{f"zip without {n} bytes": made(_ZIP[:-n]) for n in (1, 2, 21, 22, 23, 500)},
    **{f"tar after {size} bytes": made(_TAR[:size]) for size in (1, 300, 512, 1000, 7000)},
}  # fmt: skip

OTHER_FILES: Mapping[str, bytes] = {
    "empty": b"",
    "HTML": b"\n<!DOCTYPE html><html>Sign in</html>" + b" " * 600,
    "HTML before a zip": b"<html>" + _ZIP,
    "JSON": b'{"code":403,"message":"' + ESCAPE.encode() + b'"}',
    "a pickle": b"\x80\x02" + SYSTEM + b".",
}

# What unpacks, and is another competition's or nobody's.
MISUNDERSTOOD: dict[str, Maker] = {
    "two hidden sets": lambda: zip_of({**_HONEST, "again/cifar_test_nolabel.pkl": b""}),
    "two sets of batches": lambda: zip_of({**_HONEST, "again/test_batch": b""}),
    "a batch too few": lambda: zip_of({name: data for name, data in _HONEST.items() if not name.endswith("_3")}),
    "the manifest is a folder": lambda: zip_of({**_HONEST, "manifest.json/inside": b""}),
    "the manifest's partial is a folder": lambda: zip_of({**_HONEST, ".manifest.json.partial/inside": b""}),
    "the training data's folder is a file": lambda: zip_of({**_with_packed(_PACKED), "cifar-10-python": b""}),
    "the training data is a folder": lambda: zip_of(_with_packed(_PACKED, "cifar-10-python.tar.gz/inside")),
    "the training data is packed twice": lambda: zip_of(_with_packed(tar_of({"cifar-10-python.tar.gz": _PACKED}))),
    "a batch is a folder": lambda: zip_of(_with_folder("cifar-10-python/cifar-10-batches-py/data_batch_3")),
    "a bomb as the training data": lambda: zip_of(
        _with_packed(gzip.compress(header("a", b"0", 2**33) + b"\0" * 10**7))
    ),
    "a link in the training data": lambda: zip_of(_with_packed(tar_with(b"2", "a", "/etc/passwd"))),
}

WITHOUT_HIDDEN: dict[str, Maker] = {
    "no hidden set": lambda: zip_of({name: data for name, data in _HONEST.items() if "/" in name}),
    "the hidden set is a folder": lambda: zip_of(_with_folder("cifar_test_nolabel.pkl")),
}


def _with_gzip_name(name: bytes) -> bytes:
    """The competition as tar.gz whose header names the file."""
    packed = gzip.compress(_TAR, mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + name + b"\0" + packed[10:]


def _with_folder(name: str) -> dict[str, bytes]:
    """The competition with a folder in the place of a file."""
    return {f"{key}/inside" if key == name else key: data for key, data in _HONEST.items()}


def _with_packed(training: bytes, name: str = "cifar-10-python.tar.gz") -> dict[str, bytes]:
    """The competition with CIFAR-10 as it comes from its home page."""
    return {"cifar_test_nolabel.pkl": _HONEST["cifar_test_nolabel.pkl"], name: training}


REFUSED: dict[str, Maker] = {
    **_names(),
    **_links(),
    **{f"bomb: {kind}": make for kind, make in BOMBS.items()},
    **DAMAGED,
    **{f"tar with {kind}": made(content) for kind, content in EXTENDED.items()},
    **{f"tar.gz with {kind}": made(gzip.compress(content)) for kind, content in EXTENDED.items()},
    **{f"no archive: {kind}": made(content) for kind, content in OTHER_FILES.items()},
    **MISUNDERSTOOD,
}

# Harmless, and a whole competition: an archive inside is just a file.
TAKEN: dict[str, Maker] = {
    "a zip": made(_ZIP),
    "a tar": made(_TAR),
    "a tar.gz": lambda: gzip.compress(_TAR),
    "a tar.gz with a name": lambda: _with_gzip_name(b"competition.tar"),
    "the training data packed": lambda: zip_of(_with_packed(_PACKED)),
    "the training data packed, in its folder": lambda: zip_of(
        _with_packed(_PACKED, "cifar-10-python/cifar-10-python.tar.gz")
    ),
    "a zip inside": lambda: zip_of({**_HONEST, "inside.zip": zip_of({"../evil": b"abc"})}),
    "a pickle that calls inside": lambda: zip_of({**_HONEST, "inside.pkl": b"\x80\x02" + SYSTEM + b"."}),
    "modules inside": lambda: zip_of({**_HONEST, "numpy.py": b"open('canary', 'w')", "sitecustomize.py": b"1/0"}),
    "a manifest inside": lambda: zip_of({**_HONEST, "manifest.json": b"{}", ".tiny.lock": b"", "a/manifest.json": b""}),
}
