"""Who imports whom: parts know only parts below them, and some modules do without heavy or foreign packages.

The graph is read from the sources, with the imports inside functions, so that nothing depends on what is installed.
"""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

FOUNDATION = ("config", "errors", "recipes", "console")
LAYERS = ("commands", "store", "model", "kaggle_api", "training", "gap", "reporting", "rehearsal")
BELOW = {  # what each layer may import beside the foundation and itself
    "commands": (),
    "store": ("commands",),
    "model": ("store",),
    "kaggle_api": ("store",),
    "training": ("store", "model", "commands"),
    "gap": ("store", "model", "training", "commands"),
    "reporting": ("store", "model", "training", "gap", "commands"),
    "rehearsal": ("store", "kaggle_api", "commands"),
}
STANDARD_LIBRARY_ALONE = ("config", "errors", "recipes", "kaggle_api.credentials")
WITHOUT_TORCH = ("download", "preprocess", "submit", "check", "report", "status", "kernel", "train", "predict")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "pipeline").with_suffix("").parts).removesuffix("__init__").rstrip(".")


# "train", "store.runs"; a package is called by its folder.
MODULES = {_name(path): path for path in sorted((ROOT / "pipeline").rglob("*.py"))}


@functools.cache
def imports(module: str, lazy: bool = True) -> frozenset[str]:
    """What a module imports, in full ("pipeline.store.runs", "numpy.typing"); `lazy`: within functions too."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    return frozenset(found for node in (ast.walk(tree) if lazy else tree.body) for found in _imported(node))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0 and node.module is not None, "relative imports hide where things stand"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner.removeprefix("pipeline.") in MODULES else node.module


def ours(module: str, lazy: bool = True) -> set[str]:
    """The modules of the pipeline that a module imports."""
    return {found.removeprefix("pipeline.") for found in imports(module, lazy) if found.startswith("pipeline.")}


def closure(module: str, lazy: bool = True) -> set[str]:
    """The module and all that it needs, directly or not; the packages around them too."""
    reached, todo = set(), [module]
    while todo:
        if (name := todo.pop()) not in reached:
            reached.add(name)
            todo += [*ours(name, lazy), *([name.rpartition(".")[0]] if "." in name else [])]
    return reached


def packages(module: str, lazy: bool = True) -> set[str]:
    """The foreign packages in a module's closure."""
    tops = {found.partition(".")[0] for name in closure(module, lazy) for found in imports(name, lazy)}
    return tops - {"pipeline"} - sys.stdlib_module_names


def layer(module: str) -> str:
    """The part that a module is of; a stage is of none. A part's __main__ is a stage."""
    top = module.partition(".")[0]
    if module.endswith("__main__") or module == "":
        return "stage"
    return top if top in LAYERS else "foundation" if top in FOUNDATION else "stage"


def test_nothing_imports_in_a_circle() -> None:
    circles = {name for name in MODULES if any(name in closure(needed) for needed in ours(name) if needed != name)}
    assert circles == set()


def test_parts_import_only_parts_below_them() -> None:
    upwards = {
        (name, needed)
        for name in MODULES
        for needed in ours(name)
        if layer(name) != "stage" and layer(needed) != layer(name)
        if layer(needed) != "foundation" and layer(needed) not in BELOW.get(layer(name), ())
    }
    assert upwards == set()


@pytest.mark.parametrize("part", [*FOUNDATION, *LAYERS])
def test_parts_know_no_command_line(part: str) -> None:
    for name in MODULES:
        if part in (name, name.partition(".")[0]) and layer(name) != "stage":
            assert "click" not in packages(name), name


def test_predict_runs_where_there_is_no_kaggle_client() -> None:
    reached = closure("predict")
    assert {name for name in reached if name.startswith("kaggle_api")} == set()


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ALONE)
def test_some_need_the_standard_library_alone(name: str) -> None:
    assert packages(name) == set()


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_stage_starts_without_torch(name: str) -> None:
    assert packages(name, lazy=False) & {"torch", "torchvision"} == set()


@pytest.mark.parametrize("name", ["download", "preprocess"])
def test_what_makes_the_data_never_needs_torch(name: str) -> None:
    """Not even in a function; but where a competition has no training data, torchvision's own download is used."""
    assert "torch" not in packages(name)


def test_each_module_of_training_imports_only_those_above_it_in_the_packages_map() -> None:
    text = ast.get_docstring(ast.parse(MODULES["training"].read_text("utf-8"))) or ""
    order = [f"training.{line.split()[0]}" for line in text.split("\n\n")[1].splitlines()]
    assert set(order) == {name for name in MODULES if name.startswith("training.")}
    for k, name in enumerate(order):
        assert {one for one in ours(name) if one.startswith("training.")} <= set(order[:k]), name
