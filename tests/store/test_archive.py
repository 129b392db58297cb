"""Unpacking: honest archives come out whole, hostile or damaged ones leave nothing outside of the folder."""

import gzip
import io
import os
import random
import struct
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
from tests.hostile.archives import BOMBS, EXTENDED, MEETING_NAMES, UNSAFE_NAMES
from tests.hostile.packing import (
    NOISE,
    Files,
    as_zip64,
    patched_zip,
    tar_named,
    tar_of,
    tar_with,
    with_mode,
    zip_named,
    zip_of,
    zip_with,
)

HONEST = {
    "cifar-10-python/cifar-10-batches-py/data_batch_1": NOISE,
    "cifar-10-python/cifar-10-batches-py/readme.html": b"<html>",
    "cifar_test_nolabel.pkl": b"",
    "nested.zip": b"PK\x03\x04 is only a file",
}


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "destination"
    folder.mkdir(parents=True)
    return folder


def unpack(data: bytes, destination: Path, **limits: int) -> list[str]:
    """Extract `data` under a name that says nothing; the names of the files."""
    path = destination.parent.parent / "download"
    path.write_bytes(data)
    return [file.relative_to(destination).as_posix() for file in extract(path, destination, **limits)]


def refusal(data: bytes, destination: Path, untouched: bool = True, **limits: int) -> str:
    """The one line with which `data` is refused, fast, and with nothing written outside of the folder."""
    began = time.process_time()
    with pytest.raises(BadData) as caught:
        unpack(data, destination, **limits)
    assert time.process_time() - began < 2
    message = str(caught.value)
    assert type(caught.value) is BadData
    assert "download: " in message and message.endswith("; the archive was not unpacked")
    assert message.isprintable()
    outside = {path for path in destination.parent.parent.rglob("*") if destination not in path.parents}
    assert outside == {destination, destination.parent, destination.parent.parent / "download"}
    if untouched:
        assert not list(destination.iterdir())
    return message.split("download: ")[1]  # the path before it holds this test's name


# --- honest archives ---


@pytest.mark.parametrize(
    "make",
    [
        zip_of,
        lambda files: zip_of(files, zipfile.ZIP_STORED),
        tar_of,
        lambda files: tar_of(files, tarfile.GNU_FORMAT),
        lambda files: gzip.compress(tar_of(files)),
    ],
    ids=["zip", "stored zip", "tar", "gnu tar", "tar.gz"],
)
def test_honest_archives_unpack(make: Callable[[Files], bytes], destination: Path) -> None:
    names = unpack(make(HONEST), destination)
    assert names == list(HONEST)
    assert {name: (destination / name).read_bytes() for name in names} == HONEST


def test_folders_and_dots_unpack(destination: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name in (".", "./empty", "./full"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            target.addfile(info)
        target.addfile(tarfile.TarInfo("./full/.hidden..name"))
    assert unpack(buffer.getvalue(), destination) == ["full/.hidden..name"]
    assert (destination / "empty").is_dir()


def test_zip_with_folders_and_a_comment_unpacks(destination: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.mkdir("folder")
        target.writestr("folder/file", b"abc")
        target.comment = b"from a server"
    assert unpack(buffer.getvalue(), destination) == ["folder/file"]


def test_long_and_foreign_names_unpack(destination: Path) -> None:
    name = "f" * 120 + "/" + "ä" * 100
    for number, data in enumerate([zip_of({name: b"1"}), tar_of({name: b"2"}), tar_of({name: b"3"}, 1)]):
        folder = destination / str(number)
        folder.mkdir()
        path = destination.parent / f"{number}.bin"
        path.write_bytes(data)
        assert extract(path, folder) == [folder / name]


def test_files_get_plain_permissions(destination: Path) -> None:
    unpack(zip_with(with_mode(0o104777)), destination)  # setuid, executable, regular
    assert not (destination / "a").stat().st_mode & 0o7111


def test_a_folder_in_use_is_a_usage_error(destination: Path) -> None:
    (destination / "mine").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(zip_of(HONEST), destination)
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(zip_of(HONEST), destination / "absent")
    assert [path.name for path in destination.iterdir()] == ["mine"]


# --- no archives ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in</html>" + b" " * 600, "is HTML, not an archive"),
        (b"\xef\xbb\xbf<html>", "is HTML, not an archive"),
        (b"<html>" + zip_of(HONEST), "is HTML, not an archive"),
        (b'{"code":403}', "is JSON, not an archive"),
        (b"\x80\x04N.", "neither zip nor tar"),
        (b"\0" * 10240, "neither zip nor tar"),
        (gzip.compress(b"no tar" * 1000, mtime=0), "damaged"),
        (gzip.compress(b"", mtime=0), "damaged"),
        (gzip.compress(b"\0" * 10240, mtime=0), "no files"),
        (b"BZh91AY&SY", "neither zip nor tar"),
        (zip_of({}), "no files"),
        (zip_of({"folder/": b""}), "no files"),
    ],
)
def test_other_files_are_named(data: bytes, words: str, destination: Path) -> None:
    assert words in refusal(data, destination)


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_file_is_refused(kind: str, destination: Path) -> None:
    path = destination.parent / "download"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(BadData, match="not a file"):
        extract(path, destination)


# --- hostile archives ---


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
@pytest.mark.parametrize("kind", UNSAFE_NAMES)
def test_unsafe_names_are_refused(kind: str, make: Callable[[Files], bytes], destination: Path) -> None:
    assert "name" in refusal(make({"honest": b"abc", UNSAFE_NAMES[kind]: b"abc"}), destination)


@pytest.mark.parametrize("names", MEETING_NAMES)
@pytest.mark.parametrize("make", [zip_named, tar_named], ids=["zip", "tar"])
def test_names_that_meet_are_refused(names: list[str], make: Callable[[list[str]], bytes], destination: Path) -> None:
    assert "name" in refusal(make(names), destination)


def test_a_name_with_a_zero_byte_is_refused(destination: Path) -> None:
    assert "name" in refusal(zip_of({"a_b": b""}).replace(b"a_b", b"a\0b"), destination)


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"S", b"Z"])  # links, devices, FIFO, sparse
def test_links_and_devices_in_tars_are_refused(kind: bytes, destination: Path) -> None:
    assert "no regular file" in refusal(tar_with(kind, link="/etc/passwd"), destination)
    assert "no regular file" in refusal(tar_with(kind, link="/tmp/" + "x" * 150), destination)


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777, 0o040755])
def test_links_and_devices_in_zips_are_refused(mode: int, destination: Path) -> None:
    assert "no regular file" in refusal(zip_with(with_mode(mode), content=b"/etc/passwd"), destination)


def test_a_link_cannot_lead_a_later_file_out(destination: Path) -> None:
    data = tar_with(tarfile.SYMTYPE, "folder", str(destination.parent), then="folder/evil")
    assert "no regular file" in refusal(data, destination)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (patched_zip(8, b"\x01\x00", 6), "encrypted"),
        (patched_zip(8, b"\x40\x00", 6), "encrypted"),
        (patched_zip(8, b"\x20\x00", 6), "damaged"),  # patched data
        (zip_of({"a": b"abc"}, zipfile.ZIP_LZMA), "compression"),
        (zip_of({"a": b"abc"}, zipfile.ZIP_BZIP2), "compression"),
        (patched_zip(10, b"\x63\x00", 8), "compression"),
        (patched_zip(16, b"\0\0\0\0", 14), "damaged"),  # CRC
        (patched_zip(24, struct.pack("<I", 2)), "damaged"),  # declares less than there is
        (patched_zip(24, struct.pack("<I", 1000)), "another size"),  # declares more
        (patched_zip(46, b"b"), "damaged"),  # another name in the local header
        (patched_zip(42, struct.pack("<I", 30)), "damaged"),  # no local header there
        (zip_of({"folder/": b"abc"}), "contents of its own"),
    ],
)
def test_damaged_zips_are_refused(data: bytes, words: str, destination: Path) -> None:
    assert words in refusal(data, destination, untouched=False)
    assert all(path.name in ("a", "b") for path in destination.iterdir())


def test_a_crc_error_in_compressed_data_is_refused(destination: Path) -> None:
    data = bytearray(zip_of({"a": NOISE}))
    data[5000] ^= 1
    assert "damaged" in refusal(bytes(data), destination, untouched=False)
    (destination / "a").unlink()
    data = bytearray(gzip.compress(tar_of({"a": NOISE})))
    data[5000] ^= 1
    assert "damaged" in refusal(bytes(data), destination)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "endless tar.gz", "tail", "many files", "overlapping members"])
def test_bombs_are_refused(kind: str, destination: Path) -> None:
    data = BOMBS[kind]()
    tracemalloc.start()
    try:
        refusal(data, destination)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024**2


@pytest.mark.parametrize("make", [zip_of, tar_of, lambda files: gzip.compress(tar_of(files))])
def test_the_size_limit_holds(make: Callable[[Files], bytes], destination: Path) -> None:
    assert "limit" in refusal(make({"a": NOISE, "b": NOISE}), destination, max_bytes=150_000)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_too_many_members_are_refused(make: Callable[[Files], bytes], destination: Path) -> None:
    assert "members" in refusal(make({str(n): b"" for n in range(archive.MAX_MEMBERS + 1)}), destination)


def test_zip64_unpacks(destination: Path) -> None:
    assert unpack(as_zip64(zip_of(HONEST)), destination) == list(HONEST)


def test_a_huge_table_of_contents_is_refused_unread(destination: Path) -> None:
    for data in (
        zip_of({f"{n:0900}": b"" for n in range(600)}),
        as_zip64(zip_of(HONEST), directory=2**62),
        zip_of(HONEST)[:-10] + b"\xff" * 8 + b"\0\0",
    ):
        assert "table of contents is too large" in refusal(data, destination)


@pytest.mark.parametrize("kind", EXTENDED)
def test_extended_headers_are_refused(kind: str, destination: Path) -> None:
    refusal(EXTENDED[kind], destination)
    refusal(gzip.compress(EXTENDED[kind]), destination)


# --- damage ---


@pytest.mark.parametrize(
    "make", [zip_of, tar_of, lambda files: gzip.compress(tar_of(files))], ids=["zip", "tar", "tar.gz"]
)
def test_truncation_is_refused(make: Callable[[Files], bytes], destination: Path) -> None:
    files = {"a": b"abc" * 300, "folder/b": b""}
    data = make(files)
    # A tar ends with two blocks of zeros and padding; one block is enough to know that it is whole.
    needed = len(data.rstrip(b"\0")) if data[257:262] == b"ustar" else len(data)
    for size in [*range(0, needed, 11), needed - 1]:
        refusal(data[:size], destination)
    assert unpack(data, destination) == list(files)


@pytest.mark.parametrize(
    "make", [zip_of, tar_of, lambda files: gzip.compress(tar_of(files))], ids=["zip", "tar", "tar.gz"]
)
def test_bit_flips_unpack_or_are_refused(make: Callable[[Files], bytes], tmp_path: Path) -> None:
    data = make({"a": b"abc" * 30, "folder/b": b"xyz"})
    rng = random.Random(0)
    path = tmp_path / "download"
    for number in range(300):
        flipped = bytearray(data)
        for _ in range(rng.choice([1, 2, 5])):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            files = extract(path, folder)
        except BadData as error:
            assert str(error).isprintable()
        else:
            assert all(file.is_relative_to(folder) and file.is_file() for file in files)
    assert {entry.name for entry in tmp_path.iterdir()} == {"download", *map(str, range(300))}


def test_an_archive_that_changes_meanwhile_is_refused(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = destination.parent / "download"
    path.write_bytes(zip_of({"a": b"abc"}))
    check = archive._check_names

    def checked_and_swapped(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        path.write_bytes(zip_of({"b": b"abc"}))

    monkeypatch.setattr(archive, "_check_names", checked_and_swapped)
    with pytest.raises(BadData, match="changed while it was read"):
        extract(path, destination)
    assert not list(destination.iterdir())
