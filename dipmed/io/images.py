"""Images to files and back, by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.cfl import cfl_paths, read_cfl, write_cfl
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_series import read_series
from dipmed.io.dicom_writer import check_output_dicom, write_dicom
from dipmed.io.files import atomic_write, check_source, check_target, ending_of
from dipmed.io.montage import write_montage
from dipmed.io.mrd_image import write_mrd_images
from dipmed.io.nifti import read_nifti, write_nifti
from dipmed.io.npy import npz_variables, read_npy, read_npz
from dipmed.patient import default_affine
from dipmed.scan import DipmedError, FormatError, ImageVolume, OutputError

_BART_TIME = 10
_DICOM = ("", ".dcm", ".sc.dcm")


def save_image(
    volume: ImageVolume,
    path: str | Path,
    *,
    complex: bool = False,
    dicom: DicomDetails | None = None,
    force: bool = False,
) -> None:
    """Write an image in the format that the ending names; the file appears whole or not at all.

    ``.nii.gz`` and ``.nii``
        NIfTI with the affine in mm, RAS.
    ``.npz``
        NumPy arrays ``image`` (x, y, z[, frame]) and ``affine``.
    ``.cfl``
        BART, x, y, z on axes 0 to 2 and frames on axis 10; it has no place for the affine.
    ``.h5``
        ISMRMRD images.
    ``.png``
        A montage of all slices for the eye, always of the magnitude.
    no ending, ``.dcm``, ``.sc.dcm``
        A new DICOM series, always of the magnitude, see `dipmed.io.dicom_writer.write_dicom`: a folder with a file for
        each slice, an enhanced object, or a secondary capture.

    Parameters
    ----------
    volume
        The image and its place.
    path
        Where to write.
    complex
        Keep a complex image complex; otherwise its magnitude is written. A real image is written as it is.
    dicom
        What a DICOM series says of the image; there the modality is needed.
    force
        Replace an existing file.

    Raises
    ------
    OutputError
        When the ending is unknown, the image is not finite, the file exists, or it cannot be written.
    """
    path = Path(path)
    check_output(path, force=force)
    data = _as_written(volume.data, complex)
    n_bad = data.size - int(np.isfinite(data).sum())
    if n_bad:
        raise OutputError(f"{path} is not written: {n_bad} of {data.size} voxels of the image are no finite numbers")
    image = ImageVolume(data, volume.affine)
    if is_dicom(path):
        if dicom is None:
            raise OutputError(f"{path} is not written: a DICOM series says whether it is MRI or CT, which was not said")
        write_dicom(image, path, dicom, force=force)
    else:
        _WRITERS[ending_of(path)](image, path, force=force)


def is_series(path: str | Path) -> bool:
    """Whether `load_image` takes it for DICOM: a folder, or a file with such an ending."""
    return Path(path).is_dir() or ending_of(path).endswith(".dcm")


def is_dicom(path: str | Path) -> bool:
    """Whether `save_image` writes a DICOM series there."""
    return ending_of(path) in _DICOM


def std_path(path: str | Path) -> Path:
    """Where the standard deviation of an image goes: ``image.nii.gz`` and ``image.std.nii.gz``, ``a`` and ``a-std``."""
    path = Path(path)
    if ending_of(path) == "":
        return path.with_name(f"{path.name}-std")
    ending = path.name[len(path.name) - len(ending_of(path)) :]
    return path.with_name(f"{path.name[: len(path.name) - len(ending)]}.std{ending}")


def check_output(path: str | Path, *, force: bool = False) -> None:
    """Check that `save_image` will be able to write there, before the work begins.

    Raises
    ------
    OutputError
        When the ending is unknown, the folder is missing or cannot be written, or the file exists without ``force``.
    """
    path = Path(path)
    if is_dicom(path):
        check_output_dicom(path, force=force)
        return
    if ending_of(path) not in _WRITERS:
        raise OutputError(
            f"cannot write {path}: its ending should be one of {', '.join(_WRITERS)}, for DICOM .dcm or .sc.dcm, or "
            "none for a folder of DICOM slices"
        )
    for target in cfl_paths(path) if ending_of(path) == ".cfl" else (path,):
        check_target(target, force=force)


def load_image(path: str | Path, series: str | None = None) -> ImageVolume:
    """Read an image from ``.nii.gz``, ``.nii``, ``.npz``, ``.npy``, ``.cfl`` or DICOM, ``(x, y, z)`` or with frames.

    A folder is read as a series of DICOM slices, ``.dcm`` as one file with all, see `dipmed.io.dicom_series`; of
    several series, ``series`` is the number or UID of the one to take. Two axes are one slice. An image without an
    affine is put centred at the origin with voxels of 1 mm.

    Raises
    ------
    FormatError
        When the ending is unknown, or the file is damaged or no image.
    """
    path = Path(path)
    if is_series(path):
        if not path.is_dir():
            check_source(path)
        return read_series(path, series).volume
    reader = _READERS.get(ending_of(path))
    if reader is None:
        raise FormatError(f"{path} cannot be read as an image: its ending should be one of {', '.join(_READERS)}")
    check_source(path)
    data, affine = reader(path)
    if data.ndim == 2:
        data = data[:, :, None]
    if data.ndim not in (3, 4) or data.size == 0 or data.dtype.kind not in "iufc":
        raise FormatError(f"{path} should be an image (x, y, z) or (x, y, z, frame), but is {data.shape} {data.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        data = data.astype(np.complex64 if data.dtype.kind == "c" else np.float32)
    if not np.isfinite(data).all():
        raise FormatError(f"{path} has voxels that are no finite numbers in single precision")
    if affine is not None and not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0):
        raise FormatError(f"{path} has an affine that puts no voxel anywhere: {affine.tolist()}")
    return ImageVolume(data, default_affine((1.0, 1.0, 1.0), data.shape[:3]) if affine is None else affine)


def load_volume(path: str | Path) -> ImageVolume:
    """Read one volume of real numbers as `load_image` does.

    Raises
    ------
    FormatError
        When it cannot be read.
    DipmedError
        When it is complex or has frames.
    """
    return check_volume(load_image(path), path)


def check_volume(volume: ImageVolume, path: str | Path) -> ImageVolume:
    """Return what a file holds if it is one volume of real numbers.

    Raises
    ------
    DipmedError
        When it is not.
    """
    if np.iscomplexobj(volume.data):
        raise DipmedError(f"{path} holds complex numbers; expected magnitudes (k-space is for `dipmed recon`)")
    if volume.data.ndim != 3:
        raise DipmedError(f"{path} has frames, {volume.data.shape}; expected one volume (x, y, z)")
    return volume


def _as_written(data: NDArray[Any], keep_complex: bool) -> NDArray[Any]:
    if not np.iscomplexobj(data):
        return data.astype(np.complex64 if keep_complex else np.float32)
    return data.astype(np.complex64) if keep_complex else np.abs(data).astype(np.float32)


def _write_npz(volume: ImageVolume, path: Path, *, force: bool = False) -> None:
    with atomic_write(path, force=force) as temporary:
        np.savez(temporary, image=volume.data, affine=volume.affine, axes=np.array(["x", "y", "z", "frame"]))


def _write_cfl(volume: ImageVolume, path: Path, *, force: bool = False) -> None:
    data = volume.data
    if data.ndim == 4:
        data = data.reshape(*data.shape[:3], *[1] * (_BART_TIME - 3), data.shape[3])
    write_cfl(path, data, force=force)


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    names = npz_variables(path)
    if "image" not in names:
        raise FormatError(f"{path} has no array 'image', only {', '.join(names) or 'nothing'}")
    if "affine" not in names:
        return read_npz(path, "image"), None
    affine = read_npz(path, "affine")
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
        raise FormatError(f"{path}: the affine should be 4 x 4 real numbers, but is {affine.shape} {affine.dtype}")
    return read_npz(path, "image"), affine.astype(np.float64)


def _read_cfl(path: Path) -> tuple[NDArray[Any], None]:
    data = read_cfl(path)
    if data.ndim <= 3:
        return data.reshape([*data.shape, *[1] * (3 - data.ndim)]), None
    if max(data.shape[3:_BART_TIME]) > 1 or data.ndim > _BART_TIME + 1:
        raise FormatError(f"{path} should be one image (x, y, z) with frames on BART's axis 10, but is {data.shape}")
    return data.reshape(*data.shape[:3], -1), None


_WRITERS: dict[str, Callable[..., None]] = {
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".npz": _write_npz,
    ".cfl": _write_cfl,
    ".h5": write_mrd_images,
    ".png": write_montage,
}
_READERS: dict[str, Callable[[Path], tuple[NDArray[Any], NDArray[np.float64] | None]]] = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".npz": _read_npz,
    ".npy": lambda path: (read_npy(path), None),
    ".cfl": _read_cfl,
}
