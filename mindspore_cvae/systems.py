"""The table of systems: every model of the paper is one row that fills the slots of one equation.

    L(x) = sum over views v of { -log p(x | z_v)  +  beta * D(q || p)[z_v] }  -  w C(z_1, z_2)

The row names its parts; :mod:`model.building` turns the names into cells and functions.
A slot that a system does not use holds a null part (``none``, ``zero``), never an absence. Any
slot may be overridden by configuration (``--set slots.contrast=info_nce``), so the rows are only
the named points.

``python -m mindspore_cvae systems`` prints the table.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class System:
    """One row of the table: which part fills each slot of the equation."""

    posterior: str
    """Family of q(z|x): ``deterministic`` (z = W h + b), ``gaussian`` (diagonal), ``affine``
    (z = W [h ; eps] + b, Eq. 2 as released), ``mlp`` (hidden layers on [h ; eps]), or ``none``: no
    latent variable, no encoder, and a decoder that reads words alone."""
    divergence: str
    """D(q || p): ``none``, ``gaussian_kl`` (closed form), ``joint_dual`` (critic f(x, z), Eq. 3) or
    ``marginal_dual`` (critic g(z), Eq. 7)."""
    critic_loss: str = "dual"
    """What both critics minimise: ``dual`` (Eq. 3) or a circle loss: ``circle_mean`` (Eq. 13-16),
    ``circle_sum`` (Eq. 18), ``circle_pairwise`` (released code)."""
    divergence_sign: str = "adversarial"
    """The model's term: ``adversarial`` (+ E_q f, Eq. 4) or ``printed`` (the circle loss of q,
    Eq. 15 and 19)."""
    squared_difference: str = "none"
    """L_SQ, Eq. 17: ``none``, ``squares`` (sum of squares, the row's own critic), ``printed``
    (sum of differences) or ``released`` (squares for g only, prior and posterior pairs, and in
    the model's loss of the rows whose divergence is g's)."""
    reconstruction: str = "posterior"
    """What is decoded in training: z of the ``posterior`` (Eq. 4), or draws from the ``prior``, as
    Eq. 19 prints it; the encoder then learns from divergence and contrast alone."""
    contrast: str = "none"
    """C: ``none`` or ``info_nce`` (Eq. 10)."""
    contrast_on: str = "z"
    """Which vectors C compares: the latent ``z`` or the encoder's ``h`` (Table 3)."""
    views: int = 1
    """How many times each sentence is encoded: 1, or 2 for an anchor and its positive."""
    augmentation: str = "dropout"
    """What makes the second view differ besides its noise: ``dropout`` or ``swap`` of
    neighbouring words (Table 7)."""
    encoder_dropout: float = 0.0
    """Dropout rate of the encoder's embedded words (Figure 4)."""
    swap_probability: float = 0.1
    """Chance that a word changes place with its right neighbour, left to right (Section 4.7)."""
    temperature: float = 0.05
    """tau of Eq. 8 and 10."""
    contrast_weight: float = 1.0
    """Weight of C in the objective. Eq. 19 as printed adds C, a mean, to sums over the batch: 1/N
    of a batch of N."""
    free_bits: float = 0.0
    """Nats that a latent dimension's closed-form KL, averaged over the batch, costs at least
    (Kingma et al. 2016): below them nothing pushes it down. 0 for none."""
    negatives: str = "second"
    """Whose sentences the anchors are compared with: the ``second`` view's (released) or the
    ``first`` view's (printed)."""
    prior_negatives: int = 0
    """Draws from the prior that join the negatives, as a multiple of the batch size (3 in the
    release's rows without MI)."""
    swap_negatives: bool = False
    """Whether the batch's sentences with neighbouring words swapped, encoded once more, join the
    negatives: the words of Section 4.7, where Table 7 has swaps as an ``augmentation``."""
    batch_mean_pair: bool = False
    """Whether the batch mean of each view is appended as one more positive pair (released PTB +
    rows)."""
    beta: str = "warm_up"
    """Schedule of beta: ``zero``, ``constant``, ``warm_up`` (capped at beta_max) or ``cyclical``
    (restarts)."""
    beta_max: float = 1.0
    """Where the schedule ends."""
    clipping: str = "separate"
    """Gradient norms are clipped for encoder and decoder each (``separate``) or for all
    parameters ``together``."""
    step: str = "joint"
    """How parameters are updated: ``joint``, ``critic_then_model`` (Algorithm 1), ``aggressive``
    (the encoder many times before the decoder once, He et al. 2019) or ``semi_amortized`` (through
    the refinement of the posterior, Kim et al. 2018)."""
    refinement_steps: int = 0
    """Steps of stochastic variational inference that refine the encoder's posterior, in training
    and evaluation."""

    @property
    def encodings(self) -> int:
        """How many times a training step encodes each sentence: its views, and once more for
        swapped negatives."""
        return self.views + self.swap_negatives

    @property
    def has_critics(self) -> bool:
        """Whether critics estimate the divergence."""
        return self.divergence in ("joint_dual", "marginal_dual")


CHOICES: dict[str, tuple] = {
    "posterior": ("deterministic", "gaussian", "affine", "mlp", "none"),
    "divergence": ("none", "gaussian_kl", "joint_dual", "marginal_dual"),
    "critic_loss": ("dual", "circle_mean", "circle_sum", "circle_pairwise"),
    "divergence_sign": ("adversarial", "printed"),
    "squared_difference": ("none", "squares", "printed", "released"),
    "reconstruction": ("posterior", "prior"),
    "contrast": ("none", "info_nce"),
    "contrast_on": ("z", "h"),
    "views": (1, 2),
    "augmentation": ("dropout", "swap"),
    "negatives": ("second", "first"),
    "beta": ("zero", "constant", "warm_up", "cyclical"),
    "clipping": ("together", "separate"),
    "step": ("joint", "critic_then_model", "aggressive", "semi_amortized"),
}

_GAUSSIAN = System("gaussian", "gaussian_kl", clipping="together")
_IMPLICIT = System("affine", "joint_dual", step="critic_then_model")
_CONTRASTIVE = replace(_IMPLICIT, contrast="info_nce", views=2, encoder_dropout=0.3)
_CIRCLE = replace(_CONTRASTIVE, critic_loss="circle_pairwise", squared_difference="squares")

SYSTEMS: dict[str, System] = {
    "lstm_lm": System("none", "none", beta="zero", beta_max=0.0, clipping="together"),
    "ae": System("deterministic", "none", beta="zero", beta_max=0.0, clipping="together"),
    "vae": _GAUSSIAN,
    "beta_vae": replace(_GAUSSIAN, beta_max=0.5),
    "cyclical_vae": replace(_GAUSSIAN, beta="cyclical"),
    "sa_vae": replace(_GAUSSIAN, step="semi_amortized", refinement_steps=10),
    "lagging_vae": replace(_GAUSSIAN, step="aggressive"),
    "contrastive_vae": replace(
        _GAUSSIAN, contrast="info_nce", views=2, encoder_dropout=0.3, temperature=0.3
    ),
    "ivae": _IMPLICIT,
    "ivae_mi": replace(_IMPLICIT, divergence="marginal_dual"),
    "cvae": _CONTRASTIVE,
    "cvae_mi": replace(_CONTRASTIVE, divergence="marginal_dual"),
    "cvae_plus": _CIRCLE,
    "cvae_plus_mi": replace(_CIRCLE, divergence="marginal_dual"),
}


def table() -> str:
    """The table of systems as text: one row a system, one column a slot."""
    slots = [field.name for field in fields(System)]
    rows = [["system", *slots]]
    rows += [[name, *(str(getattr(row, slot)) for slot in slots)] for name, row in SYSTEMS.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
