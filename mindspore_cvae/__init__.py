"""Contrastive latent variable models for text generation (Teng et al., UAI 2022) in MindSpore."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Late, so that importing the package stays quick.
    if name == "ContrastiveVAE":
        from mindspore_cvae.api import ContrastiveVAE

        return ContrastiveVAE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
