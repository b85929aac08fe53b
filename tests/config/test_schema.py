"""The schema of configuration files: it accepts what the reader accepts, key by key."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from mindspore_cvae.config import layers
from mindspore_cvae.config.keys import OPTIONS, SECTIONS
from mindspore_cvae.config.schema import schema
from mindspore_cvae.errors import InputError
from mindspore_cvae.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = jsonschema.Draft202012Validator(schema())
VALUES = (
    *(None, True, False, 0, 1, 2, -1, 7, 65536, 65537, 10**9, 10**9 + 1, 10**12),
    *(0.0, 0.5, 0.999, -0.5, 1e-9, 1e10, 1e38, 1e39),
    *("", "x", "a b", "a\u3000b", "line\n", "\x7f", "auto", "neg_elbo", "CPU", "O2", "second"),
    *([], {}, [1], {"a": 1}),
)


def accepts(document) -> bool:
    return VALIDATOR.is_valid(document)


def placed(key, value):
    """A document that sets a key in its section."""
    section, _, name = key.rpartition(".")
    return {section: {name: value}} if section else {name: value}


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema(), allow_nan=False)) == schema()


@pytest.mark.parametrize("key", OPTIONS)
def test_a_value_is_accepted_where_the_reader_accepts_it(key):
    option, verdicts = OPTIONS[key], set()
    for value in (*VALUES, *option.choices, *option.words):
        if option.type is int and isinstance(value, float) and value.is_integer():
            # To JSON an integer, to us a number that was written as none.
            continue
        try:
            option.check(value, "here")
            is_good = True
        except InputError:
            is_good = False
        verdicts.add(is_good)
        assert accepts(placed(key, value)) == is_good, value
        assert accepts({key: value}) == is_good, value
        if key != "system":
            assert accepts({"per_system": {"vae": {key: value}}}) == is_good, value
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    "document",
    [
        {"sistem": "vae"},
        {"train": {"epoch": 1}},
        {"train.epoch": 1},
        {"train": {"train.epochs": 1}},
        {"train": 3},
        {"per_system": {"vea": {}}},
        {"per_system": {"vae": {"system": "ae"}}},
        {"per_system": {"vae": {"train": {"epoch": 1}}}},
        [],
        "vae",
    ],
)
def test_what_the_reader_does_not_know_is_refused(document):
    assert not accepts(document)


@pytest.mark.parametrize("document", [{}, {"train": None}, {"per_system": None}])
def test_what_may_be_empty(document):
    assert accepts(document)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_files_are_valid(path):
    # The reader's numbers are those of YAML 1.2, as an editor's are: 8e-4 is one.
    VALIDATOR.validate(yaml.load(path.read_text(), layers._Loader))


def test_every_key_is_explained_and_has_its_default():
    whole = schema()["properties"]
    assert set(whole) == {*OPTIONS, *SECTIONS, "per_system"}
    for key, option in OPTIONS.items():
        assert len(whole[key]["description"]) > 10
        if not key.startswith("slots."):
            assert whole[key]["default"] == option.default
    assert set(whole["per_system"]["properties"]) == set(SYSTEMS)


def test_the_command_prints_it():
    command = [sys.executable, "-X", "importtime", "-m", "mindspore_cvae", "config", "--schema"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == schema()
    assert " mindspore\n" not in done.stderr
