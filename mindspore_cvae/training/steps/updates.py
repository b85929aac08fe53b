"""What all training steps share: Adam, clipping, and the hooks of an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mindspore import Parameter, Tensor, nn, ops

STEP_TERMS = ("loss", "rec", "div", "con", "critic_joint", "critic_marginal")
"""What a step returns, nats a sentence: rec and div are sums over views; the critics' are 0
without critics."""


def by_reader(noise: tuple) -> tuple:
    """The fields of :class:`training.noise.StepNoise` by who reads them: encoder and posterior;
    divergence; contrast and decoder.

    Plain tuples, and ``*noise`` at a graph's door: MindSpore 2.10 compiles a graph anew at every
    call that gets a NamedTuple or a tuple as an argument.
    """
    return noise[:3], noise[3], noise[4:]


def adam(
    parameters: list[Parameter], learning_rate: float, prefix: str, kind: type[nn.Adam] = nn.Adam
) -> nn.Adam:
    """Adam with the usual moments (0.9, 0.999), its state named ``<prefix>.<...>``.

    Two optimizers in one graph must not share the names of their own state; the names of the
    network's parameters stay as they are.
    """
    optimizer = kind(parameters, learning_rate=learning_rate)
    network = {parameter.name for parameter in parameters}
    for parameter in optimizer.get_parameters():
        if parameter.name not in network:
            parameter.name = f"{prefix}.{parameter.name}"
    return optimizer


def global_norm(gradients: tuple) -> Tensor:
    """sqrt(sum of squares over all gradients)."""
    squares = 0.0
    for gradient in gradients:
        # Rows first: a single sum of two million squares is off by a thousandth in float32.
        squares = squares + (gradient * gradient).sum(-1).sum()
    return ops.sqrt(squares)


def clip(gradients: tuple, limit: float) -> tuple:
    """Scales the gradients so that their global norm is at most ``limit``."""
    scale = limit / ops.maximum(global_norm(gradients), Tensor(limit))
    clipped: tuple = ()
    for gradient in gradients:
        clipped += (gradient * scale,)
    return clipped


class Clipping(NamedTuple):
    """How gradients are clipped."""

    groups: tuple[int, ...]
    """How many parameters, in the optimizer's order, are clipped together."""
    limit: float | None
    """Of the global norm of a group; None leaves gradients as they are."""


def clip_groups(gradients: tuple, groups: tuple[int, ...], limit: float | None) -> tuple:
    """Each group of gradients clipped to a norm of its own; ``groups`` are their sizes. No limit
    leaves them as they are."""
    if limit is None:
        return gradients
    result, start = (), 0
    for size in groups:
        result += clip(gradients[start : start + size], limit)
        start += size
    return result


class TrainingStep:
    """What the trainer asks of a step besides the call. These defaults suit a step whose only
    memory is its parameters."""

    def bind(self, random_batch: Callable[[int], tuple]) -> None:
        """Begins a training, and offers batches besides the one that each call brings.

        Args:
            random_batch: from a number >= 1 to the arguments (tokens, weight, *noise) of a batch of
                training sentences drawn at random: a pure function of seed, training step and
                number.
        """

    def ready(self, *arguments) -> None:
        """Compiles what a call with arguments of these shapes needs, ahead of it. This default does
        nothing: a step of several graphs compiles them in its first call."""

    def after_validation(self, metrics: dict) -> None:
        """Shows the step the metrics of a validation."""

    def state(self) -> dict:
        """What decides, besides parameters, what the step computes next, as JSON can hold it."""
        return {}

    def load_state(self, state: dict) -> None:
        """Takes back what :meth:`state` gave."""

    def counts(self) -> dict[str, int]:
        """What the last call counted, for the log; always the same names."""
        return {}

    def readings(self) -> dict[str, float]:
        """What the log tells of the step as the last call left it; always the same names."""
        return {}

    def skipped_steps(self) -> int:
        """Calls in a row, up to the last one, that did not make all their updates, since gradients
        overflowed; 0 for a step that always makes them."""
        return 0
