"""The packages that are installed: the rooms, and the shipped configurations as data; and those
that they need.

All else is in pyproject.toml, which cannot join a folder of the checkout to the packages it finds,
nor leave KenLM out: it has no wheels, and not every machine has a compiler. With
MINDSPORE_CVAE_WITHOUT_KENLM=1 everything works but the command ngram.
"""

import os

from setuptools import find_packages, setup

REQUIREMENTS = [
    # docs/machines/devices.md says which of these were tried.
    "mindspore>=2.7.1,<2.11",
    # MindSpore's metadata admits NumPy 2, but some of its operators were compiled for NumPy 1.
    "numpy>=1.25,<2",
    "pyyaml>=6.0",
    "matplotlib>=3.7",
    "safetensors>=0.4",
    "tqdm>=4.64",
    "psutil>=5.9",
    "scipy>=1.10",
    "jinja2>=3.1",
]
if os.environ.get("MINDSPORE_CVAE_WITHOUT_KENLM", "0") in ("", "0"):
    REQUIREMENTS.append("kenlm>=0.2")

setup(
    install_requires=REQUIREMENTS,
    packages=[
        *find_packages(include=["mindspore_cvae", "mindspore_cvae.*"]),
        "mindspore_cvae.configs",
    ],
    # The YAML files live in configs/ of a checkout and in mindspore_cvae/configs when installed.
    package_dir={"mindspore_cvae.configs": "configs"},
    package_data={
        "mindspore_cvae": ["py.typed"],
        "mindspore_cvae.configs": ["*.yaml"],
        "mindspore_cvae.report": ["*.html", "page.css"],
    },
)
