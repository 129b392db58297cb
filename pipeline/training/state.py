"""All that changes while a run trains: with the config and the images, it decides how the run goes on."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.model.resnet import ResNet, build
from pipeline.recipes import TrainConfig
from pipeline.store.epochs import EpochRow, best_row
from pipeline.training import optimizers
from pipeline.training.averages import Averages
from pipeline.training.device import Device


@dataclass
class State:
    """Between two steps, this is everything; randomness needs no place in it (see batches.draw)."""

    network: ResNet
    optimizer: torch.optim.Optimizer
    averages: Averages | None  # of the network's weights, if the recipe asks for them
    selected: ResNet  # what is validated and kept: the network itself, or one that takes the averages
    loss_sum: Tensor  # float32 (), over the images of the epoch under way; on the device, so nothing waits
    correct: Tensor  # int64 (), likewise
    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the epoch under way
    updates: int = 0  # steps done in all
    training_seconds: float = 0.0  # spent on these
    validation_seconds: float = 0.0  # spent on validations of it that were interrupted
    rows: list[EpochRow] = field(default_factory=list)  # of the epochs done
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # of the best of these

    def finish_epoch(self, row: EpochRow) -> None:
        """Count the epoch, keep its weights if it is the best so far, and begin the next."""
        self.rows.append(row)
        if best_row(self.rows) is row:
            self.best_weights = {k: v.detach().clone() for k, v in self.selected.state_dict().items()}
        self.epoch, self.step = self.epoch + 1, 0
        self.training_seconds = self.validation_seconds = 0.0
        self.loss_sum.zero_()
        self.correct.zero_()

    def select(self) -> ResNet:
        """What is validated and kept, with its weights of this moment."""
        if self.averages is not None:
            self.selected.load_state_dict(self.averages.weights(self.updates), strict=False)
        return self.selected

    def require_finite(self) -> None:
        """Check the weights.

        Raises:
            PipelineError: some are infinite or not a number.
        """
        if not all(torch.isfinite(parameter).all() for parameter in self.network.parameters()):
            raise diverged(self, "the weights are")


def start(config: TrainConfig, device: Device) -> State:
    """The state before the first step."""
    network = _network(config, device)
    averages = Averages(network, config.ema_decay) if config.ema_decay else None
    return State(
        network,
        optimizers.build(network, config),
        averages,
        selected=network if averages is None else _network(config, device),
        loss_sum=torch.zeros((), device=device.torch_device),
        correct=torch.zeros((), dtype=torch.int64, device=device.torch_device),
    )


def _network(config: TrainConfig, device: Device) -> ResNet:
    network = build(config.model, config.seed)
    return network.to(device.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def diverged(state: State, what: str) -> PipelineError:
    """The error for a run whose numbers have become infinite or NaN; `what` names them with their verb."""
    rate = state.optimizer.param_groups[0]["lr"]
    kept = f"the checkpoint of epoch {state.epoch} is kept" if state.epoch else "no checkpoint was kept"
    return PipelineError(
        f"{what} no longer finite in epoch {state.epoch + 1}, step {state.step} (rate {rate:.3g}): lower "
        f"--learning-rate, or try another --seed; {kept}"
    )
