"""The slot D(q || p) of the equation: divergences of the posterior from the prior; they own their
critics.

Every divergence is called as ``divergence(h, statistics, z, prior, weight)`` with V N rows (V
views of N sentences, first view first) and returns the sum over views of the model's term. Those
with critics also have ``critic_losses``. Every divergence is made of a row's slots and a
``config.Model``.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindspore_cvae.model import objectives
from mindspore_cvae.model.networks import Critic


class NoDivergence(nn.Cell):
    """D = 0."""

    def __init__(self, slots, sizes):
        super().__init__()

    def construct(self, h, statistics, z, prior, weight):
        return ops.zeros((), z.dtype)


class GaussianKL(nn.Cell):
    """KL(q || p) of a diagonal Gaussian posterior in closed form (Eq. 1), with free bits if the
    row has them."""

    def __init__(self, slots, sizes):
        super().__init__()
        self.views = slots.views
        self.free_bits = slots.free_bits

    def construct(self, h, statistics: Tensor, z, prior, weight: Tensor) -> Tensor:
        """parameters (V N, 2 Z), weight (N,) -> scalar."""
        mean, log_variance = ops.chunk(statistics, 2, 1)
        if self.free_bits > 0:
            kl = objectives.gaussian_kl_of_dimensions(mean, log_variance)
            kl = kl.reshape(self.views, -1, kl.shape[1])
            return objectives.free_bits(kl, weight, self.free_bits).sum()
        kl = objectives.gaussian_kl(mean, log_variance).reshape(self.views, -1).sum(0)
        return objectives.expectation(kl, weight)


class Dual(nn.Cell):
    """The Fenchel dual of the KL by critics f(x, z) and g(z) (Eq. 3, 7, 13, 14).

    Both critics are trained in every implicit system, since KL is read from f and MI from f and g;
    ``own`` says which of them regularises the model.

    Args:
        slots: the resolved slots of a row: its views, ``critic_loss`` (a name of
            ``objectives.CRITIC_LOSSES``), ``divergence_sign`` (``adversarial`` or ``printed``) and
            ``squared_difference`` (``none``, ``squares``, ``printed`` or ``released``).
        sizes: a ``config.Model``: sizes of h and z, width and number of the critics' hidden layers.
    """

    own = 0

    def __init__(self, slots, sizes):
        super().__init__()
        self.views = slots.views
        self.posterior_term, self.prior_term = objectives.CRITIC_LOSSES[slots.critic_loss]
        self.printed_sign = slots.divergence_sign == "printed"
        self.difference = DIFFERENCES[slots.squared_difference]
        self.as_released = slots.squared_difference == "released"
        self.squared_critic = 1 if self.as_released else self.own
        layers = sizes.critic_size, sizes.critic_layers
        self.joint_critic = Critic(sizes.latent_size + sizes.hidden_size, *layers)
        self.marginal_critic = Critic(sizes.latent_size, *layers)

    def critic_values(self, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(x, z) and g(z) of every row, (M,) each; h is a constant to both players."""
        f = self.joint_critic(ops.concat((z, ops.stop_gradient(h)), 1))
        return f, self.marginal_critic(z)

    def critic_losses(
        self, h: Tensor, z: Tensor, prior: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What f and g minimise, Eq. 18 (or Eq. 3 and 7 where critic_loss is ``dual``).

        h (V N, H), z (V N, Z), prior (V N, Z) draws from p(z), weight (N,) -> two scalars.
        """
        f, g = self.critic_values(ops.concat((h, h)), ops.concat((z, prior)))
        values = ops.concat((f, g)).reshape(2, 2, self.views, -1)
        posterior, prior_values = values[:, 0], values[:, 1]
        losses = self.posterior_term(posterior, weight) + self.prior_term(prior_values, weight)
        joint, marginal = losses.sum(1)
        difference = self._between_views(posterior[self.squared_critic], weight)
        if self.as_released:
            at_prior = self._between_views(prior_values[self.squared_critic], weight)
            difference = difference + at_prior
        if self.squared_critic == 0:
            joint = joint + difference
        else:
            marginal = marginal + difference
        return joint, marginal

    def construct(self, h: Tensor, statistics, z: Tensor, prior: Tensor, weight: Tensor) -> Tensor:
        """The model's term of Eq. 4, 7 (adversarial) or Eq. 19 (printed), summed over views.

        The adversarial term carries E_p exp f and + 1 too, which have no gradient for the model
        but make it the dual estimate of the KL.
        """
        values = self.critic_values(ops.concat((h, h)), ops.concat((z, prior)))[self.own]
        posterior, prior_values = values.reshape(2, self.views, -1)
        if self.printed_sign:
            term = self.posterior_term(posterior, weight).sum()
        else:
            term = objectives.dual_kl(posterior, prior_values, weight).sum()
        if self.as_released and self.own == 1:
            g = self.marginal_critic(z).reshape(self.views, -1)
            term = term + self._between_views(g, weight)
        return term

    def _between_views(self, values: Tensor, weight: Tensor) -> Tensor:
        """L_SQ of one critic's values (V, N); with a single view it is 0."""
        return self.difference(values[0], values[-1], weight)


class JointDual(Dual):
    """KL(q(z|x) || p(z)) by f(x, z), Eq. 3 and 4 (iVAE, cVAE, cVAE+)."""

    own = 0


class MarginalDual(Dual):
    """KL(q(z) || p(z)) of the aggregated posterior by g(z), Eq. 7 (the rows with MI)."""

    own = 1


DIFFERENCES = {
    "none": objectives.no_difference,
    "squares": objectives.sum_of_squares,
    "printed": objectives.sum_of_differences,
    "released": objectives.sum_of_squares,
}
"""The values of the slot ``squared_difference``."""

DIVERGENCES = {
    "none": NoDivergence,
    "gaussian_kl": GaussianKL,
    "joint_dual": JointDual,
    "marginal_dual": MarginalDual,
}
"""The values of the slot ``divergence``."""
