"""What most of these tests begin with."""

from pathlib import Path

import pytest

from tests.support import predicted_place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in which a run has been trained and its CSV written; not every name is ASCII."""
    return predicted_place(tmp_path / "Übung 1")
