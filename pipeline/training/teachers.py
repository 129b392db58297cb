"""Networks that teach another one: distillation from finished runs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from pipeline.errors import BadData, UsageError
from pipeline.model import weights
from pipeline.model.resnet import ResNet
from pipeline.store.runs import Run, RunCard
from pipeline.training.device import Device
from pipeline.training.evaluation import logits


class Teachers:
    """Answers with the mean of the networks' probabilities, on the very images that the student sees.

    The same crop for both is what makes distillation work (Beyer et al. 2021, arXiv:2106.05237).
    """

    def __init__(self, networks: Sequence[nn.Module], temperature: float, device: Device) -> None:
        self._networks = [network.to(device.torch_device).eval() for network in networks]
        self._temperature, self._device = temperature, device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 32, 32, 3), 0..255 -> probabilities float32 (B, 10) at the temperature."""
        answers = [softmax(logits(n, images, self._device) / self._temperature, 1) for n in self._networks]
        return torch.stack(answers).mean(0)


def network(run: Run, card: RunCard) -> ResNet:
    """The network of a finished run that may teach the run of `card`.

    Raises:
        BadData: it learned from another competition's images, or its weights are damaged.
        UsageError: it has learned from images that validate the run of `card`.
    """
    if run.card.data != card.data:
        raise BadData(f"--teacher {run.name} was trained on other data than {card.competition}'s: choose another run")
    theirs, ours = run.card.config, card.config
    same = (theirs.validation, theirs.validation_fraction) == (ours.validation, ours.validation_fraction)
    if ours.validation == "split" and not same:
        raise UsageError(
            f"--teacher {run.name} has learned images that this run would be validated on: train both with the same "
            "--validation and --validation-fraction"
        )
    run.check_weights()
    return weights.load(run.weights, run.card.config.model)
