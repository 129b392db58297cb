"""Which command comes next, spelled so that it finds the same competition and the same folders."""

import shlex
from collections.abc import Mapping

from pipeline.config import DEFAULT_COMPETITION, Paths
from pipeline.errors import Log

SCRIPT = "PIPELINE_SCRIPT"  # in the environment of run_all.sh's stages: it runs what comes next itself

# The folders that a stage has options for.  A CSV knows its competition, and so does a run.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "download": ("raw",),
    "preprocess": ("raw", "processed"),
    "train": ("processed", "models"),
    "predict": ("processed", "models", "submissions"),
    "submit": ("processed", "models", "submissions"),
    "report": ("processed", "models", "submissions"),
    "check": ("processed", "models", "submissions"),
    "kernel fetch": ("models", "submissions"),
}
KNOW_THEIR_COMPETITION = ("predict", "submit", "report", "kernel fetch")
TALKING = ("download", "submit", "check", "kernel fetch")  # to Kaggle, or in a rehearsal to its stand-in
REHEARSAL, DIGITS = "rehearsal-", "rehearsal-digits"  # how the stand-in names its competitions; the embedded one


def command(stage: str, slug: str, paths: Paths, *more: str) -> str:
    """The command that runs `stage`, with `more` options; of a rehearsal what talks to Kaggle runs at its stand-in."""
    words = ["python", "-m", *f"pipeline.{stage}".split(), *places(stage, slug, paths)]
    rehearsed = slug.startswith(REHEARSAL)
    if rehearsed and stage == "train" and "--preset" not in more:
        words += ["--preset", "rehearsal"]
    text = shlex.join([*words, *more])
    if rehearsed and stage in TALKING:
        served = "" if slug == DIGITS else "--folder DIR "
        return f"python -m pipeline.rehearsal {served}-- {text}"
    return text


def places(stage: str, slug: str, paths: Paths) -> list[str]:
    """The options that lead `stage` to the competition and the folders, where they are not the default."""
    given = [] if slug == DEFAULT_COMPETITION or stage in KNOW_THEIR_COMPETITION else ["--competition", slug]
    for name in FOLDERS[stage]:
        if (folder := getattr(paths, name)) != getattr(Paths, name):
            given += [f"--{name}", str(folder)]
    return given


def announce(following: str, log: Log, environ: Mapping[str, str]) -> None:
    """Say which command follows, unless a script is about to run it."""
    if SCRIPT not in environ:
        log(f"next: {following}")
