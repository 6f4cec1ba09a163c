import math

import numpy as np
import pytest
import torch

from dipmed.calib.projections import (
    assume_counts,
    centre_rotation,
    keep_slices,
    keep_views,
    ray_weights,
    resample_grid,
)
from dipmed.scan import DipmedError, ProjectionScan
from operators import FanBeam, Grid, ParallelBeam, SliceProjector, angles_over


def disc(grid: Grid, x: float, y: float, radius: float) -> torch.Tensor:
    xs, ys = (torch.from_numpy(grid.coordinates(axis)) for axis in (0, 1))
    return 0.02 * ((xs[:, None] - x) ** 2 + (ys[None, :] - y) ** 2 < radius**2).float()[None]


def parallel_scan(offset: float, *, n_columns: int = 90, known: bool = False) -> ProjectionScan:
    """Two slices with a disc each, the axis seen at another column than the middle one."""
    grid = Grid((64, 64), (1.0, 1.0))
    beam = ParallelBeam(angles_over(40), n_columns, 1.0, column_offset=offset)
    A = SliceProjector(grid, beam)
    sinograms = torch.cat([A(disc(grid, 12, -5, 9)), A(disc(grid, -8, 3, 14))])
    unknown = ParallelBeam(beam.angles, n_columns, 1.0)
    return ProjectionScan(sinograms.numpy(), unknown, grid, np.diag([1.0, 1.0, 3.0, 1.0]), "test", centre_known=known)


@pytest.mark.parametrize("offset", [0.0, 3.3, -7.25])
def test_the_rotation_axis_is_found_from_centres_of_mass(offset):
    found = centre_rotation(parallel_scan(offset))
    assert found.beam.column_offset == pytest.approx(offset, abs=0.02)
    assert f"column {44.5 - offset:.2f}" in found.assumptions[-1]
    assert found.centre_known


def test_an_object_beyond_the_detector_leaves_the_middle():
    cut = centre_rotation(parallel_scan(0.0, n_columns=30))
    assert cut.beam.column_offset == 0
    assert "the middle of the detector was assumed" in cut.assumptions[-1]


def test_a_known_axis_is_left_alone():
    scan = parallel_scan(3.3, known=True)
    assert centre_rotation(scan) is scan


def test_fan_beams_of_unknown_axis_keep_the_middle():
    beam = FanBeam(angles_over(6, 2 * math.pi), 20, 2.0, 100, 200)
    grid = Grid((8, 8), (1.0, 1.0))
    scan = ProjectionScan(np.ones((1, 6, 20), np.float32), beam, grid, np.eye(4), "test", centre_known=False)
    assert "middle of the detector" in centre_rotation(scan).assumptions[-1]


def test_views_are_kept_evenly():
    scan = parallel_scan(0.0)
    scan = scan.replace(counts=scan.projections + 1)
    few = keep_views(scan, 7)
    chosen = [0, 5, 11, 17, 22, 28, 34]
    assert few.beam.angles == tuple(scan.beam.angles[view] for view in chosen)
    assert np.array_equal(few.projections, scan.projections[:, chosen])
    assert np.array_equal(few.counts, scan.counts[:, chosen])
    with pytest.raises(DipmedError, match="the scan has 40"):
        keep_views(scan, 41)


def test_slices_keep_their_place():
    scan = parallel_scan(0.0)
    second = keep_slices(scan, (1, 2))
    assert np.array_equal(second.projections, scan.projections[1:])
    assert second.affine @ [0, 0, 0, 1] == pytest.approx(scan.affine @ [0, 0, 1, 1])
    with pytest.raises(DipmedError, match="2 slices"):
        keep_slices(scan, (1, 3))


def test_another_matrix_keeps_the_field_of_view():
    scan = parallel_scan(0.0)
    coarse = resample_grid(scan, 16)
    assert coarse.grid == Grid((16, 16), (4.0, 4.0))
    # the outer corners of the image are where they were
    for corner_fine, corner_coarse in (((-0.5, -0.5), (-0.5, -0.5)), ((63.5, 63.5), (15.5, 15.5))):
        fine = scan.affine @ [*corner_fine, 1, 1]
        assert coarse.affine @ [*corner_coarse, 1, 1] == pytest.approx(fine)
    with pytest.raises(DipmedError, match="two or more"):
        resample_grid(scan, 1)


def test_rays_are_weighted_by_the_roots_of_their_photons():
    scan = parallel_scan(0.0, known=True)
    counts = np.full(scan.projections.shape, 50.0, dtype=np.float32)
    counts[1, 3, 5] = 200.0
    counts[1, 3, 6] = -4.0  # a reading below the dark
    weights = ray_weights(scan.replace(counts=counts), 1)
    assert weights.shape == scan.beam.shape
    assert weights[3, 5:8].tolist() == [1.0, 0.0, 0.5]
    with pytest.raises(DipmedError, match="--poisson"):
        ray_weights(scan.replace(counts=np.zeros_like(counts)), 0)


def test_photons_that_are_unknown_are_assumed_and_said_to_be():
    scan = assume_counts(parallel_scan(0.0, known=True))
    assert scan.counts is not None
    assert "photons" in scan.assumptions[-1]
    weights = ray_weights(scan, 0)
    torch.testing.assert_close(weights.square().log(), -torch.from_numpy(scan.projections[0]), atol=1e-5, rtol=1e-5)
