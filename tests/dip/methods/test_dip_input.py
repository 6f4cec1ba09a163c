import math

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.inputs import first_image
from dipmed.dip.methods.dip_input import ImageInput
from dipmed.dip.problem import make_problem
from dipmed.scan import DipmedError
from operators import ConeBeam, Grid, VolumeProjector, angles_over, feldkamp, filtered_back_projection

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8), held_out=0.05)


def problem_of(y, A, held_out=None):
    generator = torch.Generator().manual_seed(0)
    return make_problem(y, A, kspace_exponent=0.0, held_out=held_out, noise_variance=None, generator=generator)


def test_the_input_is_the_zero_filled_image_and_stays(small_scan):
    y, A, _, _ = small_scan
    seen = []

    class Watched(ImageInput):
        def network_input(self, fit):
            seen.append(super().network_input(fit).clone())
            return seen[-1]

    result = DeepImagePrior(ImageInput.configure(TINY, "mri").replace(iterations=20, stop="budget"), method=Watched())(
        y, A
    )
    image = A.adjoint(y)[None] * result.scale
    torch.testing.assert_close(seen[0], torch.cat([image.real, image.imag], 1))
    assert torch.equal(seen[0], seen[-1])


def test_least_squares_of_complex_data_are_solved(small_scan):
    y, A, truth, _ = small_scan
    problem = problem_of(y, A)
    image = first_image("cg", problem, TINY, torch.Generator())
    normal = A.N(image) + 0.01 * image - problem.adjoint_data
    assert normal.norm() < 0.01 * problem.adjoint_data.norm()
    assert (image / problem.scale - truth).norm() < 0.9 * (A.adjoint(y) - truth).norm()


def test_the_back_projection_is_that_of_the_fitted_views(small_slice):
    y, A, _ = small_slice
    problem = problem_of(y, A, held_out=0.2)
    seen = (~problem.held_out_mask.flatten()).nonzero().flatten().tolist()
    assert len(seen) < len(A.beam.angles)
    expected = filtered_back_projection(y[:, seen] * problem.scale, A.beam.with_views(seen), A.grid, "hann")
    torch.testing.assert_close(first_image("fbp", problem, TINY, torch.Generator()), expected)


def test_the_back_projection_of_a_volume():
    A = VolumeProjector(
        Grid((12, 12, 10), (1.0, 1.0, 1.0)), ConeBeam(angles_over(8, 2 * math.pi), 14, 16, 2, 2, 80, 160)
    )
    y = A(torch.ones(A.domain.shape))
    problem = problem_of(y, A)
    expected = problem.scale * feldkamp(y, A.beam, A.grid, "hann")
    torch.testing.assert_close(first_image("fbp", problem, TINY, torch.Generator()), expected, rtol=1e-4, atol=1e-4)
    config = ImageInput.configure(TINY, "ct").replace(iterations=10, stop="budget")
    assert DeepImagePrior(config, method=ImageInput())(y, A).image.shape == A.domain.shape


def test_without_line_integrals_there_is_advice(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="inputs=cg"):
        first_image("fbp", problem_of(y, A), TINY, torch.Generator())
