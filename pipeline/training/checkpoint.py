"""checkpoint.pt: the State on disk, complete or absent, and read without running anybody's code."""

import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import BadData
from pipeline.store import atomic
from pipeline.store.epochs import EpochRow
from pipeline.training.state import State

PLAIN = ("epoch", "step", "updates", "training_seconds", "validation_seconds", "best_weights")


def save(path: Path, state: State, card: str) -> None:
    """Write the state of the run whose card has the fingerprint `card`.

    Raises:
        PipelineError: its weights are not finite; the checkpoint on disk stays as it is.
    """
    state.require_finite()
    content = {
        "card": card,
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "averages": None if state.averages is None else state.averages.state_dict(),
        "loss_sum": state.loss_sum,
        "correct": state.correct,
        "rows": [asdict(row) for row in state.rows],
        **{name: getattr(state, name) for name in PLAIN},
    }
    with atomic.replacing(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            # While PyTorch gives up on a full disk it stumbles, and hides what the system said.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load(path: Path, state: State, card: str) -> None:
    """Bring a fresh `state` to where the checkpoint stands.

    Raises:
        BadData: the file is damaged, or of another run or version.
    """
    try:
        device = state.loss_sum.device
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        if content["card"] != card:
            raise BadData(f"{path} belongs to another run: train this one again with --force")
        state.network.load_state_dict(content["network"])
        # Only the moments: rates are set at each step, and how they are kept belongs to this device, not to the file's.
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": groups})
        if state.averages is not None:
            state.averages.load_state_dict(content["averages"])
        state.loss_sum.copy_(content["loss_sum"])
        state.correct.copy_(content["correct"])
        state.rows = [EpochRow(**row) for row in content["rows"]]
        for name in PLAIN:
            setattr(state, name, content[name])
    except (
        pickle.UnpicklingError,
        RuntimeError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadData(f"{path} is damaged ({reason}): train the run again with --force") from error
