"""Unpacks a downloaded zip or tar(.gz) into a folder, and trusts nothing in it.

The whole table of contents is checked before the first byte is written; `zipfile` and `tarfile`, with its `data`
filter, then write no more than it says.  An archive inside is just a file.
"""

import errno
import io
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from pipeline.errors import BadData, UsageError, printable

MAX_BYTES = 4 * 1024**3  # unpacked, and of the archive; CIFAR-10 and the hidden set take 217 MB
MAX_RATIO = 200  # unpacked to packed bytes; images pack about 1.1 to 1, DEFLATE cannot do more than 1,032 to 1
MAX_MEMBERS = 1000  # the competition's has 9

_SMALL = 1024**2  # bytes that may come out of any archive, however well they pack
_SLACK = 4 * 1024**2  # bytes of a tar's headers and padding: more than MAX_MEMBERS members need
_CHUNK = 1024**2  # bytes read at a time
_MAX_NAME = 1024  # characters
_MAX_DEPTH = 32  # folders in each other; the competition's has 2
_MAX_PART = 255  # bytes of a file's name on common systems
_MAX_DIRECTORY = 512 * 1024  # bytes of a zip's table of contents: 500 a member
_MAX_EXTENDED = 2048  # bytes of a tar's extended header, read whole with patterns that take quadratic time
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_GZIP = b"\x1f\x8b"

# What the standard library raises on damaged archives.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ValueError, IndexError, OverflowError, NotImplementedError, RecursionError),
)


class _Refused(Exception):
    """Why an archive is refused, in words; `extract` adds its name."""


@dataclass(frozen=True)
class _Member:
    """A file or a folder of an archive: its cleaned name relative to the destination, its size in bytes."""

    name: str
    size: int
    is_folder: bool


def extract(archive: Path, destination: Path, max_bytes: int = MAX_BYTES, max_ratio: int = MAX_RATIO) -> list[Path]:
    """Unpack `archive` into the empty folder `destination`; the paths of the files, in the archive's order.

    At most `max_bytes` come out, and at most `max_ratio` times the archive's own size.  What has been written
    when it fails is the caller's to remove, with the folder.

    Raises:
        BadData: `archive` is no zip or tar, is damaged, or holds anything but plain files and folders.
        UsageError: `destination` is no empty folder.
        OSError: the disk is full.
    """
    if not destination.is_dir() or any(destination.iterdir()):
        raise UsageError(f"{destination} is not an empty folder to unpack into")
    try:
        if not archive.is_file():
            raise _Refused("is not there, or not a file")
        if (size := archive.stat().st_size) > max_bytes:
            raise _Refused(f"has {size} bytes, and {max_bytes} are the limit")
        with archive.open("rb") as stream:
            unpack = _unpack_zip if _is_zip(stream.read(512)) else _unpack_tar
            members = unpack(stream, destination, min(max_bytes, max(_SMALL, max_ratio * size)))
    except _Refused as error:
        why = str(error)
    except _DAMAGE as error:
        why = f"is damaged or truncated ({printable(error)})"
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place in the file that does not exist; anything else is the disk's
            raise
        why = "is damaged or truncated"
    else:
        return [destination / member.name for member in members if not member.is_folder]
    raise BadData(f"{printable(archive)}: {why}; the archive was not unpacked")


def _is_zip(head: bytes) -> bool:
    """Whether the file that begins so is a zip; else it is a tar.  By its content: names lie."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return True
    if head.startswith(_GZIP) or head[257:262] == b"ustar":
        return False
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, kind in (
        (b"<", "HTML, not an archive: a login or error page"),
        (b"{", "JSON, not an archive: an error"),
    ):
        if text.startswith(start):
            raise _Refused(f"is {kind}, download it again")
    raise _Refused("is neither zip nor tar" if head else "is empty")


# --- the checks -------------------------------------------------------------------------------------------


def _member(name: str, size: int, is_folder: bool, limit: int) -> _Member:
    """A member by the name and the size that the archive gives it.

    Raises:
        _Refused: the name leads out of the destination, or could mean something else on another system.
    """
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    if len(name) > _MAX_NAME or not name.isprintable() or any(c in name for c in '\\:*?"<>|'):
        raise _Refused(f"holds a name that is unsafe or too long, {printable(name)}")
    if len(parts) > _MAX_DEPTH:
        raise _Refused(f"holds a name with more than {_MAX_DEPTH} folders in each other, {printable(name)}")
    if any(not part or part.endswith((".", " ")) or len(part.encode()) > _MAX_PART for part in parts):
        raise _Refused(f"holds a name that may lead out of the folder, {printable(name)}")
    if size < 0 or (is_folder and size):
        raise _Refused(f"holds {printable(name)} with a size that makes no sense")
    if size > limit:  # at once: `tarfile` would look for the next header there, beyond the file's end
        raise _Refused(f"holds {printable(name)} of {printable(size)} bytes, and {limit} are the limit")
    return _Member("/".join(parts), size, is_folder)


def _check(members: Sequence[_Member], limit: int) -> None:
    """Refuse names that meet in one place (also where case is ignored), files used as folders, and too much."""
    if len(members) > MAX_MEMBERS:
        raise _Refused(f"has more than {MAX_MEMBERS} members")
    keys = [unicodedata.normalize("NFC", member.name).casefold() for member in members]
    files = {key for key, member in zip(keys, members, strict=True) if not member.is_folder}
    seen: set[str] = set()
    folders: set[str] = set()  # that hold a member, or such a folder
    for key, member in zip(keys, members, strict=True):
        parts = key.split("/")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        if key in seen or above & files:
            raise _Refused(f"holds the name {printable(member.name)} twice, or as file and folder")
        seen.add(key)
        folders |= above
    if len(folders) > MAX_MEMBERS:
        raise _Refused(f"holds more than {MAX_MEMBERS} folders")
    if not files or "" in files:
        raise _Refused("holds no files, or one without a name")
    if (total := sum(member.size for member in members)) > limit:
        raise _Refused(f"would unpack to {total} bytes, and {limit} are the limit")


# --- zip --------------------------------------------------------------------------------------------------


class _Sparing(io.BufferedReader):
    """A file of which nobody reads much at once: `zipfile` would read the table of contents whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes."""
        data = super().read(_MAX_DIRECTORY + 1 if size is None or size < 0 else min(size, _MAX_DIRECTORY + 1))
        if len(data) > _MAX_DIRECTORY:
            raise _Refused(f"has more than {MAX_MEMBERS} members: its table of contents is too large")
        return data


def _unpack_zip(stream: IO[bytes], destination: Path, limit: int) -> list[_Member]:
    root = destination.resolve()  # `zipfile` would take LINK/.. for the folder of the link
    with zipfile.ZipFile(_Sparing(io.FileIO(stream.fileno(), closefd=False))) as unzipped:
        infos = unzipped.infolist()
        members = [_zip_member(info, limit) for info in infos]
        _check(members, limit)
        for info, member in zip(infos, members, strict=True):
            path = Path(unzipped.extract(info, root))
            if path != root / member.name or not (member.is_folder or path.stat().st_size == member.size):
                raise _Refused(f"holds {printable(member.name)} in another size than it says")
    return members


def _zip_member(info: zipfile.ZipInfo, limit: int) -> _Member:
    name = printable(info.orig_filename)  # `filename` has lost what follows a zero byte
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer was no Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > info.is_dir():
        raise _Refused(f"holds {name}, which is a link or no regular file")
    if info.flag_bits & 0x41:
        raise _Refused(f"holds {name}, which is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Refused(f"holds {name} in a compression other than DEFLATE")
    return _member(info.orig_filename, info.file_size, info.is_dir(), limit)


# --- tar --------------------------------------------------------------------------------------------------


class _TarStream:
    """The bytes of a tar or of a gzip with one member, at most `left`, so that nothing unpacks without an end."""

    def __init__(self, raw: IO[bytes], left: int) -> None:
        raw.seek(0)
        self.raw, self.left, self.unzip = raw, left, zlib.decompressobj(wbits=31)  # with gzip's header and checksum
        self.packed = raw.read(2) == _GZIP
        raw.seek(0)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        chunk = self._unzipped(size) if self.packed else self.raw.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise _Refused("unpacks to more bytes than the limit")
        return chunk

    def _unzipped(self, size: int) -> bytes:
        while not self.unzip.eof:
            packed = self.unzip.unconsumed_tail or self.raw.read(_CHUNK)
            if not packed:
                raise EOFError("it ends too early")
            if chunk := self.unzip.decompress(packed, size):
                return chunk
        if self.unzip.unused_data or self.raw.read(1):  # a second gzip, of which there could be millions, as well
            raise EOFError("something follows its end")
        return b""


class _Header(tarfile.TarInfo):
    """Refuses what `tarfile` reads without limit, or silently takes for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and not 0 <= info.size <= _MAX_EXTENDED:
            raise _Refused("has headers that are too large")
        if info.type not in _EXTENDED + _REGULAR:
            raise _Refused(f"holds {printable(info.name)}, which is a link or no regular file")
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the block of zeros that ends a tar
            raise
        except tarfile.HeaderError as error:
            raise _Refused(f"is damaged or truncated ({printable(error)})") from None


def _unpack_tar(stream: IO[bytes], destination: Path, limit: int) -> list[_Member]:
    members = [member for _, _, member in _walk(stream, limit)]
    _check(members, limit)
    again = _walk(stream, limit)
    for expected, (tar, info, member) in zip(members, again, strict=True):
        if member != expected:
            raise _Refused("changed while it was read")
        tar.extract(info, destination, filter="data")
    return members


def _walk(stream: IO[bytes], limit: int) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, _Member]]:
    """The members of a tar, as one stream from the first byte to the last (a gzip's checksum comes last)."""
    source = _TarStream(stream, limit + _SLACK)
    contents = count = 0
    with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|", tarinfo=_Header, bufsize=_CHUNK) as tar:
        while (info := tar.next()) is not None:
            if info.issparse():
                raise _Refused(f"holds {printable(info.name)}, which is a link or no regular file")
            member = _member(info.name, info.size, info.isdir(), limit)
            contents, count = contents + member.size, count + 1
            if count > MAX_MEMBERS or tar.offset - contents > _SLACK:
                raise _Refused(f"has more than {MAX_MEMBERS} members, or headers that are too many")
            yield tar, info, member
        while source.read(_CHUNK):
            pass
