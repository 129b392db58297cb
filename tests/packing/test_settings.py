import json
from pathlib import Path

import pytest

from pipeline.packing import settings

FOLDERS = {"RAW_DATA_DIR": "raw", "CLEAN_DATA_DIR": "../clean", "MODEL_DIR": "m", "SUBMISSION_DIR": "/elsewhere/out"}


def test_folders_are_relative_to_the_package_or_absolute(tmp_path: Path) -> None:
    (tmp_path / settings.NAME).write_text(json.dumps(FOLDERS))
    paths = settings.read(tmp_path)
    assert (paths.raw, paths.processed) == (tmp_path / "raw", tmp_path / "../clean")
    assert (paths.models, paths.submissions) == (tmp_path / "m", Path("/elsewhere/out"))


@pytest.mark.parametrize("text", [None, "no JSON", "[]", "{}", json.dumps({**FOLDERS, "MODEL_DIR": 3})])
def test_what_names_no_folders_ends_with_a_message(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / settings.NAME).write_text(text)
    with pytest.raises(SystemExit, match=r"error: .*SETTINGS\.json must name RAW_DATA_DIR, "):
        settings.read(tmp_path)
