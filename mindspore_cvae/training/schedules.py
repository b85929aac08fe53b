"""Schedules of beta, the weight of the divergence: closures from a training step to a number.

A schedule is a pure function of the step, so that a resumed run needs no state to continue it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

Schedule = Callable[[int], float]

START = 0.1
"""beta of the first step of a warm-up (released code)."""
RISE_PER_EPOCH = 0.1
"""How much beta grows in an epoch (released code): from 0.1 it reaches 1 after 9 epochs."""
CYCLE_EPOCHS = 10
"""Epochs after which the cyclical schedule restarts (released code)."""


def zero(steps_per_epoch: int, beta_max: float) -> Schedule:
    """beta = 0: no divergence term (AE)."""
    return lambda step: 0.0


def constant(steps_per_epoch: int, beta_max: float) -> Schedule:
    """beta = beta_max from the first step."""
    return lambda step: beta_max


def warm_up(steps_per_epoch: int, beta_max: float) -> Schedule:
    """beta(t) = min(beta_max, 0.1 + 0.1 t / steps_per_epoch): linear KL annealing (Bowman et al.
    2015)."""
    return lambda step: min(beta_max, START + RISE_PER_EPOCH * step / steps_per_epoch)


def cyclical(steps_per_epoch: int, beta_max: float) -> Schedule:
    """The warm-up, restarted every 10 epochs: the released code's rule. The idea is that of Fu et
    al. 2019, whose own schedule has four cycles in a whole training, each rising from 0 to 1 over
    its first half."""
    rise = warm_up(steps_per_epoch, beta_max)
    return lambda step: rise(step % (CYCLE_EPOCHS * steps_per_epoch))


SCHEDULES: dict[str, Callable[[int, float], Schedule]] = {
    "zero": zero,
    "constant": constant,
    "warm_up": warm_up,
    "cyclical": cyclical,
}
"""The values of the slot ``beta``; each takes steps_per_epoch (> 0) and beta_max (>= 0)."""


def settled_after(name: str, steps_per_epoch: int, beta_max: float) -> int:
    """The first step at which the schedule has reached its end value, from which patience may
    count.

    The cyclical schedule reaches its end in every cycle; its first arrival counts, or the first
    cycle's last step where beta_max lies beyond what a cycle reaches.
    """
    if name in ("zero", "constant"):
        return 0
    schedule = SCHEDULES[name](steps_per_epoch, beta_max)
    last = CYCLE_EPOCHS * steps_per_epoch - 1 if name == "cyclical" else sys.maxsize
    step = max(0, round((beta_max - START) / RISE_PER_EPOCH * steps_per_epoch))
    while step < last and schedule(step) < beta_max:
        step += 1
    return min(step, last)
