"""The zip of a package: the same files make the same bytes, whenever and by whomever it is made."""

import hashlib
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

Members = Mapping[str, bytes | Path]  # name with forward slashes -> content, or the file that has it

BEGINNING = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can say
FILE, FOLDER = 0o100644, 0o40755


def tree(members: Members, folders: Sequence[str]) -> list[str]:
    """All folders, also the empty `folders`, as `find . -type d` prints them, sorted."""
    places = [*folders, *(str(PurePosixPath(name).parent) for name in members)]
    found = {parent for place in places for parent in (PurePosixPath(place), *PurePosixPath(place).parents)}
    return [str(place) if str(place) == "." else f"./{place}" for place in sorted(found)]


def write(path: Path, root: str, members: Members, folders: Sequence[str]) -> None:
    """Write the zip; all lies below the folder `root` in it."""
    with ZipFile(path, "w", ZIP_DEFLATED) as target:
        for name in folders:
            target.writestr(_info(f"{root}/{name}/", FOLDER), b"")
        for name, content in members.items():
            info = _info(f"{root}/{name}", FILE)
            if isinstance(content, bytes):
                target.writestr(info, content)
                continue
            info.file_size = content.stat().st_size
            with content.open("rb") as source, target.open(info, "w") as sink:
                shutil.copyfileobj(source, sink)


def _info(name: str, mode: int) -> ZipInfo:
    info = ZipInfo(name, BEGINNING)
    info.compress_type = ZIP_DEFLATED
    info.create_system = 3  # Unix, wherever it is made
    info.external_attr = mode << 16
    return info


def holds(path: Path, root: str, members: Members, folders: Sequence[str]) -> bool:
    """Whether the zip has just these files and folders, undamaged."""
    try:
        with ZipFile(path) as source:
            if source.namelist() != [*(f"{root}/{name}/" for name in folders), *(f"{root}/{name}" for name in members)]:
                return False
            return all(_sha256(source, f"{root}/{name}") == _sha256_of(content) for name, content in members.items())
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False


def _sha256(source: ZipFile, name: str) -> bytes:
    digest = hashlib.sha256()
    with source.open(name) as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.digest()


def _sha256_of(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
