"""What people do wrong: a table of mistakes, each with the command that is run then and how that must end."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.store import runs
from pipeline.store.manifest import Manifest, records
from tests.support import SLUG

CSV, SIDECAR, EVIDENCE = (f"submissions/tiny-run.{end}" for end in ("csv", "json", "npz"))
RUN = "data/models/tiny-run"
PROCESSED = f"data/processed/{SLUG}"

Does = Callable[[Path], object]  # what somebody does in a folder where all stages have run


def nothing(_place: Path) -> None:
    pass


def remove(*names: str) -> Does:
    def do(place: Path) -> None:
        for name in names:
            path = place / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return do


def move(old: str, new: str) -> Does:
    return lambda place: (place / old).rename(place / new)


def write(name: str, content: str) -> Does:
    return lambda place: (place / name).write_text(content)


def edit(name: str, change: Callable[[bytes], bytes]) -> Does:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes()))


def values(name: str, *keys: str, **changes: Any) -> Does:
    """Change a JSON file, at the top or below `keys`; what becomes None is taken out."""

    def change(content: bytes) -> bytes:
        whole = part = json.loads(content)
        for key in keys:
            part = part[key]
        part.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del part[key]
        return json.dumps(whole).encode()

    return edit(name, change)


def of_run(change: Does) -> Does:
    """As if train had written the run so."""

    def do(place: Path) -> None:
        change(place)
        folder = place / RUN
        names = (runs.CONFIG, runs.WEIGHTS, runs.RESULT, runs.METRICS)
        Manifest("train", records(folder, [folder / name for name in names])).write(folder)

    return do


def several(*changes: Does) -> Does:
    return lambda place: [change(place) for change in changes]


@dataclass(frozen=True)
class Mistake:
    """One row: what somebody did, what is run then, and how it must end."""

    name: str
    does: Does
    command: str
    code: int
    says: str  # in the one line of the error


SUBMIT = f"submit --csv {CSV} --competition {SLUG}"
CHECK = f"check --competition {SLUG} --csv {CSV}"
AGAIN = "python -m pipeline.predict --force"


def in_spreadsheet(name: str, change: Callable[[bytes], bytes], says: str) -> list[Mistake]:
    """A CSV without its sidecar, edited and submitted."""
    mistake = Mistake(f"a CSV with {name}", several(edit(CSV, change), remove(SIDECAR)), SUBMIT, 4, says)
    return [mistake, Mistake(f"{mistake.name} names the command", mistake.does, SUBMIT, 4, AGAIN)][
        : 1 + (name == "BOM")
    ]


def shifted(content: bytes) -> bytes:
    """Rows with a further column, under the header as it was."""
    head, _, body = content.partition(b"\n")
    return head + b"\n" + body.replace(b"\n", b",0.9\n")


CSVS = [
    *in_spreadsheet("BOM", lambda c: b"\xef\xbb\xbf" + c, "starts with a byte-order mark"),
    *in_spreadsheet("UTF-16", lambda c: c.decode().encode("utf-16"), "is UTF-16"),
    *in_spreadsheet("CRLF", lambda c: c.replace(b"\n", b"\r\n"), "Windows line ends"),
    *in_spreadsheet("CR alone", lambda c: c.replace(b"\n", b"\r"), "ID,Labels\\\\r100,"),
    *in_spreadsheet("semicolons", lambda c: c.replace(b",", b";"), "semicolons instead of commas"),
    *in_spreadsheet("spaces", lambda c: c.replace(b",", b", "), "'ID, Labels', it must be 'ID,Labels'"),
    *in_spreadsheet("floats", lambda c: c.replace(b",", b".0,").replace(b"ID.0", b"ID"), "line 2: '100.0,"),
    *in_spreadsheet("1E+02", lambda c: c.replace(b"\n100,", b"\n1E+02,"), "line 2: '1E+02,"),
    *in_spreadsheet(
        "lost rows", lambda c: b"".join(c.splitlines(True)[:-3]), "3 of 30 ids are missing, the first is 127"
    ),
    *in_spreadsheet("doubled ids", lambda c: c + c.splitlines(True)[-1], "id 129 occurs 2 times"),
    *in_spreadsheet("a quoted header", lambda c: c.replace(b"ID,Labels", b'"ID","Labels"'), "it must be 'ID,Labels'"),
    *in_spreadsheet("no header", lambda c: c.partition(b"\n")[2], "the first line is '100,"),
    *in_spreadsheet("trailing empty lines", lambda c: c + b"\n\n", "line 32: ''"),
    *in_spreadsheet("an index", lambda c: c.replace(b"ID,", b",ID,"), "the first line is ',ID,Labels'"),
    *in_spreadsheet("a further column", shifted, "line 2: '100,"),
    *in_spreadsheet("nothing in it", lambda c: b"", "the first line is ''"),
    Mistake("edited, submitted", edit(CSV, lambda c: c + b"\n"), "submit", 4, "predict again with --force"),
    Mistake("edited, checked", edit(CSV, lambda c: c + b"\n"), CHECK, 4, f"predict --run tiny-run --out {CSV} --force"),
    Mistake("edited, predicted", edit(CSV, lambda c: c + b"\n"), "predict", 2, "--force"),
]

SLUGS = [
    Mistake(
        "a URL", nothing, f"download --competition https://www.kaggle.com/c/{SLUG}/data", 2, f"--competition {SLUG}"
    ),
    Mistake(
        "no slug", nothing, "preprocess --competition 'Deep Learning'", 2, "the last part of the competition's URL"
    ),
    Mistake("another's CSV", nothing, "submit --competition other", 2, "was predicted for tiny"),
    Mistake("another's sidecar", nothing, f"check --competition other --csv {CSV}", 4, "add --competition tiny"),
]

RENAMED = move(RUN, "data/models/other-name")
RUNS = [
    Mistake("renamed", RENAMED, "predict", 3, "LATEST names run tiny-run, which is not there: was it renamed"),
    Mistake("renamed, cure", RENAMED, "predict", 3, "Name one with --run; there is other-name"),
    Mistake("moved", move("data/models", "elsewhere"), "predict", 3, "run `python -m pipeline.train` first"),
    Mistake("pointer lost", remove("data/models/LATEST"), "predict", 3, "name one with --run"),
    Mistake("pointer lost", remove("data/models/LATEST"), "submit", 3, "its CSV with --csv"),
    Mistake("removed", remove(RUN), "predict", 3, "run `python -m pipeline.train` first"),
    Mistake("beginning", nothing, "predict --run tiny", 3, "no run tiny in data/models: did you mean tiny-run?"),
    Mistake("spelling", nothing, "predict --run tinyrun", 3, "did you mean tiny-run?"),
    Mistake("case", nothing, "predict --run Tiny-Run", 3, "did you mean tiny-run?"),
    Mistake("none", nothing, "predict --run paper", 3, "there is tiny-run (`python -m pipeline.train` makes one)"),
    Mistake("unfinished", remove(f"{RUN}/manifest.json"), "predict", 3, "with the same options to go on"),
    Mistake("of other images", of_run(values(f"{RUN}/config.json", data="f" * 64)), "predict", 4, "train again"),
    Mistake("of another competition", of_run(values(f"{RUN}/config.json", competition="other")), "predict", 3,
            "python -m pipeline.preprocess --competition other"),
    Mistake("edited", values(f"{RUN}/result.json", epochs=7), "predict", 4, "result.json is missing or damaged"),
]  # fmt: skip


def other_version(name: str, what: str, *keys: str, says: str = runs.ANEW, **changes: Any) -> Mistake:
    does = values(f"{RUN}/{name}", *keys, **changes)
    if name != "manifest.json":
        does = of_run(does)
    return Mistake(f"{name} with {what}", does, "predict --force", 4, says)


VERSIONS = [
    other_version("config.json", "an unknown key", "config", newer=1),
    other_version(
        "config.json",
        "an unknown key, named",
        "config",
        newer=1,
        says=f"{RUN}/config.json is damaged or of another version",
    ),
    other_version("config.json", "a missing key", "config", model=None),
    other_version("config.json", "no data", data=None, says="lacks data"),
    other_version("config.json", "a list", config=[]),
    other_version("config.json", "text for a number", "config", epochs="12"),
    other_version("config.json", "half a batch", "config", batch_size=64.5, says="batch_size cannot be 64.5"),
    other_version("config.json", "a number for a competition", competition=7),
    other_version("config.json", "a path for a competition", competition="../../etc", says="no competition slug"),
    other_version("result.json", "an unknown key", newer=1),
    other_version("result.json", "text for an accuracy", test_accuracy="high", says="test_accuracy cannot be 'high'"),
    other_version("result.json", "no size", trainable_parameters=None),
    other_version("result.json", "a truth for a size", trainable_parameters=True),
    other_version("manifest.json", "an unknown key", newer=1),
    other_version("manifest.json", "no weights", "files", **{runs.WEIGHTS: None}, says="does not know weights"),
]


def sidecar(name: str, value: Any, code: int = 4, says: str = AGAIN.removesuffix("--force")) -> Mistake:
    return Mistake(f"sidecar: {name} {value!r}", values(SIDECAR, **{name: value}), "submit", code, says)


COMPANIONS = [
    Mistake("sidecar lost", remove(SIDECAR), "submit", 2, "--competition SLUG"),
    Mistake("sidecar lost", remove(SIDECAR), CHECK, 4, f"predict --out {CSV} --force"),
    Mistake("sidecar lost", remove(SIDECAR), "predict", 2, "--force"),
    Mistake("sidecar cut", edit(SIDECAR, lambda c: c[:50]), "submit", 4, f"{SIDECAR} is damaged"),
    sidecar("competition", 5),
    sidecar("competition", "../x"),
    sidecar("test_accuracy", "high"),
    sidecar("validation_accuracy", "high"),
    sidecar("run", 7),
    sidecar("run", "$(touch canary)"),
    sidecar("run", "a\nb"),
    sidecar("tta", "rotated"),
    sidecar("submittable", "yes"),
    sidecar("competition", "other", 3, "python -m pipeline.preprocess --competition other"),
    Mistake("evidence lost", remove(EVIDENCE), CHECK, 4, "predict again with --force"),
    Mistake("evidence cut", edit(EVIDENCE, lambda c: c[:500]), CHECK, 4, "predict again with --force"),
    Mistake("array cut", edit(f"{PROCESSED}/hidden_images.npy", lambda c: c[:-10]), "predict", 4,
            f"python -m pipeline.preprocess --competition {SLUG} --force"),
]  # fmt: skip

ABSENT = "cuda" if sys.platform == "darwin" else "mps"
FOLDER = "a file is where a folder is needed; move it away, or name another place"
OPTIONS = [
    Mistake("out a folder", lambda place: (place / "x.csv").mkdir(), "predict --out x.csv", 2, "is a directory"),
    Mistake("out below a file", write("x", ""), "predict --out x/y.csv", 1, f"x: File exists: {FOLDER}"),
    Mistake("models below a file", write("x", ""), f"train --preset rehearsal --competition {SLUG} --models x/y", 1,
            FOLDER),
    Mistake("a file for a folder", write("x", ""), "preprocess --raw x", 2, "Directory 'x' is a file"),
    Mistake("CSV not there", nothing, "submit --csv none.csv", 3, "python -m pipeline.predict --out none.csv"),
    Mistake("CSV not there", nothing, "check --csv none.csv", 3, "python -m pipeline.predict --out none.csv"),
    Mistake("no option", nothing, "submit submissions/tiny-run.csv", 2, "--help shows the options"),
    Mistake("a wrong option", nothing, "predict --runs tiny-run", 2, "Did you mean '--run'"),
    *(
        Mistake(f"not a number: {command}", nothing, f"{command} nan", 2, "'nan' is not a number")
        for command in ("download --timeout", "submit --wait", "submit --poll", "check --wait", "check --fail-over")
    ),
    Mistake("no limit", nothing, "submit --timeout inf", 2, "'inf' is not a number"),
    Mistake("no such device", nothing, f"train --competition {SLUG} --device {ABSENT}", 2, "available: "),
    Mistake("other options", nothing, f"train --competition {SLUG} --preset rehearsal --run tiny-run --seed 9", 2,
            "choose another name with --run"),
]  # fmt: skip

TABLES = (CSVS, SLUGS, RUNS, VERSIONS, COMPANIONS, OPTIONS)
