"""Scans and images as MONAI's MetaTensor, and back.

K-space
    complex64 ``(frame, slice, coil, x, y)``, ``(frame, 1, coil, x, y, z)`` or ``(frame, slice, coil, sample)``, as in
    `dipmed.scan.KSpaceScan`; the rest of the scan lies in ``meta``. `scan_from_tensor` also takes pairs of real and
    imaginary part along one more axis, the last.
Projections
    float32 ``(slice, view, column)`` or ``(1, view, row, column)``, as in `dipmed.scan.ProjectionScan`.
Sensitivity maps
    complex64 ``(frame, slice, [set,] coil, x, y[, z])``, zero outside the support; ``meta["beyond"]`` has those that
    reach beyond it.
Images
    ``(frame, x, y, z)``, as MONAI's channel, with the affine in RAS and mm.

In ``meta`` are arrays, numbers and texts alone, so that MONAI can stack scans of one shape in a batch and take it apart
again. Sentences are lines of one text. ``applied_operations`` names what was done, to the scan
first. The affine is that of the image to be made: k-space itself has no place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import TraceableTransform
from monai.utils.misc import ImageMetaKey
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.coils import CoilMaps
from dipmed.io.geometry import Description, parse, to_json
from dipmed.scan import Complex64, DipmedError, ImageVolume, KSpaceScan, ProjectionScan, Scan, SequenceFigures

KIND = "dipmed_kind"
"""Key of ``meta`` that says what a tensor holds: ``"kspace"``, ``"projections"``, ``"maps"``, ``"image"``."""


def scan_to_tensor(scan: Scan, meta: Mapping[str, Any] | None = None) -> MetaTensor:
    """Return a scan as a tensor; ``meta`` is added to what it carries."""
    described = _describe_kspace(scan) if isinstance(scan, KSpaceScan) else _describe_projections(scan)
    values = scan.kspace if isinstance(scan, KSpaceScan) else scan.projections
    texts = {name: "\n".join(getattr(scan, name)) for name in ("assumptions", "notes")}
    return MetaTensor(
        torch.from_numpy(np.ascontiguousarray(values)),
        affine=torch.from_numpy(scan.affine.copy()),
        meta={**(meta or {}), **described, **texts, "source": scan.source},
    )


def scan_from_tensor(tensor: Tensor) -> Scan:
    """Return the scan that `scan_to_tensor` made a tensor of, with the values that the tensor has now.

    Raises
    ------
    DipmedError
        When the tensor is not one of a scan.
    """
    kind = _kind(tensor)
    if kind not in ("kspace", "projections"):
        raise DipmedError(
            f"expected k-space or projections as LoadScan, LoadImage or scan_to_tensor return them, got {kind or 'a'} "
            f"tensor {tuple(tensor.shape)} without a scan's meta data (a cache on disk keeps them with track_meta=True)"
        )
    assert isinstance(tensor, MetaTensor)  # noqa: S101  # or it would have no kind
    return _kspace(tensor) if kind == "kspace" else _projections(tensor)


def volume_to_tensor(volume: ImageVolume, meta: Mapping[str, Any] | None = None) -> MetaTensor:
    """Return an image ``(x, y, z[, frame])`` as a tensor ``(frame, x, y, z)``."""
    data = volume.data[None] if volume.data.ndim == 3 else np.moveaxis(volume.data, -1, 0)
    # where MONAI's writers put an image back that was moved in between
    place = {"original_affine": torch.from_numpy(volume.affine.copy()), "spatial_shape": torch.tensor(data.shape[1:])}
    return MetaTensor(
        torch.from_numpy(np.ascontiguousarray(data)),
        affine=torch.from_numpy(volume.affine.copy()),
        meta={**(meta or {}), **place, KIND: "image"},
    )


def volume_from_tensor(tensor: Tensor) -> ImageVolume:
    """Return a tensor ``(frame, x, y[, z])`` as an image; one without an affine has voxels of 1 mm.

    Raises
    ------
    DipmedError
        When it is no image.
    """
    if _kind(tensor) not in (None, "image") or tensor.ndim not in (3, 4):
        raise DipmedError(f"expected an image (channel, x, y[, z]), got {_kind(tensor) or ''} {tuple(tensor.shape)}")
    affine = tensor.affine if isinstance(tensor, MetaTensor) else torch.eye(4)
    placed = np.eye(4)
    size = affine.shape[-1]  # MONAI keeps 3x3 of two-dimensional images
    placed[: size - 1, : size - 1] = affine[:-1, :-1]
    placed[: size - 1, 3] = affine[:-1, -1]
    data = _numpy(tensor)
    data = data[..., None] if data.ndim == 3 else data
    return ImageVolume(data[0] if len(data) == 1 else np.moveaxis(data, 0, -1), placed)


def maps_to_tensor(maps: list[list[CoilMaps]], affine: NDArray[np.float64]) -> MetaTensor:
    """Return the maps of each frame and slice as one tensor."""
    cropped = np.stack([np.stack([one.cropped for one in frame]) for frame in maps])
    beyond = np.stack([np.stack([one.maps for one in frame]) for frame in maps])
    return MetaTensor(
        torch.from_numpy(cropped),
        affine=torch.from_numpy(affine.copy()),
        meta={KIND: "maps", "beyond": torch.from_numpy(beyond)},
    )


def maps_from_tensor(tensor: Tensor, scan: KSpaceScan) -> list[list[CoilMaps]]:
    """Return maps for each frame and slice of a scan.

    Maps of one's own may be ``(coil, x, y[, z])`` for all slices or ``(slice, coil, x, y[, z])`` for all frames.

    Raises
    ------
    DipmedError
        When the shape does not fit the scan.
    """
    values = _numpy(tensor).astype(np.complex64)
    if _kind(tensor) == "maps":
        assert isinstance(tensor, MetaTensor)  # noqa: S101  # or it would have no kind
        beyond = np.asarray(tensor.meta["beyond"])
        expected = (scan.n_frames, scan.n_slices, scan.n_coils, *scan.matrix_shape)
        if (*values.shape[:2], *values.shape[-scan.ndim - 1 :]) != expected:
            raise DipmedError(f"maps {values.shape} were estimated for another scan than k-space {scan.kspace.shape}")
        has_sets = values.ndim > scan.ndim + 3
        support = (values != 0).any(axis=-scan.ndim - 1, keepdims=has_sets)
        return [[CoilMaps(*pair) for pair in zip(*frame, strict=True)] for frame in zip(beyond, support, strict=True)]
    one = (scan.n_coils, *scan.matrix_shape)
    if values.shape not in (one, (scan.n_slices, *one)):
        raise DipmedError(
            f"maps must be (coil, x, y[, z]) {one}, or those of each slice before that, got {values.shape}"
        )
    shared = np.broadcast_to(values, (scan.n_slices, *one))
    return [[CoilMaps.everywhere(np.ascontiguousarray(maps)) for maps in shared]] * scan.n_frames


def traced(made: MetaTensor, source: Tensor, transform: TraceableTransform, **told: str | float) -> MetaTensor:
    """Note on a tensor that a transform made it, after all that had been applied to its source.

    Parameters
    ----------
    told
        What the transform did that its name does not say, such as a drawn seed.
    """
    made.applied_operations = list(source.applied_operations) if isinstance(source, MetaTensor) else []
    noted: MetaTensor = transform.push_transform(made, orig_size=tuple(source.shape[1:]), extra_info=told)
    return noted


def _kind(tensor: Tensor) -> str | None:
    return tensor.meta.get(KIND) if isinstance(tensor, MetaTensor) else None


def _numpy(tensor: Tensor) -> NDArray[Any]:
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return plain.detach().cpu().numpy()


def _describe_kspace(scan: KSpaceScan) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name in ("mask", "trajectory", "noise_covariance", "calibration")
        if (array := getattr(scan, name)) is not None
    }
    readouts = {} if scan.n_readouts is None else {"n_readouts": scan.n_readouts}
    return {
        **arrays,
        **readouts,
        KIND: "kspace",
        "image_shape": torch.tensor(scan.image_shape),
        "frame_labels": json.dumps(scan.frame_labels),
        "sequence": json.dumps(asdict(scan.sequence)),
    }


def _kspace(tensor: MetaTensor) -> KSpaceScan:
    meta = tensor.meta
    arrays: dict[str, Any] = {
        name: np.asarray(meta[name])
        for name in ("mask", "trajectory", "noise_covariance", "calibration")
        if name in meta
    }
    image_shape = tuple(int(n) for n in meta["image_shape"])
    return KSpaceScan(
        kspace=_complex(_numpy(tensor), 4 if "trajectory" in meta else 3 + len(image_shape)),
        mask=arrays.pop("mask", None),
        affine=_affine(tensor),
        image_shape=image_shape,
        source=meta["source"],
        frame_labels=tuple(json.loads(meta["frame_labels"])),
        n_readouts=None if "n_readouts" not in meta else int(meta["n_readouts"]),
        sequence=sequence_from(meta),
        **arrays,
        **_sentences(meta),
    )


def _complex(values: NDArray[Any], ndim: int) -> Complex64:
    """K-space with ``ndim`` axes from complex values, or from pairs of real and imaginary part."""
    if np.iscomplexobj(values):
        return values.astype(np.complex64)
    if values.ndim != ndim + 1 or values.shape[-1] != 2:
        raise DipmedError(
            f"k-space must be complex, or have pairs of real and imaginary part along a last axis, got {values.dtype} "
            f"{values.shape}: its phase was lost on the way"
        )
    found: Complex64 = np.ascontiguousarray(values, np.float32).view(np.complex64)[..., 0]
    return found


def sequence_from(meta: Mapping[str, Any]) -> SequenceFigures:
    """Figures of the pulse sequence that ``meta`` carries, none where it carries none."""
    found: dict[str, Any] = json.loads(meta.get("sequence", "{}"))
    figures: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    return SequenceFigures(**figures)


def _describe_projections(scan: ProjectionScan) -> dict[str, Any]:
    description = Description(
        beam=scan.beam, image=scan.grid, water_per_mm=scan.water_per_mm, centre_known=scan.centre_known
    )
    counts = {} if scan.counts is None else {"counts": torch.from_numpy(np.ascontiguousarray(scan.counts))}
    return {**counts, KIND: "projections", "geometry": to_json(description)}


def _projections(tensor: MetaTensor) -> ProjectionScan:
    meta = tensor.meta
    description = parse(meta["geometry"], "the geometry of a tensor")
    return ProjectionScan(
        projections=_numpy(tensor).astype(np.float32),
        beam=description.beam,
        grid=description.grid,
        affine=_affine(tensor),
        source=meta["source"],
        counts=np.asarray(meta["counts"]) if "counts" in meta else None,
        centre_known=description.centre_known,
        water_per_mm=description.water_per_mm,
        **_sentences(meta),
    )


def _affine(tensor: MetaTensor) -> NDArray[np.float64]:
    return np.asarray(tensor.affine, dtype=np.float64)


def _sentences(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(filter(None, meta.get(name, "").split("\n"))) for name in ("assumptions", "notes")}


def origin_of(data: Tensor) -> dict[str, Any]:
    """What is handed on from one tensor to the next whatever it holds: where it came from."""
    meta = data.meta if isinstance(data, MetaTensor) else {}
    name = str(ImageMetaKey.FILENAME_OR_OBJ)
    return {name: meta[name]} if name in meta else {}


def kspace_of(scan: Scan, transform: object) -> KSpaceScan:
    """The scan, which has to be k-space for this transform."""
    if not isinstance(scan, KSpaceScan):
        raise DipmedError(f"{type(transform).__name__} is for k-space, but the tensor holds projections")
    return scan


def projections_of(scan: Scan, transform: object) -> ProjectionScan:
    """The scan, which has to be projections for this transform."""
    if not isinstance(scan, ProjectionScan):
        raise DipmedError(f"{type(transform).__name__} is for projections, but the tensor holds k-space")
    return scan
