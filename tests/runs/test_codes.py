"""Codes that are kept: given back only where they are what would be computed."""

import numpy as np
import pytest
import safetensors.numpy

from mindspore_cvae.runs.codes import keep_codes, read_codes
from mindspore_cvae.runs.folder import CODES

CODE = np.arange(12, dtype=np.float32).reshape(4, 3)
DECIDED_BY = {"weights": "a", "settings": {"eval.samples": 16}}


def test_what_was_kept_comes_back(tmp_path):
    assert read_codes(tmp_path, DECIDED_BY, CODE.shape) is None
    keep_codes(tmp_path, DECIDED_BY, CODE)
    assert np.array_equal(read_codes(tmp_path, DECIDED_BY, CODE.shape), CODE)
    assert [path.name for path in tmp_path.iterdir()] == [CODES]
    keep_codes(tmp_path, {**DECIDED_BY, "weights": "b"}, CODE[:, ::-1])
    assert read_codes(tmp_path, DECIDED_BY, CODE.shape) is None
    there = read_codes(tmp_path, {**DECIDED_BY, "weights": "b"}, CODE.shape)
    assert np.array_equal(there, CODE[:, ::-1])


@pytest.mark.parametrize(
    ("decided_by", "shape"),
    [
        ({**DECIDED_BY, "weights": "b"}, (4, 3)),
        ({"weights": "a", "settings": {"eval.samples": 17}}, (4, 3)),
        (DECIDED_BY, (3, 4)),
        (DECIDED_BY, (5, 3)),
    ],
)
def test_codes_of_something_else_are_none(tmp_path, decided_by, shape):
    keep_codes(tmp_path, DECIDED_BY, CODE)
    assert read_codes(tmp_path, decided_by, shape) is None


def test_one_flipped_bit_is_seen(tmp_path):
    keep_codes(tmp_path, DECIDED_BY, CODE)
    content = bytearray((tmp_path / CODES).read_bytes())
    for position in range(len(content)):
        spoilt = content.copy()
        spoilt[position] ^= 1
        (tmp_path / CODES).write_bytes(spoilt)
        found = read_codes(tmp_path, DECIDED_BY, CODE.shape)
        # The header's blanks and the order of its entries say nothing.
        assert found is None or np.array_equal(found, CODE)


@pytest.mark.parametrize(
    "tensors",
    [
        {"codes": CODE},
        {"seal": np.zeros(32, np.uint8)},
        {"codes": CODE, "seal": np.zeros(32, np.uint8)},
        {"codes": CODE.astype(np.float64), "seal": np.zeros(0, np.uint8)},
    ],
)
def test_files_of_others_are_none(tmp_path, tensors):
    (tmp_path / CODES).write_bytes(safetensors.numpy.save(tensors))
    assert read_codes(tmp_path, DECIDED_BY, CODE.shape) is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"\0" * (1 << 17)])
def test_files_that_are_none_of_the_kind_are_none(tmp_path, content):
    (tmp_path / CODES).write_bytes(content)
    assert read_codes(tmp_path, DECIDED_BY, CODE.shape) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    keep_codes(tmp_path / "nowhere", DECIDED_BY, CODE)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / CODES).mkdir()
    keep_codes(tmp_path, DECIDED_BY, CODE)
    assert read_codes(tmp_path, DECIDED_BY, CODE.shape) is None


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CODES).symlink_to(target)
    keep_codes(tmp_path / "run", DECIDED_BY, CODE)
    assert target.read_text() == "mine"
    assert np.array_equal(read_codes(tmp_path / "run", DECIDED_BY, CODE.shape), CODE)
