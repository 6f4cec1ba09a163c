"""dipmed: training-free reconstruction of MRI and CT scans with deep image priors."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dipmed.scan import Scan

__all__ = ["__version__", "load"]

try:
    __version__ = version("dipmed")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"


def load(path: str | Path, *, measurement: int | None = None) -> Scan:
    """Read k-space or projections from a file of any supported format; see `dipmed.io.load`."""
    # here, because torch and the readers take seconds to import and the version does not need them
    from dipmed import io

    return io.load(path, measurement=measurement)
