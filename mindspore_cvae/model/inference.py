"""q(z|x) of sentences as evaluation, encoding and generation see it: what :class:`Inference` gives.

The encoder's answer is all there is of it, except in a system that refines it (SA-VAE).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.model.refinement import Descent


class Codes(nn.Cell):
    """tokens (B, T + 1) -> h (B, H) and the encoder's statistics of q(z|x), without dropout."""

    def __init__(self, model: LatentVariableModel):
        # Without prefixes: the model's parameters keep their names, as checkpoints have them.
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        h = self.model.encoder(tokens)
        return h, self.model.posterior(h)


class Inference:
    """Finds q(z|x): by the encoder, then by the model's steps of SVI on the negative ELBO (beta 1,
    no dropout). Its graphs are compiled once a width and serve every call.

    The draws of z that SVI needs are the same for every sentence, every model and every run, so
    that q(z|x) is a function of x; the draws that evaluation decodes are others.

    Args:
        model: its parameters may change between calls.
    """

    def __init__(self, model: LatentVariableModel):
        self.codes = Codes(model).set_train(False)
        self.descend = Descent(model).set_train(False)
        self.noise = [
            randomness.normal(
                randomness.generator(0, "refinement", step), model.posterior.noise_size
            )
            for step in range(model.refinement_steps)
        ]

    def __call__(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, T + 1) -> h (B, H) and the statistics of q(z|x)."""
        h, statistics = self.codes(tokens)
        velocity, beta = ops.zeros_like(statistics), Tensor(1.0, ms.float32)
        for noise in self.noise:
            rows = Tensor(np.tile(noise, (len(tokens), 1)))
            statistics, velocity = self.descend(
                statistics, velocity, rows, tokens, beta, None, None
            )
        return h, statistics
