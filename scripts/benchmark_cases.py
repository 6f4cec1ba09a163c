"""The scans of the benchmark of methods, small enough that every method can be fitted to each of them on two cores."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.compare import find_reference
from dipmed.io import load, save_image
from dipmed.jobs import Job, jobs
from dipmed.prepare import prepare
from dipmed.scan import ImageVolume, KSpaceScan, Scan
from dipmed.settings import ReconSettings
from dipmed.simulate import ProjectionSettings, read_volume, save_simulation, simulate

PHOTONS = 1e5
PIXELS = 128

WHOLE = ("subpixels=1", "tv_weight=0.001", "gain=0.5")
"""What `dip` was for slices of CT with whole pixels."""


@dataclass(frozen=True)
class Case:
    """A scan under ``DIPMED_DATA``, what is kept of it, and how.

    ``crop`` keeps the middle of k-space; ``slice`` of an image volume makes it a simulation of CT.
    """

    path: str
    settings: dict[str, Any]
    crop: tuple[int, int] | None = None
    slice: int | None = None


def _mri(path: str, spec: str, crop: tuple[int, int] | None = None, **settings: Any) -> Case:
    return Case(path, {"undersample": spec, **settings}, crop)


def _measured(path: str, views: int) -> Case:
    return Case(path, {"views": views, "matrix": PIXELS})


def _simulated(path: str, views: int, number: int) -> Case:
    return Case(path, {"views": views}, slice=number)


_BRAIN, _KNEE = "bart_brain8/full.cfl", "fastmri_vfa13/vfa13_fa11.h5"
_DISC, _TOOTH = "ct_htc_tb_fan/htc2022_tb_merged.mat", "ct_tooth_parallel/tooth.h5"
_CHEST, _HEAD = "nifti_ct_lung1/lung1_crop.nii.gz", "dicom_ct_plastichead"

CASES: dict[str, Case] = {
    "brain8-R4": _mri(_BRAIN, "random:R=4,acs=16,seed=0", (128, 104)),
    "brain8-R6": _mri(_BRAIN, "random:R=6,acs=12,seed=0", (128, 104)),
    "vfa13-R4": _mri(_KNEE, "random:R=4,acs=16,seed=0", (128, 128)),
    "vfa13-R6": _mri(_KNEE, "random:R=6,acs=12,seed=0", (128, 128)),
    "radial5": Case(
        "dyn_vfa_radial5/vfa_radial5.h5", {"undersample": "equispaced:R=10,acs=0,seed=0", "join_frames": True}
    ),
    "htc-18": _measured(_DISC, 18),
    "htc-30": _measured(_DISC, 30),
    "htc-60": _measured(_DISC, 60),
    "lung1-18": _simulated(_CHEST, 18, 7),
    "lung1-30": _simulated(_CHEST, 30, 7),
    "lung1-60": _simulated(_CHEST, 60, 7),
    "tooth-31": _measured(_TOOTH, 31),
    "head-30": _simulated(_HEAD, 30, 8),
    "head-60": _simulated(_HEAD, 60, 8),
}


@dataclass(frozen=True)
class Prepared:
    """A scan with the settings that leave a part of its data, and the file of the image to score against."""

    scan: Scan
    settings: ReconSettings
    reference: str

    def target(self) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """The image to score against, and where it counts."""
        return find_reference(self.scan, self.settings, self.reference)

    def job(self) -> Job:
        """The data of the one image, with its operator."""
        return next(jobs(prepare(self.scan, self.settings), self.settings, torch.device("cpu")))


def prepare_case(name: str, folder: Path, subpixels: int = 1, photons: float = PHOTONS) -> Prepared:
    """Open a case; what has to be made of it lies in ``folder`` and is made once.

    ``subpixels`` are the parts of the pixels of a reference that is made from all views, ``photons`` those of each ray
    of a simulation.
    """
    case = CASES[name]
    if photons != PHOTONS:
        folder = folder / f"{photons:g}-photons"
        folder.mkdir(exist_ok=True)
    scan, truth = _open(case, name, folder, photons)
    settings = ReconSettings(**case.settings, slices=(0, 1), device="cpu")
    if isinstance(scan, KSpaceScan):
        if case.crop is not None:
            scan = _crop(scan, case.crop)
        if scan.ndim == 2 and scan.n_slices > 1:
            middle = scan.n_slices // 2
            settings = replace(settings, slices=(middle, middle + 1))
        return Prepared(scan, settings, "full")
    file = folder / (f"{name}.npz" if subpixels == 1 else f"{name}-{subpixels}.npz")
    if not file.exists():
        target, _ = find_reference(scan, settings, truth, subpixels=subpixels)
        save_image(ImageVolume(target[:, :, None], scan.affine), file)
    return Prepared(scan, settings, str(file))


def _open(case: Case, name: str, folder: Path, photons: float) -> tuple[Scan, str]:
    path = Path(os.environ["DIPMED_DATA"]) / case.path
    if case.slice is None:
        return load(path), "full"
    scan = folder / f"{name}.h5"
    truth = folder / f"{name}.reference.nii.gz"
    if not truth.exists():
        volume = read_volume(path, "ct")
        reduce = max(2, volume.data.shape[0] // PIXELS)
        settings = ProjectionSettings(case.settings["views"], "fan", photons=photons, reduce=reduce)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            save_simulation(simulate(volume, settings, (case.slice, case.slice + 1)), Path(made) / scan.name)
            (Path(made) / scan.name).replace(scan)
            (Path(made) / truth.name).replace(truth)
    return load(scan), str(truth)


def _crop(scan: KSpaceScan, shape: tuple[int, int]) -> KSpaceScan:
    """Keep the middle of k-space: the same field of view in fewer pixels."""
    middle = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(scan.matrix_shape, shape, strict=True))
    mask = None if scan.mask is None else scan.mask[(..., *middle)]
    return replace(scan, kspace=np.ascontiguousarray(scan.kspace[(..., *middle)]), mask=mask)
