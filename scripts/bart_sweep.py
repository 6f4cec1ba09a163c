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
from operators import CartesianMRI

# scaled data in both programs, but not the same scale: BART divides by a percentile of a low-resolution image
WEIGHTS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02)
L2_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08)

# {axes} is the bit mask of the image axes. TV runs in ADMM, whose default penalty parameter is far from converged
# after 100 iterations.
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
class Trial:
    """One run at one weight."""

    weight: float
    scores: Scores
    seconds: float


@dataclass(frozen=True)
class Row:
    """The best trial of one method by PSNR, and all of them; ``maps`` says whose sensitivity maps were used."""

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
    rows = sweep_ours(kspace, mask, maps, maps_seconds, reference, support)
    if has_bart() if with_bart is None else with_bart:
        start = time.perf_counter()
        own_maps = bart_maps(kspace)
        own_seconds = time.perf_counter() - start
        rows += sweep_bart(kspace, own_maps, "bart", own_seconds, reference, support)
        rows += sweep_bart(kspace, maps, "dipmed", maps_seconds, reference, support)
    return rows


def sweep_ours(
    kspace: Complex64,
    mask: NDArray[np.bool_],
    maps: Complex64,
    maps_seconds: float,
    reference: NDArray[Any],
    support: NDArray[np.bool_] | None,
) -> list[Row]:
    """Sweep `dipmed.baselines` with given maps."""
    y, A = torch.from_numpy(kspace), CartesianMRI(torch.from_numpy(maps), torch.from_numpy(mask.copy()))

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
) -> list[Row]:
    """Sweep BART's ``pics`` with given maps."""
    rows = []
    for method, (options, weights) in BART_METHODS.items():
        trials = []
        for weight in weights:
            chosen = options.format(weight=weight, axes=2 ** (kspace.ndim - 1) - 1).split()
            start = time.perf_counter()
            image = bart_pics(kspace, maps, chosen)
            seconds = time.perf_counter() - start
            trials.append(Trial(weight, score(image, reference, support), seconds))
        rows.append(_best(method, whose, trials, maps_seconds))
    return rows


def bart_maps(kspace: Complex64) -> Complex64:
    """One set of ESPIRiT maps by ``bart ecalib`` with its defaults, ``(coil, x, y[, z])``."""
    return _from_bart(_run("ecalib", ["-m", "1"], _to_bart(kspace)), kspace.ndim)


def bart_pics(kspace: Complex64, maps: Complex64, options: Sequence[str]) -> Complex64:
    """An image ``(x, y[, z])`` by ``bart pics``, in the units of the data."""
    image = _run("pics", ["-S", *options], _to_bart(kspace), _to_bart(maps))
    return image.reshape(kspace.shape[1:])


def _run(command: str, options: Sequence[str], *inputs: Complex64) -> Complex64:
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder) / f"input{i}") for i in range(len(inputs))]
        for name, array in zip(names, inputs, strict=True):
            write_cfl(Path(name), array)
        output = str(Path(folder) / "output")
        run = subprocess.run(["bart", command, *options, *names, output], capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(f"bart {command} {' '.join(options)} failed: {run.stderr.strip()[-500:]}")
        return read_cfl(Path(output))


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
