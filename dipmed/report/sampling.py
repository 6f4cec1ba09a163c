"""Which data of a scan were measured, as a small picture."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.report.page import Sampling
from dipmed.scan import KSpaceScan, ProjectionScan, Scan

_MOST_READOUTS, _MOST_POINTS, _MOST_VIEWS = 120, 64, 720
_MIDDLE, _RADIUS = 100.0, 92.0


def sampling_of(scan: Scan) -> Sampling:
    """Show the mask, the trajectory or the angles of a prepared scan."""
    if isinstance(scan, ProjectionScan):
        return _of_views(scan)
    return _of_mask(scan, scan.mask) if scan.mask is not None else _of_trajectory(scan)


def _of_mask(scan: KSpaceScan, mask: NDArray[np.bool_]) -> Sampling:
    first = mask[0, 0]
    if scan.ndim == 3:
        plane, axes = first.any(axis=0), "phase encode y from left to right, z from top to bottom"
    else:
        plane, axes = first, "readout from left to right, phase encode from top to bottom"
    alike = bool((mask == mask[:1, :1]).all())
    about = (
        f"{mask.mean():.1%} of k-space locations were measured (white); {axes}, the centre of k-space in the middle."
    )
    return Sampling(about if alike else f"{about} Shown is the first of several patterns.", _png(plane.T))


def _png(mask: NDArray[np.bool_]) -> str:
    from matplotlib.image import imsave

    file = BytesIO()
    imsave(file, mask, cmap="gray", vmin=0, vmax=1, format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _of_trajectory(scan: KSpaceScan) -> Sampling:
    assert scan.trajectory is not None  # noqa: S101  # a scan without a mask has one
    n_samples = scan.trajectory.shape[1]
    n_readouts = scan.n_readouts or 1
    readouts = scan.trajectory[0, :, :2].reshape(n_readouts, -1, 2)
    chosen = np.unique(np.linspace(0, n_readouts - 1, _MOST_READOUTS).astype(int))
    most = _MOST_POINTS if scan.n_readouts else _MOST_POINTS * _MOST_READOUTS
    points = np.unique(np.linspace(0, readouts.shape[1] - 1, most).astype(int))
    reach = float(np.abs(readouts).max()) or 1.0
    places = _MIDDLE + readouts[chosen][:, points] * (_RADIUS / reach)
    about = f"{n_samples} samples" + (f" on {n_readouts} readouts" if scan.n_readouts else "")
    drawn = f"; {len(chosen)} of them are drawn" if len(chosen) < n_readouts else ""
    plane = ", seen along z" if scan.ndim == 3 else ""
    about += (
        f"{drawn}{plane}. The centre of k-space is in the middle, its edge at {reach:.4g} cycles per field of view."
    )
    return Sampling(about, lines=tuple(_polyline(line) for line in places))


def _of_views(scan: ProjectionScan) -> Sampling:
    angles = getattr(scan.beam, "angles", None)
    if angles is None:
        return Sampling(f"{scan.n_views} views, each with a pose of its own.")
    chosen = np.unique(np.linspace(0, len(angles) - 1, _MOST_VIEWS).astype(int))
    turned = np.array(angles)[chosen]
    along = np.stack([np.cos(turned), -np.sin(turned)], axis=-1)
    spokes = _MIDDLE + along[:, None] * np.array([[0.72], [1.0]]) * _RADIUS
    first, last = np.degrees([min(angles), max(angles)])
    about = (
        f"{scan.n_views} views at angles from {first:.4g}° to {last:.4g}°; 0° is on the right, and they count "
        "counter-clockwise."
    )
    return Sampling(about, lines=tuple(_polyline(spoke) for spoke in spokes))


def _polyline(points: NDArray[Any]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
