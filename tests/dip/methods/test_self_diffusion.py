import math

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.self_diffusion import SelfDiffusion
from dipmed.scan import DipmedError

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8))


def test_levels_fall_as_those_of_a_diffusion_model():
    levels = [SelfDiffusion(stages=3, last_variance=0.0201).level(stage) for stage in range(3)]
    kept = [(1 - 1e-4), (1 - 1e-4) * (1 - 0.0101), (1 - 1e-4) * (1 - 0.0101) * (1 - 0.0201)]
    assert levels == pytest.approx([math.sqrt(1 - share) for share in reversed(kept)])


def test_each_stage_sees_the_last_image_with_less_noise(small_scan, watch):
    method = SelfDiffusion(stages=4, last_variance=0.3)
    log = watch(method)
    config = SelfDiffusion.configure(TINY, "mri").replace(iterations=12, stop="budget")
    DeepImagePrior(config, method=method)(small_scan[0], small_scan[1])
    for stage in range(4):
        shown = log.inputs[3 * stage : 3 * stage + 3]
        assert torch.equal(shown[0], shown[1])
        assert torch.equal(shown[0], shown[2])
        if stage:
            noise = shown[0] - log.outputs[3 * stage - 1]
            assert float(noise.std()) == pytest.approx(method.level(stage), rel=0.1)
    assert float(log.inputs[0].std()) == pytest.approx(math.hypot(1, method.level(0)), rel=0.1)


def test_the_image_becomes_better_than_the_zero_filled_one(small_scan):
    y, A, truth, _ = small_scan
    config = SelfDiffusion.configure(TINY, "mri").replace(iterations=300, adam_rate=3e-3, stop="budget")
    image = DeepImagePrior(config, method=SelfDiffusion(stages=10))(y, A).image
    assert (image - truth).norm() < 0.9 * (A.adjoint(y) - truth).norm()


def test_a_volume_is_fitted(small_volume):
    y, A, truth = small_volume
    config = SelfDiffusion.configure(TINY, "ct").replace(iterations=40, stop="budget")
    image = DeepImagePrior(config, method=SelfDiffusion(stages=6))(y, A).image
    assert (image - truth).norm() < 0.8 * truth.norm()


def test_impossible_options_are_refused():
    with pytest.raises(DipmedError, match="needs a stage"):
        SelfDiffusion(stages=0)
