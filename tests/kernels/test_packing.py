import ast
import base64
import dataclasses
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import project_files
from pipeline.errors import UsageError
from pipeline.kernels import packing
from pipeline.kernels.order import Order
from pipeline.recipes import PRESETS

ORDER = Order("tiny", "my-run", dataclasses.replace(PRESETS["fast"], seed=3))


@pytest.fixture(scope="module")
def parcel() -> packing.Parcel:
    return packing.pack(ORDER)


def literal(source: str, name: str) -> Any:
    """What the source gives `name` at its top."""
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(found)], value=value) if found == name:
                return ast.literal_eval(value)
            case ast.AnnAssign(target=ast.Name(found), value=ast.expr() as value) if found == name:
                return ast.literal_eval(value)
    raise KeyError(name)


def test_the_source_holds_the_order_and_its_tags(parcel: packing.Parcel) -> None:
    assert literal(parcel.source, "ORDER") == {
        "competition": "tiny",
        "run": "my-run",
        "train": ["--preset", "fast", "--seed", "3"],
        "gpu": True,
        "internet": False,
    }
    assert ORDER.tag in parcel.source and parcel.tag in parcel.source
    assert max(map(len, parcel.source.splitlines())) <= 120


def test_the_source_holds_the_projects_files_and_nothing_else(parcel: packing.Parcel) -> None:
    packed = base64.b64decode(literal(parcel.source, "PROJECT"))
    contents = {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        members = archive.getmembers()
        for member in members:
            stream = archive.extractfile(member)
            assert stream is not None
            contents[member.name] = stream.read()
    files = project_files()
    assert contents == {name: path.read_bytes() for name, path in files.items()}
    assert len(files) == parcel.files
    assert {(m.mtime, m.uid, m.uname, m.mode) for m in members} == {(0, 0, "", 0o644)}


def test_equal_files_and_orders_give_equal_bytes_and_other_files_another_tag(
    parcel: packing.Parcel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert packing.pack(ORDER) == parcel
    (tmp_path / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(packing, "project_files", lambda: {"pipeline/a.py": tmp_path / "a.py"})
    after = packing.pack(ORDER)
    assert after.tag != parcel.tag
    assert ORDER.tag in after.source


def test_what_kaggle_would_not_take_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    monkeypatch.setattr(packing, "project_files", lambda: {"pipeline/a.py": tmp_path / "a.py"})
    monkeypatch.setattr(packing, "LARGEST", 1000)
    with pytest.raises(UsageError, match="and Kaggle takes 1,000"):
        packing.pack(ORDER)


@pytest.mark.parametrize(
    ("accelerator", "gpu", "shape"),
    [(None, True, None), ("none", False, None), ("NvidiaTeslaT4", True, "NvidiaTeslaT4")],
)
def test_the_metadata(tmp_path: Path, accelerator: str | None, gpu: bool, shape: str | None) -> None:
    order = dataclasses.replace(ORDER, accelerator=accelerator, internet=True)
    packing.write(tmp_path, order, packing.Parcel("print()\n", 0, ""), "user")
    values = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (tmp_path / "main.py").read_text() == "print()\n"
    assert (values["id"], values["title"], values["code_file"]) == ("user/my-run", "my-run", "main.py")
    assert (values["enable_gpu"], values.get("machine_shape")) == (gpu, shape)
    assert (values["is_private"], values["enable_internet"]) == (True, True)
    assert values["competition_sources"] == ["tiny"]
