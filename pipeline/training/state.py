"""The training state: with the config and the images it determines the rest of the run."""

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import BadData, Log, PipelineError, first_line
from pipeline.model.resnet import ResNet, build
from pipeline.recipes import TrainConfig
from pipeline.store import atomic
from pipeline.store.runs import EpochRow, best_row
from pipeline.training import optim
from pipeline.training.device import ALONE, Device, World, device_failed
from pipeline.training.optim import EMA


@dataclass
class State:
    """Everything that changes during training; randomness is a function of the epoch (see batches.draw)."""

    model: ResNet
    optimizer: torch.optim.Optimizer
    ema: EMA | None  # of the model's weights, if the recipe has one
    selected: ResNet  # validated and kept: the model itself, or one with the EMA
    loss_sum: Tensor  # float32 (), over the images of the current epoch; on the device
    correct: Tensor  # int64 (), likewise
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the current epoch
    updates: int = 0  # finished steps in all
    training_seconds: float = 0.0  # of the current epoch
    rows: list[EpochRow] = field(default_factory=list)  # of the finished epochs
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # of the best epoch

    def finish_epoch(self, row: EpochRow) -> None:
        """Record the epoch, keep its weights if it is the best so far, and begin the next."""
        self.rows.append(row)
        if best_row(self.rows) is row:
            self.best_weights = {k: v.detach().clone() for k, v in self.selected.state_dict().items()}
        self.epoch, self.step = self.epoch + 1, 0
        self.training_seconds = 0.0
        self.loss_sum.zero_()
        self.correct.zero_()

    def select(self) -> ResNet:
        """The model to validate and keep, with its present weights."""
        if self.ema is not None:
            self.selected.load_state_dict(self.ema.weights(self.updates), strict=False)
        return self.selected

    def require_finite(self) -> None:
        """PipelineError if some weights are infinite or NaN."""
        if not all(torch.isfinite(parameter).all() for parameter in self.model.parameters()):
            raise diverged(self, "the weights are")


def initial(config: TrainConfig, device: Device) -> ResNet:
    """The model as built from the seed, on the device, channels_last; contiguous on MPS, as in `normalise`."""
    model = build(config.model, config.seed)
    layout = torch.contiguous_format if device.kind == "mps" else torch.channels_last
    return model.to(device.torch_device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


def start(config: TrainConfig, device: Device, world: World = ALONE, log: Log = lambda _: None) -> State:
    """The state before the first step."""
    model = initial(config, device)
    if not world.alone and device.kind == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    ema = EMA(model, config.ema_decay) if config.ema_decay else None
    return State(
        model,
        optim.build(model, config, log),
        ema,
        selected=model if ema is None else initial(config, device),
        loss_sum=torch.zeros((), device=device.torch_device),
        correct=torch.zeros((), dtype=torch.int64, device=device.torch_device),
    )


def diverged(state: State, what: str) -> PipelineError:
    """The error for infinite or NaN numbers; `what` names them, with the verb."""
    lr = state.optimizer.param_groups[0]["lr"]
    return PipelineError(
        f"{what} no longer finite in epoch {state.epoch + 1}, step {state.step} (lr {lr:.3g}): lower "
        f"--learning-rate, or try another --seed; the last checkpoint, if there is one, is kept"
    )


# --- checkpoint.pt: the State on disk, complete or absent, read without running code from it


PLAIN = ("epoch", "step", "updates", "training_seconds", "best_weights")


def save_checkpoint(path: Path, state: State, card_fingerprint: str) -> None:
    """Write the state of the run with this card; PipelineError if its weights are not finite."""
    state.require_finite()
    content = {
        "card": card_fingerprint,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "ema": None if state.ema is None else state.ema.sums,
        "loss_sum": state.loss_sum,
        "correct": state.correct,
        "rows": [asdict(row) for row in state.rows],
        **{name: getattr(state, name) for name in PLAIN},
    }
    with atomic.replacing(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            # On a full disk PyTorch's own cleanup fails and hides the system's error.
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def load_checkpoint(path: Path, state: State, card_fingerprint: str) -> None:
    """Load the checkpoint into a fresh `state`; BadData if it is damaged, or of another run or version."""
    try:
        # On the CPU: a GPU would need room for the state twice.
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["card"] != card_fingerprint:
            raise BadData(f"{path} is of another run or version of the pipeline: train this run again with --force")
        state.model.load_state_dict(content["model"])
        # Only the moments: the rest follows from the config and this device.
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": groups})
        if state.ema is not None:
            state.ema.load(content["ema"])
        state.loss_sum.copy_(content["loss_sum"])
        state.correct.copy_(content["correct"])
        state.rows = [EpochRow(**row) for row in content["rows"]]
        for name in PLAIN:
            setattr(state, name, content[name])
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, PermissionError | torch.OutOfMemoryError) or device_failed(error):
            raise
        raise BadData(f"{path} is damaged ({first_line(error)}): train the run again with --force") from error
