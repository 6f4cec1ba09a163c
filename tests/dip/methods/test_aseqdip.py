import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.aseqdip import AutoencodingSequential
from dipmed.scan import DipmedError

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8))


def run(scan, method, modality="mri", **changes):
    config = AutoencodingSequential.configure(TINY, modality).replace(iterations=12, stop="budget", **changes)
    return DeepImagePrior(config, method=method)(scan[0], scan[1])


def test_the_input_stays_for_a_stage_and_then_becomes_the_output_with_the_measured_data(small_scan, watch):
    method = AutoencodingSequential(steps=4)
    log = watch(method)
    result = run(small_scan, method)
    zero_filled = small_scan[1].adjoint(small_scan[0]) * result.scale
    torch.testing.assert_close(log.inputs[0][0, 0], zero_filled[0].real)
    assert torch.equal(log.inputs[0], log.inputs[3])
    torch.testing.assert_close(log.inputs[4], log.towards_data[3])
    assert torch.equal(log.inputs[4], log.inputs[7])
    torch.testing.assert_close(log.inputs[8], log.towards_data[7])
    assert all(torch.equal(*pair) for pair in zip(log.inputs, log.seen, strict=True))


def test_the_input_of_projections_becomes_the_output(small_slice, watch):
    method = AutoencodingSequential(steps=4)
    log = watch(method)
    run(small_slice, method, "ct")
    torch.testing.assert_close(log.inputs[4], log.outputs[3])
    assert not torch.allclose(log.inputs[4], log.towards_data[3])


def test_the_loss_has_the_distance_from_the_input(small_scan, watch):
    method = AutoencodingSequential(pull=3.0)
    log = watch(method)
    y, A = small_scan[0], small_scan[1]
    result = run(small_scan, method)
    image = torch.complex(log.outputs[0][:, :1], log.outputs[0][:, 1:])[0]
    y = y * result.scale
    expected = ((A(image) - y).norm() + 3 * (log.outputs[0] - log.inputs[0]).norm()) / y.norm()
    assert dict(result.curves["loss"])[1] == pytest.approx(float(expected), rel=1e-4)


def test_an_input_that_is_no_image_is_refused(small_scan):
    with pytest.raises(DipmedError, match="inputs=cg"):
        run(small_scan, AutoencodingSequential(), inputs=("noise",))
    with pytest.raises(DipmedError, match="at least one step"):
        AutoencodingSequential(steps=0)
