"""The learning rate as a pure function of the step, so that no state of it needs saving."""


def learning_rate(step: int, total_steps: int, warmup_steps: float, peak: float) -> float:
    """The rate of step `step` (0-based): linear from 0 to `peak` over the warm-up, then linear to 0.

    The first step's rate is above 0 (a step at rate 0 would be wasted), and 0 would be reached by the step
    after the last.
    """
    rising = (step + 1) / warmup_steps if warmup_steps > 0 else 1.0
    falling = (total_steps - step) / (total_steps - warmup_steps) if warmup_steps < total_steps else 1.0
    return peak * min(rising, falling, 1.0)
