"""Unpacking: honest archives come out whole, hostile or damaged ones leave nothing outside of the folder."""

import gzip
import io
import os
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadData, UsageError
from pipeline.store import archive
from pipeline.store.archive import extract
from tests.hostile import archives
from tests.hostile.archives import DAMAGED, MISUNDERSTOOD, NOISE, REFUSED, Files, as_zip64, tar_of, zip_and, zip_of

HONEST = {
    "cifar-10-python/cifar-10-batches-py/data_batch_1": NOISE * 8,
    "cifar-10-python/cifar-10-batches-py/readme.html": b"<html>",
    "cifar_test_nolabel.pkl": b"",
    "nested.zip": b"PK\x03\x04 is only a file",
    "f" * 120 + "/" + "ä" * 100: b"a long and foreign name",
}
KINDS: dict[str, Callable[[Files], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": lambda files: gzip.compress(tar_of(files)),
    "stored zip": lambda files: zip_of(files, zipfile.ZIP_STORED),
    "zip64": lambda files: as_zip64(zip_of(files)),
    "gnu tar": lambda files: tar_of(files, tarfile.GNU_FORMAT),
}
THREE = pytest.mark.parametrize("make", [KINDS[kind] for kind in ("zip", "tar", "tar.gz")], ids=["zip", "tar", "gz"])


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "destination"
    folder.mkdir(parents=True)
    return folder


def unpack(data: bytes, destination: Path, **limits: int) -> list[str]:
    """Extract `data` under a name that says nothing; the names of the files, in order."""
    path = destination.parent.parent / "download"
    path.write_bytes(data)
    extract(path, destination, **limits)
    files = (file for file in destination.rglob("*") if file.is_file())
    return sorted(file.relative_to(destination).as_posix() for file in files)


def refusal(data: bytes, destination: Path, untouched: bool = True, **limits: int) -> str:
    """The one line with which `data` is refused: fast, in little memory, with nothing written outside of the folder."""
    began = time.process_time()
    with pytest.raises(BadData) as caught:
        unpack(data, destination, **limits)
    assert time.process_time() - began < 2
    message = str(caught.value)
    assert message.endswith("; the archive was not unpacked") and message.isprintable()
    outside = {path for path in destination.parent.parent.rglob("*") if destination not in path.parents}
    assert outside == {destination, destination.parent, destination.parent.parent / "download"}
    assert not (untouched and list(destination.iterdir()))
    return message.split("download: ")[1]  # the path before it holds this test's name


@pytest.mark.parametrize("kind", KINDS)
def test_honest_archives_unpack(kind: str, destination: Path) -> None:
    names = unpack(KINDS[kind](HONEST), destination)
    assert names == sorted(HONEST)
    assert {name: (destination / name).read_bytes() for name in names} == HONEST


def test_folders_dots_and_comments_unpack(destination: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name in (".", "./empty", "./full"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            target.addfile(info)
        target.addfile(tarfile.TarInfo("./full/.hidden..name"))
    assert unpack(buffer.getvalue(), destination) == ["full/.hidden..name"]
    assert (destination / "empty").is_dir()
    buffer, other = io.BytesIO(), destination / "other"
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.mkdir("folder")
        zipped.writestr("folder/file", b"abc")
        zipped.comment = b"from a server"
    other.mkdir()
    assert unpack(buffer.getvalue(), other) == ["folder/file"]


def test_files_get_plain_permissions(destination: Path) -> None:
    unpack(zip_and({}, ("a", b"abc"), mode=0o104777), destination)  # setuid, executable, regular
    assert not (destination / "a").stat().st_mode & 0o7111


@THREE
def test_a_folder_that_is_named_through_a_link_is_the_one_meant(
    make: Callable[[Files], bytes], destination: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(destination)
    (destination.parent / "other").mkdir()
    (tmp_path / "download").write_bytes(make({"a": b"abc"}))
    extract(tmp_path / "download", tmp_path / "link" / ".." / "other")
    assert (destination.parent / "other" / "a").read_bytes() == b"abc"


def test_a_folder_in_use_is_a_usage_error(destination: Path) -> None:
    (destination / "mine").touch()
    for folder in (destination, destination / "absent"):
        with pytest.raises(UsageError, match="not an empty folder"):
            unpack(zip_of(HONEST), folder)
    assert [path.name for path in destination.iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_file_is_refused(kind: str, destination: Path) -> None:
    path = destination.parent / "download"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(BadData, match="not a file"):
        extract(path, destination)


# --- hostile archives, damaged archives and bombs ---------------------------------------------------------

WORDS = {
    "no archive: empty": "is empty", "no archive: HTML": "HTML: a login or error page",
    "no archive: JSON": "JSON", "no archive: a pickle": "neither zip nor tar",
    "gzip of no tar": "damaged", "zip of nothing": "no files", "zip encrypted": "encrypted",
    "zip in LZMA": "compression", "zip with a wrong CRC": "damaged", "zip with a larger size": "another size",
    "zip with a zero byte in a name": "name", "zip with a name, backslash": "name",
    "zip with names that meet, a and A": "name",
    "zip with a link": "not a regular file", "tar with a hard link": "not a regular file",
    "tar.gz with a wrong checksum": "damaged", "bomb: tar.gz": "limit", "bomb: many members": "members",
    "bomb: many members of a tar": "headers that are too many", "bomb: many folders": "folders",
    "bomb: a huge table of contents": "table of contents is too large",
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in MISUNDERSTOOD])
def test_every_crafted_archive_is_refused(kind: str, destination: Path) -> None:
    data = REFUSED[kind]()
    tracemalloc.start()
    try:
        message = refusal(data, destination, untouched=kind not in DAMAGED)
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024**2
    finally:
        tracemalloc.stop()
    assert WORDS.get(kind, "") in message


def test_headers_that_are_too_many_are_refused(destination: Path) -> None:
    headers = archives.with_pax(archives.pax_record("comment", "x"))[:1024] * 200
    data = b"".join(headers + archives.header(str(n), tarfile.REGTYPE, 0) for n in range(25))
    assert "headers that are too many" in refusal(data + bytes(1024), destination)


@THREE
def test_the_size_limit_holds(make: Callable[[Files], bytes], destination: Path) -> None:
    assert "limit" in refusal(make({"a": NOISE, "b": NOISE}), destination, max_bytes=150_000)
    assert "limit" in refusal(make({"a": bytes(200_000)}), destination, max_bytes=150_000)  # packed, it is small
    assert "has 10240 bytes" in refusal(tar_of({"a": b"abc"}), destination, max_bytes=5000)


@THREE
def test_truncation_is_refused(make: Callable[[Files], bytes], destination: Path) -> None:
    files = {"a": b"abc" * 300, "folder/b": b""}
    data = make(files)
    # A tar ends with two blocks of zeros and padding; one block is enough to know that it is whole.
    needed = len(data.rstrip(b"\0")) if data[257:262] == b"ustar" else len(data)
    for size in [*range(0, needed, 31), needed - 1]:
        refusal(data[:size], destination)
    assert unpack(data, destination) == sorted(files)


def test_an_archive_that_changes_meanwhile_is_refused(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = archive._check

    def checked_and_swapped(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        (destination.parent.parent / "download").write_bytes(zip_of({"b": b"abc"}))

    monkeypatch.setattr(archive, "_check", checked_and_swapped)
    assert "damaged" in refusal(zip_of({"a": b"abc"}), destination)
