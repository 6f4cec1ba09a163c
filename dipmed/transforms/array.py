"""Array transforms: one tensor in, one tensor out. `dipmed.transforms.tensors` says what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import TraceableTransform
from monai.transforms.transform import Randomizable, Transform
from monai.utils.misc import ImageMetaKey
from torch import Tensor

from dipmed.calib.coils import CoilMaps, compress_coils
from dipmed.calib.noise import prewhiten
from dipmed.calib.projections import keep_views
from dipmed.calib.readout import remove_oversampling
from dipmed.io import load, save_image
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_writer import check_details
from dipmed.jobs import jobs
from dipmed.outputs import check_outputs, find_study
from dipmed.prepare import prepare
from dipmed.scan import DipmedError, KSpaceScan, Scan
from dipmed.settings import ReconSettings
from dipmed.simulate import KSpaceSettings, ProjectionSettings, simulate
from dipmed.transforms.tensors import (
    kspace_of,
    maps_to_tensor,
    origin_of,
    projections_of,
    scan_from_tensor,
    scan_to_tensor,
    sequence_from,
    traced,
    volume_from_tensor,
    volume_to_tensor,
)
from operators import MRIOperator

_MOST_SEEDS = 2**31


class LoadScan(Transform):
    """Read a file of k-space or projections, whatever of `dipmed.load`'s formats it has."""

    def __call__(self, path: str | PathLike[str]) -> MetaTensor:
        """Return the scan as a tensor.

        Raises
        ------
        FormatError
            When the file is none of them, or damaged.
        """
        return scan_to_tensor(load(Path(path)), {str(ImageMetaKey.FILENAME_OR_OBJ): str(path)})


class ScanTransform(TraceableTransform):
    """What turns a scan into a scan."""

    def told(self) -> dict[str, str | float]:
        """Say what was done, for the trace."""
        return {}

    def change(self, scan: Scan) -> Scan:
        """Return the scan as it is handed on."""
        raise NotImplementedError

    def __call__(self, data: Tensor) -> MetaTensor:
        """Change a scan.

        Raises
        ------
        DipmedError
            When the tensor is none of a scan, or the change does not suit it.
        """
        made = scan_to_tensor(self.change(scan_from_tensor(data)), origin_of(data))
        return traced(made, data, self, **self.told())


class Prewhiten(ScanTransform):
    """Make the noise of the coils independent and of equal strength, where its covariance was measured."""

    def change(self, scan: Scan) -> Scan:
        return prewhiten(kspace_of(scan, self))


class RemoveOversampling(ScanTransform):
    """Cut k-space to the field of view along the readout."""

    def change(self, scan: Scan) -> Scan:
        return remove_oversampling(kspace_of(scan, self))


class CompressCoils(ScanTransform):
    """Combine the coils to ``n_coils`` virtual ones, after whitening."""

    def __init__(self, n_coils: int) -> None:
        self.n_coils = n_coils

    def told(self) -> dict[str, str | float]:
        return {"n_coils": self.n_coils}

    def change(self, scan: Scan) -> Scan:
        return compress_coils(prewhiten(kspace_of(scan, self)), self.n_coils)


class UndersampleKSpace(ScanTransform):
    """Keep a part of k-space by a rule such as ``"random:R=4,acs=16,seed=0"``."""

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def told(self) -> dict[str, str | float]:
        return {"rule": self.rule}

    def change(self, scan: Scan) -> Scan:
        return prepare(kspace_of(scan, self), ReconSettings(undersample=self.rule))


class RandUndersampleKSpace(UndersampleKSpace, Randomizable):
    """Keep another part of k-space at each call: ``rule`` comes without a seed, ``"random:R=4,acs=16"``."""

    def __init__(self, rule: str) -> None:
        if "seed=" in rule:
            raise DipmedError(f"the rule of a random transform draws its seed itself, got {rule!r}")
        super().__init__(rule)
        self.seed = 0

    def randomize(self, data: Any = None) -> None:
        self.seed = int(self.R.randint(_MOST_SEEDS))

    def told(self) -> dict[str, str | float]:
        # a rule without settings has no colon yet
        separator = "," if ":" in self.rule else ":"
        return {"rule": f"{self.rule}{separator}seed={self.seed}"}

    def change(self, scan: Scan) -> Scan:
        self.randomize()
        return UndersampleKSpace(str(self.told()["rule"])).change(scan)


class KeepViews(ScanTransform):
    """Keep ``n_views`` of the views of projections, evenly."""

    def __init__(self, n_views: int) -> None:
        self.n_views = n_views

    def told(self) -> dict[str, str | float]:
        return {"n_views": self.n_views}

    def change(self, scan: Scan) -> Scan:
        return keep_views(projections_of(scan, self), self.n_views)


class _Simulate(TraceableTransform, Randomizable):
    """Measure an image ``(1, x, y, z)``; noise and phase are drawn anew at each call unless there is a seed."""

    def __init__(self, settings: KSpaceSettings | ProjectionSettings, seed: int | None) -> None:
        self.settings = settings
        self.seed = seed
        self.drawn = 0

    def randomize(self, data: Any = None) -> None:
        self.drawn = int(self.R.randint(_MOST_SEEDS))

    def __call__(self, image: Tensor) -> tuple[MetaTensor, MetaTensor]:
        """Return the scan, and the image ``(1, x, y, z)`` that it should give, on the grid of the reconstruction.

        Raises
        ------
        DipmedError
            When the image cannot be measured so.
        """
        if self.seed is None:
            self.randomize()
        seed = self.drawn if self.seed is None else self.seed
        made = simulate(volume_from_tensor(image), replace(self.settings, seed=seed))
        kept = origin_of(image)
        both = scan_to_tensor(made.scan, kept), volume_to_tensor(made.reference, kept)
        scan, reference = (traced(one, image, self, seed=seed) for one in both)
        return scan, reference


class SimulateKSpace(_Simulate):
    """Measure a magnitude image with coils; the parameters are those of `dipmed.simulate.KSpaceSettings`."""

    def __init__(
        self,
        n_coils: int = 8,
        noise: float = 0.0,
        undersample: str | None = None,
        reduce: int = 2,
        seed: int | None = None,
    ) -> None:
        super().__init__(KSpaceSettings(n_coils, noise, undersample, reduce), seed)


class SimulateSinogram(_Simulate):
    """Project Hounsfield units; the parameters are those of `dipmed.simulate.ProjectionSettings`."""

    def __init__(
        self,
        n_views: int,
        geometry: str = "fan",
        photons: float | None = None,
        water_per_mm: float = 0.02,
        reduce: int = 2,
        seed: int | None = None,
    ) -> None:
        super().__init__(ProjectionSettings(n_views, geometry, photons, water_per_mm, reduce), seed)


class EstimateCoilMaps(TraceableTransform):
    """Estimate sensitivity maps from the centre of k-space, for each frame and slice.

    They are those of whitened k-space without oversampling, which is what every reconstruction here starts from.

    Parameters
    ----------
    method
        ``"espirit"`` or ``"jsense"``.
    n_sets
        Sets of ESPIRiT maps.
    """

    def __init__(self, method: str = "espirit", n_sets: int = 1) -> None:
        self.settings = ReconSettings(maps=method, map_sets=n_sets, device="cpu")

    def __call__(self, kspace: Tensor) -> MetaTensor:
        """Return maps ``(frame, slice, [set,] coil, x, y[, z])``."""
        scan = prepare(kspace_of(scan_from_tensor(kspace), self), self.settings)
        assert isinstance(scan, KSpaceScan)  # noqa: S101  # preparing keeps the kind
        found: list[list[CoilMaps]] = [[] for _ in range(scan.n_frames)]
        for job in jobs(scan, self.settings, torch.device("cpu")):
            assert isinstance(job.A, MRIOperator)  # noqa: S101  # the operator of k-space
            maps = job.A.maps.numpy()
            beyond = job.A_final.maps.numpy() if isinstance(job.A_final, MRIOperator) else maps
            support = (maps != 0).any(axis=-job.ndim - 1, keepdims=maps.ndim > job.ndim + 1)
            found[job.frame].append(CoilMaps(beyond, support))
        return traced(maps_to_tensor(found, scan.affine), kspace, self, method=self.settings.maps)


class SaveDicomSeries(Transform):
    """Write an image ``(frame, x, y, z)`` as a new DICOM series, in its place; see ``docs/dicom.md``.

    Parameters
    ----------
    output_dir
        Folder that exists. The series is named as the file of the scan, or ``image``.
    ending
        ``""`` for a folder with a file for each slice, ``".dcm"`` for one file, ``".sc.dcm"`` for a secondary capture.
    like, series
        A series of DICOM images, and which of a folder with several, whose patient and study the new one belongs to;
        None for an anonymous one.
    patient_id
        Identifier for a new patient, where none is followed.
    modality
        ``"mri"`` or ``"ct"``; None for what the image says, as those of `Reconstruct` do. CT is in Hounsfield units.
    force
        Replace an existing series.
    """

    def __init__(
        self,
        output_dir: str | PathLike[str],
        ending: str = "",
        *,
        like: str | PathLike[str] | None = None,
        series: str | None = None,
        patient_id: str | None = None,
        modality: str | None = None,
        force: bool = False,
    ) -> None:
        if ending not in ("", ".dcm", ".sc.dcm"):
            raise DipmedError(f"a series is a folder or a file that ends with .dcm or .sc.dcm, got {ending!r}")
        self.output_dir = Path(output_dir)
        self.ending = ending
        self.like = None if like is None else Path(like)
        self.series = series
        self.patient_id = patient_id
        self.modality = modality
        self.force = force

    def __call__(self, image: Tensor) -> MetaTensor:
        """Write the image, and return it as it came with the path as ``meta["saved_to"]``.

        Raises
        ------
        OutputError
            When it cannot be written.
        DipmedError
            When neither the image nor this transform says what modality it is of.
        """
        volume = volume_from_tensor(image)
        meta = (
            {name: image.meta[name] for name in image.meta if name != "affine"} if isinstance(image, MetaTensor) else {}
        )
        path = self.output_dir / f"{_stem(meta)}{self.ending}"
        check_outputs([path], with_std=False, force=self.force)
        study = find_study([path], like=self.like, series=self.series, patient_id=self.patient_id)
        assert study is not None  # noqa: S101  # of a DICOM output there is one
        modality = self.modality or meta.get("modality")
        if modality not in ("mri", "ct"):
            raise DipmedError(f"an image of modality {modality!r} is no DICOM image; give modality='mri' or 'ct'")
        details = DicomDetails(
            modality=modality,
            unit=meta.get("unit") or None,
            method=meta.get("method", "dipmed"),
            ndim=int(meta.get("ndim", 2)),
            sequence=sequence_from(meta),
            study=study,
        )
        check_details(path, details)
        save_image(volume, path, dicom=details, force=self.force)
        kept = image.clone() if isinstance(image, MetaTensor) else MetaTensor(image)
        kept.meta["saved_to"] = str(path)
        return kept


def _stem(meta: Mapping[str, Any]) -> str:
    """The name of the scan's file without its endings."""
    name = Path(str(meta.get(str(ImageMetaKey.FILENAME_OR_OBJ), "image"))).name
    return name.split(".")[0] or "image"
