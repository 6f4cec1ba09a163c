"""Readers and writers: raw k-space in, images out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dipmed.io.arrays import load_maps, load_mask
from dipmed.io.images import check_output, load_image, save_image
from dipmed.io.ismrmrd_writer import save_ismrmrd
from dipmed.scan import DipmedError, FormatError, Scan

__all__ = ["check_output", "load", "load_image", "load_maps", "load_mask", "save_image", "save_ismrmrd"]


def load(path: str | Path, *, measurement: int | None = None) -> Scan:
    """Read k-space or projections from a file of any supported format, found by its content.

    Supported are ISMRMRD, fastMRI, Siemens Twix, BART (either file of the pair or their common name), MATLAB,
    NumPy, and HDF5 with ``kspace`` and ``traj``; of projections dipmed's own file,
    Data-Exchange, MATLAB structures as of the Helsinki Tomography Challenge 2022, DICOM-CT-PD (the folder of a
    scan), and NumPy or TIFF files beside a JSON file with the geometry.

    Parameters
    ----------
    path
        The file.
    measurement
        Which measurement of a file that holds several (ISMRMRD, Twix), counted from 0. By default the last one
        with image data; the others are listed in the scan's notes.

    Raises
    ------
    FormatError
        When the file is missing, empty, damaged, contradicts itself, or has another format.
    GeometryError
        When it says something impossible about the place of the image.
    ShapeError
        When arrays in it do not fit each other.

    Examples
    --------
    >>> from dipmed.io import load
    >>> load("missing.h5")
    Traceback (most recent call last):
    ...
    dipmed.scan.FormatError: missing.h5 does not exist
    """
    import numpy as np

    try:
        # the readers check what they read; warnings about damaged values on the way would say nothing more
        with np.errstate(all="ignore"):
            scan = _read(Path(path), measurement)
    except DipmedError as error:
        message = _printable(str(error))
        if message == str(error):
            raise
        raise type(error)(message) from error
    return scan.replace(assumptions=tuple(map(_printable, scan.assumptions)), notes=tuple(map(_printable, scan.notes)))


def _read(path: Path, measurement: int | None) -> Scan:
    # each reader brings a library of its own, which takes a while to import
    from dipmed.io import (
        array_projections,
        bart_file,
        ct_pd_file,
        data_exchange,
        fastmri_file,
        htc_file,
        ismrmrd_file,
        matlab_file,
        numpy_file,
        projection_file,
        trajectory_hdf5,
        twix_file,
    )
    from dipmed.io.sniff import sniff

    found = sniff(path)
    if found == "ismrmrd":
        return ismrmrd_file.read(path, measurement)
    if found == "twix":
        return twix_file.read(path, measurement)
    if measurement not in (None, 0):
        raise FormatError(f"{path} holds one measurement; there is no {measurement}")
    readers: dict[str, Callable[[Path], Scan]] = {
        "bart": bart_file.read,
        "data-exchange": data_exchange.read,
        "dicom-ct-pd": ct_pd_file.read,
        "fastmri": fastmri_file.read,
        "htc": htc_file.read,
        "matlab": matlab_file.read,
        "numpy": numpy_file.read,
        "numpy-projections": array_projections.read_numpy,
        "projections": projection_file.read,
        "tiff-projections": array_projections.read_pictures,
        "trajectory": trajectory_hdf5.read,
    }
    return readers[found](path)


def _printable(sentence: str) -> str:
    """Replace characters that could steer a terminal; names in a file may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in sentence)
