"""Commands as text: a stage with its competition and folders, and the options that reproduce a run."""

import difflib
import os
import shlex
from collections.abc import Mapping, Sequence

from pipeline import recipes
from pipeline.config import DEFAULT_COMPETITION, PARAMETER_LIMIT, Paths
from pipeline.errors import BadData
from pipeline.recipes import MODELS, PRESETS, TrainConfig, flag

COMPETITION = "PIPELINE_COMPETITION"  # environment variable, the default of --competition
SCRIPT = "PIPELINE_SCRIPT"  # set by run_all.sh, which runs the next stage itself

# The folder options of each stage.  CSVs and runs know their competition.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "download": ("raw",),
    "preprocess": ("raw", "processed"),
    "train": ("processed", "models"),
    **dict.fromkeys(("predict", "submit", "report", "check"), ("processed", "models", "submissions")),
    "status": ("raw", "processed", "models", "submissions"),
    "kernel fetch": ("models", "submissions"),
}
KNOW_THEIR_COMPETITION = ("predict", "submit", "report", "kernel fetch")
TALKING = ("download", "submit", "check")  # to Kaggle, or the mock server
SERVED = "PIPELINE_REHEARSAL"  # set by pipeline.rehearsal to its own options
REHEARSAL, DIGITS = "rehearsal-", "rehearsal-digits"  # the mock server's prefix; the embedded competition


def command(stage: str, slug: str, paths: Paths, *more: str) -> str:
    """The command that runs `stage` with `more` options; in a rehearsal against the mock server."""
    words = ["python", "-m", *f"pipeline.{stage}".split(), *places(stage, slug, paths), *more]
    if slug.startswith(REHEARSAL) and stage == "train" and "--preset" not in more:
        words += ["--preset", "rehearsal"]
    if slug.startswith(REHEARSAL) and stage in TALKING:
        served = shlex.split(os.environ.get(SERVED, "" if slug == DIGITS else "--folder DIR"))
        words = ["python", "-m", "pipeline.rehearsal", *served, "--", *words]
    return shlex.join(words)


def places(stage: str, slug: str, paths: Paths) -> list[str]:
    """The competition and folder options of `stage` that differ from the defaults."""
    by_default = slug == DEFAULT_COMPETITION == os.environ.get(COMPETITION, DEFAULT_COMPETITION)
    given = [] if by_default or stage in KNOW_THEIR_COMPETITION else ["--competition", slug]
    for name in FOLDERS[stage]:
        if (folder := getattr(paths, name)) != getattr(Paths, name):
            given += [f"--{name}", str(folder)]
    return given


# --- unknown options ------------------------------------------------------------------------------------------

FOREIGN = {  # other programs' names of our options, if neither a word nor initials (--lr) match
    "b": "--batch-size", "no-compile": "--compile=no", "c": "--competition", "f": "--csv", "file": "--csv",
    "cpu": "--device=cpu", "gpu": "--device=cuda", "cuda": "--device=cuda", "e": "--epochs", "arch": "--model",
    "net": "--model", "network": "--model", "o": "--out", "output": "--out", "name": "--run",
}  # fmt: skip


def meant(argument: str, known: Sequence[str]) -> str:
    """The argument, with an unknown option replaced by the one of `known` that it seems to mean."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("-") or flag in known:
        return argument
    key = flag.strip("-").lower().replace("_", "-")
    names = {name: name[2:].split("-") for name in known if name.startswith("--")}
    whole = {word: name for word, name in FOREIGN.items() if name.partition("=")[0] in known}
    whole |= {"".join(word[0] for word in words): name for name, words in names.items() if len(words) > 1}
    whole |= {name[2:]: name for name in names}
    spellings = {word: name for name, words in reversed(names.items()) for word in words} | whole
    begun = [word for word in spellings if len(key) > 2 and word.startswith(key)]  # --optim
    alike = difflib.get_close_matches(key, spellings, n=1, cutoff=0.71)  # --num-epochs
    parts = [word for word in key.split("-") if word in whole]  # --random-seed
    return next((spellings[word] for word in (*begun, *alike, *parts)), flag) + equals + value


# --- a recipe as options of train -----------------------------------------------------------------------------

# Options that need one of these values of another option.
BELONGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd", "muon")),
    "validation_fraction": ("validation", ("split",)),
}
TAUGHT = ("distillation_weight", "distillation_temperature")  # need teachers


def arguments(config: TrainConfig) -> list[str]:
    """The options of train that give this recipe: those that differ from the preset and have an effect.

    BadData if this version of the pipeline lacks the preset or model.
    """
    preset, network = PRESETS.get(config.preset), config.model
    if preset is None or MODELS.get(network.name) != network:
        raise BadData(f"preset {config.preset} with {config.model.name} is of another version of the pipeline")
    given = ["--preset", config.preset]
    if network != preset.model:
        given += ["--model", network.name]
    if config.epochs != preset.epochs:  # train changes the warm-up with them
        given += ["--epochs", str(config.epochs)]
        preset = preset.with_epochs(config.epochs)
    for name in recipes.options():
        value, (other, values) = getattr(config, name), BELONGS.get(name, ("", ()))
        effective = bool(config.teachers) if name in TAUGHT else not other or getattr(config, other) in values
        if value == getattr(preset, name) or not effective:  # train refuses options without effect
            continue
        if isinstance(value, bool):
            given.append(flag(name if value else f"no_{name}"))
        else:  # str(float) has all digits
            given += [flag(name), str(value)]
    return given


def in_full(config: TrainConfig) -> list[str]:
    """The options that reproduce the run, teachers and pseudo-labels included; BadData as `arguments`."""
    options = arguments(config)
    if config.teachers:
        options += ["--teacher", *(teacher.partition("@")[0] for teacher in config.teachers)]
    if config.pseudo_labels:
        options += ["--pseudo-labels", config.pseudo_labels.rpartition("@")[0], "--rules-allow-pseudo-labels"]
    return options + (["--allow-over-limit"] if config.model.trainable_parameters > PARAMETER_LIMIT else [])
