"""Evaluators of small, random, untrained models, and sentences for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tiny import randomise

from mindspore_cvae.config.keys import Model
from mindspore_cvae.config.layers import load as load_config
from mindspore_cvae.config.layers import override
from mindspore_cvae.data.corpus import Split
from mindspore_cvae.evaluation.scoring import Scorer
from mindspore_cvae.model.building import build_model

SYSTEM_OF = {"gaussian": "vae", "affine": "ivae", "mlp": "ivae", "deterministic": "ae"}
WIDTH, ROWS = 6, 480
SEED = 5


def split(count=3, seed=0, copies=1):
    """Sentences of 2 to 5 words of a vocabulary of 12, each of them so often in a row.

    Noise is keyed by the number of a sentence, so copies are independent repetitions.
    """
    random = np.random.default_rng(seed)
    sentences = [
        random.integers(4, 12, length).astype(np.int32) for length in random.integers(2, 6, count)
    ]
    sentences = [sentence for sentence in sentences for _ in range(copies)]
    return Split("valid", "test", sentences, np.arange(1, len(sentences) + 1), {})


def evaluator_of(posterior, latent_size, rows=ROWS, noise_size=None, tokens=10**6):
    """An evaluator of a random small model whose decoder depends on z strongly."""
    config = override(
        load_config(None, [f"slots.posterior={posterior}"], system=SYSTEM_OF[posterior])
    )
    sizes = Model(
        embedding_size=5,
        hidden_size=8,
        latent_size=latent_size,
        noise_size=noise_size or latent_size,
        critic_size=6,
        critic_layers=1,
        posterior_size=8,
        posterior_layers=1,
    )
    model = build_model(config.slots, sizes, 12, 0).set_train(False)
    randomise(model, seed=1, scale=0.8)
    limits = replace(config.eval, rows=rows, tokens=tokens)
    return Scorer(model, replace(config, model=sizes, eval=limits, seed=SEED), (WIDTH,))
