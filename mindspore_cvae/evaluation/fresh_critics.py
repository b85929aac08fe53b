"""Fresh critics for an honest reading of the dual KL: fitted on half of the codes, read on the
other half.

The critics that training leaves behind were trained at a small learning rate against moving codes
(and those of the + rows on another loss). A critic that is fitted to convergence on codes that
stand still, and read on codes that it has not seen, gives the dual's best lower bound of the KL.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.common.progress import progress
from mindspore_cvae.evaluation import estimators
from mindspore_cvae.model import objectives
from mindspore_cvae.model.networks import Critic

FEWEST = 3
"""Sentences, at least: one to fit to, one to choose by, one to read."""
UPDATES = 3000
"""Updates of the fresh critics."""
ROWS = 256
"""Codes, and prior draws, of an update."""
LEARNING_RATE = 1e-3
CHECKS = 20
"""How often the critics are read on held-out sentences, to keep the best."""
PRIOR_DRAWS = 64
"""Draws from the prior a sentence when critics are read."""
BLOCK = 8192
"""Rows of a call when critics are read."""
SEEN = 100
"""Draws that a critic's largest value must rest on: values are cut where fewer would carry E_p
exp f."""


class FitStep(nn.TrainOneStepCell):
    """One update of f(x, z) and g(z) on the dual loss of Eq. 3 and 7."""

    def __init__(self, critics: nn.Cell, optimizer: nn.Optimizer):
        super().__init__(critics, optimizer)
        self.value_and_grad = ops.value_and_grad(self.loss, None, self.weights)

    def loss(self, h: Tensor, z: Tensor, prior: Tensor, weight: Tensor) -> Tensor:
        f, g = self.network(ops.concat((h, h)), ops.concat((z, prior)))
        values = ops.concat((f, g)).reshape(2, 2, -1)
        posterior, prior_values = values[:, 0], values[:, 1]
        losses = objectives.dual_posterior(posterior, weight)
        losses = losses + objectives.dual_prior(prior_values, weight)
        return losses.sum()

    def construct(self, h: Tensor, z: Tensor, prior: Tensor, weight: Tensor) -> Tensor:
        loss, gradients = self.value_and_grad(h, z, prior, weight)
        return ops.depend(loss, self.optimizer(gradients))


class Critics(nn.Cell):
    """f(x, z) and g(z): h (N, H), z (N, Z) -> two (N,)."""

    def __init__(self, hidden_size: int, latent_size: int, critic_size: int, critic_layers: int):
        super().__init__()
        self.joint = Critic(latent_size + hidden_size, critic_size, critic_layers)
        self.marginal = Critic(latent_size, critic_size, critic_layers)

    def construct(self, h: Tensor, z: Tensor) -> tuple:
        return self.joint(ops.concat((z, h), 1)), self.marginal(z)


def refitted_kl(
    h: np.ndarray, codes: np.ndarray, sizes, seed: int, updates: int = UPDATES
) -> dict[str, float]:
    """The dual KL by critics fitted on every second sentence and read on the others.

    A lower bound of the exact KL in expectation over the reading's draws, for any critic.

    Args:
        h: (N, H) of the sentences.
        codes: (N, S, Z) draws of q(z|x).
        sizes: a ``config.Model``, for the critics' sizes.
        seed: of the draws.
        updates: of the critics.

    Returns:
        ``kl_refit`` (f), ``kl_z_refit`` (g), ``mi_refit``, nats a sentence, and their standard
        errors ``kl_refit_error``, ``kl_z_refit_error``.
    """
    critics = Critics(h.shape[1], codes.shape[2], sizes.critic_size, sizes.critic_layers)
    # The seed decides the fresh critics too.
    source = randomness.generator(seed, "critic", 0)
    for parameter in critics.get_parameters():
        scale = 1.0 / np.sqrt(parameter.shape[-1])
        values = source.uniform(-scale, scale, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(values))
    step = FitStep(critics, nn.Adam(list(critics.trainable_params()), LEARNING_RATE))
    step.set_train()
    fit, read = np.arange(0, len(h), 2), np.arange(1, len(h), 2)
    # A quarter of the fitting half says which of the critics along the way is kept.
    held_out, fit = fit[::4], np.setdiff1d(fit, fit[::4])
    weight = Tensor(np.ones(ROWS, np.float32))
    best, kept = -np.inf, [p.asnumpy().copy() for p in critics.get_parameters()]
    bar = progress("refitting critics", updates, "updates")
    for update in range(updates):
        rows = source.integers(0, len(fit), ROWS)
        picked = source.integers(0, codes.shape[1], ROWS)
        prior = randomness.normal(source, ROWS, codes.shape[2])
        arrays = h[fit[rows]], codes[fit[rows], picked], prior
        step(*(Tensor(array.astype(np.float32)) for array in arrays), weight)
        if (update + 1) % max(1, updates // CHECKS) == 0:
            reading = _read(
                critics, h[held_out], codes[held_out], randomness.generator(seed, "critic", 1)
            )
            value = reading["kl_refit"] + reading["kl_z_refit"]
            if value > best:
                best, kept = value, [p.asnumpy().copy() for p in critics.get_parameters()]
        bar.update(1)
    bar.close()
    for parameter, values in zip(critics.get_parameters(), kept, strict=True):
        parameter.set_data(Tensor(values))
    result = _read(critics, h[read], codes[read], randomness.generator(seed, "critic", 2))
    return result | {"mi_refit": result["kl_refit"] - result["kl_z_refit"]}


def _read(
    critics: Critics, h: np.ndarray, codes: np.ndarray, source: np.random.Generator
) -> dict[str, float]:
    """Both duals on given sentences, with prior draws of their own; see :func:`refitted_kl`."""
    sentences, draws, size = codes.shape
    posterior = _values(critics, np.repeat(h, draws, 0), codes.reshape(-1, size))
    prior = randomness.normal(source, sentences * PRIOR_DRAWS, size)
    prior = _values(critics, np.repeat(h, PRIOR_DRAWS, 0), prior)
    # Any function is a valid critic, a cut one too. Uncut, E_p exp f could rest on draws so rare
    # that none was seen, and the reading would exceed the KL.
    limit = np.log(sentences * PRIOR_DRAWS / SEEN)
    result = {}
    for name, at_posterior, at_prior in zip(("kl", "kl_z"), posterior, prior, strict=True):
        at_posterior = np.minimum(at_posterior, limit).reshape(sentences, draws).mean(1)
        at_prior = np.exp(np.minimum(at_prior, limit)).reshape(sentences, PRIOR_DRAWS).mean(1)
        kl = estimators.dual_kl(at_posterior, at_prior)
        result[f"{name}_refit"] = float(kl.mean())
        result[f"{name}_refit_error"] = float(kl.std() / np.sqrt(sentences))
    return result


def _values(critics: Critics, h: np.ndarray, z: np.ndarray) -> np.ndarray:
    """f and g of every row, (2, M), a fixed number of rows a call."""
    values = np.empty((2, len(z)))
    for start in range(0, len(z), BLOCK):
        rows = np.arange(start, start + BLOCK)
        used = min(BLOCK, len(z) - start)
        rows = np.minimum(rows, len(z) - 1)
        outputs = critics(Tensor(h[rows].astype(np.float32)), Tensor(z[rows].astype(np.float32)))
        values[:, start : start + used] = [output.asnumpy()[:used] for output in outputs]
    return values
