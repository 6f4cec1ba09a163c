"""Non-uniform Fourier transforms of images, by libraries: sigpy, which is always there, and finufft."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import DipmedError, ShapeError

BACKENDS = ("finufft", "sigpy")
"""In order of preference: finufft is several times faster, and more accurate."""

_MAX_PLANS = 4


class NonUniformFourier(LinearOperator):
    """Centred Fourier transform of images at any positions of k-space.

    ``y(s) = Σ_r x(r) exp(-2πi k(s)·(r - ⌊n/2⌋)/n) / sqrt(n)``: on the Cartesian positions it is `FourierTransform`.

    Parameters
    ----------
    shape
        Of the images, ``(coil, x, y[, z])``.
    trajectory
        Positions in cycles per field of view, real ``(sample, dimension)``, the first dimension along x. Kept as the
        buffer ``trajectory``.
    backend
        ``"finufft"`` or ``"sigpy"``; by default the first that is installed.

    Raises
    ------
    ShapeError
        When the positions do not fit the image.
    DipmedError
        When positions are not finite or outside the grid, or the backend is not installed.

    Notes
    -----
    J. A. Fessler, B. P. Sutton, 2003, doi:10.1109/TSP.2002.807005; A. H. Barnett et al., 2019, doi:10.1137/18M120885X.
    The libraries run on the CPU; tensors on another device are copied there and back.
    """

    traceable = False
    trajectory: Tensor

    def __init__(self, shape: tuple[int, ...], trajectory: Tensor, backend: str | None = None) -> None:
        matrix = tuple(shape[1:])
        check_trajectory(trajectory, matrix)
        super().__init__(Space(tuple(shape)), Space((shape[0], len(trajectory))))
        self.backend = choose_backend(backend)
        self.matrix = matrix
        self.register_buffer("trajectory", trajectory.detach())
        self._plans: OrderedDict[tuple[int, int, str], Any] = OrderedDict()

    def _forward(self, x: Tensor) -> Tensor:
        return self._transform(x, self.matrix, 2)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._transform(y, (len(self.trajectory),), 1)

    def _transform(self, x: Tensor, source: tuple[int, ...], kind: int) -> Tensor:
        """Transform the trailing axes ``source`` of ``x`` for all axes in front at once; ``kind`` 2 is forward."""
        target = (len(self.trajectory),) if kind == 2 else self.matrix
        front = x.shape[: x.ndim - len(source)]
        arrays = x.detach().cpu().resolve_conj().resolve_neg().contiguous().numpy().reshape(-1, *source)
        run = self._run_sigpy if self.backend == "sigpy" else self._run_finufft
        result = np.ascontiguousarray(run(arrays, kind))
        return torch.from_numpy(result).reshape(front + target).to(x.device, x.dtype)

    def _run_finufft(self, arrays: NDArray[Any], kind: int) -> NDArray[Any]:
        plan = self._plan(kind, len(arrays), arrays.dtype)
        result: NDArray[Any] = plan.execute(arrays if len(arrays) > 1 else arrays[0])
        result = result.reshape(len(arrays), *((-1,) if kind == 2 else self.matrix))
        return result / np.sqrt(np.prod(self.matrix)).astype(result.real.dtype)

    def _run_sigpy(self, arrays: NDArray[Any], kind: int) -> NDArray[Any]:
        import sigpy

        positions = self.trajectory.cpu().numpy().astype(arrays.real.dtype)
        # twice the grid and six points of it: errors near 1e-5, where sigpy's defaults leave 1e-3
        accuracy: dict[str, Any] = {"oversamp": 2.0, "width": 6}
        if kind == 2:
            return np.asarray(sigpy.nufft(arrays, positions, **accuracy))
        return np.asarray(sigpy.nufft_adjoint(arrays, positions, (len(arrays), *self.matrix), **accuracy))

    def _plan(self, kind: int, n_transforms: int, dtype: np.dtype[Any]) -> Any:
        """Return the plan of these transforms, the same one in each iteration of a fit."""
        import finufft

        key = (kind, n_transforms, dtype.name)
        if key not in self._plans:
            single = dtype == np.complex64
            accuracy = 1e-6 if single else 1e-13
            sign = -1 if kind == 2 else 1
            plan = finufft.Plan(kind, self.matrix, n_transforms, eps=accuracy, isign=sign, dtype=dtype.name)
            turns = 2 * np.pi * self.trajectory.cpu().numpy().astype(np.float64) / np.array(self.matrix)
            real = np.float32 if single else np.float64
            plan.setpts(*(np.ascontiguousarray(along, dtype=real) for along in turns.T))
            self._plans[key] = plan
            if len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._plans.clear()  # they hold the positions that were there before

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": OrderedDict()}  # plans live in the library's memory

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.backend}"


def check_trajectory(trajectory: Tensor, matrix: tuple[int, ...]) -> None:
    """Raise unless ``trajectory`` holds positions ``(sample, dimension)`` on the k-space grid of ``matrix``."""
    expected = f"(sample, {len(matrix)})"
    fits = trajectory.ndim == 2 and trajectory.shape[1] == len(matrix) and len(trajectory) > 0
    if not fits or trajectory.is_complex():
        raise ShapeError(f"a trajectory must be real {expected}, got {trajectory.dtype} {tuple(trajectory.shape)}")
    if not bool(torch.isfinite(trajectory).all()):
        raise DipmedError("the trajectory holds positions that are not finite")
    # half a cycle more than the grid, because spokes of an even number of samples end half a step beyond it
    reach = trajectory.abs().amax(dim=0).tolist()
    if any(r > n / 2 + 0.5 for r, n in zip(reach, matrix, strict=True)):
        raise DipmedError(
            f"the trajectory must lie within half the matrix {matrix}, in cycles per field of view, "
            f"but reaches {tuple(round(r, 2) for r in reach)}"
        )


def choose_backend(name: str | None = None) -> str:
    """Return the backend of this name, or the first that is installed.

    Raises
    ------
    DipmedError
        When there is no such backend, or it is not installed.
    """
    if name is None:
        return next(backend for backend in BACKENDS if importlib.util.find_spec(backend) is not None)
    if name not in BACKENDS:
        raise DipmedError(f"unknown NUFFT backend {name!r}; choose one of {', '.join(BACKENDS)}")
    if importlib.util.find_spec(name) is None:
        raise DipmedError(f"the NUFFT backend {name} is not installed; pip install 'dipmed[nufft]'")
    return name
