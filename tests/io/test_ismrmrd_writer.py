"""Scans written as ISMRMRD are read again as they were, by us and by the ismrmrd package."""

import ismrmrd
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.io import load, save_ismrmrd
from dipmed.patient import lps_to_ras
from dipmed.scan import GeometryError, KSpaceScan, OutputError, SequenceFigures


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def complex_noise(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def some_scan(rng, shape, image_shape=None, **changes):
    kspace = complex_noise(rng, *shape)
    mask = rng.random((*shape[:2], 1, *shape[4:])) < 0.6
    mask[(..., shape[4] // 2, *[slice(None)] * (len(shape) - 5))] = True
    mask = np.broadcast_to(mask, (*shape[:2], *shape[3:])).copy()
    size = image_shape or shape[3:]
    angle = 0.3  # an oblique, mirrored place
    directions = np.array([[np.cos(angle), np.sin(angle), 0], [np.sin(angle), -np.cos(angle), 0], [0, 0, 1]]).T
    affine = np.eye(4)
    affine[:3, :3] = directions * [1.5, 2.5, 4]
    affine[:3, 3] = [-30, 12, 7]
    return KSpaceScan(
        **{
            "kspace": kspace * mask[:, :, None],
            "mask": mask,
            "affine": affine,
            "image_shape": tuple(size),
            "source": "ismrmrd",
            "frame_labels": tuple({"repetition": i} for i in range(shape[0])) if shape[0] > 1 else ({},),
            "sequence": SequenceFigures(2.5, (0.01,), (0.002, 0.003), (0.4,), (0.5,), (0.001,)),
        }
        | changes
    )


def assert_same(scan, other):
    np.testing.assert_array_equal(other.kspace, scan.kspace)
    np.testing.assert_array_equal(other.mask, scan.mask)
    np.testing.assert_allclose(other.affine, scan.affine, atol=1e-4)
    assert other.image_shape == scan.image_shape
    assert other.frame_labels == scan.frame_labels
    assert (other.calibration is None) == (scan.calibration is None)
    if scan.calibration is not None:
        np.testing.assert_array_equal(other.calibration, scan.calibration)
    for name in ("repetition_times_s", "echo_times_s", "inversion_times_s", "flip_angles_rad", "echo_spacings_s"):
        np.testing.assert_allclose(getattr(other.sequence, name), getattr(scan.sequence, name))
    assert other.sequence.field_strength_t == scan.sequence.field_strength_t
    assert other.assumptions == () == other.notes


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [
        ((1, 1, 2, 8, 6), None),
        ((1, 1, 1, 9, 7), None),
        ((2, 3, 2, 8, 6), None),
        ((1, 2, 2, 16, 6), (8, 6)),
        ((1, 2, 2, 16, 6), (9, 6)),
        ((1, 1, 2, 8, 6, 5), None),
        ((3, 1, 2, 10, 7, 4), (5, 7, 4)),
    ],
)
def test_what_was_written_is_read_again(tmp_path, rng, shape, image_shape):
    scan = some_scan(rng, shape, image_shape)
    save_ismrmrd(scan, tmp_path / "a.h5")
    assert_same(scan, load(tmp_path / "a.h5"))


def test_calibration_and_labels_are_written(tmp_path, rng):
    calibration = np.zeros((1, 2, 2, 8, 6), np.complex64)
    calibration[..., 2:4] = complex_noise(rng, 1, 2, 2, 8, 2)
    labels = ({"contrast": 0, "set": 1}, {"contrast": 1, "set": 0})
    scan = some_scan(rng, (2, 2, 2, 8, 6), calibration=calibration, frame_labels=labels)
    save_ismrmrd(scan, tmp_path / "a.h5")
    assert_same(scan, load(tmp_path / "a.h5"))


def test_unknown_labels_become_repetitions(tmp_path, rng):
    scan = some_scan(rng, (2, 1, 2, 8, 6), frame_labels=({"time": 3}, {"time": 7}))
    save_ismrmrd(scan, tmp_path / "a.h5")
    assert load(tmp_path / "a.h5").frame_labels == ({"repetition": 0}, {"repetition": 1})


def test_a_partial_echo_is_written_as_one(tmp_path, rng):
    scan = some_scan(rng, (1, 1, 2, 8, 6))
    mask = scan.mask.copy()
    mask[:, :, :3] = False
    scan = scan.replace(mask=mask, kspace=scan.kspace * mask[:, :, None])
    save_ismrmrd(scan, tmp_path / "a.h5")
    with ismrmrd.Dataset(str(tmp_path / "a.h5"), mode="r") as file:
        acquisition = file.read_acquisition(0)
    assert (acquisition.number_of_samples, acquisition.center_sample) == (5, 1)
    np.testing.assert_array_equal(load(tmp_path / "a.h5").mask, scan.mask)


def test_a_slanted_stack_is_written(tmp_path, rng):
    scan = some_scan(rng, (1, 3, 2, 8, 6))
    affine = scan.affine.copy()
    affine[:2, 2] = [1, 2]
    scan = scan.replace(affine=affine)
    save_ismrmrd(scan, tmp_path / "a.h5")
    np.testing.assert_allclose(load(tmp_path / "a.h5").affine, affine, atol=1e-4)


def test_the_file_is_valid_for_the_ismrmrd_package(tmp_path, rng):
    scan = some_scan(rng, (1, 2, 2, 8, 6))
    save_ismrmrd(scan, tmp_path / "a.h5")
    with ismrmrd.Dataset(str(tmp_path / "a.h5"), mode="r") as file:
        header = ismrmrd.xsd.CreateFromDocument(file.read_xml_header())
        acquisitions = [file.read_acquisition(i) for i in range(file.number_of_acquisitions())]
    assert header.encoding[0].encodedSpace.matrixSize.x == 8
    assert header.encoding[0].encodingLimits.kspace_encoding_step_1.center == 3
    assert header.experimentalConditions.H1resonanceFrequency_Hz == pytest.approx(2.5 * 42.577e6, rel=1e-4)
    assert len(acquisitions) == scan.mask[:, :, 0].sum()
    assert acquisitions[-1].is_flag_set(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    head = acquisitions[0].getHead()
    expected = scan.affine @ [4, 3, 0, 1]
    np.testing.assert_allclose(lps_to_ras(head.position), expected[:3], atol=1e-4)


def gaps(scan):
    mask = scan.mask.copy()
    mask[0, 0, 4, 4] = False
    return scan.replace(mask=mask)


def an_empty_slice(scan):
    return scan.replace(mask=np.zeros_like(scan.mask))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gaps, "gaps along the readout"),
        (an_empty_slice, "slice 0 of frame 0 has no sample"),
        (lambda scan: scan.replace(image_shape=(8, 5)), "along the readout alone"),
        (
            lambda scan: scan.replace(
                kspace=scan.kspace[..., 0], mask=None, trajectory=np.zeros((1, 8, 2), np.float32)
            ),
            "only Cartesian",
        ),
    ],
)
def test_what_ismrmrd_cannot_hold_is_refused(tmp_path, rng, change, message):
    with pytest.raises(OutputError, match=message):
        save_ismrmrd(change(some_scan(rng, (1, 1, 2, 8, 6))), tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_volume_is_refused(tmp_path, rng):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    with pytest.raises(GeometryError, match="perpendicular"):
        save_ismrmrd(some_scan(rng, (1, 1, 2, 8, 6, 4), affine=affine), tmp_path / "a.h5")


def test_an_existing_file_is_kept_unless_forced(tmp_path, rng):
    path = tmp_path / "a.h5"
    path.write_text("precious")
    scan = some_scan(rng, (1, 1, 2, 8, 6))
    with pytest.raises(OutputError, match="exists"):
        save_ismrmrd(scan, path)
    assert path.read_text() == "precious"
    save_ismrmrd(scan, path, force=True)
    assert_same(scan, load(path))


sizes = st.integers(1, 4)


@given(
    leading=st.tuples(sizes, sizes, sizes),
    n_samples=st.integers(2, 9),
    lines=st.integers(2, 6),
    partitions=st.none() | st.integers(2, 5),
    shown=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_any_cartesian_scan_is_read_again(tmp_path, leading, n_samples, lines, partitions, shown, seed):
    frames, slices, coils = leading
    if partitions is not None:
        slices = 1
    shape = (frames, slices, coils, n_samples, lines, *(() if partitions is None else (partitions,)))
    scan = some_scan(np.random.default_rng(seed), shape, (min(shown, n_samples), *shape[4:]))
    save_ismrmrd(scan, tmp_path / "a.h5", force=True)
    assert_same(scan, load(tmp_path / "a.h5"))
