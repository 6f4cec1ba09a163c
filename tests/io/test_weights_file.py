import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from dipmed.config import NetworkConfig
from dipmed.io.weights_file import load_weights, save_weights
from dipmed.scan import FormatError, OutputError
from dipmed.weights import PretrainedWeights

WEIGHTS = {"out.weight": torch.arange(6.0).reshape(2, 3), "out.bias": torch.tensor([0.5, -0.5])}
DIRECTIONS = {"out.weight": torch.eye(6)[:4].reshape(4, 2, 3), "out.bias": torch.zeros(4, 2)}
PRETRAINED = PretrainedWeights(NetworkConfig((8, 16), 4, 8), "mri", 2, WEIGHTS, DIRECTIONS, 70, 3, "0.1.0")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(PRETRAINED, path)
    return path


def rewrite(path, *, header=None, **tensors):
    """Change the header or tensors of a file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        old = json.loads(opened.metadata()["dipmed"])
    save_file({**load_file(path), **tensors}, path, {"dipmed": json.dumps({**old, **(header or {})})})


def test_what_was_written_is_read(file):
    found = load_weights(file)
    assert found.network == PRETRAINED.network
    assert (found.modality, found.ndim, found.steps, found.seed, found.version) == ("mri", 2, 70, 3, "0.1.0")
    assert found.n_directions == 4
    for name in WEIGHTS:
        assert torch.equal(found.weights[name], WEIGHTS[name])
        assert torch.equal(found.directions[name].float(), DIRECTIONS[name])
    with pytest.raises(OutputError, match="exists already"):
        save_weights(PRETRAINED, file)


def test_every_truncated_file_is_refused(file):
    whole = file.read_bytes()
    for length in (0, 7, 8, 9, 60, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            load_weights(file)


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.save(WEIGHTS, path)
    with pytest.raises(FormatError, match=r"scripts/pretrain\.py makes them"):
        load_weights(path)


def test_a_header_that_claims_too_much_is_refused(file):
    header = b"{" + b" " * 2**21
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(FormatError, match="which no file of weights needs"):
        load_weights(file)


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(file):
    entry = {"weights.w": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    header = json.dumps(entry).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(FormatError, match="truncated or damaged"):
        load_weights(file)


def test_weights_of_others_are_refused(file):
    save_file(WEIGHTS, file)
    with pytest.raises(FormatError, match="something else"):
        load_weights(file)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weights.out.bias": torch.tensor([float("nan"), 0.0])}, "not finite"),
        ({"weights.out.bias": torch.zeros(2, dtype=torch.int64)}, "I64"),
        ({"stranger": torch.zeros(2)}, "should hold weights"),
        ({"weights.more": torch.zeros(2)}, "directions that do not fit"),
        ({"directions.out.bias": torch.zeros(3, 2).half()}, "directions that do not fit"),
        ({"directions.out.bias": torch.zeros(4, 3).half()}, "directions that do not fit"),
        ({"header": {"format": 2}}, "format 2"),
        ({"header": {"ndim": 4}}, "4 dimensions"),
        ({"header": {"modality": "pet"}}, "'pet'"),
        ({"header": {"network": {"channels": [64] * 13, "skip_channels": 4, "up_channels": 4}}}, "too large"),
        ({"header": {"network": {"channels": [10**9], "skip_channels": 4, "up_channels": 4}}}, "too large"),
        ({"header": {"network": {"channels": "64"}}}, "damaged"),
        ({"header": {"network": [64]}}, "damaged"),
    ],
)
def test_what_does_not_fit_is_refused(file, changes, match):
    rewrite(file, **changes)
    with pytest.raises(FormatError, match=match):
        load_weights(file)
