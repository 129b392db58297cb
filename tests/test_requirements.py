"""requirements.txt: what is imported, and the tools."""

import ast
import re
import sys
from importlib import metadata

from tests.support import ROOT

# Imported by nobody here, and why they are needed all the same.
NOT_IMPORTED = {"six", "pandas-stubs", "pytest-xdist", "pytest-timeout", "ruff", "mypy"}
ON_DEMAND = {"atheris"}  # tests/bench/fuzz.py asks for it


def imported() -> set[str]:
    """The top of each absolute import in pipeline/ and tests/, also inside functions."""
    found: set[str] = set()
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - {"pipeline", "tests"} - sys.stdlib_module_names


def test_all_that_is_imported_is_listed_and_nothing_else() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = {match[0].lower() for line in lines if (match := re.match(r"[\w-]+", line))}
    owners = metadata.packages_distributions()
    needed = {owners.get(module, [module])[0].lower().replace("_", "-") for module in imported() - ON_DEMAND}
    assert listed - NOT_IMPORTED == needed
