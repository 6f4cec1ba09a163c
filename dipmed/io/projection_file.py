"""dipmed's own file of projections: HDF5 with line integrals, counts, the geometry as JSON, and if it was simulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dipmed.io.files import atomic_write
from dipmed.io.geometry import Description, parse, to_json
from dipmed.io.hdf5 import find_dataset, open_hdf5, read_array, read_text
from dipmed.io.projection_scan import projection_scan
from dipmed.scan import SIMULATED, SIMULATED_NOTE, FormatError, ProjectionScan

if TYPE_CHECKING:
    import h5py

_FAMILY = "dipmed projections"
FORMAT = f"{_FAMILY} 1"


def save_projections(scan: ProjectionScan, path: str | Path, *, force: bool = False) -> None:
    """Write a scan as HDF5: ``projections``, ``description``, ``counts`` where known, ``origin`` if simulated.

    Parameters
    ----------
    scan
        What to write. Its assumptions become part of the description's values and are not written.
    path
        Where to.
    force
        Whether a file that exists is replaced.

    Raises
    ------
    OutputError
        When the file exists or cannot be written.
    """
    import h5py

    text = to_json(
        Description(
            beam=scan.beam,
            image=scan.grid,
            affine=scan.affine,
            water_per_mm=scan.water_per_mm,
            centre_known=scan.centre_known,
        )
    )
    with atomic_write(path, force=force) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("format", data=np.bytes_(FORMAT))
        file.create_dataset("description", data=np.bytes_(text.encode("ascii")))
        if scan.source == SIMULATED:
            file.create_dataset("origin", data=np.bytes_(SIMULATED))
        # no compression: line integrals of a real detector hardly pack
        file.create_dataset("projections", data=scan.projections)
        if scan.counts is not None:
            file.create_dataset("counts", data=scan.counts)


def is_ours(file: h5py.File) -> bool:
    """Say whether the file calls itself one of these, of whatever version."""
    name = find_dataset(file, "format")
    return name is not None and name.shape == () and name.dtype.kind == "S" and read_text(name).startswith(_FAMILY)


def read(path: Path) -> ProjectionScan:
    """Read what `save_projections` wrote.

    Raises
    ------
    FormatError, ShapeError
        When something is missing or damaged, or of a newer version.
    """
    with open_hdf5(path) as file:
        name, text = find_dataset(file, "format"), find_dataset(file, "description")
        projections, counts = find_dataset(file, "projections"), find_dataset(file, "counts")
        origin = find_dataset(file, "origin")
        if name is None or text is None or projections is None:
            raise FormatError(f"{path} should hold 'format', 'description' and 'projections'")
        if read_text(name) != FORMAT:
            raise FormatError(f"{path} says {read_text(name)!r}, but this version of dipmed reads {FORMAT!r}")
        description = parse(read_text(text), f"{path}: description")
        values = read_array(projections)
        photons = None if counts is None else read_array(counts)
        is_simulated = origin is not None and read_text(origin) == SIMULATED
    if description.image is None or description.affine is None:
        raise FormatError(f"{path}: the description should have 'image' and 'affine'")
    return projection_scan(
        values,
        description,
        source=SIMULATED if is_simulated else "dipmed-projections",
        what=f"{path}: projections",
        counts=photons,
        notes=(SIMULATED_NOTE,) if is_simulated else (),
    )
