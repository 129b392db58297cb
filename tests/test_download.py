import hashlib
import http.server
import importlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from pipeline.config import DEFAULT_COMPETITION, Paths
from pipeline.download import TIMEOUT, download, fetch_cifar
from pipeline.errors import BadData, NetworkError, PipelineError
from pipeline.kaggle_api.client import Kaggle, RemoteFile
from pipeline.rehearsal import server
from pipeline.rehearsal.server import first_byte
from pipeline.store import atomic, overview
from pipeline.store.cifar import find_batches
from pipeline.store.manifest import Manifest
from pipeline.store.processed import Processed
from tests.doubles.kaggle import faulty_kaggle
from tests.support import ROOT, SLUG, clean_environment, error_line, here, images, tree, wait_until, write_download

pytestmark = pytest.mark.usefixtures("quick_client")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_download(tmp_path / "source")


def run(
    cwd: Path, stage: str, *more: object, environ: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return here(stage, "--competition", SLUG, *more, cwd=cwd, environ=environ)


def output(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 0, result
    return result.stderr + result.stdout


def target(cwd: Path) -> Path:
    return cwd / "data/raw" / SLUG


def content(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if name != "manifest.json"}


# --- from Kaggle, through the official client ----------------------------------------------------------------


def test_the_download_is_the_competitions_files_and_is_done_once(tmp_path: Path, source: Path) -> None:
    fault = "ListDataFiles:status=503,retry=0*2"
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG, faults=[fault]) as kaggle:
        asking, *told, end, following = output(run(tmp_path, "download", environ=kaggle.environment)).splitlines()
        assert asking == f"download: {SLUG}, from the mock Kaggle server"
        again = [line for line in told if "trying again in 0 s" in line]
        assert len(again) == 2 and all(line.startswith("kaggle: Kaggle is busy or down (503, ") for line in again)
        assert content(target(tmp_path)) == content(source)
        assert end.startswith(f"data/raw/{SLUG}: complete, in ")
        assert following == f"next: python -m pipeline.preprocess --competition {SLUG}"
        assert "nothing to do" in output(run(tmp_path, "download", environ=kaggle.environment))
        assert kaggle.calls.count("DownloadDataFiles") == 1
    assert not list((tmp_path / "data/raw").glob(f".{SLUG}.download"))


def test_a_killed_download_goes_on_where_it_stopped(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []  # the Range of each request for the file

    def remembering(text: str | None, size: int) -> int:
        asked.append(text)
        return first_byte(text, size)

    monkeypatch.setattr(server, "first_byte", remembering)
    (source / "ballast.bin").write_bytes(os.urandom(4_000_000))
    command = [sys.executable, "-m", "pipeline.download", "--competition", SLUG]
    # The first connection breaks after 2 MB; the client waits before it goes on, and is killed meanwhile.
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG, faults=["DownloadDataFiles:cut=2500000*1"]) as kaggle:
        environ = {**kaggle.environment, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL) as process:
            partial_zip = tmp_path / f"data/raw/.{SLUG}.download/{SLUG}.zip"
            wait_until(lambda: partial_zip.is_file() and partial_zip.stat().st_size >= 2_000_000)
            process.send_signal(signal.SIGKILL)
        assert not target(tmp_path).exists()
        there, before = partial_zip.stat().st_size, len(asked)
        output(run(tmp_path, "download", environ=kaggle.environment))
        assert content(target(tmp_path)) == content(source)
    assert asked[0] is None and there >= 2_000_000
    # The client asks for the file, looks at the headers, and then for what is missing: nothing comes twice.
    assert asked[before:] == [None, f"bytes={there}-"]


@pytest.mark.parametrize("changed", [{"gone.bin": 5}, {"cifar_test_nolabel.pkl": 5}, {}])
def test_what_came_is_compared_with_kaggles_list(
    tmp_path: Path, source: Path, changed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {name: len(data) for name, data in content(source).items()} | changed
    archive, downloads = shutil.make_archive(str(tmp_path / "x"), "zip", source), []

    def canned(_kaggle: Kaggle, slug: str, folder: Path, _progress: Callable[[int], None]) -> None:
        downloads.append(shutil.copy(archive, folder / f"{slug}.zip"))

    monkeypatch.setattr(Kaggle, "files", lambda *_: [RemoteFile(name, size) for name, size in sizes.items()])
    monkeypatch.setattr(Kaggle, "download", canned)
    kaggle, paths = Kaggle({"KAGGLE_API_TOKEN": "t"}), Paths(raw=tmp_path / "raw")
    with monkeypatch.context() as patched, pytest.raises(PipelineError, match="free space"):
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * sum(sizes.values())))
        download(SLUG, paths, kaggle, print)
    assert not downloads
    if not changed:
        assert download(SLUG, paths, kaggle, print) == tmp_path / "raw" / SLUG
        assert len(downloads) == 1
        return
    with pytest.raises(BadData, match=f"{next(iter(changed))} does not have the 5 bytes"):
        download(SLUG, paths, kaggle, print)
    assert len(downloads) == 2  # it may have been damaged on the way
    assert tree(tmp_path / "raw") == {} and not list((tmp_path / "raw").glob(f".{SLUG}.[dp]*"))


# --- without Kaggle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [([], 5, "no Kaggle credentials"), (["--from", "nowhere"], 3, "does not exist")],
)
def test_what_cannot_be_downloaded(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    assert said in error_line(here("download", *arguments, cwd=tmp_path), code)
    assert tree(tmp_path) == {}


def test_one_file_of_the_download_is_not_all_of_it(tmp_path: Path, source: Path) -> None:
    for name in ("cifar_test_nolabel.pkl", "cifar-10-python/cifar-10-batches-py/test_batch"):
        line = error_line(run(tmp_path, "download", "--from", source / name), 2)
        assert "is one file of several: name the folder that has them all" in line


def test_what_an_archive_lacks_is_said_of_the_archive(tmp_path: Path, source: Path) -> None:
    (source / "cifar_test_nolabel.pkl").unlink()
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    line = error_line(run(tmp_path, "download", "--from", packed), 3)
    assert line.startswith(f"error: {packed} has no test set")


def test_a_file_managers_own_file_is_not_of_the_download(tmp_path: Path, source: Path) -> None:
    (source / ".DS_Store").write_text("icons")
    output(run(tmp_path, "download", "--from", shutil.make_archive(str(tmp_path / SLUG), "zip", source)))
    (target(tmp_path) / ".DS_Store").write_text("other icons")
    output(run(tmp_path, "preprocess"))


def test_two_at_once_do_not_meet(tmp_path: Path, source: Path) -> None:
    environ = {**clean_environment(), "KAGGLE_API_TOKEN": "a-token"}
    output(run(tmp_path, "download", "--from", source, "--force"))
    with atomic.lock(target(tmp_path)), atomic.lock(tmp_path / "data/processed" / SLUG):
        for command in (["download", "--force"], ["download", "--force", "--from", source], ["preprocess"]):
            result = run(tmp_path, *map(str, command), environ=environ)
            assert "another run is at work on" in error_line(result, 2)


def test_another_source_wants_force(tmp_path: Path, source: Path) -> None:
    other = write_download(tmp_path / "other", seed=50)
    output(run(tmp_path, "download", "--from", source))
    told = error_line(run(tmp_path, "download", "--from", other), 2)
    cure = re.search("`python -m pipeline.download (.+)`", told)
    assert cure is not None
    output(here("download", *shlex.split(cure[1]), cwd=tmp_path))
    assert content(target(tmp_path)) == content(other)


def test_a_folder_laid_out_by_hand_stays_as_it_is(tmp_path: Path, source: Path) -> None:
    folder = write_download(target(tmp_path), seed=50)
    before = tree(folder)
    for more in ([], ["--from", folder], ["--from", f"data/raw/../raw/{SLUG}"]):
        assert "laid out by hand, nothing to do" in output(run(tmp_path, "download", *more))
    assert "--force" not in error_line(run(tmp_path, "download", "--from", source), 2)
    for inside, says in ((folder, "is the folder to fill"), (folder / "cifar-10-python", "contain each other")):
        assert says in error_line(run(tmp_path, "download", "--from", inside, "--force"), 2)
    output(run(tmp_path, "preprocess"))
    assert tree(folder) == before
    output(run(tmp_path, "download", "--from", source, "--force"))
    assert content(folder) == content(source) and tree(folder.with_name(f"{SLUG}.bak")) == before
    assert "complete, nothing to do" in output(run(tmp_path, "download", "--from", folder))


def test_an_archive_in_the_folder_is_to_be_moved_and_named(tmp_path: Path, source: Path) -> None:
    """Where `kaggle competitions download -p data/raw/SLUG` leaves it."""
    packed = target(tmp_path) / f"{SLUG}.zip"
    packed.parent.mkdir(parents=True)
    shutil.make_archive(str(packed.with_suffix("")), "zip", source)
    assert "tiny.zip and no test set: move it away; if that is" in error_line(run(tmp_path, "download"), 2)
    assert "contain each other" in error_line(run(tmp_path, "download", "--from", packed), 2)
    packed.parent.rename(tmp_path / "moved")
    output(run(tmp_path, "download", "--from", tmp_path / f"moved/{SLUG}.zip"))
    assert content(target(tmp_path)) == content(source)


def test_an_empty_folder_or_a_file_is_no_download(tmp_path: Path, source: Path) -> None:
    target(tmp_path).parent.mkdir(parents=True)
    target(tmp_path).write_text("mine")
    assert "is not a folder: move it away" in error_line(run(tmp_path, "download", "--from", source), 2)
    target(tmp_path).unlink()
    target(tmp_path).mkdir()
    output(run(tmp_path, "download", "--from", source))
    assert content(target(tmp_path)) == content(source)


def test_local_files_need_no_kaggle_package(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaggle", None)
    monkeypatch.setattr(metadata, "version", mock.Mock(side_effect=metadata.PackageNotFoundError))
    with pytest.raises(ImportError):
        importlib.import_module("kaggle")
    made = download(SLUG, Paths(raw=tmp_path / "raw"), Kaggle({}), print, source=source)
    assert content(made) == content(source)


def test_linked_files_that_were_replaced_are_noticed_and_preprocessed_anew(tmp_path: Path, source: Path) -> None:
    def both() -> list[str]:
        return [output(run(tmp_path, "download", "--from", source)), output(run(tmp_path, "preprocess"))]

    both()
    link = target(tmp_path) / "cifar_test_nolabel.pkl"
    assert link.is_symlink() and link.resolve() == source / "cifar_test_nolabel.pkl"
    assert all("nothing to do" in said for said in both())
    other = write_download(tmp_path / "other", seed=50)
    for name, data in content(other).items():
        assert (source / name).stat().st_size == len(data)
        (source / name).write_bytes(data)
    again = f"run `python -m pipeline.download --competition {SLUG} --from {source}`"  # and nothing comes from Kaggle
    assert again in error_line(run(tmp_path, "download"), 4)
    said = both()
    assert "changed, doing it again" in said[0] and "nothing to do" not in said[1]
    hidden = Processed.open(tmp_path / "data/processed" / SLUG).array("hidden_images")
    assert np.array_equal(hidden, images(30, 59))


def test_a_damaged_manifest_is_mended_by_force(tmp_path: Path, source: Path) -> None:
    output(run(tmp_path, "download", "--from", source))
    before = tree(target(tmp_path))
    (target(tmp_path) / "manifest.json").write_text('{"stage": "download", "files": {"a": 1}}')
    assert "--force" in error_line(run(tmp_path, "download", "--from", source), 4)
    assert "--force" in error_line(run(tmp_path, "preprocess"), 4)
    output(run(tmp_path, "download", "--from", source, "--force"))
    assert tree(target(tmp_path)) == before


def test_a_kaggle_notebooks_files_are_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tmp_path / "kaggle/input"
    write_download(inputs / SLUG)
    monkeypatch.setattr("pipeline.download.KAGGLE_INPUT", (inputs,))
    download(SLUG, Paths(raw=tmp_path / "raw"), Kaggle({}), print)
    assert (tmp_path / "raw" / SLUG / "cifar_test_nolabel.pkl").is_symlink()


def test_the_known_competitions_file_has_a_known_hash(tmp_path: Path, source: Path) -> None:
    result = here("download", "--competition", DEFAULT_COMPETITION, "--from", source, cwd=tmp_path)
    assert "a0efb9ed2400345ed274e1ad6c7d299b4e8c94d194e0420ffa9a711a22e5cdb1" in error_line(result, 4)
    assert not (tmp_path / "data/raw" / DEFAULT_COMPETITION).exists()


# --- CIFAR-10 from its home page ----------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def home_page(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An archive like CIFAR-10's own, on 127.0.0.1."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "www"
    folder.mkdir()
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(source / "cifar-10-python/cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((folder / "cifar.tar.gz").read_bytes()).hexdigest())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        yield
        server.shutdown()
        thread.join()


def test_missing_training_data_comes_from_cifars_home_page(tmp_path: Path, source: Path, home_page: None) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "cifar_test_nolabel.pkl").write_bytes((source / "cifar_test_nolabel.pkl").read_bytes())
    download(SLUG, Paths(raw=tmp_path / "raw"), Kaggle({}), print, source=bare)
    folder = tmp_path / "raw" / SLUG
    assert find_batches(folder) == folder / "cifar-10-python/cifar-10-batches-py"
    # The archive that is kept for the next time is no competition.
    paths = Paths(raw=tmp_path / "raw", processed=tmp_path, models=tmp_path, submissions=tmp_path)
    assert overview.competitions(paths) == {SLUG}
    manifest = Manifest.read(folder)
    assert manifest is not None and len(manifest.files) == 8


def test_a_wrong_md5_is_a_network_error_after_three_tries(
    tmp_path: Path, home_page: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    monkeypatch.setattr("pipeline.download.CIFAR_WAITS", (0.01, 0.01))
    asked: list[float | None] = []
    monkeypatch.setattr(Quiet, "log_message", lambda *_: asked.append(socket.getdefaulttimeout()))
    with pytest.raises(NetworkError, match="CIFAR-10 could not be downloaded"):
        fetch_cifar(tmp_path / "cache")
    assert len(asked) >= 3 and set(asked) == {TIMEOUT}  # seconds, which torchvision's downloader does not know
    assert socket.getdefaulttimeout() is None


def test_a_kaggle_that_stays_busy_is_asked_four_times(tmp_path: Path, source: Path) -> None:
    fault = "ListDataFiles:status=503,retry=0"
    with faulty_kaggle(source, tmp_path / "state", slug=SLUG, faults=[fault]) as kaggle:
        assert "busy or down (503" in error_line(run(tmp_path, "download", environ=kaggle.environment), 6)
        assert kaggle.calls.count("ListDataFiles") == 4
