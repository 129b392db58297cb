import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied
from pipeline.kaggle_api import credentials
from tests.support import ROOT

SECRET = "s3cr3t-do-not-print"


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("file", "content", "environ", "where"),
    [
        (None, "", {"KAGGLE_API_TOKEN": SECRET}, "KAGGLE_API_TOKEN"),
        (None, "", {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": SECRET}, "KAGGLE_USERNAME and KAGGLE_KEY"),
        (".kaggle/access_token", SECRET, {}, ".kaggle/access_token"),
        (".kaggle/kaggle.json", f'{{"username": "u", "key": "{SECRET}"}}', {}, "kaggle.json"),
        (".config/kaggle/kaggle.json", f'{{"username": "u", "key": "{SECRET}"}}', {}, "kaggle.json"),
        (".kaggle/credentials.json", "{}", {}, ".kaggle/credentials.json"),
    ],
)
def test_every_place_is_found(
    tmp_path: Path, file: str | None, content: str, environ: dict[str, str], where: str
) -> None:
    if file:
        write(tmp_path / file, content)
    found = credentials.require({"HOME": str(tmp_path), **environ})
    assert found.endswith(where)
    assert SECRET not in found


def test_the_config_folder_can_be_moved(tmp_path: Path) -> None:
    write(tmp_path / "moved/kaggle.json", '{"username": "u", "key": "k"}')
    environ = {"HOME": "/nonexistent", "KAGGLE_CONFIG_DIR": str(tmp_path / "moved")}
    assert credentials.require(environ).endswith("kaggle.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"username": "u"}', '{"username": "u", "key": ""}', SECRET])
def test_a_wrong_kaggle_json_is_told_without_its_content(tmp_path: Path, content: str) -> None:
    write(tmp_path / ".kaggle/kaggle.json", content)
    with pytest.raises(AccessDenied, match="not of the shape") as caught:
        credentials.require({"HOME": str(tmp_path)})
    assert SECRET not in str(caught.value)


def test_it_runs_alone_before_anything_is_installed() -> None:
    """-S leaves site-packages out: the standard library must do."""
    result = subprocess.run(
        [sys.executable, "-S", "-m", "pipeline.kaggle_api.credentials"],
        cwd=ROOT,
        env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 5
    assert result.stderr.startswith("error: no Kaggle credentials: create a token at https://www.kaggle.com/settings")
    assert [len(line) <= 100 for line in result.stderr.splitlines()] == [True, True]
