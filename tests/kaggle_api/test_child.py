"""The child process with the genuine client: what it makes of Kaggle's answers."""

import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pipeline.kaggle_api import child
from tests.support import clean_environment


@pytest.mark.parametrize(
    ("given", "score"),
    [("0.83439", "0.83439"), ("", ""), (None, ""), (0.5, "0.5"), ("1.00000", "1.00000"), ("nan", ""), ("1e999", ""),
     ("1.1", ""), (10**400, ""), ([], "")],
)  # fmt: skip
def test_a_score_is_an_accuracy_or_none(given: object, score: str) -> None:
    assert child._score(given) == score


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


def test_a_list_without_an_end_is_refused() -> None:
    page = SimpleNamespace(files=(), next_page_token="7")
    with pytest.raises(child.Unreadable, match="more than 100 pages"):
        child.files(SimpleNamespace(competition_list_files=lambda *_, **__: page), "tiny")


def test_a_token_that_the_client_has_renewed_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    api = SimpleNamespace(config_values={"token": "renewed-token"})
    monkeypatch.setitem(sys.modules, "kaggle", SimpleNamespace(api=api))
    assert child._refusal("files", ValueError("with renewed-token"))["message"] == "ValueError: with ***"


def test_it_ends_with_its_parent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as kaggle:  # never answers
        environ = {
            **clean_environment(), "http_proxy": f"http://127.0.0.1:{kaggle.getsockname()[1]}", "no_proxy": "",
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k",
        }  # fmt: skip
        with subprocess.Popen([sys.executable, "-P", child.__file__], env=environ, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"call": "files", "slug": "tiny"}).encode() + b"\n")
            process.stdin.flush()
            with kaggle.accept()[0]:
                process.stdin.close()  # as when the parent dies
                assert process.wait(10) == 1
