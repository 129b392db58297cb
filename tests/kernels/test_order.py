import dataclasses
import json
import os
from pathlib import Path

import pytest

from pipeline.errors import BadData, MissingInput, UsageError
from pipeline.kernels.order import NOTE, Note, Order, default_run
from pipeline.recipes import PRESETS

ORDER = Order("tiny", "my-run", PRESETS["rehearsal"])


@pytest.mark.parametrize(
    ("run", "kernel"),
    [("paper-1f3a9c2b", "paper-1f3a9c2b"), ("My_Run.v2", "my-run-v2"), ("_five5_", "five5"), ("a" * 50, "a" * 50)],
)
def test_a_kernel_is_named_by_its_run(run: str, kernel: str) -> None:
    assert dataclasses.replace(ORDER, run=run).kernel == kernel


@pytest.mark.parametrize("run", ["four", "a" * 51, "-._-"])
def test_a_name_that_kaggle_would_not_take_is_refused(run: str) -> None:
    with pytest.raises(UsageError, match="from 5 to 50"):
        _ = dataclasses.replace(ORDER, run=run).kernel


def test_another_order_has_another_tag() -> None:
    others = [
        dataclasses.replace(ORDER, competition="other"),
        dataclasses.replace(ORDER, run="other"),
        dataclasses.replace(ORDER, config=dataclasses.replace(ORDER.config, seed=1)),
        dataclasses.replace(ORDER, internet=True),
        dataclasses.replace(ORDER, accelerator="none"),
    ]
    assert len({order.tag for order in (ORDER, *others)}) == 6
    assert dataclasses.replace(ORDER).tag == ORDER.tag


def test_the_default_name_tells_recipes_and_competitions_apart() -> None:
    config = ORDER.config
    names = {
        default_run("tiny", config),
        default_run("other", config),
        default_run("tiny", dataclasses.replace(config, seed=1)),
    }
    assert len(names) == 3
    assert all(name.startswith("rehearsal-kaggle-") for name in names)


def test_a_note_is_read_as_it_was_written_and_the_newest_without_a_name(tmp_path: Path) -> None:
    first, second = Note(ORDER, "user", 3), Note(dataclasses.replace(ORDER, run="second"), "user", 0)
    for age, note in ((100, first), (10, second)):
        note.write(tmp_path)
        path = tmp_path / note.order.run / NOTE
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert Note.read(tmp_path, "my-run") == first
    assert Note.read(tmp_path, None) == second
    assert (first.ref, first.url) == ("user/my-run", "https://www.kaggle.com/code/user/my-run")
    with pytest.raises(MissingInput, match="no kernel of run x was pushed from here; there is my-run, second"):
        Note.read(tmp_path, "x")


def test_without_a_kernel_the_message_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"no kernel was pushed from here: run `python -m pipeline\.kernel push`"):
        Note.read(tmp_path, None)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("user",), 7),
        (("version",), "3"),
        (("order",), []),
        (("order", "run"), "../x"),
        (("order", "competition"), "/"),
    ],
)
def test_a_note_that_was_edited_is_refused(tmp_path: Path, place: tuple[str, ...], value: object) -> None:
    Note(ORDER, "user", 3).write(tmp_path)
    path = tmp_path / "my-run" / NOTE
    values = json.loads(path.read_text())
    within = values
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(BadData, match="is damaged"):
        Note.read(tmp_path, "my-run")
