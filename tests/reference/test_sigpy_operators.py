"""Our Fourier transform and MRI operator against sigpy's."""

import numpy as np
import pytest
import sigpy
import sigpy.mri
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import CartesianMRI, centred_fft, centred_ifft, make_mask

matrices = st.one_of(st.tuples(*[st.integers(2, 16)] * 2), st.tuples(*[st.integers(2, 8)] * 3))


@given(matrix=matrices, seed=st.integers(0, 999))
def test_the_fourier_transform_is_sigpy_s(matrix: tuple[int, ...], seed: int) -> None:
    x = torch.randn((2, *matrix), dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    axes = tuple(range(-len(matrix), 0))
    np.testing.assert_allclose(centred_fft(x, len(matrix)).numpy(), sigpy.fft(x.numpy(), axes=axes), atol=1e-10)
    np.testing.assert_allclose(centred_ifft(x, len(matrix)).numpy(), sigpy.ifft(x.numpy(), axes=axes), atol=1e-10)


@pytest.mark.parametrize("spec", ["random:R=2,acs=4", "poisson:R=2.5,acs=4"])
@pytest.mark.parametrize("matrix", [(24, 20), (23, 21), (8, 12, 10), (7, 10, 11)])
def test_the_mri_operator_is_sigpy_s_sense(spec: str, matrix: tuple[int, ...], generator: torch.Generator) -> None:
    maps = torch.randn((4, *matrix), dtype=torch.complex64, generator=generator)
    mask = make_mask(spec, matrix)
    A = CartesianMRI(maps, mask)
    sense = sigpy.mri.linop.Sense(maps.numpy(), weights=mask.numpy().astype(np.float32))
    x, y = A.domain.randn(generator=generator), A.range.randn(generator=generator)
    for ours, theirs in [
        (A(x), sense(x[0].numpy())),
        (A.adjoint(y)[0], sense.H(y.numpy())),
        (A.N(x)[0], sense.N(x[0].numpy())),
    ]:
        error = np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs)
        assert error < 1e-5
