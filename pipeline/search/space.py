"""The space that a sweep searches: a base recipe, and the fields that trials change in it.

Nothing here imports optuna, so that a wrong option is refused in no time.
"""

import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import UsageError
from pipeline.recipes import MODELS, TrainConfig

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str
ATTEMPTS = 1000  # combinations that are tried before a value counts as refused in all of them


# --- axes: one searched field each ------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """One of a few values; of models, their names."""

    field: str
    values: tuple[Value, ...]

    @property
    def spec(self) -> str:
        """As on the command line."""
        return ",".join(map(str, self.values))

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values to check beforehand: all of them."""
        return self.values

    def suggest(self, trial: "optuna.Trial") -> Value:
        """The value of a trial."""
        return cast(Value, trial.suggest_categorical(self.field, self.values))  # one of the values


@dataclass(frozen=True)
class Floats:
    """Numbers from `low` to `high`."""

    field: str
    low: float
    high: float
    log: bool

    @property
    def spec(self) -> str:
        """As on the command line."""
        return f"{'log:' if self.log else ''}{self.low!r}:{self.high!r}"

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values to check beforehand."""
        return self.low, self.high

    def suggest(self, trial: "optuna.Trial") -> Value:
        """The value of a trial."""
        return trial.suggest_float(self.field, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Integers:
    """Whole numbers from `low` to `high`, both included, in steps of `step`."""

    field: str
    low: int
    high: int
    step: int
    log: bool

    @property
    def spec(self) -> str:
        """As on the command line."""
        return f"log:{self.low}:{self.high}" if self.log else f"int:{self.low}:{self.high}:{self.step}"

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values to check beforehand."""
        return self.low, self.high

    def suggest(self, trial: "optuna.Trial") -> Value:
        """The value of a trial."""
        return trial.suggest_int(self.field, self.low, self.high, step=self.step, log=self.log)


Axis = Choice | Floats | Integers


# --- the space --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """A base config, and the fields that trials change in it."""

    base: TrainConfig
    axes: tuple[Axis, ...]

    @property
    def varied(self) -> list[str]:
        """The fields that differ from trial to trial."""
        return [axis.field for axis in self.axes if len(set(axis.extremes)) > 1]

    def config(self, values: dict[str, Any]) -> TrainConfig:
        """The base with `values`; other epochs keep the warm-up's share.

        Raises:
            UsageError: the config refuses them.
        """
        rest = dict(values)
        base = self.base.with_epochs(rest.pop("epochs")) if "epochs" in rest else self.base
        if "model" in rest:
            rest["model"] = MODELS[rest["model"]]
        return dataclasses.replace(base, **rest)

    def check(self) -> None:
        """Check that each choice, and both ends of each range, go with some values of the other axes.

        Raises:
            UsageError: naming the value that the config refuses whatever the others are.
        """
        draws = random.Random(0)
        for axis in self.axes:
            for value in axis.extremes:
                self._check_value(axis.field, value, draws)

    def _check_value(self, field: str, value: Value, draws: random.Random) -> None:
        reason = ""
        for _ in range(ATTEMPTS):
            others = {axis.field: draws.choice(axis.extremes) for axis in self.axes}
            try:
                self.config({**others, field: value})
            except UsageError as error:
                reason = str(error)
            else:
                return
        raise UsageError(f"--search {field}: {value} is refused in every trial ({reason})")
