import ast
from pathlib import Path

from pipeline import training


def test_each_module_imports_only_those_above_it_in_the_packages_map() -> None:
    folder = Path(training.__file__).parent
    lines = (training.__doc__ or "").split("\n\n")[1].splitlines()
    order = [line.split()[0] for line in lines]
    assert sorted(order) == sorted(path.stem for path in folder.glob("[!_]*.py"))
    for k, name in enumerate(order):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline.training"):
                parts = (node.module or "").split(".")[2:] or [alias.name for alias in node.names]
                assert set(parts) <= set(order[:k]), f"{name} imports {parts}"
