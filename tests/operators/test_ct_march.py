"""CT of volumes, against line integrals in closed form, the projector of slices, and itself in another place."""

import copy
import importlib.util
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from operators import (
    ConeBeam,
    DipmedError,
    Grid,
    ParallelBeam,
    PosedBeam,
    ShapeError,
    SliceProjector,
    VolumeProjector,
    angles_over,
    batch_test,
    dot_test,
    gradient_test,
    normal_test,
    posed,
)
from operators.ct_coverage import sees

TURN = 2 * math.pi
GRID = Grid((40, 36, 32), (1.0, 1.2, 0.9), (1.5, -1.0, 0.7))
CONE = ConeBeam(angles_over(9, TURN), 44, 60, 2.0, 2.0, 120.0, 240.0, 0.3, -0.7)


def tilted(angle: float) -> PosedBeam:
    """A detector above the object and a source below it, both on circles about z: rays steeper than any plane."""
    sources, centres, rows, columns = [], [], [], []
    for turn in angles_over(5, TURN):
        u, v = np.array([math.cos(turn), math.sin(turn), 0]), np.array([-math.sin(turn), math.cos(turn), 0])
        along = math.cos(angle) * v + math.sin(angle) * np.array([0, 0, 1.0])
        sources.append(tuple(-120 * along))
        centres.append(tuple(120 * along))
        columns.append(tuple(2 * u))
        rows.append(tuple(2 * np.cross(u, along)))
    return PosedBeam(tuple(sources), tuple(centres), tuple(rows), tuple(columns), 60, 60)


BEAMS = {
    "cone": CONE,
    "cone, curved": replace(CONE, curved=True),
    "cone, shifted axis": replace(CONE, axis_shift_mm=3.0),
    "helix": replace(CONE, z_mm=tuple(np.linspace(-6.0, 6.0, 9))),
    "flying focal spot": replace(CONE, curved=True, source_shift_mm=((1.5, 0, 0), (-1.5, 2.0, 1.0), (0, 0, -1)) * 3),
    "posed cone": posed(CONE),
    "parallel": posed(ParallelBeam(angles_over(9), 60, 1.0, 0.3), 44, 1.1),
    "laminography": tilted(math.radians(40)),
    "from below": tilted(math.radians(80)),
}
CENTRE, RADII = np.array([3.0, -2.0, 1.0]), np.array([12.0, 9.0, 8.0])
in_all_beams = pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())


def ellipsoid_integrals(beam):
    """Line integrals of an ellipsoid of ones, ``(1, view, row, column)``."""
    chords = []
    for view in range(beam.shape[0]):
        points, directions = beam.rays(view, *(np.arange(float(n)) for n in beam.shape[1:]))
        # the ellipsoid is the unit ball in its own units, where directions are longer
        start, along = (points - CENTRE) / RADII, directions / RADII
        squared, half = (along**2).sum(-1), (start * along).sum(-1)
        root = half**2 - squared * ((start**2).sum(-1) - 1)
        chords.append(2 * np.sqrt(np.clip(root, 0, None)) / squared)
    return torch.tensor(np.array(chords), dtype=torch.float32)[None]


def ellipsoid_image(grid, n=3):
    """The share of each voxel that the ellipsoid covers, ``(1, x, y, z)``."""
    fine = []
    for axis in range(3):
        within = (np.arange(n) - (n - 1) / 2) / n * grid.spacing_mm[axis]
        fine.append(((np.add.outer(grid.coordinates(axis), within).ravel() - CENTRE[axis]) / RADII[axis]) ** 2)
    inside = fine[0][:, None, None] + fine[1][None, :, None] + fine[2][None, None, :] < 1
    share = inside.reshape(grid.shape[0], n, grid.shape[1], n, grid.shape[2], n).mean(axis=(1, 3, 5))
    return torch.tensor(share, dtype=torch.float32)[None]


def relative(x, y):
    return float((x - y).norm() / y.norm())


@in_all_beams
def test_an_ellipsoid_has_the_line_integrals_of_an_ellipsoid(beam):
    projections = VolumeProjector(GRID, beam)(ellipsoid_image(GRID))
    expected = ellipsoid_integrals(beam)
    # the surface is blurred over a voxel, rays through the middle are not
    through = expected > 0.7 * expected.max()
    assert relative(projections[through], expected[through]) < 0.015
    assert relative(projections, expected) < 0.06
    assert float(projections.sum() / expected.sum()) == pytest.approx(1, abs=3e-3)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 3)] * 3),
    size=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 7)),
    kind=st.sampled_from(["flat", "curved", "helix", "flying", "posed", "parallel", "tilted"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    batch=st.sampled_from([(), (3,), (2, 2)]),
    seed=st.integers(0, 2**16),
)
def test_it_obeys_the_laws(shape, spacing, size, kind, dtype, batch, seed):
    rng = np.random.default_rng(seed)
    n_views, n_rows, n_columns = size
    angles = tuple(rng.uniform(-7, 7, n_views))
    beam = ConeBeam(
        angles,
        n_rows,
        n_columns,
        2.5,
        2.0,
        60.0,
        100.0,
        *rng.uniform(-0.4, 0.4, 2),
        kind == "curved",
        rng.uniform(-1, 1),
    )
    if kind == "helix":
        beam = replace(beam, z_mm=tuple(rng.uniform(-1, 1, n_views)))
    elif kind == "flying":
        beam = replace(beam, source_shift_mm=tuple(map(tuple, rng.uniform(-2, 2, (n_views, 3)))))
    elif kind == "posed":
        beam = posed(beam)
    elif kind == "parallel":
        beam = posed(ParallelBeam(angles, n_columns, 1.0, rng.uniform(-0.4, 0.4)), n_rows)
    elif kind == "tilted":
        beam = replace(tilted(rng.uniform(0.3, 1.5)), n_rows=n_rows, n_columns=n_columns)
    grid = Grid(shape, spacing, tuple(rng.uniform(-0.3, 0.3, 3)))
    assume(sees(beam, grid))
    A = VolumeProjector(grid, beam)
    generator = torch.Generator().manual_seed(seed)
    for check in (dot_test, normal_test, gradient_test, batch_test):
        error = check(A, generator, batch, dtype)
        assert error < (1e-5 if dtype == torch.float32 else 1e-12), f"{check.__name__}: {error}"


@pytest.mark.parametrize("curved", [False, True])
def test_the_mid_plane_of_a_cone_is_a_fan(curved):
    cone = replace(CONE, n_rows=1, row_offset=0.0, curved=curved)
    image = torch.rand((1, 40, 36), generator=torch.Generator().manual_seed(0))
    fan = SliceProjector(Grid(GRID.shape[:2], GRID.spacing_mm[:2], GRID.centre_mm[:2]), cone.mid_plane)(image)
    # three slices that are alike: the rays run through the middle of the second
    flat = Grid((40, 36, 3), (1.0, 1.2, 0.8), (1.5, -1.0, 0.0))
    found = VolumeProjector(flat, cone)(image[..., None].expand(1, 40, 36, 3).contiguous())
    torch.testing.assert_close(found[:, :, 0], fan, rtol=1e-4, atol=1e-4)


def test_parallel_rows_are_slices():
    beam = ParallelBeam(angles_over(8), 50, 1.0, 0.4)
    image = torch.rand((1, 40, 36, 5), generator=torch.Generator().manual_seed(0))
    rows = VolumeProjector(Grid((40, 36, 5), (1.0, 1.2, 0.8)), posed(beam, 5, 0.8))(image)
    slices = SliceProjector(Grid((40, 36), (1.0, 1.2)), beam)(image.movedim(3, 0))
    torch.testing.assert_close(rows[0].transpose(0, 1), slices[:, 0], rtol=1e-4, atol=1e-4)


@in_all_beams
def test_both_ways_to_march_give_the_same(beam):
    A = VolumeProjector(GRID, beam)
    x, y = A.domain.randn(), A.range.randn()
    forward, adjoint = A(x), A.adjoint(y)
    A._kernels["cpu"].is_upright = False
    torch.testing.assert_close(A(x), forward, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(A.adjoint(y), adjoint, rtol=1e-4, atol=1e-3)


def test_lines_along_z_are_used_for_cones_and_not_for_tilted_detectors():
    for name, beam in BEAMS.items():
        upright = VolumeProjector(GRID, beam)._kernels["cpu"].is_upright
        assert upright == (name not in ("laminography", "from below"))


def test_the_bits_do_not_depend_on_the_number_of_threads():
    A = VolumeProjector(GRID, CONE)
    y = A.range.randn(generator=torch.Generator().manual_seed(0))
    n_threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append((A.adjoint(y), A(A.adjoint(y))))
    finally:
        torch.set_num_threads(n_threads)
    assert all(torch.equal(a, b) for pair in found[1:] for a, b in zip(pair, found[0], strict=True))


def test_moving_the_object_is_moving_the_scanner():
    image = torch.rand((1, 12, 12, 8), generator=torch.Generator().manual_seed(0))
    cone = replace(CONE, z_mm=tuple(np.linspace(-2, 3, 9)))
    still = VolumeProjector(Grid((12, 12, 8), (2.0, 2.0, 1.5), (7.0, 3.0, 1.0)), cone)(image)
    # up by 4 mm, and a quarter turn of the object, back by a quarter turn of the scanner
    moved = replace(cone, angles=tuple(a + math.pi / 2 for a in cone.angles), z_mm=tuple(z + 4 for z in cone.z_mm))
    turned = Grid((12, 12, 8), (2.0, 2.0, 1.5), (-3.0, 7.0, 5.0))
    found = VolumeProjector(turned, moved)(image.transpose(1, 2).flip(1).contiguous())
    torch.testing.assert_close(found, still, rtol=1e-4, atol=1e-3)


def test_what_lies_behind_the_source_casts_no_shadow():
    grid = Grid((4, 40, 4), (1.0, 1.0, 1.0), (0.0, -70.0, 0.0))
    cone = ConeBeam((0.0,), 5, 5, 1.0, 1.0, 49.0, 100.0)
    image = torch.ones((1, *grid.shape))
    assert not VolumeProjector(replace(grid, centre_mm=(0.0, -20.0, 0.0)), cone)(image).eq(0).all()
    with pytest.raises(DipmedError, match="no ray meets"):
        VolumeProjector(grid, cone)


def test_it_can_be_copied_and_pickled():
    A = VolumeProjector(GRID, CONE)
    x = torch.rand(A.domain.shape)
    expected = A(x)
    assert torch.equal(pickle.loads(pickle.dumps(A))(x), expected)  # noqa: S301 - made here
    assert torch.equal(copy.deepcopy(A)(x), expected)
    assert A.device == torch.device("cpu")
    assert A.state_dict() == {}


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: VolumeProjector(Grid((8, 8), (1.0, 1.0)), CONE), ShapeError, "three axes"),
        (lambda: VolumeProjector(replace(GRID, spacing_mm=(9.0, 9.0, 1.0)), CONE), DipmedError, "inside the volume"),
        (lambda: VolumeProjector(replace(GRID, centre_mm=(0.0, 0.0, 90.0)), CONE), DipmedError, "no ray meets"),
        (lambda: VolumeProjector(GRID, CONE, memory_gib=1e-3), DipmedError, r"need \d.*GiB.*--views.*--matrix"),
        (lambda: VolumeProjector(Grid((9000,) * 3, (1e-3,) * 3), CONE), DipmedError, "10862.9 GiB"),
        (
            lambda: VolumeProjector(GRID, CONE)(torch.zeros((1, *GRID.shape), device="meta")),
            DipmedError,
            "cpu and cuda",
        ),
        (lambda: VolumeProjector(GRID, CONE)(torch.zeros(1, 4, 4, 4)), ShapeError, "expects"),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


_ON_TRITON = """
import math, torch
from dataclasses import replace
from operators import *
from operators.ct_march import rays_in_voxels
from operators.march_triton import TritonMarch
cone = ConeBeam((0.0, math.pi / 4, 1.0, 4.0), 9, 11, 2.0, 2.0, 40.0, 80.0, 0.3, 0.4)
sources, centres = ((0, 0, -60.0), (3, 4, 50.0)), ((0, 0, 50.0), (0, 0, -60.0))
steep = PosedBeam(sources, centres, ((0, 2.0, 0.1),) * 2, ((2.0, 0.1, 0),) * 2, 8, 9)
parallel = posed(ParallelBeam((0.0, math.pi / 4, 2.0, 3.0), 9, 1.3), 7)
for beam in (cone, replace(cone, curved=True, z_mm=(0.0, 1.0, 2.0, 3.0)), parallel, steep):
    A = VolumeProjector(Grid((8, 10, 12), (1.0, 1.2, 0.9), (0.5, 0, 0.3)), beam)
    march = TritonMarch(rays_in_voxels(A.grid, beam), A.grid.shape)
    x, y = A.domain.randn((2,)), A.range.randn((2,))
    for found, expected in ((march.forward(x[:, 0]), A(x)[:, 0]), (march.adjoint(y[:, 0]), A.adjoint(y)[:, 0])):
        assert (found - expected).norm() < 1e-5 * expected.norm(), beam
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_the_kernels_for_cuda_give_the_same():
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _ON_TRITON], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@in_all_beams
def test_a_gpu_gives_the_same(beam):
    A = VolumeProjector(GRID, beam)
    x, y = A.domain.randn((2,)), A.range.randn((2,))
    B = copy.deepcopy(A).cuda()
    assert relative(B(x.cuda()).cpu(), A(x)) < 1e-4
    assert relative(B.adjoint(y.cuda()).cpu(), A.adjoint(y)) < 1e-4
