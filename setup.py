"""The packages that are installed: the rooms, and the shipped configurations as data.

All else is in pyproject.toml, which cannot join a folder of the checkout to the packages it finds.
"""

from setuptools import find_packages, setup

setup(
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
