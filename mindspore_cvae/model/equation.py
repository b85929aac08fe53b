"""The model: the paper's one equation with slots."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from mindspore_cvae.devices.parallel import ALONE, Processes
from mindspore_cvae.model import objectives


class LatentVariableModel(nn.Cell):
    """L(x) = sum_v { -log p(x|z_v) + beta D(q||p)[z_v] } - w C(z_1, z_2).

    Args:
        encoder: x -> h.
        posterior: h -> statistics of q(z|x), and (statistics, noise) -> z.
        decoder: (x, z) -> -log p(x|z).
        divergence: D, with its critics.
        contrast: C.
        slots: the resolved slots of the row: ``views``, how many times each sentence is encoded
            (all views go through one call), ``encodings``, views and swapped negatives,
            ``refinement_steps`` of SVI that the encoder's
            posterior is refined by, ``reconstruction``, of which z, and ``contrast_weight``, w.
        ranks: the processes that share a batch; None for this one alone.
    """

    def __init__(
        self,
        encoder: nn.Cell,
        posterior: nn.Cell,
        decoder: nn.Cell,
        divergence: nn.Cell,
        contrast: nn.Cell,
        slots,
        ranks: Processes | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.posterior = posterior
        self.decoder = decoder
        self.divergence = divergence
        self.contrast = contrast
        self.views = slots.views
        self.refinement_steps = slots.refinement_steps
        self.ranks = ranks or ALONE
        self.contrast_weight = slots.contrast_weight
        self.decodes_prior = slots.reconstruction == "prior"
        self.encodings = slots.encodings
        self.contrasts_h = slots.contrast_on == "h"

    def encode(self, views) -> tuple:
        """What the encoder and posterior read of a step's noise -> codes: h (U N, H), statistics
        of q(z|x), z (U N, Z); U is V, or one more with swapped negatives, the last N rows."""
        encoder_tokens, encoder_bytes, posterior_noise = views
        h = self.encoder(encoder_tokens, encoder_bytes)
        statistics = self.posterior(h)
        return h, statistics, self.posterior.sample(statistics, posterior_noise)

    def of_views(self, rows: Tensor) -> Tensor:
        """Rows (U n, ...) of all encodings -> those of the views (V n, ...)."""
        return rows[: self._rows_of_views(rows)]

    def swapped(self, h: Tensor, z: Tensor):
        """The vectors (N, ...) of all processes' swapped sentences, or None, from h (U n, H) and
        z (U n, Z)."""
        if self.encodings == self.views:
            return None
        rows = h if self.contrasts_h else z
        return self.ranks.gather_once(rows[self._rows_of_views(rows) :])

    def _rows_of_views(self, rows: Tensor) -> int:
        return rows.shape[0] // self.encodings * self.views

    def construct(
        self, views, batch, beta: Tensor, loss_noise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """:meth:`objective` of :meth:`encode`, for a divergence without critics."""
        return self.objective(self.encode(views), batch, beta, None, loss_noise)

    def objective(
        self, codes, batch, beta: Tensor, prior, loss_noise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, reconstruction, divergence and contrast of a batch, given its codes: scalars, nats
        a sentence; reconstruction and divergence are sums over views.

        Args:
            codes: what :meth:`encode` returned, of this process's sentences.
            batch: tokens (N, T + 1), what is to be reconstructed, and weight (N,), 0 for rows that
                only fill up; of all processes.
            beta: scalar.
            prior: (V N, Z) draws from p(z), or None without critics.
            loss_noise: further negatives of the contrast (M, Z) from p(z), and the random bytes of
                the decoder's dropouts; None each where there are none.
        """
        (h, statistics, z), (tokens, weight) = codes, batch
        contrast_prior, embedding_bytes, output_bytes = loss_noise
        swapped = self.swapped(h, z)
        h, statistics, z = self.of_views(h), self.of_views(statistics), self.of_views(z)
        every_view = ops.tile(self.ranks.own(tokens), (self.views, 1))
        decoded = self.own_views(prior) if self.decodes_prior else z
        likelihood = self.decoder(every_view, decoded, embedding_bytes, output_bytes)
        gather = self.ranks.gather
        likelihood, h, statistics, z = gather(likelihood), gather(h), gather(statistics), gather(z)
        reconstruction = objectives.expectation(likelihood.reshape(self.views, -1).sum(0), weight)
        divergence = self.divergence(h, statistics, z, prior, weight)
        contrast = self.contrast(h, z, contrast_prior, weight, swapped)
        weighted = self.contrast_weight * contrast
        loss = objectives.objective(reconstruction, divergence, weighted, beta)
        return loss, reconstruction, divergence, contrast

    def own_views(self, rows: Tensor) -> Tensor:
        """Rows (V N, ...) of all processes' sentences -> those of this one's (V n, ...)."""
        own: tuple = ()
        for view in ops.chunk(rows, self.views):
            own += (self.ranks.own(view),)
        return ops.concat(own)
