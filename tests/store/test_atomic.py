import subprocess
import sys
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


def test_a_folder_is_replaced_or_untouched(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for content in ("old", "new"):
        with atomic.replacing_folder(folder) as temporary:
            (temporary / "a").write_text(content)
    with pytest.raises(RuntimeError), atomic.replacing_folder(folder) as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_leftovers_of_a_kill_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial" / "stale").touch()
    with atomic.replacing_folder(tmp_path / "folder") as temporary:
        assert not list(temporary.iterdir())


def test_a_lock_keeps_another_process_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    place = tmp_path / "place"
    code = (
        "import sys, time, pathlib\nfrom pipeline.store import atomic\n"
        f"with atomic.lock(pathlib.Path({str(place)!r})):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match="another run is at work"), atomic.lock(place):
            pass
        holder.kill()
        holder.wait()
    with atomic.lock(place):
        pass
