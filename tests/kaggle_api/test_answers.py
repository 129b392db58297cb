import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import AccessDenied, BadData, NetworkError, PipelineError, SubmissionLimit, UsageError
from pipeline.kaggle_api import child, client
from pipeline.kaggle_api.client import Limits, RemoteFile

LIMITS = Limits(1, 2, 3, by_total=False)


def test_what_has_the_right_types_is_taken() -> None:
    assert client.typed(Limits, asdict(LIMITS)) == LIMITS
    assert client.typed_list(RemoteFile, [{"name": "a", "size": 0}]) == [RemoteFile("a", 0)]


@pytest.mark.parametrize(
    "changed", [{"today": "1"}, {"today": -1}, {"today": 2**63}, {"today": True}, {"by_total": 1}, {"more": 1}]
)
def test_what_has_not_is_a_network_error_of_one_line(changed: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match="makes no sense to its client"):
        client.typed(Limits, asdict(LIMITS) | changed)
    with pytest.raises(NetworkError) as caught:
        client.typed(RemoteFile, {"name": ["\n"] * 1000, "size": 1})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("nonsense", [None, 7, "x", {"name": "a"}, [7]])
def test_no_list_is_none(nonsense: Any) -> None:
    with pytest.raises(NetworkError):
        client.typed_list(RemoteFile, nonsense)


@pytest.mark.parametrize("ref", [0, -5, "7", None, True, 1.5, 2**63])
def test_a_submission_without_a_ref_may_have_arrived(ref: object) -> None:
    with pytest.raises(NetworkError) as caught:
        client.ref(Path("s.csv"), {"ref": ref, "message": "", "uploaded": True})
    assert caught.value.unanswered


def test_a_failed_upload_has_not() -> None:
    with pytest.raises(NetworkError, match=r"s\.csv could not be uploaded") as caught:
        client.ref(Path("s.csv"), {"ref": 0, "message": "", "uploaded": False})
    assert not caught.value.unanswered
    assert client.ref(Path("s.csv"), {"ref": 7, "message": "", "uploaded": True}) == 7


@pytest.mark.parametrize(
    ("kind", "status", "creating", "error", "unanswered"),
    [
        ("http", 400, True, BadData, None),
        ("http", 401, True, AccessDenied, None),
        ("http", 403, True, AccessDenied, None),
        ("http", 404, True, UsageError, None),
        ("http", 500, True, NetworkError, True),
        ("http", 502, True, NetworkError, True),
        ("http", 502, False, NetworkError, False),
        ("http", 503, True, NetworkError, True),
        ("http", 504, True, NetworkError, True),
        ("storage", 403, False, NetworkError, False),
        ("network", None, True, NetworkError, True),
        ("other", None, True, NetworkError, True),
        ("disk", None, False, PipelineError, None),
    ],
)
def test_refusals(
    kind: str, status: int | None, creating: bool, error: type[PipelineError], unanswered: bool | None
) -> None:
    reply = {"kind": kind, "status": status, "creating": creating, "message": "m", "retry_after": None}
    found = client.refusal("tiny", "here", reply)
    assert type(found) is error
    assert getattr(found, "unanswered", None) == unanswered


def test_the_limit_is_known_by_kaggles_words() -> None:
    words = "Submission not allowed: Your team has used its daily Submission allowance (5) today"
    found = client.refusal("tiny", "here", {"kind": "http", "status": 400, "message": words})
    assert isinstance(found, SubmissionLimit)


@pytest.mark.parametrize(
    ("given", "score"),
    [("0.83439", "0.83439"), ("", ""), (None, ""), (0.5, "0.5"), ("1.00000", "1.00000"), ("nan", ""), ("1e999", ""),
     ("-0.1", ""), ("1.1", ""), (10**400, ""), ([], ""), ("good", "")],
)  # fmt: skip
def test_a_score_is_a_share_of_right_answers(given: object, score: str) -> None:
    assert child._score(given) == score


def test_a_signed_address_is_not_shown() -> None:
    error = OSError("403 for url: https://storage.example/a.zip?X-Expires=5&X-Signature=abc (it is old)")
    shown = json.dumps(child._refusal("storage", error))
    assert "https://storage.example/a.zip?*** (it is old)" in shown and "abc" not in shown
    # A kernel's output: the signature is a part of the path.
    error = OSError(f"Max retries exceeded with url: /kf/123/{'eyJhbGci' * 20}..x_-y/data/models/my-run/config.json")
    shown = json.dumps(child._refusal("network", error))
    assert "url: /kf/123/***/data/models/my-run/config.json" in shown


def test_lists_without_an_end_are_no_lists() -> None:
    pages = iter(range(10_000))

    class Page:
        files: tuple[()] = ()

        @property
        def next_page_token(self) -> str:
            return str(next(pages))

    class Api:
        def competition_list_files(self, *_: object, **__: object) -> Page:
            return Page()

    with pytest.raises(child.Unreadable, match="more than 500 pages"):
        child.files(Api(), "tiny")
