"""The slot q(z|x): families of posteriors. They never draw noise; it comes in as an argument.

Every family has two methods: ``construct(h)`` gives the statistics of q(z|x) (Gaussian: mean and
log-variance side by side; implicit: h itself), and ``sample(statistics, noise)`` gives z. Where
E_q(z|x) z has a closed form, a third one, ``mean(statistics)``, gives it. Every family is made of a
``config.Model``, of which it reads the sizes that it needs.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindspore_cvae.model.networks import multilayer_perceptron


class Deterministic(nn.Cell):
    """z = W h + b: a point (AE)."""

    noise_size = 0

    def __init__(self, sizes):
        super().__init__()
        self.latent = nn.Dense(sizes.hidden_size, sizes.latent_size)

    def construct(self, h: Tensor) -> Tensor:
        """(N, H) -> (N, Z)."""
        return self.latent(h)

    def sample(self, statistics: Tensor, noise) -> Tensor:
        """(N, Z), unused noise -> (N, Z)."""
        return statistics

    def mean(self, statistics: Tensor) -> Tensor:
        """(N, Z) -> (N, Z)."""
        return statistics


class Gaussian(nn.Cell):
    """q(z|x) = N(mean, diag e^log_variance), reparameterised (VAE)."""

    def __init__(self, sizes):
        super().__init__()
        self.noise_size = sizes.latent_size
        self.mean_and_log_variance = nn.Dense(sizes.hidden_size, 2 * sizes.latent_size)

    def construct(self, h: Tensor) -> Tensor:
        """(N, H) -> (N, 2 Z): mean, then log-variance."""
        return self.mean_and_log_variance(h)

    def sample(self, statistics: Tensor, noise: Tensor) -> Tensor:
        """z = mean + e^{log_variance / 2} eps. (N, 2 Z), (N, Z) -> (N, Z)."""
        mean, log_variance = ops.chunk(statistics, 2, 1)
        return mean + ops.exp(0.5 * log_variance) * noise

    def mean(self, statistics: Tensor) -> Tensor:
        """(N, 2 Z) -> (N, Z)."""
        return ops.chunk(statistics, 2, 1)[0]


class Affine(nn.Cell):
    """z = W [h ; eps] + b, Eq. 2 with one affine layer, as released.

    Its distribution is exactly Gaussian, N(W_h h + b, W_eps W_eps^T), with the same covariance
    for all x.
    """

    def __init__(self, sizes):
        super().__init__()
        self.noise_size = sizes.noise_size
        self.from_hidden = nn.Dense(sizes.hidden_size, sizes.latent_size)
        self.from_noise = nn.Dense(sizes.noise_size, sizes.latent_size, has_bias=False)

    def construct(self, h: Tensor) -> Tensor:
        """(N, H) -> (N, H): the samples themselves are all that represents q(z|x)."""
        return h

    def sample(self, statistics: Tensor, noise: Tensor) -> Tensor:
        """(N, H), (N, noise size) -> (N, Z)."""
        return self.from_hidden(statistics) + self.from_noise(noise)

    def mean(self, statistics: Tensor) -> Tensor:
        """W_h h + b, since the noise has mean 0. (N, H) -> (N, Z)."""
        return self.from_hidden(statistics)


class MultilayerPerceptron(nn.Cell):
    """z = MLP([h ; eps]), Eq. 2 in the paper's words: truly implicit."""

    def __init__(self, sizes):
        super().__init__()
        self.noise_size = sizes.noise_size
        self.layers = multilayer_perceptron(
            sizes.hidden_size + sizes.noise_size,
            sizes.posterior_size,
            sizes.posterior_layers,
            sizes.latent_size,
        )

    def construct(self, h: Tensor) -> Tensor:
        """(N, H) -> (N, H): the samples themselves are all that represents q(z|x)."""
        return h

    def sample(self, statistics: Tensor, noise: Tensor) -> Tensor:
        """(N, H), (N, noise size) -> (N, Z)."""
        return self.layers(ops.concat((statistics, noise), 1))


class NoLatent(nn.Cell):
    """z = 0 for every sentence, where there is no latent variable (a language model)."""

    noise_size = 0

    def __init__(self, sizes):
        super().__init__()
        self.latent_size = sizes.latent_size

    def construct(self, h: Tensor) -> Tensor:
        """(N, H) -> (N, Z)."""
        return ops.zeros((h.shape[0], self.latent_size), h.dtype)

    def sample(self, statistics: Tensor, noise) -> Tensor:
        """(N, Z), unused noise -> (N, Z)."""
        return statistics


POSTERIORS = {
    "deterministic": Deterministic,
    "gaussian": Gaussian,
    "affine": Affine,
    "mlp": MultilayerPerceptron,
    "none": NoLatent,
}
"""The values of the slot ``posterior``."""
