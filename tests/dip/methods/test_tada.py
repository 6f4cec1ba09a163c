import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.tada import Tada
from dipmed.scan import DipmedError
from operators import FilteredProjector

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8))


def run(scan, method, modality="mri", iterations=10):
    config = Tada.configure(TINY, modality).replace(iterations=iterations, stop="budget")
    return DeepImagePrior(config, method=method)(scan[0], scan[1])


def test_the_input_drifts_towards_the_output(small_scan, watch):
    method = Tada(drift=0.2)
    log = watch(method)
    run(small_scan, method)
    assert float(log.inputs[0].std()) == pytest.approx(1, abs=0.1)
    for step in range(9):
        torch.testing.assert_close(log.inputs[step + 1], 0.8 * log.inputs[step] + 0.2 * log.outputs[step])


def test_the_noise_is_relative_to_the_peak_and_fresh(small_scan, watch):
    method = Tada(noise=0.25)
    log = watch(method)
    run(small_scan, method)
    noise = [seen - shown for seen, shown in zip(log.seen, log.inputs, strict=True)]
    assert float(noise[0].std() / log.inputs[0].abs().max()) == pytest.approx(0.25, rel=0.1)
    assert not torch.allclose(noise[0], noise[1], rtol=0.1, atol=0.1)


def test_the_loss_is_that_of_absolute_values(small_slice, watch):
    method = Tada(pull=0.5)
    log = watch(method)
    result = run(small_slice, method, "ct")
    y, A = small_slice[0] * result.scale, small_slice[1]
    factor = FilteredProjector(A, exponent=0).factor
    misfit = (A(log.outputs[0][0]) - y).abs().sum() / y.abs().sum()
    distance = (log.outputs[0] - log.inputs[0]).abs().sum() / (factor * y).abs().sum()
    assert dict(result.curves["loss"])[1] == pytest.approx(float(misfit + 0.5 * distance), rel=1e-3)


def test_a_volume_is_fitted(small_volume):
    truth = small_volume[2]
    result = run(small_volume, Tada(), "ct", 60)
    assert (result.image - truth).norm() < 0.6 * truth.norm()


def test_impossible_options_are_refused():
    with pytest.raises(DipmedError, match="drift between 0 and 1"):
        Tada(drift=2)
