"""One training step: loss, gradients, optimizer, EMA, without host synchronisation."""

import logging
import re
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from torch.nn.parallel import DistributedDataParallel

from pipeline.console import duration
from pipeline.errors import Log, first_line, printable
from pipeline.recipes import TrainConfig
from pipeline.training.device import ALONE, Device, World, device_failed
from pipeline.training.inference import logits
from pipeline.training.optim import set_learning_rate
from pipeline.training.state import State

# A whitened stem's bias learns in this first share of the run (Jordan 2024: 3 of 9.9 epochs); its gradient takes a
# tenth of a step.
STEM_LEARNS = 1 / 3
RECORDED = 3  # compiled steps after which CUDA graphs are recorded


class TrainStep:
    """Trains `state`, one batch per call.

    If the compiled model ("reduce-overhead", on CUDA with graphs) fails, training continues with the plain one: `log`
    gets the reason, and `uncompiled` is called.
    """

    def __init__(
        self, state: State, config: TrainConfig, device: Device, steps_per_epoch: int, *,
        teachers: Sequence[nn.Module] = (), world: World = ALONE, log: Log = lambda _: None,
        uncompiled: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._state, self._config, self._device, self._steps_per_epoch = state, config, device, steps_per_epoch
        self._world, self._log, self._uncompiled = world, log, uncompiled
        self._teachers = [model.to(device.torch_device).eval() for model in teachers]
        state.model.dropout = config.dropout
        self._plain: nn.Module = state.model
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._wrap(device.compiled)

    def _wrap(self, compiled: bool) -> None:
        """Distribute and compile the model, with the parameters that learn at present."""
        if not self._world.alone:  # SyncBatchNorm refuses CPUs: there each process normalises by its own statistics
            self._plain = DistributedDataParallel(self._state.model)
        self._compiled, self._compiled_steps = None, 0
        if compiled:
            logging.getLogger("torch").setLevel(logging.ERROR)  # we report failures ourselves, in one line
            try:
                torch.compiler.reset()  # else a sweep reaches the limit of recompilations in one process
                mode = "reduce-overhead" if self._device.kind == "cuda" else None
                self._compiled = torch.compile(self._plain, dynamic=False, mode=mode)
            except Exception as error:  # some versions of Python, an unwritable cache
                self._give_up(error)

    def __call__(self, images: Tensor, targets: Tensor, whole: int | None = None) -> None:
        """Do one step.

        Args:
            images: this process's images (B, 32, 32, 3), 0..255, on the device.
            targets: int64 (B,), or float32 (B, 10).
            whole: number of images of all processes in this step; by default B.
        """
        state, whole = self._state, len(images) if whole is None else whole
        set_learning_rate(state.optimizer, self._config, state.updates, self._steps_per_epoch)
        if state.updates >= STEM_LEARNS * self._config.epochs * self._steps_per_epoch:
            self._fix_stem()
        # A smaller last batch uses the plain model: compiling again for its shape takes as long as the first time.
        if self._compiled is None or whole != self._config.batch_size:
            self._gradients(self._plain, images, targets, whole)
        else:
            self._try_compiled(self._compiled, images, targets, whole)
        with self._device.autocast():  # for Muon's matrices
            state.optimizer.step()
        if state.ema is not None:
            state.ema.update()
        state.step += 1
        state.updates += 1

    def _fix_stem(self) -> None:
        bias = self._state.model.conv1.bias
        if bias is not None and bias.requires_grad:  # only a whitened stem has one
            bias.requires_grad_(False)
            self._wrap(self._compiled is not None)

    def _gradients(self, model: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, whole: int) -> None:
        if self._config.dropout:
            # Masks depend on the step and the process alone, so a resumed run has the same ones.
            words = (self._config.seed, self._state.updates, self._world.rank + 1)
            torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0]))
        if self._compiled is not None and self._device.kind == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        output = logits(model, images, self._device)
        # In nats, summed over the images.
        loss = cross_entropy(output, targets, label_smoothing=self._config.label_smoothing, reduction="sum")
        if self._teachers:
            # (1 - weight) * cross entropy + weight * T**2 * KL divergence (Hinton et al. 2015, arXiv:1503.02531).
            temperature = self._config.distillation_temperature
            divergence = kl_div(log_softmax(output / temperature, 1), self._taught(images), reduction="sum")
            loss = torch.lerp(loss, divergence * temperature**2, self._config.distillation_weight)
        correct = (output.argmax(1) == (targets if targets.dim() == 1 else targets.argmax(1))).sum()
        self._state.optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel averages over processes; times their number it is the batch's gradient.
        torch.autograd.backward(loss * (self._world.size / whole))
        self._state.loss_sum += loss.detach()
        self._state.correct += correct

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        """The mean of the teachers' probabilities (B, 10) at the temperature.

        They see the student's crops, which distillation needs (Beyer et al. 2021, arXiv:2106.05237).
        """
        temperature = self._config.distillation_temperature
        taught = [softmax(logits(model, images, self._device) / temperature, 1) for model in self._teachers]
        return torch.stack(taught).mean(0)

    def _try_compiled(self, compiled: Callable[[Tensor], Tensor], images: Tensor, targets: Tensor, whole: int) -> None:
        """A compiled step; if it fails, the same step and all later ones with the plain model."""
        # If any step fails, it is nearly always the first, which compiles, or the next ones, which record CUDA graphs:
        # undo what it did.
        early = self._compiled_steps < RECORDED
        before = {name: value.clone() for name, value in self._state.model.named_buffers()} if early else {}
        started = perf_counter()
        try:
            self._gradients(compiled, images, targets, whole)
        except Exception as error:  # compilers fail in many ways; other errors will recur below
            if device_failed(error):
                raise
            self._compiled = None
            self._give_up(error)
        else:
            if not self._compiled_steps:
                self._log(f"compiled in {duration(perf_counter() - started)}")
            self._compiled_steps += 1
            return
        # Here the error is gone, and with it the memory of the failed step.
        torch.compiler.reset()
        self._state.model.load_state_dict(before, strict=False)
        self._gradients(self._plain, images, targets, whole)

    def _give_up(self, error: Exception) -> None:
        # The compiler's own message follows PyTorch's, which only says that there was an error.
        cause = re.search(r"(?:fatal )?error: .+", str(error))
        reason = printable(cause[0], 120) if cause else first_line(error)
        self._log(f"compiling the model fails here ({reason}): training the plain model")
        self._uncompiled()
