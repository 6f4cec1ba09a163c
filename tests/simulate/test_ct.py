"""Simulated projections: against chords in closed form, and where the truth lies."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipmed.scan import DipmedError, GeometryError, ImageVolume
from dipmed.simulate import ProjectionSettings, simulate
from dipmed.simulate.scanner import make_beam, make_cone
from operators import FanBeam, Grid, VolumeProjector, field_of_view_mm

AIR, BONE = -1000.0, 500.0


def disc_volume(shape=(60, 50), voxel=(1.0, 1.2), centre=(6.0, -4.0), radius=14.0, n_slices=2):
    """A disc of bone in air, its middle in mm from that of the slice; and an oblique affine."""
    x, y = ((np.arange(n) - (n - 1) / 2) * size - c for n, size, c in zip(shape, voxel, centre, strict=True))
    disc = np.where(np.hypot(x[:, None], y[None, :]) < radius, BONE, AIR).astype(np.float32)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * (*voxel, 3.0)
    affine[:3, 3] = 10, -20, 30
    return ImageVolume(np.repeat(disc[:, :, None], n_slices, axis=2), affine)


def centre_of_mass(values, affine):
    values = values.astype(np.float64) / values.sum(dtype=np.float64)
    index = np.indices(values.shape).reshape(3, -1)
    return affine[:3, :3] @ (index @ values.reshape(-1)) + affine[:3, 3]


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
def test_line_integrals_are_chords(geometry):
    scan = simulate(disc_volume(), ProjectionSettings(n_views=12, geometry=geometry)).scan
    beam = scan.beam
    for view in range(12):
        points, directions = beam.rays(view, beam.columns_mm)
        to_centre = np.array([6.0, -4.0]) - points
        distance = to_centre[:, 0] * directions[:, 1] - to_centre[:, 1] * directions[:, 0]
        chords = 0.03 * 2 * np.sqrt(np.clip(14.0**2 - distance**2, 0, None))
        assert scan.projections[0, view].sum() == pytest.approx(chords.sum(), rel=0.02)
        smooth = np.abs(distance) < 11  # near the edge a pixel more or less is a large change
        np.testing.assert_allclose(scan.projections[0, view][smooth], chords[smooth], atol=0.05)
        assert not scan.projections[0, view][np.abs(distance) > 16].any()


@pytest.mark.parametrize(("shape", "reduce"), [((60, 50), 2), ((61, 49), 2), ((60, 50), 3)])
def test_the_reference_holds_the_same_mass_in_the_same_place(shape, reduce):
    volume = disc_volume(shape)
    found = simulate(volume, ProjectionSettings(n_views=2, reduce=reduce))
    attenuation = 0.02 * (1 + volume.data / 1000)
    reference = found.reference
    assert reference.data.shape == (math.ceil(shape[0] / reduce), math.ceil(shape[1] / reduce), 2)
    assert reference.data.sum() * reduce**2 == pytest.approx(attenuation.sum(), rel=1e-5)
    # up to how the mass lies within single pixels
    np.testing.assert_allclose(
        centre_of_mass(reference.data, reference.affine), centre_of_mass(attenuation, volume.affine), atol=0.05
    )
    np.testing.assert_array_equal(found.scan.affine, reference.affine)
    assert found.scan.grid.spacing_mm == pytest.approx((reduce * 1.0, reduce * 1.2))


def test_a_slice_is_the_same_whichever_others_come_with_it():
    settings = ProjectionSettings(n_views=5, photons=1e4, seed=3)
    both = simulate(disc_volume(), settings)
    one = simulate(disc_volume(), settings, (1, 2))
    np.testing.assert_array_equal(one.scan.projections[0], both.scan.projections[1])
    assert not np.array_equal(both.scan.projections[0], both.scan.projections[1])
    np.testing.assert_allclose(one.scan.affine @ [0, 0, 0, 1], both.scan.affine @ [0, 0, 1, 1])


def test_noise_is_that_of_counting():
    volume = disc_volume(n_slices=1)
    photons = 2e4
    clean = simulate(volume, ProjectionSettings(n_views=60)).scan.projections
    noisy = simulate(volume, ProjectionSettings(n_views=60, photons=photons)).scan
    expected = photons * np.exp(-clean)
    deviation = (noisy.counts - expected) / np.sqrt(expected)
    assert deviation.mean() == pytest.approx(0, abs=0.05)
    assert deviation.std() == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(noisy.projections, -np.log(noisy.counts / photons), atol=1e-5)


def test_rays_without_a_photon_are_told():
    found = simulate(disc_volume(n_slices=1), ProjectionSettings(n_views=60, photons=3.0))
    n_dark = int((found.scan.counts == 0).sum())
    assert n_dark > 0
    assert f"{n_dark} of {found.scan.counts.size} rays were not reached by a photon." in found.scan.notes


@given(radius=st.floats(0.1, 2000), pixel=st.floats(0.05, 5), geometry=st.sampled_from(["parallel", "fan"]))
def test_every_view_sees_the_object(radius, pixel, geometry):
    beam = make_beam(geometry, 3, radius, pixel)
    assert field_of_view_mm(beam) >= radius * (1 - 1e-9)
    assert field_of_view_mm(beam) <= radius + 2 * pixel
    if isinstance(beam, FanBeam):
        assert beam.source_to_axis_mm > radius
        assert beam.column_mm * beam.source_to_axis_mm / beam.source_to_detector_mm == pytest.approx(pixel)


def box_volume(shape=(20, 16, 12), voxel=(1.0, 1.2, 1.5)):
    """A box of bone in air, off the middle."""
    data = np.full(shape, AIR, np.float32)
    data[6:14, 4:10, 4:10] = BONE
    return ImageVolume(data, np.diag([*voxel, 1.0]))


def test_a_cone_measures_a_volume():
    volume = box_volume()
    found = simulate(volume, ProjectionSettings(n_views=4, geometry="cone", photons=1e6))
    scan, reference = found.scan, found.reference
    assert scan.grid.shape == reference.data.shape == (10, 8, 6)
    assert scan.projections.shape == scan.counts.shape == (1, *scan.beam.shape)
    assert reference.data[3:7, 2:5, 2:5].min() == pytest.approx(0.03)
    np.testing.assert_allclose(reference.affine @ [0, 0, 0, 1], volume.affine @ [0.5, 0.5, 0.5, 1])
    # at the angle 0 the central ray runs along y; the box's middle lies at (0, -0.6 · 2, 1.5) from the axis
    row, column = (np.abs(places).argsort()[:2] for places in (scan.beam.rows_mm, scan.beam.columns_mm))
    assert scan.projections[0, 0][np.ix_(row, column)].max() == pytest.approx(0.03 * 6 * 1.2, rel=0.03)


def test_a_cone_gives_what_the_volume_projector_gives_of_the_fine_volume():
    volume = box_volume()
    scan = simulate(volume, ProjectionSettings(n_views=3, geometry="cone")).scan
    fine = Grid((20, 16, 12), (1.0, 1.2, 1.5))
    image = torch.from_numpy(0.02 * (1 + volume.data / 1000))[None]
    expected = VolumeProjector(fine, scan.beam)(image)[0].numpy()
    assert scan.projections[0].sum() == pytest.approx(expected.sum(), rel=0.02)
    difference = np.linalg.norm(scan.projections[0] - expected) / np.linalg.norm(expected)
    assert 1e-3 < difference < 0.2  # of a mean over the cell and the ray to its middle


@given(radius=st.floats(1, 500), height=st.floats(1, 300), pixel=st.floats(0.5, 5), slice_mm=st.floats(0.5, 5))
def test_every_view_of_a_cone_sees_the_object(radius, height, pixel, slice_mm):
    beam = make_cone(2, radius, height, pixel, slice_mm)
    seen = np.array([[beam.rows_mm[-1] + beam.row_mm / 2], [beam.columns_mm[-1] + beam.column_mm / 2]])
    nearest = beam.source_to_axis_mm - radius
    tangent = radius / math.sqrt(beam.source_to_axis_mm**2 - radius**2)
    needed = np.array([[height / 2 / nearest], [tangent]]) * beam.source_to_detector_mm
    assert (seen >= needed * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_views": 0}, "--views"),
        ({"geometry": "spiral"}, "unknown geometry"),
        ({"photons": 0.0}, "--photons"),
        ({"photons": math.nan}, "--photons"),
        ({"water_per_mm": -1.0}, "--water"),
        ({"reduce": 1}, "--reduce"),
    ],
)
def test_impossible_settings_are_refused(change, match):
    with pytest.raises(DipmedError, match=match):
        ProjectionSettings(**{"n_views": 3, **change})


def test_a_volume_that_is_not_in_hounsfield_units_is_refused():
    volume = disc_volume()
    with pytest.raises(DipmedError, match="Hounsfield"):
        simulate(ImageVolume(volume.data + 1000, volume.affine), ProjectionSettings(n_views=3))


def test_a_sheared_slice_is_refused():
    affine = np.eye(4)
    affine[0, 1] = 0.5
    with pytest.raises(GeometryError, match="perpendicular"):
        simulate(ImageVolume(disc_volume().data, affine), ProjectionSettings(n_views=3))


def test_a_cone_needs_slices_that_lie_straight_over_each_other():
    affine = np.eye(4)
    affine[0, 2] = 0.5
    slanted = ImageVolume(box_volume().data, affine)
    with pytest.raises(GeometryError, match="perpendicular"):
        simulate(slanted, ProjectionSettings(n_views=3, geometry="cone"))
    assert simulate(slanted, ProjectionSettings(n_views=3)).scan.n_slices == 12


def test_what_does_not_fit_in_memory_is_refused_with_an_estimate(monkeypatch):
    monkeypatch.setattr("dipmed.simulate.volume.MEMORY_GIB", 0.5)
    with pytest.raises(DipmedError, match=r"needs about \d+\.\d GiB, and 0.5 GiB"):
        simulate(disc_volume(), ProjectionSettings(n_views=3))
