"""The exponential moving average of a network's weights and batch statistics."""

import torch
from torch import Tensor, nn


class Averages:
    """avg <- decay * avg + (1 - decay) * weights after each step, from zero.

    Divided by 1 - decay**steps (as Adam corrects its moments; Kingma and Ba 2014) it is a weighted mean of the
    weights that were visited, and owes nothing to the initial ones however short the run is.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {k: v for k, v in network.state_dict().items() if v.is_floating_point()}
        self._sums = {k: torch.zeros_like(v) for k, v in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights in; waits for nothing."""
        torch._foreach_lerp_(list(self._sums.values()), list(self._live.values()), 1 - self.decay)

    def weights(self, steps: int) -> dict[str, Tensor]:
        """The averages after `steps` updates, by the names of the network's state dict."""
        correction = 1 - self.decay**steps
        return {name: total / correction for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return self._sums

    def load_state_dict(self, sums: dict[str, Tensor]) -> None:
        """The inverse, in place.

        Raises:
            KeyError, RuntimeError: they are another network's.
        """
        for name, total in self._sums.items():
            total.copy_(sums[name])
