"""The centre of k-space on a Cartesian grid, from samples along a trajectory, so that coils can be calibrated on it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.calib.centre import calibration_width, sampled_cells
from dipmed.scan import Complex64, DipmedError
from operators import NonCartesianMRI, centred_fft, density_compensation

_MARGIN = 4
"""Cells around the centre that are solved for and dropped, because samples beyond them are not explained."""

_ITERATIONS = 30
_PENALTY = 1e-3


def central_kspace(
    samples: Complex64, trajectory: NDArray[np.floating], matrix: tuple[int, ...], limit: int
) -> tuple[Complex64, NDArray[np.bool_]]:
    """Solve for the Cartesian centre of k-space of each coil, in least squares.

    Parameters
    ----------
    samples
        ``(coil, sample)``.
    trajectory
        Positions in cycles per field of view, ``(sample, dimension)``.
    matrix
        Of the image, ``(x, y[, z])``.
    limit
        Largest width of the centre per axis.

    Returns
    -------
    kspace, mask
        ``(coil, x, y[, z])``, zero outside the centre, and ``(x, y[, z])``, true in it.

    Raises
    ------
    DipmedError
        When the trajectory leaves holes in the centre.
    """
    import sigpy.alg

    widths = tuple(min(limit, w) for w in calibration_width(sampled_cells(trajectory, matrix)))
    if min(widths) < 1:
        raise DipmedError("the trajectory does not cover the centre of k-space; give sensitivity maps with --maps FILE")
    small = tuple(min(w + 2 * _MARGIN, n) for w, n in zip(widths, matrix, strict=True))
    near = (np.abs(trajectory) <= np.array(small) / 2).all(axis=1)
    positions = torch.from_numpy(np.ascontiguousarray(trajectory[near]))
    one = torch.ones((1, *small), dtype=torch.complex64)
    A = NonCartesianMRI(one, positions, density_compensation(positions, small))
    y = A.weigh(torch.from_numpy(np.ascontiguousarray(samples[:, near])))[:, None]
    target = A.adjoint(y).numpy()
    images = np.zeros_like(target)
    normal = A.N
    solver = sigpy.alg.ConjugateGradient(
        lambda x: normal(torch.from_numpy(x)).numpy() + _PENALTY * x, target, images, max_iter=_ITERATIONS
    )
    while target.any() and not solver.done():  # of nothing the solution is nothing, and the solver would divide by it
        solver.update()
    central = centred_fft(torch.from_numpy(images[:, 0]), len(matrix)).numpy()
    return _place(central, widths, matrix)


def _place(central: Complex64, widths: tuple[int, ...], matrix: tuple[int, ...]) -> tuple[Complex64, NDArray[np.bool_]]:
    """Crop the centre to ``widths`` and put it in the middle of ``matrix``."""
    source = tuple(_middle(n, w) for n, w in zip(central.shape[1:], widths, strict=True))
    target = tuple(_middle(n, w) for n, w in zip(matrix, widths, strict=True))
    kspace = np.zeros((len(central), *matrix), dtype=np.complex64)
    kspace[(slice(None), *target)] = central[(slice(None), *source)]
    mask = np.zeros(matrix, dtype=bool)
    mask[target] = True
    return kspace, mask


def _middle(n: int, width: int) -> slice:
    start = n // 2 - width // 2
    return slice(start, start + width)
