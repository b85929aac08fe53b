"""Aggressive training: the encoder is updated until its loss falls no more."""

from __future__ import annotations

import math
from collections.abc import Callable

from mindspore import ParameterTuple, Tensor, nn, ops

from mindspore_cvae.training.steps.updates import Clipping, TrainingStep, by_reader, clip_groups


class ModelGradients(nn.Cell):
    """The terms of a batch and the clipped gradients of its loss; nothing is updated.

    Args:
        model: a :class:`model.equation.LatentVariableModel` without critics.
        weights: parameters of encoder, posterior and decoder, in this order.
        clipping: see :class:`JointStep`.
    """

    def __init__(self, model: nn.Cell, weights: ParameterTuple, clipping: Clipping):
        super().__init__(auto_prefix=False)
        self.groups, self.clip_norm = clipping
        self.ranks = model.ranks
        self.value_and_grad = ops.value_and_grad(model, None, weights, has_aux=True)

    def construct(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> tuple:
        """-> (:data:`STEP_TERMS`, a gradient for each parameter ...)."""
        views, _prior, loss_noise = by_reader(noise)
        (loss, reconstruction, divergence, contrast), gradients = self.value_and_grad(
            views, (tokens, weight), beta, loss_noise
        )
        none = ops.zeros_like(loss)
        terms = ops.stack((loss, reconstruction, divergence, contrast, none, none))
        return (terms, *clip_groups(self.ranks.add(gradients), self.groups, self.clip_norm))


class Update(nn.Cell):
    """An optimizer's update by gradients that another graph has computed."""

    def __init__(self, optimizer: nn.Optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, *gradients):
        return self.optimizer(gradients)


class AggressiveStep(TrainingStep, nn.Cell):
    """Updates the encoder on random batches until that helps no more, then the decoder once (He et
    al. 2019, Algorithm 1); both together, once each, as soon as MI has stopped growing.

    It helps no more once the loss a word, over a window of updates, is above that of the window
    before. The aggressive phase ends for good at the first validation whose MI is below that of the
    validation before.

    Args:
        model: a :class:`model.equation.LatentVariableModel` with a Gaussian posterior.
        encoder_optimizer: of encoder and posterior.
        decoder_optimizer: of the decoder.
        clipping: see :class:`JointStep`.
        window: updates of the encoder between two looks at its loss (15 in the released code).
        most_updates: of the encoder in one step.
    """

    def __init__(
        self,
        model: nn.Cell,
        encoder_optimizer: nn.Optimizer,
        decoder_optimizer: nn.Optimizer,
        clipping: Clipping,
        window: int = 15,
        most_updates: int = 100,
    ):
        super().__init__(auto_prefix=False)
        self.network = model
        encoder, decoder = encoder_optimizer.parameters, decoder_optimizer.parameters
        self.encoder_parameters = len(encoder)
        weights = ParameterTuple((*encoder, *decoder))
        self.gradients = ModelGradients(model, weights, clipping)
        self.update_encoder = Update(encoder_optimizer)
        self.update_decoder = Update(decoder_optimizer)
        self.window = window
        self.most_updates = most_updates
        self.bind(None)

    def bind(self, random_batch: Callable[[int], tuple] | None) -> None:
        """See :class:`TrainingStep`; None lets the encoder learn from each step's own batch."""
        self.random_batch = random_batch
        self.aggressive = True
        self.last_mi: float | None = None
        self.encoder_updates = 0

    def after_validation(self, metrics: dict) -> None:
        """Ends the aggressive phase where ``metrics["mi"]`` has fallen."""
        information = metrics["mi"]
        if self.last_mi is not None and information < self.last_mi:
            self.aggressive = False
        self.last_mi = information

    def state(self) -> dict:
        """Whether the phase lasts, and the MI of the last validation (None before the first)."""
        return {"aggressive": self.aggressive, "last_mi": self.last_mi}

    def load_state(self, state: dict) -> None:
        """See :class:`TrainingStep`."""
        self.aggressive, self.last_mi = state["aggressive"], state["last_mi"]

    def counts(self) -> dict[str, int]:
        """Updates of the encoder in the last step."""
        return {"encoder_updates": self.encoder_updates}

    def __call__(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> Tensor:
        own_batch = (tokens, weight, *noise)
        self.encoder_updates = 1
        if self.aggressive:
            further = self.random_batch or (lambda number: own_batch)
            self.encoder_updates = repeat_while_loss_falls(
                lambda number: self.train_encoder(beta, *further(number)),
                self.window,
                self.most_updates,
            )
        terms, *gradients = self.gradients(tokens, weight, beta, *noise)
        if not self.aggressive:
            self.update_encoder(*gradients[: self.encoder_parameters])
        self.update_decoder(*gradients[self.encoder_parameters :])
        return terms

    def train_encoder(self, beta: Tensor, tokens: Tensor, weight: Tensor, *noise) -> tuple:
        """One update of the encoder by a batch; returns what :func:`loss_per_word` needs."""
        terms, *gradients = self.gradients(tokens, weight, beta, *noise)
        self.update_encoder(*gradients[: self.encoder_parameters])
        return terms, tokens, weight


def repeat_while_loss_falls(update: Callable[[int], tuple], window: int, most: int) -> int:
    """Calls ``update`` until the loss a word of one window is above that of the window before.

    Args:
        update: of a number from 1; returns a batch's (terms, tokens, weight).
        window: updates whose losses are looked at together.
        most: updates after which it ends in any case.

    Returns:
        How many updates there were.
    """
    before, recent = math.inf, []
    for number in range(1, most + 1):
        recent.append(update(number))
        if number % window == 0:
            now, recent = loss_per_word(recent), []
            if now > before:
                break
            before = now
    return number


def loss_per_word(batches: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Loss a predicted word over several batches (terms, tokens (N, T + 1), weight (N,))."""
    loss, words = 0.0, 0.0
    for terms, tokens, weight in batches:
        weight = weight.asnumpy()
        loss += float(terms.asnumpy()[0]) * weight.sum()
        words += weight @ (tokens.asnumpy()[:, 1:] != 0).sum(1)
    return loss / words
