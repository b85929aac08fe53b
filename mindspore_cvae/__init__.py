"""Contrastive latent variable models for text generation (Teng et al., UAI 2022) in MindSpore."""

__version__ = "0.1.0"
