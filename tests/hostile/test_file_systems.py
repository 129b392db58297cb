"""What people's disks are like: data by links, and file systems that lack what others have."""

import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline import download as stage
from pipeline.store.cifar import ARCHIVE, BATCHES, CIFAR_FILES
from pipeline.store.processed import Processed
from tests.support import SLUG, error_line, here, tree, write_download

HIDDEN = "cifar_test_nolabel.pkl"
REAL = f"{{}}/cifar-10-python/{BATCHES}"
EACH = {f"{BATCHES}/{name}": f"{REAL}/{name}" for name in CIFAR_FILES}
LINKED = {
    "the folder": {BATCHES: REAL},
    "each file": EACH,
    "as a whole": {"": "{}"},
    "with a link to itself": {**EACH, f"{BATCHES}/again": "."},
    "under both names": {BATCHES: REAL, "cifar_test_nolabels.pkl": f"{{}}/{HIDDEN}"},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_download(tmp_path / "source")


@pytest.fixture(autouse=True)
def no_home_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 is there in each of these: it must never be downloaded in its place."""
    monkeypatch.delattr(stage, "fetch_cifar")


def lay_out(folder: Path, source: Path, links: dict[str, str]) -> Path:
    """A folder with the competition's files by links: places in it, and what they lead to."""
    if "" not in links:
        links = {HIDDEN: f"{{}}/{HIDDEN}", **links}
    for place, target in links.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target.format(source))
    return folder


def run_both(cwd: Path, folder: Path) -> list[Any]:
    """download --from, preprocess on what comes of it, and preprocess on the folder itself."""
    linked = here("download", "--competition", SLUG, "--from", folder, cwd=cwd)
    then = [here("preprocess", "--competition", SLUG, cwd=cwd)] if linked.returncode == 0 else []
    own = here("preprocess", "--competition", SLUG, "--raw", folder, "--processed", "own", cwd=cwd)
    return [linked, *then, own]


@pytest.mark.parametrize("how", LINKED)
def test_data_by_links_is_used(tmp_path: Path, source: Path, how: str) -> None:
    results = run_both(tmp_path, lay_out(tmp_path / "mine", source, LINKED[how]))
    assert [result.returncode for result in results] == [0, 0, 0], results
    linked, own = (tree(tmp_path / place / SLUG) for place in ("data/processed", "own"))
    arrays = [{name: data for name, data in files.items() if name.endswith(".npy")} for files in (linked, own)]
    assert arrays[0] == arrays[1] and len(arrays[0]) == 6


@pytest.mark.parametrize(
    ("links", "says"),
    [
        ({BATCHES: "/gone"}, f"mine/{BATCHES} is a link to /gone, which leads nowhere"),
        ({BATCHES: BATCHES}, f"mine/{BATCHES} is a link to {BATCHES}, which leads nowhere"),
        ({BATCHES: f"{{}}/{HIDDEN}"}, f"mine/{BATCHES} is not a folder: put CIFAR-10's there"),
        ({**EACH, f"{BATCHES}/data_batch_3": "/gone"}, f"mine/{BATCHES}/data_batch_3 is a link to /gone, which leads"),
        ({BATCHES: REAL, HIDDEN: "/gone"}, f"mine/{HIDDEN} is a link to /gone, which leads nowhere"),
    ],
)
def test_what_is_in_the_way_of_the_data_is_named(
    tmp_path: Path, source: Path, links: dict[str, str], says: str
) -> None:
    folder = lay_out(tmp_path / "mine", source, links)
    before = tree(tmp_path)
    for result in run_both(tmp_path, folder):
        line = error_line(result, 4)
        assert says in line and "download" not in line
    assert tree(tmp_path) == before


def test_a_packed_cifar_behind_a_link_is_unpacked(tmp_path: Path, source: Path) -> None:
    shutil.make_archive(str(tmp_path / "packed"), "gztar", source / "cifar-10-python")
    *good, own = run_both(tmp_path, lay_out(tmp_path / "mine", source, {ARCHIVE: str(tmp_path / "packed.tar.gz")}))
    assert [result.returncode for result in good] == [0, 0], good
    assert f"put {BATCHES}, unpacked or as a link, into it" in error_line(own, 3)


@pytest.mark.parametrize("place", ["data", "data/raw", f"data/raw/{SLUG}", f"data/processed/{SLUG}"])
def test_a_place_that_is_a_link_to_nowhere_is_named_and_stays(tmp_path: Path, source: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to("/gone")
    command = ["preprocess", "--raw", source] if "processed" in place else ["download", "--from", source]
    line = error_line(here(*map(str, command), "--competition", SLUG, cwd=tmp_path), 2)
    assert f"{place} is a link to /gone, which leads nowhere: mount it, or name another place" in line
    assert (tmp_path / place).is_symlink()


# --- file systems --------------------------------------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int, only: Any = lambda *_: True) -> None:
    """Let a function of the system fail as a file system answers that cannot do it."""
    function = getattr(module, name)

    def refusing(*arguments: Any, **options: Any) -> Any:
        if only(*arguments):
            raise OSError(number, os.strerror(number), *[a for a in arguments if isinstance(a, str | Path)][:1])
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, refusing)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_without_links_and_synced_folders_all_goes_well(
    tmp_path: Path, source: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "symlink", number)
    refuse(monkeypatch, os, "fsync", number, lambda descriptor: stat.S_ISDIR(os.fstat(descriptor).st_mode))
    linked, then, _ = run_both(tmp_path, source)
    assert "no links can be made in data/raw, so copying" in linked.stderr and linked.returncode == then.returncode == 0
    assert (tmp_path / "data/raw" / SLUG / HIDDEN).read_bytes() == (source / HIDDEN).read_bytes()
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    assert data.array("hidden_ids").tolist() == list(range(100, 130))


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EBUSY, errno.ENOLCK])
def test_what_cannot_be_locked_renamed_or_copied_names_the_place_and_not_the_source(
    tmp_path: Path, source: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(old: object, new: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(old), None, str(new))

    for name in ("symlink", "replace"):
        monkeypatch.setattr(os, name, refusing)
    if number == errno.ENOLCK:
        refuse(monkeypatch, fcntl, "flock", number)
    line = error_line(here("download", "--competition", SLUG, "--from", source, cwd=tmp_path), 1)
    assert line.startswith("error: data/raw/") and f"{os.strerror(number)}: " in line and "name another place" in line
    assert tree(tmp_path / "data") == {}
