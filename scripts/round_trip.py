"""Write volumes as DICOM in many places, read them back by other programs, and print how far voxels and values moved.

Prints the tables of ``docs/dicom.md``. Needs dcm2niix and SimpleITK. The positions of a patient are those of
``affine_in_gantry``, written into the study of a series that says the same.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study, study_of
from dipmed.io.images import load_image, save_image
from dipmed.patient import MrdGeometry, affine_from_mrd, affine_in_gantry, directions_from_quaternion
from dipmed.scan import ImageVolume

VOXEL_MM = (0.8, 1.4, 5.0)
PLACE_MM = (11.0, -23.5, 47.25)
LARGEST = 1000.0
LEFT, BACK, HEAD = np.eye(3)  # LPS
OBLIQUE = np.array([0.8, 0.3, -0.4, 0.2])
DIRECTIONS = {
    "axial": (LEFT, BACK, HEAD),
    "sagittal": (BACK, -HEAD, -LEFT),
    "coronal": (LEFT, -HEAD, BACK),
    "mirrored": (-LEFT, BACK, HEAD),
    "oblique": directions_from_quaternion(OBLIQUE / np.linalg.norm(OBLIQUE)),
}
POSITIONS = ("HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR")
OBJECTS = {
    "MR Image": ("mri", "series"),
    "Enhanced MR": ("mri", "all.dcm"),
    "CT Image": ("ct", "series"),
    "Enhanced CT": ("ct", "all.dcm"),
    "secondary capture": ("ct", "all.sc.dcm"),
}

Moved = tuple[float, float]
"""Largest distance of a voxel from where it was, mm, and largest difference of a value."""


def by_simpleitk(path: Path) -> ImageVolume:
    """Read a series in a folder or a file."""
    reader = SimpleITK.ImageSeriesReader()
    image = SimpleITK.ReadImage(reader.GetGDCMSeriesFileNames(str(path)) if path.is_dir() else str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return ImageVolume(SimpleITK.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def by_dcm2niix(path: Path) -> ImageVolume:
    """Convert to NIfTI, and read that by nibabel."""
    folder = path.with_name(f"{path.name}-nifti")
    folder.mkdir()
    single = [] if path.is_dir() else ["-s", "y"]
    options = ["-f", "image", "-z", "n", "-b", "n", "-o", str(folder), *single, str(path)]
    subprocess.run(["dcm2niix", *options], capture_output=True, check=False)
    (file,) = folder.glob("*.nii")
    image = nibabel.load(file)
    return ImageVolume(np.asanyarray(image.dataobj), image.affine)


READERS: dict[str, Callable[[Path], ImageVolume]] = {
    "dipmed": load_image,
    "SimpleITK": by_simpleitk,
    "dcm2niix": by_dcm2niix,
}


def moved(found: ImageVolume, expected: ImageVolume, *, scaled: bool) -> Moved:
    """Compare each voxel with the one that lies nearest to its place; values up to a factor where ``scaled``."""
    index = np.indices(expected.data.shape).reshape(3, -1)
    place = expected.affine @ np.vstack([index, np.ones(index.shape[1])])
    nearest = (np.linalg.inv(found.affine) @ place)[:3].round().astype(int)
    away = found.affine @ np.vstack([nearest, np.ones(index.shape[1])]) - place
    values, wanted = found.data[tuple(nearest)].astype(float), expected.data[tuple(index)]
    factor = wanted.max() / values.max() if scaled else 1.0
    return float(np.linalg.norm(away[:3], axis=0).max()), float(np.abs(values * factor - wanted).max())


def volumes() -> Iterator[tuple[str, ImageVolume]]:
    """Yield what is written: each plane with four slices and with one, and each position of a patient."""
    rng = np.random.default_rng(0)
    for n_slices in (4, 1):
        shape = (9, 6, n_slices)
        for name, directions in DIRECTIONS.items():
            affine = affine_from_mrd(MrdGeometry(np.array(PLACE_MM), *directions, VOXEL_MM), shape)
            yield f"{name}, {'four slices' if n_slices > 1 else 'one slice'}", ImageVolume(_values(rng, shape), affine)
    for position in POSITIONS:
        yield position, ImageVolume(_values(rng, (9, 6, 4)), affine_in_gantry(position, VOXEL_MM, (-3.0, 4.0, 20.0)))


def _values(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (LARGEST * rng.random(shape)).astype(np.float32)


def details(modality: str, source: Path | None) -> DicomDetails:
    """What the objects say besides the image."""
    study = new_study() if source is None else study_of(source)
    return DicomDetails(modality, "HU" if modality == "ct" else None, "dip", ndim=2, study=study)


def in_position(volume: ImageVolume, modality: str, position: str, folder: Path) -> Path:
    """Write a series of a patient in this position, for the one that is judged to follow."""
    save_image(volume, folder, dicom=details(modality, None))
    for file in folder.iterdir():
        item = pydicom.dcmread(file)
        item.PatientPosition = position
        item.save_as(file)
    return folder


def measure(folder: Path) -> dict[tuple[str, str, str], Moved]:
    """Return what moved, by place, object and reader."""
    found = {}
    for place, volume in volumes():
        for number, (kind, (modality, name)) in enumerate(OBJECTS.items()):
            here = folder / place / str(number)
            here.mkdir(parents=True)
            source = in_position(volume, modality, place, here / "source") if place in POSITIONS else None
            save_image(volume, here / name, dicom=details(modality, source))
            for reader, read in READERS.items():
                scaled = reader != "dipmed" and (modality == "mri" or name == "all.sc.dcm")
                found[place, kind, reader] = moved(read(here / name), volume, scaled=scaled)
    return found


def show(title: str, axis: int, found: dict[tuple[str, str, str], Moved]) -> None:
    """Print the worst of each place (axis 0) or object (axis 1) as a table of Markdown."""
    print(f"| {title} | {' | '.join(READERS)} |\n|---|{'---|' * len(READERS)}")
    for row in dict.fromkeys(key[axis] for key in found):
        cells = []
        for reader in READERS:
            own = [value for key, value in found.items() if key[axis] == row and key[2] == reader]
            cells.append(f"{max(mm for mm, _ in own):.0e} mm, {max(value for _, value in own):.1g}")
        print(f"| {row} | {' | '.join(cells)} |")


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    show("place", 0, found)
    print()
    show("object", 1, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
