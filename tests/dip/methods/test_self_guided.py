import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.self_guided import SelfGuided
from dipmed.scan import DipmedError

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8))


def run(scan, method, modality="mri", iterations=10, **changes):
    config = SelfGuided.configure(TINY, modality).replace(iterations=iterations, stop="budget", **changes)
    return DeepImagePrior(config, method=method)(scan[0], scan[1])


def test_the_input_is_learned_by_an_optimizer_of_its_own(small_scan, watch):
    method = SelfGuided(input_rate=0.02)
    log = watch(method)
    run(small_scan, method)
    moved = (log.inputs[1] - log.inputs[0]).abs()
    # the first step of Adam is as long as its rate wherever there is a gradient
    assert float(moved.median()) == pytest.approx(0.02, rel=0.01)


def test_copies_differ_by_noise_up_to_half_the_peak(small_scan, watch):
    method = SelfGuided(copies=3)
    log = watch(method)
    run(small_scan, method)
    noise = log.seen[0] - log.inputs[0]
    assert noise.shape[0] == 3
    assert not torch.equal(noise[0], noise[1])
    peak = float(log.inputs[0].max())
    assert -1e-5 <= float(noise.min()) < 0.05 * peak
    assert 0.45 * peak < float(noise.max()) <= 0.5 * peak + 1e-5


def test_the_mean_of_the_copies_is_compared_with_data_and_input(small_scan, watch):
    method = SelfGuided(pull=3.0)
    log = watch(method)
    result = run(small_scan, method)
    y, A = small_scan[0] * result.scale, small_scan[1]
    assert log.outputs[0].shape[0] == 1
    image = torch.complex(log.outputs[0][:, :1], log.outputs[0][:, 1:])[0]
    expected = ((A(image) - y).norm() + 3 * (log.outputs[0] - log.inputs[0]).norm()) / y.norm()
    assert dict(result.curves["loss"])[1] == pytest.approx(float(expected), rel=1e-4)


def test_an_input_and_its_optimizer_survive_a_restart(small_scan):
    left = [1]

    class Spoiled(SelfGuided):
        def before_step(self, fit):
            if fit.iteration == 8 and left:
                left.pop()
                fit.input.grad.fill_(float("nan"))

    result = run(small_scan, Spoiled(), iterations=30)
    assert not left
    assert torch.isfinite(torch.view_as_real(result.image)).all()


def test_slices_and_volumes_are_fitted(small_slice, small_volume):
    for y, A, truth in (small_slice, small_volume):
        image = run((y, A), SelfGuided(), "ct", 80).image
        assert (image - truth).norm() < 0.6 * truth.norm()


def test_an_input_that_is_no_image_is_refused(small_scan):
    with pytest.raises(DipmedError, match="inputs=cg"):
        run(small_scan, SelfGuided(), inputs=("noise",))
    with pytest.raises(DipmedError, match="at least one copy"):
        SelfGuided(copies=0)
