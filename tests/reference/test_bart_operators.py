"""Our Fourier transform and MRI operator against BART's."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from operators import CartesianMRI, centred_fft, centred_ifft, make_mask

pytestmark = pytest.mark.reference


@pytest.fixture
def bart(tmp_path: Path) -> "Bart":
    program = shutil.which("bart")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("bart is not on the path")
    return Bart(program, tmp_path)


class Bart:
    """Runs a command of BART on arrays; its files hold complex64 in column-major order."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder

    def __call__(self, *command: str, **inputs: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """Replace the names of inputs in the command by files, and read the output, the last argument."""
        for name, array in inputs.items():
            self.write(name, array)
        subprocess.run([self.program, *command, "out"], cwd=self.folder, check=True, capture_output=True)
        shape = [int(n) for n in (self.folder / "out.hdr").read_text().splitlines()[1].split()]
        return np.fromfile(self.folder / "out.cfl", np.complex64).reshape(shape, order="F")

    def write(self, name: str, array: NDArray[np.complex64]) -> None:
        (self.folder / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
        array.astype(np.complex64).ravel(order="F").tofile(self.folder / f"{name}.cfl")


def relative(ours: torch.Tensor, theirs: NDArray[np.complex64]) -> float:
    theirs = theirs.reshape(ours.shape)
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("matrix", [(8, 6), (7, 9), (6, 5, 4)])
def test_the_fourier_transform_is_bart_s(bart: Bart, matrix: tuple[int, ...], generator: torch.Generator) -> None:
    x = torch.randn(matrix, dtype=torch.complex64, generator=generator)
    axes = str(2 ** len(matrix) - 1)
    assert relative(centred_fft(x, len(matrix)), bart("fft", "-u", axes, "x", x=x.numpy())) < 1e-5
    assert relative(centred_ifft(x, len(matrix)), bart("fft", "-u", "-i", axes, "x", x=x.numpy())) < 1e-5


@pytest.mark.parametrize("matrix", [(8, 6), (7, 9)])
def test_the_mri_operator_is_bart_s(bart: Bart, matrix: tuple[int, int], generator: torch.Generator) -> None:
    maps = torch.randn((3, *matrix), dtype=torch.complex64, generator=generator)
    A = CartesianMRI(maps, make_mask("random:R=2,acs=2", matrix))
    x, y = A.domain.randn(generator=generator), A.range.randn(generator=generator)
    # BART keeps coils on axis 3
    bart.write("maps", maps.permute(1, 2, 0)[:, :, None].numpy())
    bart.write("mask", A.mask.numpy().astype(np.complex64))
    images = bart("fmac", "x", "maps", x=x[0].numpy())
    kspace = bart("fmac", "k", "mask", k=bart("fft", "-u", "3", "images", images=images))
    assert relative(A(x).permute(1, 2, 0), kspace.squeeze(2)) < 1e-5
    sampled = bart("fmac", "k", "mask", k=y.permute(1, 2, 0)[:, :, None].numpy())
    coil_images = bart("fft", "-u", "-i", "3", "k", k=sampled)
    combined = bart("fmac", "-C", "-s", "8", "images", "maps", images=coil_images)
    assert relative(A.adjoint(y)[0], combined) < 1e-5
