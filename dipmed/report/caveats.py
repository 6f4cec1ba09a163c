"""What the data of a scan leave open, as warnings."""

from __future__ import annotations

import math

from dipmed.scan import KSpaceScan, ProjectionScan, Scan
from operators import missing_directions
from operators.ct_geometry import Beam


def caveats_of(scan: Scan) -> list[str]:
    """Say of a prepared scan what makes any image of it less certain."""
    found = []
    if isinstance(scan, KSpaceScan) and scan.noise_covariance is None:
        found.append("The noise is not known: the scan has no measurement of it, and its coils count alike.")
    if isinstance(scan, ProjectionScan) and scan.counts is None:
        found.append("The noise is not known: the scan does not say how many photons were counted.")
    gap = (
        math.degrees(missing_directions(scan.beam))
        if isinstance(scan, ProjectionScan) and isinstance(scan.beam, Beam)
        else 0
    )
    if gap > 0:
        found.append(
            f"The angle is limited: lines over {gap:.0f}° of 180° were not measured, and edges along them are a guess."
        )
    return found
