"""The model: the paper's one equation with slots."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindspore_cvae.devices.parallel import ALONE, Processes
from mindspore_cvae.model import objectives


class LatentVariableModel(nn.Cell):
    """L(x) = sum_v { -log p(x|z_v) + beta D(q||p)[z_v] } - w C(z_1, z_2).

    Args:
        encoder: x -> h.
        posterior: h -> parameters of q(z|x), and (parameters, noise) -> z.
        decoder: (x, z) -> -log p(x|z).
        divergence: D, with its critics.
        contrast: C.
        views: how many times each sentence is encoded; all views go through one call.
        refinement_steps: of SVI that the encoder's posterior is refined by.
        ranks: the processes that share a batch; None for this one alone.
        contrast_weight: of C.
    """

    def __init__(
        self,
        encoder: nn.Cell,
        posterior: nn.Cell,
        decoder: nn.Cell,
        divergence: nn.Cell,
        contrast: nn.Cell,
        views: int,
        refinement_steps: int = 0,
        ranks: Processes | None = None,
        contrast_weight: float = 1.0,
    ):
        super().__init__()
        self.encoder = encoder
        self.posterior = posterior
        self.decoder = decoder
        self.divergence = divergence
        self.contrast = contrast
        self.views = views
        self.refinement_steps = refinement_steps
        self.ranks = ranks or ALONE
        self.contrast_weight = contrast_weight

    def encode(self, tokens: Tensor, posterior_noise, encoder_bytes=None) -> tuple:
        """tokens (V N, T + 1) -> h (V N, H), parameters of q(z|x), z (V N, Z)."""
        h = self.encoder(tokens, encoder_bytes)
        parameters = self.posterior(h)
        return h, parameters, self.posterior.sample(parameters, posterior_noise)

    def construct(
        self,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        encoder_tokens: Tensor,
        posterior_noise,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What :meth:`objective` returns, of a batch, for a divergence without critics; arguments
        as there and in :meth:`encode`."""
        h, parameters, z = self.encode(encoder_tokens, posterior_noise, encoder_bytes)
        return self.objective(
            h,
            parameters,
            z,
            tokens,
            weight,
            beta,
            None,
            contrast_prior,
            embedding_bytes,
            output_bytes,
        )

    def objective(
        self,
        h: Tensor,
        parameters: Tensor,
        z: Tensor,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        prior,
        contrast_prior,
        embedding_bytes,
        output_bytes,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, reconstruction, divergence and contrast of a batch, given its codes: scalars, nats
        a sentence; reconstruction and divergence are sums over views.

        Args:
            h, parameters, z: what :meth:`encode` returned, of this process's sentences.
            tokens: (N, T + 1), what is to be reconstructed, of all processes.
            weight: (N,), 0 for rows that only fill up the batch.
            beta: scalar.
            prior: (V N, Z) draws from p(z), or None without critics.
            contrast_prior: (M, Z) draws from p(z) as further negatives, or None.
            embedding_bytes, output_bytes: randomness of the decoder's dropout, or None.
        """
        every_view = ops.tile(self.ranks.own(tokens), (self.views, 1))
        likelihood = self.decoder(every_view, z, embedding_bytes, output_bytes)
        gather = self.ranks.gather
        likelihood, h, parameters, z = gather(likelihood), gather(h), gather(parameters), gather(z)
        reconstruction = objectives.expectation(likelihood.reshape(self.views, -1).sum(0), weight)
        divergence = self.divergence(h, parameters, z, prior, weight)
        contrast = self.contrast(h, z, contrast_prior, weight)
        weighted = self.contrast_weight * contrast
        loss = objectives.objective(reconstruction, divergence, weighted, beta)
        return loss, reconstruction, divergence, contrast
