"""Do a dataclass's fields hold what they are declared to hold?  A JSON file that was edited may say anything."""

import dataclasses
import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.errors import printable

LARGEST = 1e300  # of numbers: what is beyond, or no number at all, is nobody's accuracy


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or one that nobody writes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON with too many brackets in each other") from None


def require_types(instance: Any) -> None:
    """Check all fields of a dataclass instance, and of those in it.

    Raises:
        TypeError: a field holds something else; names it.
    """
    hints = get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if not _fits(value, hints[field.name]):
            raise TypeError(f"{field.name} cannot be {printable(repr(value), 40)}")
        if dataclasses.is_dataclass(value):
            require_types(value)


def _fits(value: Any, kind: Any) -> bool:
    """Whether the value is of the declared kind; a whole number will do as a float, as JSON has it."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (list, tuple):
        return isinstance(value, origin) and all(_fits(item, parts[0]) for item in value)
    if origin is not None:  # Mapping
        return isinstance(value, Mapping) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if kind is float:
        return type(value) in (int, float) and abs(value) <= LARGEST
    if kind is int:
        return type(value) is int  # True is an int, too
    return isinstance(value, NoneType if kind is None else kind)
