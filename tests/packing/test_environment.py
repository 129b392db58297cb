"""Exact versions where they are known, and no invented ones."""

from importlib import metadata
from pathlib import Path

import pytest

from pipeline.packing.environment import requirements
from tests.support import ROOT

LIST = """# What runs it.
numpy>=1.26
six>=1.16            # a comment
no-such-package>=1

# What checks it (a script).
pytest>=8.2
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text(LIST)
    return tmp_path / "requirements.txt"


def test_what_runs_it_is_pinned_to_what_is_installed_here(source: Path) -> None:
    numpy, six = metadata.version("numpy"), metadata.version("six")
    lines = requirements(source, {"python": "3.11.7", "numpy": numpy, "torch": "2.0"})
    assert lines == ["# Python 3.11.7", f"numpy=={numpy}", f"six=={six}", "no-such-package>=1"]


def test_of_another_machine_only_what_it_recorded_is_pinned(source: Path) -> None:
    lines = requirements(source, {"python": "3.12.1", "numpy": "1.99.0+cu130"})
    assert lines[0] == "# Python 3.12.1" and "another machine" in lines[1]
    assert lines[2:] == ["numpy==1.99.0", "six>=1.16", "no-such-package>=1"]


def test_the_projects_own_requirements_are_pinned_without_local_versions() -> None:
    here = {name: metadata.version(name) for name in ("torch", "numpy")}
    lines = [line for line in requirements(ROOT / "requirements.txt", here) if not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
    names = {line.partition("==")[0] for line in lines}
    assert {"torch", "safetensors", "scikit-learn", "jinja2"} <= names and not {"pytest", "mypy", "ruff"} & names
