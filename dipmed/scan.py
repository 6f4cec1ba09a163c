"""What was measured, what was reconstructed, and the exceptions: plain containers that every layer shares."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.ct_cone import VolumeBeam
from operators.ct_geometry import Beam, Grid
from operators.errors import DipmedError, ShapeError

__all__ = [
    "DipmedError",
    "DivergedError",
    "FormatError",
    "GeometryError",
    "ImageVolume",
    "KSpaceScan",
    "MissingExtra",
    "OutputError",
    "ProjectionScan",
    "Reconstruction",
    "Scan",
    "SequenceFigures",
    "ShapeError",
    "StopReason",
]

SIMULATED = "simulated"
"""Source of a scan that was computed from an image; its files say so."""

SIMULATED_NOTE = "This scan was simulated from an image: nothing of it was measured."

Complex64 = NDArray[np.complex64]
Float32 = NDArray[np.float32]


class FormatError(DipmedError):
    """A file that is not what it should be: truncated, of another format, or inconsistent."""


class GeometryError(DipmedError):
    """Positions or orientations that are missing, contradictory or impossible."""


class DivergedError(DipmedError):
    """A fit that became NaN or exploded, also after its restart at a lower rate."""


class OutputError(DipmedError):
    """A result that cannot be written: it exists, its folder does not, or the disk is full."""


class MissingExtra(DipmedError):
    """A feature whose optional dependency is not installed; the message names the extra."""


@dataclass(frozen=True)
class SequenceFigures:
    """Figures of the pulse sequence, None where the file does not say.

    Times are in seconds, angles in radians, the field in tesla; several echoes or angles are several entries.
    """

    field_strength_t: float | None = None
    repetition_times_s: tuple[float, ...] = ()
    echo_times_s: tuple[float, ...] = ()
    inversion_times_s: tuple[float, ...] = ()
    flip_angles_rad: tuple[float, ...] = ()
    echo_spacings_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class KSpaceScan:
    """One MRI measurement, as it was measured: nothing is guessed, what was assumed is in `assumptions`.

    Parameters
    ----------
    kspace
        complex64. Cartesian: ``(frame, slice, coil, x, y)``, or ``(frame, 1, coil, x, y, z)`` for a 3-D
        acquisition; x is the readout, y and z are phase encodes; zero where not sampled; the centre of k-space
        is at index ``n // 2``. Non-Cartesian: ``(frame, slice, coil, sample)``.
    mask
        Which locations were sampled, bool, ``(frame, slice, x, y[, z])``; None for non-Cartesian.
    affine
        4x4, voxel index of the image of shape `image_shape` (plus slice) to RAS in mm.
    image_shape
        ``(x, y[, z])`` of the image to reconstruct, after the removal of oversampling; for a 2-D scan the
        slice axis is not part of it.
    source
        Name of the file format, e.g. ``"ismrmrd"``.
    frame_labels
        For each frame what distinguishes it, e.g. ``{"contrast": 0, "repetition": 3}``.
    trajectory
        Non-Cartesian: float32 ``(frame, sample, dimension)`` in cycles per field of view, None otherwise.
    n_readouts
        Non-Cartesian: how many readouts of equal length, one after the other, the samples of a frame consist of;
        None where their lengths differ.
    noise_covariance
        Coil noise covariance, complex ``(coil, coil)``, of one complex k-space sample (``E[n nᴴ]``), in the units
        of `kspace` after averaging; None when the file has no noise measurement.
    calibration
        A separate, fully sampled reference acquisition, laid out as `kspace` with one frame; zero outside; None
        when there is none (the centre of `kspace` then has to do).
    sequence
        Figures of the pulse sequence.
    assumptions
        What the file did not say and the reader had to assume, one sentence each.
    notes
        What the reader did or left out, one sentence each (e.g. other measurements in the file).
    """

    kspace: Complex64
    mask: NDArray[np.bool_] | None
    affine: NDArray[np.float64]
    image_shape: tuple[int, ...]
    source: str
    frame_labels: tuple[dict[str, int], ...] = ({},)
    trajectory: NDArray[np.float32] | None = None
    n_readouts: int | None = None
    noise_covariance: NDArray[np.complex128] | None = None
    calibration: Complex64 | None = None
    sequence: SequenceFigures = field(default_factory=SequenceFigures)
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = "(frame, slice, coil, x, y), (frame, 1, coil, x, y, z)"
        if self.is_cartesian:
            if self.kspace.ndim not in (5, 6):
                raise ShapeError(f"Cartesian k-space must be {expected}, got {self.kspace.shape}")
            if self.kspace.ndim == 6 and self.kspace.shape[1] != 1:
                raise ShapeError(f"3-D k-space holds one slab, (frame, 1, coil, x, y, z), got {self.kspace.shape}")
            sampled = self.kspace.shape[:2] + self.kspace.shape[3:]
            if self.mask is None or self.mask.shape != sampled:
                came = None if self.mask is None else self.mask.shape
                raise ShapeError(
                    f"the sampling mask must be {sampled} like the k-space {self.kspace.shape}, got {came}"
                )
            if len(self.image_shape) != self.ndim:
                raise ShapeError(f"image_shape must have {self.ndim} sizes, got {self.image_shape}")
        elif self.kspace.ndim != 4:
            raise ShapeError(f"non-Cartesian k-space must be (frame, slice, coil, sample), got {self.kspace.shape}")
        if self.n_readouts is not None and self.kspace.shape[-1] % self.n_readouts:
            raise ShapeError(f"{self.kspace.shape[-1]} samples cannot be {self.n_readouts} readouts of equal length")
        if self.affine.shape != (4, 4):
            raise GeometryError(f"the affine must be 4x4, got {self.affine.shape}")
        if len(self.frame_labels) != self.n_frames:
            raise ShapeError(f"{self.n_frames} frames need as many labels, got {len(self.frame_labels)}")

    modality: ClassVar[str] = "mri"

    @property
    def is_cartesian(self) -> bool:
        return self.trajectory is None

    @property
    def ndim(self) -> int:
        """2 or 3: the dimensions that one image is encoded in."""
        return self.kspace.ndim - 3 if self.trajectory is None else self.trajectory.shape[-1]

    @property
    def n_frames(self) -> int:
        return self.kspace.shape[0]

    @property
    def n_slices(self) -> int:
        return self.kspace.shape[1]

    @property
    def n_coils(self) -> int:
        return self.kspace.shape[2]

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """``(x, y[, z])`` of the encoded matrix; for non-Cartesian scans the image's."""
        return self.kspace.shape[3:] if self.is_cartesian else self.image_shape

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again."""
        return replace(self, **changes)


@dataclass(frozen=True)
class ProjectionScan:
    """One CT measurement: line integrals, and the way of the rays.

    Parameters
    ----------
    projections
        Line integrals, without unit, float32. Slices: ``(slice, view, column)``, all slices seen by one `beam`.
        Volume, seen by a `VolumeBeam`: ``(1, view, row, column)``.
    beam
        How the rays ran, in mm and radians.
    grid
        What is to be reconstructed: pixels of a slice, or voxels of a volume.
    affine
        4x4, voxel index of the image (x, y, slice or z) to RAS in mm.
    source
        Name of the file format, e.g. ``"data-exchange"``.
    counts
        Expected number of photons of each ray, shaped as `projections`, or anything proportional to it: the weights of
        the rays. None when the file does not say.
    centre_known
        Whether the file says where the rotation axis is projected to. If it does not, it is looked for in the data.
    water_per_mm
        Attenuation of water at this beam's quality, for Hounsfield units; None when unknown.
    assumptions, notes
        As for `KSpaceScan`.
    """

    projections: Float32
    beam: Beam | VolumeBeam
    grid: Grid
    affine: NDArray[np.float64]
    source: str
    counts: Float32 | None = None
    centre_known: bool = True
    water_per_mm: float | None = None
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.projections.shape[1:] != self.beam.shape:
            raise ShapeError(
                f"projections must be (slice, {', '.join(map(str, self.beam.shape))}) as the views, rows and columns "
                f"of the beam, got {self.projections.shape}"
            )
        if len(self.grid.shape) != len(self.beam.shape):
            raise ShapeError(f"a beam of {len(self.beam.shape)} axes does not fit the grid {self.grid.shape}")
        if self.ndim == 3 and len(self.projections) != 1:
            raise ShapeError(f"a volume has one set of projections, got {self.projections.shape}")
        if self.counts is not None and self.counts.shape != self.projections.shape:
            raise ShapeError(f"counts must be {self.projections.shape} like the projections, got {self.counts.shape}")
        if not np.isfinite(self.projections).all():
            n_bad = int((~np.isfinite(self.projections)).sum())
            raise FormatError(f"{n_bad} of {self.projections.size} line integrals are no finite numbers")
        if self.affine.shape != (4, 4):
            raise GeometryError(f"the affine must be 4x4, got {self.affine.shape}")

    modality: ClassVar[str] = "ct"

    @property
    def ndim(self) -> int:
        """2 or 3: the dimensions that one image is seen in."""
        return len(self.grid.shape)

    @property
    def n_slices(self) -> int:
        return self.projections.shape[0]

    @property
    def n_views(self) -> int:
        return self.projections.shape[1]

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again."""
        return replace(self, **changes)


Scan = KSpaceScan | ProjectionScan
"""Whatever `dipmed.load` finds in a file."""


@dataclass(frozen=True)
class ImageVolume:
    """An image with its place in the patient.

    Parameters
    ----------
    data
        ``(x, y, z)`` or ``(x, y, z, frame)``, real or complex.
    affine
        4x4, voxel index to RAS in mm.
    """

    data: NDArray[Any]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.data.ndim not in (3, 4):
            raise ShapeError(f"a volume is (x, y, z) or (x, y, z, frame), got {self.data.shape}")
        if self.affine.shape != (4, 4):
            raise GeometryError(f"the affine must be 4x4, got {self.affine.shape}")


@dataclass(frozen=True)
class StopReason:
    """Why a fit ended: the rule that decided, the iteration whose result was taken, and a sentence."""

    rule: str
    iteration: int
    reason: str


Status = Literal["done", "retried", "filled", "interrupted"]


@dataclass(frozen=True)
class Reconstruction:
    """What every reconstructor returns for one ``(y, A)``.

    Parameters
    ----------
    image
        ``(1, x, y[, z])`` complex, in the units of ``y``.
    method
        Name as on the command line.
    stop
        Why it ended; for direct methods the rule is ``"converged"`` or ``"direct"``.
    iterations
        How many iterations were run in all.
    seconds
        Wall time of the call.
    curves
        For each watched quantity its ``(iteration, value)`` pairs.
    scale
        Factor that the data were multiplied by inside, already undone in `image`.
    choices
        The iteration that each rule of a fit would have returned, the deciding one and those that watched.
    assumptions
        What the data did not say and had to be assumed, one sentence each.
    std
        Standard deviation of what is shown of the image, its magnitude or a real image as it is, real
        ``(1, x, y[, z])``; None where none was asked for, or an interruption left too few samples.
    status
        How it went: ``"done"``; ``"retried"`` with another seed, after the fit had diverged; ``"filled"`` by another
        method, after it had again; ``"interrupted"``: the best so far, or what takes no time.
    trouble
        What went wrong, one sentence; empty where nothing did.
    weights
        Of the network, ``(weight,)``, where the next fit is to start from them; None otherwise.
    is_warm
        Whether the fit itself started from those of another one.
    raised
        Weights of the fit that the noise of its data raised above the settings, by name.
    last_steps
        Steps towards the data that the fit ended with.
    first_jitter
        Noise on the input that the fit began with, as it was chosen or told by the data; 0 for that of all other steps.
    """

    image: Tensor
    method: str
    stop: StopReason
    iterations: int
    seconds: float
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    scale: float = 1.0
    choices: dict[str, int] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
    std: Tensor | None = None
    status: Status = "done"
    trouble: str = ""
    weights: Tensor | None = None
    is_warm: bool = False
    raised: dict[str, float] = field(default_factory=dict)
    last_steps: int = 0
    first_jitter: float = 0.0
