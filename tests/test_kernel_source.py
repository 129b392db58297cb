import base64
import dataclasses
import io
import json
import os
import runpy
import tarfile
from pathlib import Path

import pytest

from pipeline import kernel_source
from pipeline.config import project_files
from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.kernel_source import NOTE, Kernel
from pipeline.recipes import PRESETS

KERNEL = Kernel("tiny", "my-run", PRESETS["rehearsal"], user="user", version=3)


def test_a_kernel_is_named_by_its_run() -> None:
    kernel = dataclasses.replace(KERNEL, run="_My_Run.v2")
    assert kernel.ref == "user/my-run-v2/3" and kernel.url == "https://www.kaggle.com/code/user/my-run-v2"
    assert dataclasses.replace(KERNEL, run="a" * 50).name == "a" * 50
    for run in ("four", "a" * 51, "a-._-"):  # Kaggle would not take it
        with pytest.raises(UsageError, match="from 5 to 50"):
            dataclasses.replace(KERNEL, run=run)


def test_a_note_is_read_as_it_was_written_and_the_newest_without_a_name(tmp_path: Path) -> None:
    second = dataclasses.replace(KERNEL, run="second", version=0, internet=True)
    for age, kernel in ((100, KERNEL), (10, second)):
        kernel.write_note(tmp_path)
        path = tmp_path / kernel.run / NOTE
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert Kernel.read_note(tmp_path, "my-run") == KERNEL
    assert Kernel.read_note(tmp_path, None) == second
    for run, folder in (("x", tmp_path), (None, tmp_path / "none")):
        with pytest.raises(MissingInput, match=r"note.json is missing: push .* with `python -m pipeline\.kernel push`"):
            Kernel.read_note(folder, run)


@pytest.mark.parametrize(("name", "value"), [("user", 7), ("config", []), ("run", "../x"), ("competition", "/")])
def test_a_note_that_was_edited_is_refused(tmp_path: Path, name: str, value: object) -> None:
    KERNEL.write_note(tmp_path)
    path = tmp_path / "my-run" / NOTE
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(BadData, match=r"is damaged .* push it again with --force"):
        Kernel.read_note(tmp_path, "my-run")


def test_the_source_holds_the_order_and_the_projects_files_and_nothing_else(tmp_path: Path) -> None:
    KERNEL.write_source(tmp_path, print)
    path = tmp_path / "main.py"
    assert max(map(len, path.read_text().splitlines())) <= 120
    values = runpy.run_path(str(path))
    train = ["--preset", "rehearsal"]
    order = {"competition": "tiny", "run": "my-run", "train": train, "gpu": True, "internet": False}
    assert values["ORDER"] == order
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(values["PROJECT"])), mode="r:xz") as archive:
        members = archive.getmembers()
        for member in members:
            stream = archive.extractfile(member)
            assert stream is not None
            contents[member.name] = stream.read()
    assert contents == {name: path.read_bytes() for name, path in project_files().items()}
    assert {(m.mtime, m.uid, m.uname, m.mode) for m in members} == {(0, 0, "", 0o644)}


def test_what_kaggle_would_not_take_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(kernel_source, "project_files", lambda: {"pipeline/a.py": tmp_path / "a.py"})
    monkeypatch.setattr(kernel_source, "LARGEST", 1000)
    with pytest.raises(UsageError, match="Kaggle's limit is 1,000: move what does not belong"):
        KERNEL.write_source(tmp_path / "kernel", print)
    assert not (tmp_path / "kernel").exists()


@pytest.mark.parametrize(
    ("accelerator", "gpu", "shape"),
    [(None, True, None), ("none", False, None), ("NvidiaTeslaT4", True, "NvidiaTeslaT4")],
)
def test_the_metadata(tmp_path: Path, accelerator: str | None, gpu: bool, shape: str | None) -> None:
    dataclasses.replace(KERNEL, accelerator=accelerator, internet=True).write_source(tmp_path, print)
    values = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (values["id"], values["title"], values["code_file"]) == ("user/my-run", "my-run", "main.py")
    assert (values["enable_gpu"], values.get("machine_shape")) == (gpu, shape)
    assert (values["is_private"], values["enable_internet"]) == (True, True)
    assert values["competition_sources"] == ["tiny"]
