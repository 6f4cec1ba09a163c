"""Every method, ended by its own rule, is better than the direct image of measured data.

Small, so that all methods fit in a few minutes: 30 views of a disc with holes at 64 x 64 pixels against filtered
back-projection, or the central 128 x 104 samples of a brain, a quarter of them kept, against the zero-filled image.
"""

from dataclasses import replace

import numpy as np
import pytest

from dipmed.calib.projections import keep_views
from dipmed.compare import compare, find_reference
from dipmed.dip.methods import FIT_METHODS
from dipmed.io import load, save_image
from dipmed.methods import find_method
from dipmed.scan import ImageVolume
from dipmed.settings import ReconSettings

BRAIN = (128, 104)
SMALL_NETWORK = ("network.channels=24,24,24", "network.skip_channels=8", "network.up_channels=16")

BUDGETS: dict[str, tuple[str, ...]] = {
    "dip": ("ct", "iterations=60", *SMALL_NETWORK),
    "dip-vanilla": ("ct", "iterations=150", *SMALL_NETWORK),
    "dip-input": ("ct", "iterations=60", *SMALL_NETWORK),
    "aseqdip": ("ct", "iterations=50", *SMALL_NETWORK),
    "tada": ("ct", "iterations=100", *SMALL_NETWORK),
    "self-guided": ("ct", "iterations=30", *SMALL_NETWORK),
    "reference-guided": ("mri", "iterations=100", *SMALL_NETWORK),
    "self-diffusion": ("ct", "iterations=150", "self-diffusion.stages=10", *SMALL_NETWORK),
    "dip-tv": ("ct", "iterations=150", *SMALL_NETWORK),
    "deep-red": ("ct", "iterations=150", "adam_rate=3e-3", *SMALL_NETWORK),
    "conv-decoder": ("ct", "iterations=200", "conv-decoder.channels=32", "conv-decoder.layers=6"),
    "frequency-regularised": (
        "ct",
        "iterations=200",
        "frequency-regularised.channels=32",
        "frequency-regularised.layers=5",
    ),
    "implicit": (
        "ct",
        "iterations=200",
        "adam_rate=1e-3",
        "implicit.channels=64",
        "implicit.layers=4",
        "implicit.frequencies=64",
    ),
    "deep-decoder": ("ct", "iterations=200", "deep-decoder.channels=64", "deep-decoder.layers=5"),
    "sgld": ("ct", "iterations=150", *SMALL_NETWORK),
    "double-overparameterisation": ("ct", "iterations=150", *SMALL_NETWORK),
    "optimal-eye-surgeon": (
        "ct",
        "iterations=150",
        "optimal-eye-surgeon.mask_steps=60",
        "optimal-eye-surgeon.channels=16,32,32",
    ),
    "deep-random-projector": ("ct", "iterations=80"),
    "edip": ("ct", "iterations=50"),
    "subspace": ("ct", "iterations=50"),
}
"""The scan, and settings that make a fit short; a method without a line here fails."""


@pytest.fixture(scope="module")
def brain(data_dir):
    scan = load(data_dir / "bart_brain8" / "full.cfl")
    middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(scan.matrix_shape, BRAIN, strict=True))
    scan = replace(scan, kspace=np.ascontiguousarray(scan.kspace[(..., *middle)]), mask=scan.mask[(..., *middle)])
    return scan, ReconSettings(undersample="random:R=4,acs=16,seed=0", device="cpu"), "full", "zero-filled"


@pytest.fixture(scope="module")
def disc(data_dir, tmp_path_factory):
    scan = keep_views(load(data_dir / "ct_htc_tb_fan" / "htc2022_tb_merged.mat"), 180)
    settings = ReconSettings(views=30, matrix=64, device="cpu")
    target, _ = find_reference(scan, settings, "full")
    file = tmp_path_factory.mktemp("disc") / "target.npz"  # found once for all methods
    save_image(ImageVolume(target[:, :, None], np.eye(4)), file)
    return scan, settings, str(file), "fbp"


@pytest.fixture(scope="module")
def other_contrast(brain, tmp_path_factory):
    """The same head, with dark and bright tissue closer to each other."""
    scan, settings, *_ = brain
    target, support = find_reference(scan, settings, "full")
    file = tmp_path_factory.mktemp("brain") / "other.npz"
    save_image(ImageVolume(np.sqrt(target * support)[:, :, None], np.eye(4)), file)
    return file


# those of a series of frames have a test of their own
@pytest.mark.parametrize("name", [name for name, method in FIT_METHODS.items() if not method.takes_series])
def test_a_fit_beats_the_direct_image(request, name):
    case, *sets = BUDGETS[name]
    scan, settings, reference, direct = request.getfixturevalue({"ct": "disc", "mri": "brain"}[case])
    if find_method(name).takes_weights:
        settings = replace(settings, weights=request.getfixturevalue("pretrained_for_ct"))
    if name == "reference-guided":
        settings = replace(settings, reference_image=request.getfixturevalue("other_contrast"))
    rows = compare(scan, [direct, name], replace(settings, sets=tuple(sets)), reference=reference).rows
    before, after = rows
    assert after["psnr"] > before["psnr"] + 0.3
    assert 0 < after["stop"]["iteration"] <= after["iterations"]
