"""Which format a file has, by what is in it and not by how it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dipmed.io import array_projections, ct_pd_file, data_exchange, htc_file, projection_file, tiff
from dipmed.io.hdf5 import open_hdf5
from dipmed.io.ismrmrd_file import mrd_groups
from dipmed.io.twix_raw import looks_like_twix
from dipmed.scan import FormatError

if TYPE_CHECKING:
    import h5py

ACCEPTED = (
    "ISMRMRD (.h5, .mrd), fastMRI (.h5), Siemens Twix (.dat), BART (.cfl with .hdr), MATLAB (.mat), "
    "NumPy (.npy, .npz), HDF5 with kspace and traj; projections of dipmed (.h5), Data-Exchange (.h5), HTC (.mat), "
    "DICOM-CT-PD (a folder), or NumPy and TIFF with the geometry in JSON"
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEAD = 16384  # as far as the first measurement of a Twix file

_IMAGES = (
    "images, which are no raw data; simulate a scan of them with `dipmed simulate`, restore them with "
    "`dipmed restore`, or export the scanner's raw data"
)

# raw data cannot be had from these; the sentence says what to do instead
_OTHERS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (
        f"DICOM {_IMAGES}",
        lambda head: head[128:132] == b"DICM",
    ),
    (
        f"NIfTI {_IMAGES}",
        lambda head: head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"),
    ),
    ("a gzip archive; unpack it first", lambda head: head[:2] == b"\x1f\x8b"),
    (
        "a NumPy or Python pickle, which may run code when it is opened; save plain arrays with numpy.savez",
        lambda head: head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
    ),
    (
        "Philips raw data; convert them with philips_to_ismrmrd",
        lambda head: head.startswith((b"# === DATA DESCRIPTION FILE", b"000 01 00:")),
    ),
)


def sniff(path: Path) -> str:
    """Return the name of the format, one of those that `dipmed.io.load` has a reader for.

    For BART's pairs the path may be either file or their common name.

    Raises
    ------
    FormatError
        When the file is missing, empty, a folder, or of another format.
    """
    if _is_bart(path):
        return "bart"
    if path.is_dir():
        return _sniff_folder(path)
    head, size = _read_head(path)
    found = _by_signature(path, head)
    if found is not None:
        return found
    if looks_like_twix(head, size):
        return "twix"
    if path.name.endswith(".nii.gz") and head[:2] == b"\x1f\x8b":
        raise FormatError(f"{path} holds NIfTI {_IMAGES}; accepted are {ACCEPTED}")
    for what, matches in _OTHERS:
        if matches(head):
            raise FormatError(f"{path} holds {what}; accepted are {ACCEPTED}")
    if path.suffix.lower() in (".cfl", ".hdr"):
        other = ".hdr" if path.suffix.lower() == ".cfl" else ".cfl"
        raise FormatError(f"{path} is one half of a BART pair, but {path.with_suffix(other).name} is not beside it")
    kind = "is a text file" if _is_text(head) else "has an unknown format"
    raise FormatError(f"{path} {kind}; accepted are {ACCEPTED}")


def _by_signature(path: Path, head: bytes) -> str | None:
    """Name the format by the first bytes of a file, where these are a signature."""
    if head.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")):
        return "htc" if htc_file.find_structures(path) else "matlab"
    if head.startswith(b"\x93NUMPY") and array_projections.has_beam(path):
        return "numpy-projections"
    if head.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
        return "numpy"
    if head.startswith(tiff.MAGIC):
        return "tiff-projections"
    if any(head[at : at + 8] == _HDF5 for at in (0, 512, 1024, 2048)):
        return _sniff_hdf5(path)
    if head[128:132] == b"DICM" and ct_pd_file.is_projection(path):
        return "dicom-ct-pd"
    return None


def _sniff_folder(path: Path) -> str:
    try:
        if tiff.tiff_files(path):
            return "tiff-projections"
        dicom = ct_pd_file.dicom_files(path)
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error
    if dicom and ct_pd_file.is_projection(dicom[0]):
        return "dicom-ct-pd"
    holds = f"DICOM {_IMAGES}" if dicom else "no projections; name one raw data file"
    raise FormatError(f"{path} is a folder that holds {holds}; accepted are {ACCEPTED}")


def _is_bart(path: Path) -> bool:
    base = path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
    if base == path and path.is_file():
        return False
    return all(base.with_name(base.name + ending).is_file() for ending in (".cfl", ".hdr"))


def _read_head(path: Path) -> tuple[bytes, int]:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise FormatError(f"{path} is no regular file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise FormatError(f"{path} is empty; copy it again")
    return head, size


def _sniff_hdf5(path: Path) -> str:
    with open_hdf5(path) as file:
        if mrd_groups(file):
            return "ismrmrd"
        names = set(file)
        if "kspace" in names:
            return "trajectory" if "traj" in names else "fastmri"
        if projection_file.is_ours(file):
            return "projections"
        if data_exchange.is_data_exchange(file):
            return "data-exchange"
        raise FormatError(
            f"{path} is an HDF5 file without k-space or projections, {_contents(file)}; accepted are {ACCEPTED}"
        )


def _contents(file: h5py.File) -> str:
    names = list(file)[:10]
    return f"it holds {', '.join(names)}" if names else "it is empty"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)
