"""Refinement of q(z|x) by stochastic variational inference, there and back (Kim et al. 2018).

The encoder's (mean, log-variance) lambda_0 of a sentence is moved K steps down the slope of its own
negative ELBO f, through the decoder:

    v_{k+1} = 0.5 v_k - clip(grad f(lambda_k)),   lambda_{k+1} = lambda_k + 1.0 v_{k+1},   v_0 = 0

and the gradient of a loss L(lambda_K, theta) comes back the same way, with bars for dL/d.:

    v'_{k+1} = 0.5 v'_{k+2} + 1.0 lambda'_{k+1},   lambda'_k = lambda'_{k+1} - H_k v'_{k+1},
    theta' = dL/dtheta - sum_k M_k v'_{k+1},   H = d2f / dlambda dlambda,   M = d2f / dtheta dlambda

MindSpore has no second derivative of its recurrent kernels, so H v and M v are finite differences
of gradients, as in the paper. Every sentence has steps, norms and differences of its own: what a
sentence's posterior becomes does not depend on what else is in the batch.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from mindspore_cvae.model import objectives

LEARNING_RATE = 1.0
MOMENTUM = 0.5
CLIP_NORM = 5.0
"""Of a sentence's gradient, and of what goes into and comes out of a Hessian-vector product."""
SENTENCES = 32
"""The released code descends the mean over a batch of 32 sentences, which moves each of them by
1/32 of its own gradient: f is -ELBO / 32, whatever the batch."""
DIFFERENCE = 5e-3
"""Step of a difference, as a share of the point's length (of 1 where the point is nearer to 0)."""


def row_norms(values: Tensor) -> Tensor:
    """sqrt(sum_j v_ij^2): (N, P) -> (N, 1)."""
    return ops.sqrt(objectives.square(values).sum(1, keepdims=True))


def clip_rows(values: Tensor, limit: float) -> Tensor:
    """Scales each row so that its norm is at most ``limit``. (N, P) -> (N, P)."""
    return values * (limit / ops.maximum(row_norms(values), Tensor(limit, ms.float32)))


def difference_points(points: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Where to take gradients for Hessian-vector products, and how much each of them counts.

    H v = |v| ( grad f(x + d u) - grad f(x - d u) ) / 2 d + O(d^2),  u = v / |v|,
    d = 0.005 max(1, |x|): central differences, whose step is a share of the point, since a fixed
    1e-5 (the released code's, one-sided and times v) drowns in the rounding of float32.

    Args:
        points: (N, P), x of each row's own f.
        vectors: (N, P).

    Returns:
        2 N points (2 N, P) and coefficients (2 N,), first x + d u of all rows, then x - d u. The
        gradient of sum_j c_j f(x_j) with respect to the points, its two halves added, is H v of
        every row; its gradient with respect to whatever else f depends on is the mixed derivative
        times v, summed over rows.
    """
    norms = row_norms(vectors)
    steps = DIFFERENCE * ops.maximum(row_norms(points), Tensor(1.0, ms.float32))
    # The floor keeps a vector of zeros, whose coefficient is 0, from dividing by zero.
    offsets = vectors * (steps / ops.maximum(norms, Tensor(1e-30, ms.float32)))
    coefficients = (norms / (2.0 * steps)).squeeze(1)
    return (
        ops.concat((points + offsets, points - offsets)),
        ops.concat((coefficients, -coefficients)),
    )


class NegativeElbo(nn.Cell):
    """f(lambda) = ( -log p(x|z) + beta KL(q(z|x) || p(z)) ) / 32 of every row.

    Args:
        model: with a Gaussian posterior.
    """

    def __init__(self, model: nn.Cell):
        # Without prefixes: the model's parameters keep their names.
        super().__init__(auto_prefix=False)
        self.posterior = model.posterior
        self.decoder = model.decoder

    def construct(
        self, statistics: Tensor, noise: Tensor, tokens: Tensor, beta, embedding_bytes, output_bytes
    ) -> Tensor:
        """parameters (N, 2 Z), noise (N, Z), tokens (N, T + 1), bytes of the decoder's dropout or
        None -> (N,)."""
        z = self.posterior.sample(statistics, noise)
        nll = self.decoder(tokens, z, embedding_bytes, output_bytes)
        mean, log_variance = ops.chunk(statistics, 2, 1)
        return (nll + beta * objectives.gaussian_kl(mean, log_variance)) / SENTENCES


class Descent(nn.Cell):
    """One step of SVI: (lambda_k, v_k) -> (lambda_{k+1}, v_{k+1})."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.negative_elbo = NegativeElbo(model)
        self.gradient = ops.grad(self.total, 0)

    def total(self, statistics, *others):
        """The sum over rows, whose gradient is that of every row's own f."""
        return self.negative_elbo(statistics, *others).sum()

    def construct(
        self,
        statistics: Tensor,
        velocity: Tensor,
        noise: Tensor,
        tokens: Tensor,
        beta: Tensor,
        embedding_bytes,
        output_bytes,
    ) -> tuple[Tensor, Tensor]:
        """Arguments as :class:`NegativeElbo` has them, and velocity (N, 2 Z)."""
        gradient = self.gradient(statistics, noise, tokens, beta, embedding_bytes, output_bytes)
        velocity = MOMENTUM * velocity - clip_rows(gradient, CLIP_NORM)
        return statistics + LEARNING_RATE * velocity, velocity


class ReversedDescent(nn.Cell):
    """The way back of a gradient through one step of SVI.

    Args:
        model: with a Gaussian posterior.
        weights: the decoder's parameters, theta.
        clip: scales a tuple of gradients to a norm of at most so much.
    """

    def __init__(self, model: nn.Cell, weights: ParameterTuple, clip):
        super().__init__(auto_prefix=False)
        self.negative_elbo = NegativeElbo(model)
        self.ranks = model.ranks
        self.clip = clip
        self.gradient = ops.grad(self.total, 0, weights)

    def total(self, points, coefficients, *others):
        """sum_j c_j f(x_j), see :func:`difference_points`."""
        return (coefficients * self.negative_elbo(points, *others)).sum()

    def construct(
        self,
        statistics: Tensor,
        noise: Tensor,
        tokens: Tensor,
        beta: Tensor,
        embedding_bytes,
        output_bytes,
        *gradients,
    ) -> tuple:
        """From dL/dlambda_{k+1}, what came back of dL/dv and dL/dtheta so far, to those of step k.

        Args:
            statistics: (N, 2 Z), lambda_k.
            noise, tokens, beta, embedding_bytes, output_bytes: of the step, see
                :class:`NegativeElbo`.
            gradients: at the statistics of q(z|x) and at the velocity (N, 2 Z) each, then one at
                each parameter of the decoder.

        Returns:
            The same of step k.
        """
        at_statistics, at_velocity, at_decoder = gradients[0], gradients[1], gradients[2:]
        at_velocity = clip_rows(at_velocity + LEARNING_RATE * at_statistics, CLIP_NORM)
        points, coefficients = difference_points(statistics, at_velocity)
        at_points, products = self.gradient(
            points,
            coefficients,
            ops.concat((noise, noise)),
            ops.concat((tokens, tokens)),
            beta,
            twice(embedding_bytes),
            twice(output_bytes),
        )
        above, below = ops.chunk(at_points, 2)
        at_statistics = at_statistics - clip_rows(above + below, CLIP_NORM)
        products = self.clip(self.ranks.add(products), CLIP_NORM)
        result: tuple = (at_statistics, MOMENTUM * at_velocity)
        for number in range(len(at_decoder)):
            result += (at_decoder[number] - products[number],)
        return result


def twice(random_bytes):
    """Bytes of dropout (T, N, ...) for N rows repeated as a block, (T, 2 N, ...); None stays
    None."""
    if random_bytes is None:
        return None
    return ops.concat((random_bytes, random_bytes), 1)
