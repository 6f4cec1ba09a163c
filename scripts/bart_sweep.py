"""Best-of-sweep scores of the classical methods, BART's and those of `dipmed.baselines`, with the truth in hand.

A penalty weight chosen by looking at the reference is an advantage that no user has; a benchmark grants it to every
method that it is compared against. BART is described at https://mrirecon.github.io/bart (doi:10.5281/zenodo.592960).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.baselines import CGSense, L1Wavelet, TotalVariation, ZeroFilled
from dipmed.calib.coils import estimate_maps
from dipmed.evaluate import Scores, score
from dipmed.io.cfl import read_cfl, write_cfl
from dipmed.scan import Complex64
from operators import CartesianMRI, MRIOperator, NonCartesianMRI

# scaled data in both programs, but not the same scale: BART divides by a percentile of a low-resolution image
WEIGHTS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02)
L2_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08)

# {axes} is the bit mask of the image axes. TV runs in ADMM, whose default penalty parameter is far from converged
# after 100 iterations.
# Along a trajectory the wavelet step has to be scaled by the largest eigenvalue (-e), or the iteration diverges.
TRAJECTORY_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
BART_TRAJECTORY_METHODS = {
    "bart-cg-sense": ("-l2 -r {weight} -i 30", TRAJECTORY_WEIGHTS),
    "bart-l1-wavelet": ("-e -R W:{axes}:0:{weight} -i 100", TRAJECTORY_WEIGHTS),
    "bart-tv": ("-R T:{axes}:0:{weight} -i 100", TRAJECTORY_WEIGHTS),
}
BART_METHODS = {
    "bart-cg-sense": ("-l2 -r {weight} -i 100", L2_WEIGHTS),
    "bart-l1-wavelet": ("-R W:{axes}:0:{weight} -i 100", WEIGHTS),
    "bart-tv": ("-R T:{axes}:0:{weight} -i 100 -u 0.03", WEIGHTS),
}
OUR_METHODS: dict[str, tuple[Callable[..., Any], Sequence[float]]] = {
    "cg-sense": (CGSense, L2_WEIGHTS),
    "l1-wavelet": (L1Wavelet, WEIGHTS),
    "tv": (TotalVariation, WEIGHTS),
}


@dataclass(frozen=True)
class Trajectory:
    """Positions ``(sample, dimension)`` in cycles per field of view, and what BART multiplies samples by, if any."""

    positions: NDArray[np.float32]
    root_weights: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Trial:
    """One run at one weight."""

    weight: float
    scores: Scores
    seconds: float


@dataclass(frozen=True)
class Row:
    """The best trial of one method by PSNR, and all of them; ``maps`` says whose sensitivity maps were used.

    Where it says so, the samples along a trajectory were weighted against their density as well.
    """

    method: str
    maps: str
    psnr: float
    ssim: float
    nrmse: float
    weight: float | None
    seconds: float
    maps_seconds: float
    trials: tuple[Trial, ...]


def has_bart() -> bool:
    """Whether the program ``bart`` is on the search path."""
    return shutil.which("bart") is not None


def sweep(
    kspace: Complex64,
    mask: NDArray[np.bool_],
    reference: NDArray[Any],
    support: NDArray[np.bool_] | None,
    *,
    with_bart: bool | None = None,
) -> list[Row]:
    """Run every classical method at every weight and keep the best by PSNR.

    Parameters
    ----------
    kspace
        ``(coil, x, y[, z])``; what lies outside the mask is not used.
    mask
        ``(x, y[, z])``.
    reference, support
        ``(x, y[, z])``, as for `dipmed.evaluate.score`.
    with_bart
        Run BART as well; by default when it is installed.

    Returns
    -------
    rows
        Ours with our maps; BART's with its own maps and with ours.
    """
    kspace = (kspace * mask).astype(np.complex64)
    start = time.perf_counter()
    maps = estimate_maps(kspace, mask).cropped
    maps_seconds = time.perf_counter() - start
    A = CartesianMRI(torch.from_numpy(maps), torch.from_numpy(mask.copy()))
    rows = sweep_ours(torch.from_numpy(kspace), A, maps_seconds, reference, support)
    if has_bart() if with_bart is None else with_bart:
        start = time.perf_counter()
        own_maps = bart_maps(kspace)
        own_seconds = time.perf_counter() - start
        rows += sweep_bart(kspace, own_maps, "bart", own_seconds, reference, support)
        rows += sweep_bart(kspace, maps, "dipmed", maps_seconds, reference, support)
    return rows


def sweep_trajectory(
    samples: Complex64,
    A: NonCartesianMRI,
    reference: NDArray[Any],
    support: NDArray[np.bool_] | None,
    *,
    with_bart: bool | None = None,
) -> list[Row]:
    """As `sweep`, for samples along a trajectory, ``(coil, sample)`` and not weighted, and the operator of them.

    BART runs with its own maps and with those of the operator, on the samples as they are and weighted as the operator
    weights them.
    """
    rows = sweep_ours(A.weigh(torch.from_numpy(samples)), A, 0.0, reference, support)
    if has_bart() if with_bart is None else with_bart:
        positions = A.trajectory.numpy()
        matrix = A.domain.shape[1:]
        start = time.perf_counter()
        own_maps = bart_trajectory_maps(samples, positions, matrix)
        own_seconds = time.perf_counter() - start
        root = A.weights.sqrt().numpy()
        for maps, whose, seconds in ((own_maps, "bart", own_seconds), (A.maps.numpy(), "dipmed", 0.0)):
            for weights, name in ((None, whose), (root, f"{whose}, weighted")):
                rows += sweep_bart(samples, maps, name, seconds, reference, support, Trajectory(positions, weights))
    return rows


def sweep_ours(
    y: torch.Tensor,
    A: MRIOperator,
    maps_seconds: float,
    reference: NDArray[Any],
    support: NDArray[np.bool_] | None,
) -> list[Row]:
    """Sweep `dipmed.baselines` with given data and operator."""

    def trial(reconstructor: Any, weight: float) -> Trial:
        result = reconstructor(y, A)
        return Trial(weight, score(result.image, reference, support), result.seconds)

    rows = [_best("zero-filled", "dipmed", [trial(ZeroFilled(), 0.0)], maps_seconds)]
    for method, (make, weights) in OUR_METHODS.items():
        trials = [trial(make(lam=weight), weight) for weight in weights]
        rows.append(_best(method, "dipmed", trials, maps_seconds))
    return rows


def sweep_bart(
    kspace: Complex64,
    maps: Complex64,
    whose: str,
    maps_seconds: float,
    reference: NDArray[Any],
    support: NDArray[np.bool_] | None,
    trajectory: Trajectory | None = None,
) -> list[Row]:
    """Sweep BART's ``pics`` with given maps."""
    rows = []
    for method, (options, weights) in (BART_METHODS if trajectory is None else BART_TRAJECTORY_METHODS).items():
        trials = []
        for weight in weights:
            chosen = options.format(weight=weight, axes=2 ** (maps.ndim - 1) - 1).split()
            start = time.perf_counter()
            image = bart_pics(kspace, maps, chosen, trajectory)
            seconds = time.perf_counter() - start
            trials.append(Trial(weight, score(image, reference, support), seconds))
        rows.append(_best(method, whose, trials, maps_seconds))
    return rows


def bart_maps(kspace: Complex64) -> Complex64:
    """One set of ESPIRiT maps by ``bart ecalib`` with its defaults, ``(coil, x, y[, z])``."""
    return _from_bart(_run("ecalib", ["-m", "1"], _to_bart(kspace)), kspace.ndim)


def bart_trajectory_maps(samples: Complex64, positions: NDArray[Any], matrix: tuple[int, ...]) -> Complex64:
    """One set of ESPIRiT maps by ``bart ecalib`` on a gridded centre of k-space, ``(coil, x, y)``."""
    small = "24:24:1"
    low = _run("nufft", ["-i", "-l", "0.01", "-d", small], _trajectory_to_bart(positions), _samples_to_bart(samples))
    kspace = _run("fft", ["-u", "7"], low)
    wide = _run("resize", ["-c", "0", str(matrix[0]), "1", str(matrix[1])], kspace)
    return _from_bart(_run("ecalib", ["-m", "1"], wide), len(matrix) + 1)


def bart_pics(
    kspace: Complex64, maps: Complex64, options: Sequence[str], trajectory: Trajectory | None = None
) -> Complex64:
    """An image ``(x, y[, z])`` by ``bart pics``, in the units of the data."""
    if trajectory is None:
        image = _run("pics", ["-S", *options], _to_bart(kspace), _to_bart(maps))
        return image.reshape(maps.shape[1:])
    files = {"-t": _trajectory_to_bart(trajectory.positions)}
    if trajectory.root_weights is not None:
        files["-p"] = trajectory.root_weights.astype(np.complex64)[None, :, None]
    image = _run("pics", ["-S", *options], _samples_to_bart(kspace), _to_bart(maps), files=files)
    return image.reshape(maps.shape[1:])


def _run(
    command: str, options: Sequence[str], *inputs: Complex64, files: dict[str, Complex64] | None = None
) -> Complex64:
    """Run one of BART's tools; ``files`` are arrays that options name."""
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / f"input{i}") for i in range(len(inputs))]
        for name, array in zip(names, inputs, strict=True):
            write_cfl(Path(name), array)
        for option, array in (files or {}).items():
            name = str(Path(folder) / f"option{option}")
            write_cfl(Path(name), array)
            options = [*options, option, name]
        output = str(Path(folder) / "output")
        run = subprocess.run(["bart", command, *options, *names, output], capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"bart {command} {' '.join(options)} failed: {run.stderr.strip()[-500:]}")
        return read_cfl(Path(output))


def _trajectory_to_bart(positions: NDArray[Any]) -> Complex64:
    """Positions in cycles per field of view, as BART has them too, to its ``(3, sample, 1)``."""
    in_bart = np.zeros((3, len(positions), 1), dtype=np.complex64)
    in_bart[: positions.shape[1], :, 0] = positions.T
    return in_bart


def _samples_to_bart(samples: Complex64) -> Complex64:
    """``(coil, sample)`` to BART's ``(1, sample, 1, coil)``."""
    return samples.T[None, :, None, :]


def _to_bart(array: Complex64) -> Complex64:
    """``(coil, x, y[, z])`` to BART's ``(x, y, z, coil)``."""
    moved = np.moveaxis(array, 0, -1)
    return moved if array.ndim == 4 else moved[:, :, None]


def _from_bart(array: Complex64, ndim: int) -> Complex64:
    volume = array.reshape(array.shape[:4])
    return np.ascontiguousarray(np.moveaxis(volume if ndim == 4 else volume[:, :, 0], -1, 0))


def _best(method: str, maps: str, trials: list[Trial], maps_seconds: float) -> Row:
    best = max(trials, key=lambda trial: trial.scores.psnr)
    scores = best.scores
    weight = best.weight or None
    return Row(method, maps, scores.psnr, scores.ssim, scores.nrmse, weight, best.seconds, maps_seconds, tuple(trials))
