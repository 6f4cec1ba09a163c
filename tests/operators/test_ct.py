"""CT of slices, against line integrals in closed form, ASTRA, and itself in another place."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from operators import (
    DipmedError,
    FanBeam,
    Grid,
    ParallelBeam,
    ShapeError,
    SliceProjector,
    angles_over,
    filtered_back_projection,
)

TURN = 2 * math.pi
GRID = Grid((96, 80), (1.0, 1.2), (2.0, -1.0))
BEAMS = {
    "parallel": ParallelBeam(angles_over(180), 140, 1.0, 0.3),
    "parallel, full turn": ParallelBeam(angles_over(300, TURN), 140, 1.0, -2.5),
    "fan": FanBeam(angles_over(360, TURN), 140, 2.0, 200.0, 400.0, -0.7),
    "fan, curved": FanBeam(angles_over(360, TURN), 140, 2.0, 200.0, 400.0, 0.4, curved=True),
    "fan, shifted axis": FanBeam(angles_over(360, TURN), 140, 2.0, 200.0, 400.0, 0.4, axis_shift_mm=3.0),
    "fan, short scan": FanBeam(angles_over(240, math.radians(230), 0.4), 140, 2.0, 200.0, 400.0),
    "fan, short scan, curved": FanBeam(angles_over(240, math.radians(230)), 140, 2.0, 200.0, 400.0, curved=True),
}
CENTRE, RADIUS = np.array([5.0, 4.0]), 24.0
in_all_beams = pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())
in_both_weights = pytest.mark.parametrize("weights", ["joseph", "strip"])


def disc_integrals(beam, centre=CENTRE, radii=RADIUS):
    """Line integrals of a disc of ones, or of an ellipse along the axes, ``(1, view, column)``."""
    chords = []
    for view in range(len(beam.angles)):
        points, directions = beam.rays(view, beam.columns_mm)
        # the ellipse is the unit disc in its own units, where directions are longer
        to_centre, along = (centre - points) / radii, directions / radii
        squared = (along**2).sum(axis=-1)
        distance = to_centre[:, 0] * along[:, 1] - to_centre[:, 1] * along[:, 0]
        chords.append(2 * np.sqrt(np.clip(squared - distance**2, 0, None)) / squared)
    return torch.tensor(np.array(chords), dtype=torch.float32)[None]


def disc_image(grid, centre=CENTRE, radii=RADIUS, n=8):
    """The share of each pixel that the disc or ellipse covers, ``(1, x, y)``."""
    fine = [
        np.add.outer(grid.coordinates(axis), (np.arange(n) - (n - 1) / 2) / n * grid.spacing_mm[axis]).ravel()
        for axis in (0, 1)
    ]
    x, y = ((places - c) / r for places, c, r in zip(fine, centre, np.broadcast_to(radii, 2), strict=True))
    inside = x[:, None] ** 2 + y[None, :] ** 2 < 1
    share = inside.reshape(grid.shape[0], n, grid.shape[1], n).mean(axis=(1, 3))
    return torch.tensor(share, dtype=torch.float32)[None]


def relative(x, y):
    return float((x - y).norm() / y.norm())


@in_all_beams
@in_both_weights
def test_a_disc_has_the_line_integrals_of_a_disc(beam, weights):
    beam = replace(beam, angles=beam.angles[::11])
    sinogram = SliceProjector(GRID, beam, weights)(disc_image(GRID))
    expected = disc_integrals(beam)
    assert relative(sinogram, expected) < 0.02
    assert float(sinogram.sum() / expected.sum()) == pytest.approx(1, abs=1e-3)


@in_all_beams
@in_both_weights
def test_an_ellipse_on_unequal_pixels_has_the_line_integrals_of_an_ellipse(beam, weights):
    beam = replace(beam, angles=beam.angles[3::17])
    grid = Grid((64, 120), (1.5, 0.7), (2.0, -1.0))
    centre, radii = np.array([6.0, -5.0]), np.array([22.0, 13.0])
    sinogram = SliceProjector(grid, beam, weights)(disc_image(grid, centre, radii))
    expected = disc_integrals(beam, centre, radii)
    assert relative(sinogram, expected) < 0.025
    assert float(sinogram.sum() / expected.sum()) == pytest.approx(1, abs=1e-3)


@in_all_beams
@in_both_weights
def test_a_quarter_turn_of_the_object_is_one_of_the_scanner_back(beam, weights):
    beam = replace(beam, angles=beam.angles[::29])
    image = torch.rand((1, 12, 9), generator=torch.Generator().manual_seed(0))
    still = SliceProjector(Grid((12, 9), (2.0, 3.1), (7.0, 3.0)), beam, weights)(image)
    turned = Grid((9, 12), (3.1, 2.0), (-3.0, 7.0))
    later = replace(beam, angles=tuple(a + math.pi / 2 for a in beam.angles))
    moved = SliceProjector(turned, later, weights)(image.transpose(1, 2).flip(1))
    torch.testing.assert_close(moved, still, rtol=1e-4, atol=1e-4)


def moved_scanner(beam, view, shift):
    """The beam of one view whose source and detector are moved by ``shift``."""
    angle = beam.angles[view]
    along_u = shift[0] * math.cos(angle) + shift[1] * math.sin(angle)
    along_v = shift[1] * math.cos(angle) - shift[0] * math.sin(angle)
    if isinstance(beam, ParallelBeam):
        return ParallelBeam((angle,), beam.n_columns, beam.column_mm, beam.column_offset + along_u / beam.column_mm)
    return replace(
        beam,
        angles=(angle,),
        axis_shift_mm=beam.axis_shift_mm + along_u,
        source_to_axis_mm=beam.source_to_axis_mm - along_v,
    )


@in_all_beams
@in_both_weights
def test_moving_the_object_is_moving_the_scanner_back(beam, weights):
    image = torch.rand((1, 12, 9), generator=torch.Generator().manual_seed(0))
    shift = np.array([5.0, -3.7])
    here = Grid((12, 9), (2.0, 3.1), (7.0, 3.0))
    there = Grid((12, 9), (2.0, 3.1), (7.0 + shift[0], 3.0 + shift[1]))
    for view in range(0, len(beam.angles), 67):
        back = SliceProjector(here, moved_scanner(beam, view, -shift), weights)(image)
        moved = SliceProjector(there, beam.with_views([view]), weights)(image)
        torch.testing.assert_close(moved, back, rtol=1e-3, atol=1e-3)


def test_strips_share_a_pixel_out_to_the_columns():
    beam = ParallelBeam(angles_over(7), 40, 0.7)
    A = SliceProjector(Grid((6, 5), (1.0, 1.3)), beam, "strip")
    # all columns together see the area of a pixel, in every view
    seen = A.adjoint(torch.ones(A.range.shape)) * beam.column_mm / len(beam.angles)
    torch.testing.assert_close(seen, torch.full_like(seen, 1.3), rtol=1e-4, atol=0)


def test_projectors_of_the_same_rays_share_their_matrices():
    grid, beam = Grid((6, 5), (1.0, 1.0)), ParallelBeam(angles_over(3), 8, 1.0)
    A, B = SliceProjector(grid, beam), SliceProjector(replace(grid), replace(beam))
    assert A._rows_value.data_ptr() == B._rows_value.data_ptr()
    # one that moves to another precision leaves the other where it is
    B.double()
    assert A._rows_value.dtype == torch.float32
    others = SliceProjector(grid, beam, "strip"), SliceProjector(grid, replace(beam, column_offset=0.5))
    x = torch.rand(A.domain.shape)
    assert all(not torch.equal(other(x), A(x)) for other in others)


@in_all_beams
def test_back_projection_gives_the_values_back(beam):
    image = filtered_back_projection(0.02 * disc_integrals(beam), beam, GRID)[0].numpy() / 0.02
    x, y = (GRID.coordinates(axis) - CENTRE[axis] for axis in (0, 1))
    distance = np.hypot(x[:, None], y[None, :])
    inside, outside = image[distance < RADIUS - 4], image[distance > RADIUS + 4]
    assert inside.mean() == pytest.approx(1, abs=2e-3)
    assert inside.std() < 5e-3
    assert abs(outside.mean()) < 2e-3
    assert outside.std() < 0.03


def test_views_in_any_order_and_batches_give_the_same_image():
    beam = BEAMS["fan, short scan"]
    order = np.random.default_rng(0).permutation(len(beam.angles))
    shuffled = FanBeam(tuple(np.array(beam.angles)[order]), 140, 2.0, 200.0, 400.0)
    sinogram = disc_integrals(beam)
    expected = filtered_back_projection(sinogram, beam, GRID)
    batch = torch.stack([sinogram, 2 * sinogram])[:, :, order]
    found = filtered_back_projection(batch, shuffled, GRID)
    torch.testing.assert_close(found, torch.stack([expected, 2 * expected]), rtol=1e-4, atol=1e-4)


def test_smoother_windows_give_less_noise():
    beam = BEAMS["parallel"]
    noise = torch.randn((1, 180, 140), generator=torch.Generator().manual_seed(0))
    spread = [
        float(filtered_back_projection(noise, beam, GRID, window).std())
        for window in ("ramp", "shepp-logan", "cosine", "hann")
    ]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 1.5 * spread[-1]


@pytest.mark.parametrize(
    "beam",
    [ParallelBeam(angles_over(90, math.pi / 2), 140, 1.0), FanBeam(angles_over(90, 2.0), 140, 2.0, 200.0, 400.0)],
    ids=["parallel", "fan"],
)
def test_a_limited_angle_is_named(beam):
    with pytest.warns(UserWarning, match="limited angle"):
        filtered_back_projection(disc_integrals(beam), beam, GRID)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Grid((8,), (1.0,)), ShapeError, "2 or 3 sizes"),
        (lambda: Grid((8, 8), (1.0, -1.0)), ShapeError, "positive"),
        (lambda: Grid((8, 8), (1.0, math.nan)), ShapeError, "positive"),
        (lambda: ParallelBeam((), 8, 1.0), DipmedError, "one or more finite angles"),
        (lambda: ParallelBeam((0.0, math.nan), 8, 1.0), DipmedError, "finite angles"),
        (lambda: ParallelBeam((0.0,), 0, 1.0), DipmedError, "positive width"),
        (lambda: FanBeam((0.0,), 8, 1.0, -5.0, 9.0), DipmedError, "distances"),
        (lambda: FanBeam((0.0,), 900, 1.0, 50.0, 100.0, curved=True), DipmedError, "around the source"),
        (lambda: SliceProjector(Grid((8, 8, 8), (1.0,) * 3), BEAMS["fan"]), ShapeError, "two axes"),
        (lambda: SliceProjector(GRID, FanBeam((0.0,), 8, 1.0, 50.0, 99.0)), DipmedError, "outside the grid"),
        (lambda: SliceProjector(GRID, ParallelBeam((0.0,), 8, 1.0, 500.0)), DipmedError, "no ray"),
        (lambda: SliceProjector(GRID, BEAMS["fan"], "area"), DipmedError, "joseph or strip"),
        (lambda: SliceProjector(GRID, BEAMS["fan"], memory_gib=1e-3), DipmedError, "GiB"),
        (lambda: filtered_back_projection(torch.zeros(1, 3, 8), BEAMS["fan"], GRID), ShapeError, "sinogram"),
        (lambda: filtered_back_projection(disc_integrals(BEAMS["fan"]), BEAMS["fan"], GRID, "box"), DipmedError, "box"),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def _in_astra(astra, grid, beam, kernel, image):
    """Project by ASTRA, whose rows are our -y and whose angles turn as ours do."""
    nx, ny = grid.shape
    half = [n * s / 2 for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    cx, cy = grid.centre_mm
    volume = astra.create_vol_geom(ny, nx, cx - half[0], cx + half[0], cy - half[1], cy + half[1])
    if isinstance(beam, FanBeam):
        far = beam.source_to_detector_mm - beam.source_to_axis_mm
        projection = astra.create_proj_geom(
            "fanflat", beam.column_mm, beam.n_columns, np.array(beam.angles), beam.source_to_axis_mm, far
        )
    else:
        u = np.stack([np.cos(beam.angles), np.sin(beam.angles)], axis=-1)
        v = np.stack([-u[:, 1], u[:, 0]], axis=-1)
        vectors = np.concatenate([v, beam.column_offset * beam.column_mm * u, beam.column_mm * u], axis=1)
        projection = astra.create_proj_geom("parallel_vec", beam.n_columns, vectors)
    projector = astra.create_projector(kernel, projection, volume)
    data = astra.data2d.create("-vol", volume, np.ascontiguousarray(image.numpy().T[::-1]))
    number, sinogram = astra.create_sino(data, projector)
    astra.data2d.delete([data, number])
    astra.projector.delete(projector)
    return torch.from_numpy(sinogram)[None]


@pytest.mark.reference
@pytest.mark.parametrize(
    ("name", "kernel", "weights", "tolerance"),
    [
        ("parallel", "linear", "joseph", 1e-4),
        ("parallel", "strip", "strip", 1e-4),
        ("parallel", "line", "joseph", 0.02),
        ("fan", "line_fanflat", "joseph", 0.02),
        ("fan", "strip_fanflat", "strip", 1e-3),
    ],
)
def test_astra_gives_the_same_sinogram(astra, name, kernel, weights, tolerance):
    grid = Grid((64, 64), (1.25, 1.25), (2.0, -1.0))
    beam = replace(BEAMS[name], angles=BEAMS[name].angles[::7])
    if isinstance(beam, FanBeam):
        beam = replace(beam, column_offset=0.0)  # ASTRA's fan on the CPU has no offset
    image = disc_image(grid)[0] * (1 + 0.2 * torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)))
    ours = SliceProjector(grid, beam, weights)(image[None])
    theirs = _in_astra(astra, grid, beam, kernel, image)
    assert relative(ours, theirs) < tolerance
