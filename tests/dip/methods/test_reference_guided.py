import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.plain import Vanilla
from dipmed.dip.methods.reference_guided import ReferenceGuided
from dipmed.scan import DipmedError, ShapeError

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8))


def run(scan, method, modality="mri", iterations=5, seed=0):
    config = type(method).configure(TINY, modality).replace(iterations=iterations, stop="budget", seed=seed)
    return DeepImagePrior(config, method=method)(scan[0], scan[1])


def test_the_input_is_the_similar_image_as_bright_as_the_data_and_stays(small_scan, watch):
    guide = 700 * small_scan[2].abs().sqrt()
    method = ReferenceGuided(guide)
    log = watch(method)
    scale = run(small_scan, method).scale
    shown = log.inputs[0]
    zero_filled = scale * small_scan[1].adjoint(small_scan[0]).abs()
    factor = (zero_filled * guide).sum() / guide.square().sum()
    torch.testing.assert_close(shown[:, 0], factor * guide)
    assert not shown[:, 1].any()
    assert torch.equal(shown, log.seen[-1])


def test_the_unit_of_the_similar_image_does_not_matter(small_scan):
    one, other = (run(small_scan, ReferenceGuided(unit * small_scan[2])).image for unit in (1, 1000))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_similar_image_helps(small_scan):
    truth = small_scan[2]

    def mean_error(method):  # because seeds differ by a fifth
        images = [run(small_scan, method, iterations=400, seed=seed).image for seed in range(4)]
        return sum(float((image - truth).norm()) for image in images) / len(images)

    assert mean_error(ReferenceGuided(truth.abs().sqrt())) < 0.7 * mean_error(Vanilla())


def test_slices_and_volumes_of_ct(small_slice, small_volume):
    for y, A, truth in (small_slice, small_volume):
        image = run((y, A), ReferenceGuided(truth > 0), "ct", 30).image
        assert (image - truth).norm() < 0.7 * truth.norm()


def test_without_a_fitting_image_there_is_advice(small_scan):
    with pytest.raises(DipmedError, match="--reference-image"):
        run(small_scan, ReferenceGuided())
    with pytest.raises(ShapeError, match=r"\(1, 24, 20\)"):
        run(small_scan, ReferenceGuided(torch.ones(1, 20, 24)))
    with pytest.raises(DipmedError, match="another place"):
        run(small_scan, ReferenceGuided(torch.zeros(1, 24, 20)))
