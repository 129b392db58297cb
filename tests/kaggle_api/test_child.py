"""The child process with the genuine client, through its parent."""

import json
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied
from pipeline.kaggle_api.client import Kaggle
from tests.support import SLUG, indiscreet_kaggle

SECRET = "s3cr3t-do-not-print"


@pytest.mark.parametrize(
    ("file", "content", "environ"),
    [
        (None, "", {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": SECRET}),
        (None, "", {"KAGGLE_API_TOKEN": SECRET}),
        (".kaggle/kaggle.json", json.dumps({"username": "u", "key": SECRET}), {}),
        (".kaggle/access_token", f"{SECRET}\n", {}),
    ],
    ids=["KAGGLE_KEY", "KAGGLE_API_TOKEN", "kaggle.json", "access_token"],
)
def test_a_secret_that_kaggle_quotes_is_masked(
    tmp_path: Path, file: str | None, content: str, environ: dict[str, str]
) -> None:
    if file is not None:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(content)
        (tmp_path / file).chmod(0o600)
    with indiscreet_kaggle() as (way, heard):
        with pytest.raises(AccessDenied) as caught:
            Kaggle({**way, "HOME": str(tmp_path), **environ}, attempts=1).files(SLUG)
        assert SECRET in heard[-1]  # it was there to be quoted
    assert SECRET not in str(caught.value)
    assert "***, which is not welcome" in str(caught.value)
