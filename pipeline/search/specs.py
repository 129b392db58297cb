"""What `--search FIELD=SPEC` means, for any option of training:

    log:LOW:HIGH            a number, even in its logarithm
    LOW:HIGH                a number
    int:LOW:HIGH[:STEP]     a whole number
    A,B,C                   one of these, unordered

FIELD is an option of train, spelt with dashes or underscores.
"""

import math
from collections.abc import Iterable
from typing import Literal, TypeVar, get_args

from pipeline.errors import UsageError
from pipeline.recipes import MODELS, TrainConfig, flag, options
from pipeline.search.space import Axis, Choice, Floats, Integers, Space, Value

FORMS = "log:LOW:HIGH, LOW:HIGH, int:LOW:HIGH[:STEP], or A,B,C"

Number = TypeVar("Number", int, float)


def parse(base: TrainConfig, searches: Iterable[str]) -> Space:
    """The checked space of the command line's `--search` values.

    Raises:
        UsageError: an unknown or repeated field, a spec that does not fit the field, or a value that the
            config refuses in every trial.
    """
    axes: dict[str, Axis] = {}
    for search in searches:
        axis = _axis(search)
        if axis.field in axes:
            raise UsageError(f"--search {axis.field} is given twice: keep one")
        axes[axis.field] = axis
    if not axes:
        raise UsageError(f"nothing to search over: give --search FIELD=SPEC, SPEC being {FORMS}")
    space = Space(base, tuple(axes.values()))
    space.check()
    return space


# --- one spec ---------------------------------------------------------------------------------------------


def kinds() -> dict[str, object]:
    """The fields that can be searched, each with its type: train's options, and the model.

    What belongs to teachers is left out: a sweep has none.
    """
    searched = {name: option.kind for name, option in options().items() if not name.startswith("distillation_")}
    return {"model": Literal[tuple(MODELS)], **searched}


def _axis(search: str) -> Axis:
    """`FIELD=SPEC` as an axis."""
    name, equals, spec = search.partition("=")
    field = name.strip().replace("-", "_")
    known = kinds()
    if not equals:
        raise UsageError(f"--search {search}: write FIELD=SPEC, SPEC being {FORMS}")
    if field not in known:
        raise UsageError(f"--search {search}: {name} is no field; the fields are {', '.join(known)}")
    try:
        return _parse(field, known[field], spec)
    except ValueError as error:
        raise UsageError(f"--search {search}: {error}") from None


def _parse(field: str, kind: object, spec: str) -> Axis:
    """Raises ValueError, saying what would fit."""
    match spec.split(":"):
        case [choices]:
            values = [_value(kind, text.strip()) for text in choices.split(",")]
            return Choice(field, tuple(dict.fromkeys(values)))
        case _ if kind not in (int, float):
            raise ValueError(f"give choices, as in {flag(field)[2:]}={','.join(map(str, _examples(kind)))}")
        case ["log", low, high] if kind is float:
            return _floats(field, low, high, log=True)
        case ["log", low, high]:
            return _integers(field, low, high, "1", log=True)
        case [low, high] if kind is float:
            return _floats(field, low, high, log=False)
        case ["int", low, high] if kind is int:
            return _integers(field, low, high, "1", log=False)
        case ["int", low, high, step] if kind is int:
            return _integers(field, low, high, step, log=False)
    forms = "int:LOW:HIGH[:STEP], log:LOW:HIGH" if kind is int else "LOW:HIGH, log:LOW:HIGH"
    raise ValueError(f"{field} is {'a whole' if kind is int else 'a'} number: give {forms} or A,B,C")


def _floats(field: str, low: str, high: str, *, log: bool) -> Floats:
    floats = Floats(field, _number(float, low), _number(float, high), log)
    _check_range(floats.low, floats.high, log)
    return floats


def _integers(field: str, low: str, high: str, step: str, *, log: bool) -> Integers:
    first, last, by = _number(int, low), _number(int, high), _number(int, step)
    _check_range(first, last, log)
    if by < 1:
        raise ValueError(f"a step of {by}: at least 1")
    return Integers(field, first, last - (last - first) % by, by, log)


def _check_range(low: float, high: float, log: bool) -> None:
    if low > high:
        raise ValueError(f"{low} is above {high}")
    if log and low <= 0:
        raise ValueError(f"the logarithm of {low}: begin above 0")


def _value(kind: object, text: str) -> Value:
    if kind is float:
        return _number(float, text)
    if kind is int:
        return _number(int, text)
    allowed = {str(value).lower(): value for value in _examples(kind)}
    if text.lower() not in allowed:
        raise ValueError(f"{text!r} is not one of {', '.join(allowed)}")
    return allowed[text.lower()]


def _examples(kind: object) -> tuple[Value, ...]:
    """All values of a bool or of a Literal."""
    return (True, False) if kind is bool else get_args(kind)


def _number(kind: type[Number], text: str) -> Number:
    try:
        number = kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is no {'whole ' if kind is int else ''}number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
