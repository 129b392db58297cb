import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.store import atomic


def test_a_file_is_replaced_or_untouched(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    atomic.write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with atomic.replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    assert path.read_bytes() == b"new"
    # An interrupt leaves what a kill leaves, by which status tells that a stage was at work.
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert atomic.partial(path).read_bytes() == b"half" and path.read_bytes() == b"new"
    atomic.write_bytes(path, b"newer")
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_is_replaced_or_untouched(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for content in ("old", "new"):
        (tmp_path / ".folder.partial").mkdir()  # what a kill leaves
        (tmp_path / ".folder.partial" / "stale").touch()
        with atomic.replacing_folder(folder) as temporary:
            assert not list(temporary.iterdir())
            (temporary / "a").write_text(content)
    with pytest.raises(RuntimeError), atomic.replacing_folder(folder) as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_an_older_folder_survives_an_interrupt_between_the_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("old")
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt), atomic.replacing_folder(folder) as temporary:
            (temporary / "a").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert (folder / "a").read_text() == "old"


def test_an_older_folder_survives_a_kill_between_the_renames_and_a_failure_after_it(tmp_path: Path) -> None:
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "a").write_text("old")
    (tmp_path / ".folder.partial").mkdir()
    with pytest.raises(RuntimeError), atomic.replacing_folder(tmp_path / "folder"):
        raise RuntimeError
    assert (tmp_path / "folder" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_link_to_a_folder_elsewhere_is_replaced_more_than_once_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("theirs")
    (tmp_path / "folder").symlink_to(tmp_path / "elsewhere")
    for content in ("1", "2"):
        with atomic.replacing_folder(tmp_path / "folder") as temporary:
            (temporary / "a").write_text(content)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "folder"]
    assert (tmp_path / "folder" / "a").read_text() == "2"
    assert (tmp_path / "elsewhere" / "a").read_text() == "theirs"


@pytest.mark.parametrize(("number", "of_folders"), [(errno.EACCES, True), (errno.EIO, True), (errno.EINVAL, False)])
def test_only_a_file_system_that_cannot_sync_folders_is_forgiven(
    number: int, of_folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if (number, of_folders) == (errno.EACCES, True):
        atomic.write_bytes(tmp_path / "deep" / "file", b"new")
        assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            atomic.write_bytes(tmp_path / "deep" / "file", b"new")


def test_a_lock_keeps_another_process_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    code = (
        "import sys, time, pathlib\nfrom pipeline.store import atomic\n"
        f"with atomic.lock(pathlib.Path({str(place)!r})):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another run is at work"):
            hold(place)
        holder.kill()
        holder.wait()
    hold(place)


def test_a_lock_may_be_waited_for(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with ThreadPoolExecutor(1) as other:
        with atomic.lock(place):
            waiting = other.submit(hold, place, 30)
            assert not waiting.done()
        waiting.result(30)
    with atomic.lock(place), pytest.raises(UsageError, match="another run is at work"):
        hold(place, 0.1)


def hold(place: Path, wait: float = 0.0) -> None:
    with atomic.lock(place, wait=wait):
        pass
