"""Scans to images, by every method."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import TraceableTransform
from torch import Tensor

from dipmed.devices import resolve_device
from dipmed.jobs import jobs
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.scan import ImageVolume, KSpaceScan, Reconstruction, Scan
from dipmed.settings import ReconSettings
from dipmed.transforms.tensors import kspace_of, maps_from_tensor, origin_of, scan_from_tensor, traced, volume_to_tensor


class Reconstruct(TraceableTransform):
    """Reconstruct a scan by any method that ``dipmed methods`` lists.

    Parameters
    ----------
    method
        Name of the method; None for the one that the class stands for.
    keep_complex
        Give a complex image where the scan gives one, rather than its magnitude.
    settings
        Further fields of `dipmed.settings.ReconSettings`, such as ``preset``, ``device``, ``sets`` or ``hounsfield``;
        those of `dipmed.config.FitConfig`, such as ``iterations`` or ``stop``, replace the preset's.
    """

    default: ClassVar[str] = "dip"

    def __init__(self, method: str | None = None, *, keep_complex: bool = False, **settings: Any) -> None:
        known = ReconSettings.__dataclass_fields__
        changes = {name: value for name, value in settings.items() if name not in known}
        chosen = {name: value for name, value in settings.items() if name in known}
        changes = {**chosen.pop("changes", {}), **changes}
        self.settings = ReconSettings(method=method or self.default, changes=changes, **chosen)
        # so that a wrong name is told here and not in a worker
        for modality in ("mri", "ct"):
            self.settings.fit_config(modality, 2)
        self.keep_complex = keep_complex

    def __call__(self, data: Tensor, maps: Tensor | None = None) -> MetaTensor:
        """Return the image ``(frame, x, y, z)``.

        ``meta`` says how it came about: ``method``, ``preset``, ``unit``, ``stop`` (a line for each image) and
        ``seconds``.

        Parameters
        ----------
        data
            K-space or projections.
        maps
            Sensitivity maps of k-space, as `EstimateCoilMaps` returns them or of one's own; None to estimate them.

        Raises
        ------
        DipmedError
            When the scan cannot be reconstructed so.
        """
        scan = scan_from_tensor(data)
        given = None if maps is None else maps_from_tensor(maps, _prepared_kspace(scan, self))
        result = reconstruct(scan, self.settings, maps=given)
        volume = result.volume
        if np.iscomplexobj(volume.data) and not self.keep_complex:
            volume = ImageVolume(np.abs(volume.data), volume.affine)
        made = volume_to_tensor(
            volume,
            {
                **origin_of(data),
                "modality": scan.modality,
                "ndim": scan.ndim,
                **_sequence(scan),
                "method": self.settings.method,
                "preset": result.preset,
                "unit": result.unit or "",
                "stop": "\n".join(map(_in_words, result.reconstructions)),
                "assumptions": "\n".join(result.assumptions),
                "notes": "\n".join(result.notes),
                "seconds": result.seconds["total"],
            },
        )
        return traced(made, data, self, method=self.settings.method)


class DIPReconstruct(Reconstruct):
    """Fit an untrained network to the scan, by default as the preset of its modality says."""


class FBP(Reconstruct):
    """Filtered back-projection, of cones by Feldkamp."""

    default: ClassVar[str] = "fbp"


class CGSense(Reconstruct):
    """Regularised least squares with sensitivity maps."""

    default: ClassVar[str] = "cg-sense"


class L1Wavelet(Reconstruct):
    """Compressed sensing with an ℓ1 penalty on wavelets."""

    default: ClassVar[str] = "l1-wavelet"


class TotalVariation(Reconstruct):
    """Compressed sensing with total variation."""

    default: ClassVar[str] = "tv"


class SIRT(Reconstruct):
    """Simultaneous iterative reconstruction from projections."""

    default: ClassVar[str] = "sirt"


class CGLeastSquares(Reconstruct):
    """Regularised least squares from projections."""

    default: ClassVar[str] = "cg-ls"


class CGTotalVariation(Reconstruct):
    """Least squares with total variation from projections, without negative values."""

    default: ClassVar[str] = "cg-tv"


class AdjointReconstruct(TraceableTransform):
    """Apply the adjoint of the measurement: the zero-filled image of k-space, unfiltered back-projection."""

    def __init__(self, *, keep_complex: bool = False, device: str = "auto") -> None:
        self.keep_complex = keep_complex
        self.settings = ReconSettings(method="zero-filled", device=device)

    def __call__(self, data: Tensor, maps: Tensor | None = None) -> MetaTensor:
        """Return the image ``(frame, x, y, z)``; see `Reconstruct`."""
        scan = scan_from_tensor(data)
        if isinstance(scan, KSpaceScan):
            direct = Reconstruct("zero-filled", keep_complex=self.keep_complex, device=self.settings.device)
            return traced(direct(data, maps), data, self)
        prepared = prepare(scan, self.settings)
        device = resolve_device(self.settings.device)
        images = [job.A.adjoint(job.y)[0].cpu().numpy() for job in jobs(prepared, self.settings, device)]
        image = images[0] if prepared.ndim == 3 else np.stack(images, axis=-1)
        return traced(volume_to_tensor(ImageVolume(image, prepared.affine), origin_of(data)), data, self)


def _sequence(scan: Scan) -> dict[str, str]:
    return {"sequence": json.dumps(asdict(scan.sequence))} if isinstance(scan, KSpaceScan) else {}


def _prepared_kspace(scan: Scan, transform: Reconstruct) -> KSpaceScan:
    prepared = prepare(kspace_of(scan, transform), transform.settings)
    assert isinstance(prepared, KSpaceScan)  # noqa: S101  # preparing keeps the kind
    return prepared


def _in_words(part: Reconstruction) -> str:
    return f"{part.stop.rule} at {part.stop.iteration}: {part.stop.reason}"
