"""Images in NIfTI files, with their place in the patient."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.files import atomic_write, ending_of
from dipmed.io.limits import array_bytes, check_expansion
from dipmed.scan import DipmedError, FormatError, ImageVolume

_SCANNER = 1  # NIfTI's code for coordinates of the scanner
_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 1e-3}
_HEADER_BYTES = 348
_MOST_OFFSET = 2**24


def write_nifti(volume: ImageVolume, path: Path, *, force: bool = False) -> None:
    """Write a float32 or complex64 volume with its affine in sform and qform, in mm.

    The packed file holds no time and no name, so equal images are equal files.
    """
    import nibabel

    image = nibabel.Nifti1Image(volume.data, volume.affine)
    image.set_sform(volume.affine, code=_SCANNER)
    image.set_qform(volume.affine, code=_SCANNER)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if ending_of(path) == ".nii.gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)
    with atomic_write(path, force=force) as temporary:
        temporary.write_bytes(content)


def read_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read a NIfTI file: its array, scaled as it says, and its affine to RAS in mm.

    Raises
    ------
    FormatError
        When it is damaged, holds no plain numbers, or asks for more memory than its size explains.
    """
    import nibabel

    with _errors(path):
        _check_header(path)
        image = nibabel.Nifti1Image.from_filename(path)
        dtype = image.get_data_dtype()
        if dtype.kind not in "iufc":
            raise FormatError(f"{path} holds {dtype} and not one number for each voxel")
        affine = np.array(image.affine, dtype=np.float64)
        affine[:3] *= _MM[image.header.get_xyzt_units()[0]]
        with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
            return np.asanyarray(image.dataobj), affine


def _check_header(path: Path) -> None:
    """Look at the declared sizes with nothing but the first bytes unpacked."""
    import nibabel

    with gzip.open(path) if ending_of(path) == ".nii.gz" else path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or head[344:348] != b"n+1\0":
        raise FormatError(f"{path} is no NIfTI-1 file in one piece; convert it to .nii.gz")
    header = nibabel.Nifti1Header(head, check=False)
    offset = float(header["vox_offset"])
    shape = header.get_data_shape()
    if not 0 <= offset <= _MOST_OFFSET or any(n < 1 for n in shape):
        raise FormatError(f"{path} has an impossible header: shape {shape}, data at byte {offset}")
    claimed = array_bytes(shape, header.get_data_dtype().itemsize)
    check_expansion(int(offset) + claimed, path.stat().st_size, str(path))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    damage: tuple[type[Exception], ...] = (ImageFileError, HeaderDataError, OSError, ValueError, EOFError)
    damage += (zlib.error, KeyError, OverflowError, MemoryError)
    try:
        yield
    except DipmedError:
        raise
    except damage as error:
        reason = str(error).partition("\n")[0][:200]
        raise FormatError(f"{path} cannot be read as NIfTI; it is truncated or damaged ({reason})") from error
