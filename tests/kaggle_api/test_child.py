"""The child process with the official client: what it makes of Kaggle's answers."""

import os
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.kaggle_api import child
from tests.doubles.kaggle import faulty_kaggle
from tests.support import ROOT, SLUG, clean_environment, error_line, here, write_download


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("for url: https://storage.example/a.zip?X-Expires=5&X-Signature=abc (it is old)",
         "https://storage.example/a.zip?*** (it is old)"),
        (f"with url: /kf/123/{'eyJhbGci' * 20}..x_-y/data/models/my-run/config.json",
         "/kf/123/***/data/models/my-run/config.json"),
    ],
    ids=["a query", "a path, as of a kernel's output"],
)  # fmt: skip
def test_a_signed_address_is_not_shown(text: str, shown: str) -> None:
    message = child._refusal("download", OSError(text))["message"]
    assert message.endswith(shown)


def test_a_score_may_come_as_a_number() -> None:
    scores = {"public_score": 0.5, "private_score": 0}
    item = SimpleNamespace(
        ref=1, date=None, description="", file_name="", total_bytes=0, status=SimpleNamespace(name="COMPLETE"),
        error_description="", **scores,
    )  # fmt: skip
    assert [child._submission(item)[name] for name in ("public", "private")] == ["0.5", "0"]


def test_a_list_without_an_end_is_refused() -> None:
    page = SimpleNamespace(files=(), next_page_token="7")
    with pytest.raises(child.Unreadable, match="more than 100 pages"):
        child.files(SimpleNamespace(competition_list_files=lambda *_, **__: page), "tiny")


def test_a_token_that_the_client_has_renewed_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    api = SimpleNamespace(config_values={"token": "renewed-token"})
    monkeypatch.setitem(sys.modules, "kaggle", SimpleNamespace(api=api))
    assert child._refusal("files", ValueError("with renewed-token"))["message"] == "ValueError: with ***"


def test_it_sees_the_packages_of_its_parent_and_no_file_of_the_users(tmp_path: Path) -> None:
    """The interpreter has no packages but those on PYTHONPATH, and somebody's kaggle.py lies in the current folder."""
    venv.create(tmp_path / "venv")
    write_download(tmp_path / "source")
    (tmp_path / "kaggle.py").write_text("1 / 0")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/sitecustomize.py").write_text("print('Welcome!', flush=True)")
    with faulty_kaggle(tmp_path / "source", tmp_path / "state", slug=SLUG) as kaggle:
        environ = {**kaggle.environment, "PYTHONPATH": os.pathsep.join([str(tmp_path / "x"), *sys.path, str(ROOT)])}
        command = [str(tmp_path / "venv/bin/python"), "-m", "pipeline.download"]
        result = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "complete, in" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("requests.py", "import nowhere", "(ModuleNotFoundError: No module named 'nowhere')"),
        ("kaggle.py", "", "module 'kaggle' has no attribute 'api'; kaggle is "),
    ],
)
def test_what_keeps_it_from_loading_is_told_at_once(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        environ = {**clean_environment(), "KAGGLE_API_TOKEN": "t", "KAGGLE_API_ENVIRONMENT": "LOCALHOST"}
        result = here("download", cwd=tmp_path.parent, environ=environ)
    assert says in error_line(result, 1) and "pip install -r requirements.txt, or" in result.stderr
    assert "trying again" not in result.stderr
