"""The options that choose a recipe, made from the fields of TrainConfig: one place for name, type and help text."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from pipeline import cli, recipes
from pipeline.errors import BadData, UsageError
from pipeline.recipes import MODELS, PRESETS, TrainConfig, flag
from pipeline.store.runs import RunCard, default_name

Command = TypeVar("Command", bound=Callable[..., Any])

# Options that mean nothing unless another one has one of these values.
BELONGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd", "rmsprop")),
    "validation_fraction": ("validation", ("split",)),
}
OVER_LIMIT = ("resnet18", "resnet34")  # over the parameter limit: train wants to be told that this is known
TAUGHT = ("distillation_weight", "distillation_temperature")


def fields() -> dict[str, tuple[Any, str]]:
    """The fields of TrainConfig that are options: name -> type and help text."""
    return {
        name: (option.kind, option.help + (f"  [{option.allowed}]" if option.allowed else ""))
        for name, option in recipes.options().items()
    }


def options(command: Command) -> Command:
    """Give a click command --preset, --model, --se and an option for each field; all but --preset default to None."""
    for name, (kind, text) in reversed(fields().items()):
        command = click.option(*_spelling(name, kind), type=_click_type(kind), metavar=_metavar(kind), default=None,
                               help=text)(command)  # fmt: skip
    command = click.option(
        "--se", metavar=cli.WHOLE, type=int, help="Squeeze-and-excitation with this reduction; 0: none."
    )(command)
    command = click.option("--model", type=click.Choice(list(MODELS)), help="Another network than the preset's.")(
        command
    )
    return click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True,
                        help="Network and recipe; every option below changes one thing of it.")(command)  # fmt: skip


def _spelling(name: str, kind: Any) -> tuple[str, str]:
    plain = flag(name)
    return (f"{plain}/--no-{plain[2:]}", name) if kind is bool else (plain, name)


def _metavar(kind: Any) -> str | None:
    """Numbers have one; choices and switches are shown by click."""
    return {int: cli.WHOLE, float: cli.REAL}.get(kind)


def _click_type(kind: Any) -> Any:
    return click.Choice(typing.get_args(kind)) if typing.get_origin(kind) is Literal else kind


def chosen(preset: str, given: Mapping[str, Any], *, taught: bool = False) -> TrainConfig:
    """The preset's recipe, changed by what was given (None: not given); `taught` says that there are teachers.

    Raises:
        UsageError: a value or a combination makes no sense.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    config = PRESETS[preset]
    if "epochs" in changes and "warmup_epochs" not in changes:
        _require(changes["epochs"] >= 1, f"--epochs {changes['epochs']}: at least 1")
        config = config.with_epochs(changes["epochs"])
    model = MODELS[changes.pop("model")] if "model" in changes else config.model
    if "se" in changes:
        model = dataclasses.replace(model, se=changes.pop("se"))
    config = dataclasses.replace(config, **changes, model=model)
    for name, (other, values) in BELONGS.items():
        _require(
            name not in changes or getattr(config, other) in values,
            f"{flag(name)} belongs to {flag(other)} {' or '.join(values)}, and this run has {getattr(config, other)}",
        )
    for name in TAUGHT:
        _require(name not in changes or taught, f"{flag(name)} belongs to --teacher: name the runs that teach")
    return config


def arguments(config: TrainConfig) -> list[str]:
    """The options of train that give this recipe: what its preset does not say, and has an effect.

    Raises:
        BadData: this version of the pipeline has no such preset or network.
    """
    preset, network = PRESETS.get(config.preset), MODELS.get(config.model.name)
    if preset is None or network is None or dataclasses.replace(network, se=config.model.se) != config.model:
        raise BadData(
            f"the recipe {config.preset} with the network {config.model.name} is of another version of the pipeline"
        )
    given = ["--preset", config.preset]
    if network.name != preset.model.name:
        given += ["--model", network.name]
    if config.model.se != (network if network.name != preset.model.name else preset.model).se:
        given += ["--se", str(config.model.se)]
    if config.epochs != preset.epochs:  # train changes the warm-up with them
        given += ["--epochs", str(config.epochs)]
        preset = preset.with_epochs(config.epochs)
    for name in fields():
        if name != "epochs" and getattr(config, name) != getattr(preset, name) and _takes_effect(config, name):
            given += _option(name, getattr(config, name))
    return given


def in_full(config: TrainConfig, submissions: Path) -> list[str]:
    """All options with which train makes this recipe's network again: also who taught it, and whose labels it learned.

    Raises:
        BadData: this version of the pipeline has no such preset or network.
    """
    options = arguments(config)
    if config.teachers:
        options += ["--teacher", *(teacher.partition("@")[0] for teacher in config.teachers)]
    if config.pseudo_labels:
        csv = submissions / config.pseudo_labels.rpartition("@")[0]
        options += ["--pseudo-labels", str(csv), "--rules-allow-pseudo-labels"]
    return options + (["--allow-over-limit"] if config.model.name in OVER_LIMIT else [])


def of_run(card: RunCard, name: str, submissions: Path) -> list[str]:
    """The options with which train goes on with the run `name`, or trains it anew."""
    named = [] if name == default_name(card) else ["--run", name]
    try:
        return [*in_full(card.config, submissions), *named]
    except BadData:  # of another version of the pipeline: what it would train under that name is not that run
        return ["--run", f"{name}-again"]


def _takes_effect(config: TrainConfig, name: str) -> bool:
    """Whether the field means something in this recipe; where it does not, train refuses the option."""
    other, values = BELONGS.get(name, ("", ()))
    return bool(config.teachers) if name in TAUGHT else not other or getattr(config, other) in values


def _option(name: str, value: object) -> list[str]:
    """A field as train spells it; repr, because the run shall have the very same number."""
    if isinstance(value, bool):
        return [flag(name if value else f"no_{name}")]
    return [flag(name), value if isinstance(value, str) else repr(value)]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
