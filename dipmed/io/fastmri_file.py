"""K-space in HDF5 files of the fastMRI kind (Knoll et al., doi:10.1148/ryai.2020190007)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.assemble import MASK_FROM_ZEROS, NamedArray, standard_axes, unknown_place
from dipmed.io.hdf5 import find_dataset, open_hdf5, read_array, read_text
from dipmed.io.mrd_header import EncodedSpace, MrdHeader, parse_mrd_header
from dipmed.io.samples import as_mask, fit_mask, sampled_locations
from dipmed.scan import Complex64, FormatError, KSpaceScan

_AXES = {3: ("slice", "x", "y"), 4: ("slice", "coil", "x", "y")}


def read(path: Path) -> KSpaceScan:
    """Read a fastMRI file: ``kspace`` (slice, coil, row, column) or (slice, row, column), ``ismrmrd_header``, ``mask``.

    Rows are the readout. The header gives the voxel size, the oversampling and the sequence; attributes, among
    them the patient's, are not read.

    Raises
    ------
    FormatError, ShapeError
        When the file is damaged, has no k-space of these shapes, or a mask that does not fit.
    """
    what = f"{path}: kspace"
    with open_hdf5(path) as file:
        dataset = find_dataset(file, "kspace")
        if dataset is None:
            raise FormatError(f"{path} has no data set 'kspace', only {', '.join(list(file)[:20]) or 'nothing'}")
        if len(dataset.shape or ()) not in _AXES:
            raise FormatError(f"{what} should be (slice, coil, row, column) or (slice, row, column): {dataset.shape}")
        stored = read_array(dataset)
        mask_dataset, header_dataset = find_dataset(file, "mask"), find_dataset(file, "ismrmrd_header")
        mask = None if mask_dataset is None else read_array(mask_dataset)
        header = None if header_dataset is None else parse_mrd_header(read_text(header_dataset))
    kspace, damaged = standard_axes(NamedArray(stored, _AXES[stored.ndim], what))
    kspace, sampled, masking = _apply_mask(kspace, mask)
    voxel_mm, n_readout, unsaid = _geometry(header or MrdHeader(), kspace.shape[3:], header is not None)
    affine, unknown = unknown_place(voxel_mm, (n_readout, kspace.shape[4]), kspace.shape[1])
    scan = KSpaceScan(
        kspace=kspace,
        mask=sampled,
        affine=affine,
        image_shape=(n_readout, kspace.shape[4]),
        source="fastmri",
        assumptions=(*damaged, *unsaid, unknown, *(() if mask is not None else (MASK_FROM_ZEROS,))),
        notes=masking,
    )
    return scan if header is None else scan.replace(sequence=header.sequence)


def _apply_mask(kspace: Complex64, mask: NDArray[Any] | None) -> tuple[Complex64, NDArray[np.bool_], tuple[str, ...]]:
    """Return k-space that is zero outside the mask, the mask of every location, and what was done."""
    if mask is None:
        return kspace, sampled_locations(kspace), ()
    sampled = fit_mask(as_mask(mask, "the mask of the file"), kspace, "the mask of the file")
    outside = int((sampled_locations(kspace) & ~sampled).sum())
    if not outside:
        return kspace, sampled, ()
    note = f"{outside} locations that the file's mask leaves out held data, which were set to zero."
    kept = np.where(sampled[:, :, None], kspace, np.complex64(0))
    if not kept.any():
        raise FormatError("the mask of the file leaves out every location that holds data")
    return kept, sampled, (note,)


def _geometry(
    header: MrdHeader, matrix: tuple[int, ...], has_header: bool
) -> tuple[tuple[float, float, float], int, tuple[str, ...]]:
    """Return the voxel size, the readout samples without oversampling, and what had to be assumed."""
    rows, columns = matrix
    encoded, recon = header.encoded, header.recon
    if encoded.fov_mm is None or recon.fov_mm is None:
        where = "The file's header has no field of view" if has_header else "The file has no header"
        return (1.0, 1.0, 1.0), rows, (f"{where}: voxels of 1 mm and no readout oversampling were assumed.",)
    thickness = recon.fov_mm[2]
    if _was_cropped(rows, encoded, recon):
        said = "The rows of the k-space are those of the reconstructed matrix: no readout oversampling was assumed."
        return (recon.fov_mm[0] / rows, encoded.fov_mm[1] / columns, thickness), rows, (said,)
    voxel = (encoded.fov_mm[0] / rows, encoded.fov_mm[1] / columns, thickness)
    n_readout = min(rows, max(2, round(rows * recon.fov_mm[0] / encoded.fov_mm[0])))
    return voxel, n_readout, ()


def _was_cropped(rows: int, encoded: EncodedSpace, recon: EncodedSpace) -> bool:
    """Say whether the readout oversampling that the header describes is gone from the k-space already."""
    if encoded.matrix is None or recon.matrix is None:
        return False
    return rows == recon.matrix[0] != encoded.matrix[0]
