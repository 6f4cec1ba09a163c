"""Draw the axes and geometries of X-rays for the documentation, from the same objects that the projectors use.

Run as ``python scripts/draw_geometry.py [-o docs/img/geometry.png]``.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.patches import Circle, Rectangle

from operators import ConeBeam, FanBeam, Grid, ParallelBeam

mpl.use("Agg")
import matplotlib.pyplot as plt

OBJECT, RAY, DETECTOR, SOURCE, AXIS = "#c9d6e3", "#e0a458", "#2f4b7c", "#c8553d", "#444444"
ANGLE = math.radians(25)
TURNED = math.radians(-44)
COLUMNS = 9


def main() -> None:
    """Draw all panels into one picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/img/geometry.png"))
    chosen = parser.parse_args()
    figure = plt.figure(figsize=(12, 8.4), dpi=130, layout="constrained")
    panels = [figure.add_subplot(2, 3, number) for number in (1, 2, 3)]
    draw_slice(panels[0], ParallelBeam((ANGLE,), COLUMNS, 14.0), "ParallelBeam")
    draw_slice(panels[1], FanBeam((ANGLE,), COLUMNS, 26.0, 110.0, 190.0), "FanBeam")
    shifted = FanBeam((ANGLE,), COLUMNS, 26.0, 110.0, 190.0, column_offset=1.5, curved=True, axis_shift_mm=12.0)
    draw_slice(panels[2], shifted, "FanBeam: curved, column_offset, axis_shift_mm")
    cone = ConeBeam((TURNED,), 7, COLUMNS, 15.0, 17.0, 110.0, 180.0)
    draw_volume(figure.add_subplot(2, 3, 4, projection="3d"), cone, "ConeBeam")
    curved = replace(cone, curved=True, column_mm=22.0)
    draw_volume(figure.add_subplot(2, 3, 5, projection="3d"), curved, "ConeBeam, curved, source_shift_mm", spots=True)
    turns = tuple(TURNED + turn for turn in np.linspace(-2 * math.pi, 2 * math.pi, 97))
    helix = replace(cone, angles=turns, n_rows=3, z_mm=tuple(np.linspace(-70, 70, 97)))
    draw_volume(figure.add_subplot(2, 3, 6, projection="3d"), helix, "ConeBeam, z_mm: a helix", view=48)
    figure.savefig(chosen.out)


def draw_slice(panel: Any, beam: ParallelBeam | FanBeam, title: str) -> None:
    """Draw a beam of a slice, with u and v from the rotation axis."""
    grid = Grid((6, 5), (14.0, 14.0), (4.0, -3.0))
    low = [c - n * s / 2 for c, n, s in zip(grid.centre_mm, grid.shape, grid.spacing_mm, strict=True)]
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            panel.add_patch(Rectangle((low[0] + 14 * i, low[1] + 14 * j), 14, 14, fc=OBJECT, ec="white", lw=1))
    u, v = (np.array(axis) for axis in ((math.cos(ANGLE), math.sin(ANGLE)), (-math.sin(ANGLE), math.cos(ANGLE))))
    edges = np.append(beam.columns_mm - beam.column_mm / 2, beam.columns_mm[-1] + beam.column_mm / 2)
    cells = [on_detector(beam, columns) for columns in (beam.columns_mm, edges)]
    points, directions = beam.rays(0, beam.columns_mm)
    starts = points - 90 * directions if isinstance(beam, ParallelBeam) else points
    for start, end in zip(starts, cells[0], strict=True):
        panel.plot(*np.stack([start, end]).T, color=RAY, lw=0.9)
    panel.plot(*on_detector(beam, np.linspace(edges[0], edges[-1], 100)).T, color=DETECTOR, lw=3)
    for edge, direction in zip(cells[1], beam.rays(0, edges)[1], strict=True):
        panel.plot(*np.stack([edge - 4 * direction, edge + 4 * direction]).T, color=DETECTOR, lw=1)
    if isinstance(beam, FanBeam):
        source = beam.source(0)
        panel.add_patch(Circle(source, 4, color=SOURCE, zorder=3))
        panel.annotate("source", source, (8, -3), textcoords="offset points", color=SOURCE)
        if beam.axis_shift_mm:
            foot = beam.axis_shift_mm * u
            panel.plot(*np.stack([source, foot + 80 * v]).T, color=AXIS, lw=0.8, ls=":")
            panel.annotate("central ray", foot - 78 * v, (-62, -4), textcoords="offset points", color=AXIS, fontsize=8)
    for direction, name in ((u, "u"), (v, "v")):
        arrow(panel, np.zeros(2), 44 * direction, name, DETECTOR)
    for direction, name in (((1.0, 0.0), "x"), ((0.0, 1.0), "y")):
        arrow(panel, np.zeros(2), 44 * np.array(direction), name, AXIS)
    arc = np.linspace(0, ANGLE, 20)
    panel.plot(30 * np.cos(arc), 30 * np.sin(arc), color=AXIS, lw=0.8)
    panel.text(32 * math.cos(ANGLE / 2), 32 * math.sin(ANGLE / 2), "θ", va="center", color=AXIS)
    panel.add_patch(Circle((0, 0), 2, color=AXIS, zorder=4))
    panel.set_title(title, fontsize=10)
    panel.set_aspect("equal")
    panel.set(xlim=(-150, 138), ylim=(-118, 140))
    panel.axis("off")


def on_detector(beam: ParallelBeam | FanBeam, columns_mm: np.ndarray) -> np.ndarray:
    """Places on the detector; that of parallel rays is drawn 85 mm behind the axis."""
    points, directions = beam.rays(0, columns_mm)
    if isinstance(beam, ParallelBeam):
        return points + 85 * directions
    cosine = 1.0 if beam.curved else np.cos(beam.fan_angles_at(columns_mm))[:, None]
    return points + beam.source_to_detector_mm / cosine * directions


def arrow(panel: Any, start: np.ndarray, end: np.ndarray, name: str, colour: str) -> None:
    """Draw an axis with its name."""
    panel.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.4}, zorder=5)
    panel.text(*(1.14 * end), name, color=colour, ha="center", va="center", fontweight="bold")


def draw_volume(panel: Any, beam: ConeBeam, title: str, view: int = 0, *, spots: bool = False) -> None:
    """Draw one view of a cone, the path of its source, and the axes; ``spots`` shows a moving focal spot."""
    half = np.array([30.0, 27.0, 32.0 if not beam.z_mm else 70.0])
    for axis in range(3):
        for signs in ((a, b) for a in (-1, 1) for b in (-1, 1)):
            ends = np.empty((2, 3))
            ends[:, axis] = -half[axis], half[axis]
            ends[:, [k for k in range(3) if k != axis]] = np.array(signs) * half[[k for k in range(3) if k != axis]]
            panel.plot(*ends.T, color="#7d93ab", lw=0.9)
    _, n_rows, n_columns = beam.shape
    edges = beam.cells(view, np.arange(n_rows + 1) - 0.5, np.arange(n_columns + 1) - 0.5)
    panel.plot_surface(*np.moveaxis(edges, -1, 0), color=DETECTOR, alpha=0.12, edgecolor=DETECTOR, lw=0.5)
    source = beam.source(view)
    corners = beam.cells(view, np.array([0.0, n_rows - 1]), np.array([0.0, n_columns - 1])).reshape(-1, 3)
    for corner in (*corners, beam.cells(view, np.array([(n_rows - 1) / 2]), np.array([(n_columns - 1) / 2]))[0, 0]):
        panel.plot(*np.stack([source, corner]).T, color=RAY, lw=1)
    panel.scatter(*source, color=SOURCE, s=36, depthshade=False)
    panel.text(*(source - np.array([0, 0, 20])), "source", color=SOURCE, fontsize=9, ha="center")
    if beam.z_mm:
        path = np.stack([beam.source(number) for number in range(beam.shape[0])])
    else:
        turn = np.linspace(0, 2 * math.pi, 120)
        path = np.stack([110 * np.cos(turn), 110 * np.sin(turn), 0 * turn], -1)
    panel.plot(*path.T, color=SOURCE, lw=0.8, ls="--")
    angle = beam.angles[view]
    u, v = np.array([math.cos(angle), math.sin(angle), 0]), np.array([-math.sin(angle), math.cos(angle), 0])
    w = np.array([0.0, 0.0, 1.0])
    middle = beam.cells(view, np.array([(n_rows - 1) / 2]), np.array([(n_columns - 1) / 2]))[0, 0]
    for direction, name in ((u, "u, columns"), (w, "w, rows"), (v, "v")):
        pointer(panel, middle, 45 * direction, name, DETECTOR)
    pointer(panel, np.zeros(3), (half[2] + 25) * w, "z, rotation axis", AXIS)
    for direction, name in ((np.array([1.0, 0, 0]), "x"), (np.array([0, 1.0, 0]), "y")):
        pointer(panel, np.zeros(3), 50 * direction, name, AXIS)
    if spots:
        for along_u, along_w in ((-9, -9), (-9, 9), (9, -9), (9, 9)):
            panel.scatter(*(source + along_u * u + along_w * w), color=SOURCE, s=8, depthshade=False)
    panel.set_title(title, fontsize=10)
    reach = 95
    panel.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    panel.set_box_aspect((1, 1, 1), zoom=1.22)
    panel.view_init(elev=24, azim=-62)
    panel.set_axis_off()


def pointer(panel: Any, start: np.ndarray, along: np.ndarray, name: str, colour: str) -> None:
    """Draw an axis in space with its name."""
    panel.quiver(*start, *along, color=colour, lw=1.4, arrow_length_ratio=0.15)
    panel.text(*(start + 1.12 * along), name, color=colour, fontsize=9)


if __name__ == "__main__":
    main()
