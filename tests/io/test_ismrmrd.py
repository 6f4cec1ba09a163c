"""ISMRMRD: files made here with the ismrmrd package, whose k-space is known, and scans from scanners."""

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from dipmed.io import load, save_ismrmrd
from dipmed.patient import default_affine
from dipmed.scan import FormatError, GeometryError, SequenceFigures

NX, NY, COILS = 16, 12, 2


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def complex_noise(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@dataclass
class Header:
    """An ISMRMRD header as text, so that it may also be wrong."""

    matrix: tuple = (NX, NY, 1)
    fov: tuple = (320, 240, 5)
    recon_matrix: tuple = (NX, NY, 1)
    recon_fov: tuple = (320, 240, 5)
    limits: str = f"<kspace_encoding_step_1><center>{NY // 2}</center></kspace_encoding_step_1>"
    trajectory: str = "cartesian"
    vendor: str = "nobody"
    extra: str = ""
    system: str = ""
    second: str = ""

    def __str__(self) -> str:
        def space(name, matrix, fov):
            sizes = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", matrix, strict=True))
            width = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", fov, strict=True))
            return f"<{name}><matrixSize>{sizes}</matrixSize><fieldOfView_mm>{width}</fieldOfView_mm></{name}>"

        return (
            '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
            f"<acquisitionSystemInformation><systemVendor>{self.vendor}</systemVendor>{self.system}"
            "</acquisitionSystemInformation>"
            f"<encoding>{space('encodedSpace', self.matrix, self.fov)}"
            f"{space('reconSpace', self.recon_matrix, self.recon_fov)}<encodingLimits>{self.limits}</encodingLimits>"
            f"<trajectory>{self.trajectory}</trajectory>{self.extra}</encoding>{self.second}</ismrmrdHeader>"
        )


@dataclass
class Line:
    """One readout to write."""

    data: np.ndarray
    line: int = 0
    flags: tuple = ()
    idx: dict = field(default_factory=dict)
    head: dict = field(default_factory=dict)
    traj: np.ndarray | None = None


def write(path: Path, lines, header=None, group="dataset") -> Path:
    with ismrmrd.Dataset(str(path), group) as file:
        file.write_xml_header(str(header or Header()).encode())
        for number, line in enumerate(lines):
            acquisition = ismrmrd.Acquisition.from_array(line.data, line.traj)
            acquisition.scan_counter = number
            defaults = {"center_sample": line.data.shape[1] // 2, "sample_time_us": 5.0}
            for name, value in (defaults | line.head).items():
                setattr(acquisition, name, value)
            acquisition.idx.kspace_encode_step_1 = line.line
            for name, value in line.idx.items():
                setattr(acquisition.idx, name, value)
            for flag in line.flags:
                acquisition.set_flag(flag)
            file.append_acquisition(acquisition)
    return path


def full_scan(kspace, **kwargs):
    """Readouts of fully sampled (coil, x, y)."""
    return [Line(kspace[:, :, y], y, **kwargs) for y in range(kspace.shape[2])]


AXIAL = {"read_dir": (1, 0, 0), "phase_dir": (0, 1, 0), "slice_dir": (0, 0, 1)}


def test_a_full_scan_is_read_as_it_was_written(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", full_scan(kspace, head=AXIAL | {"position": (10, 20, 30)})))
    np.testing.assert_array_equal(scan.kspace, kspace[None, None])
    assert scan.mask.all()
    assert scan.source == "ismrmrd"
    assert scan.image_shape == (NX, NY)
    assert scan.assumptions == () == scan.notes
    np.testing.assert_allclose(scan.affine @ [NX // 2, NY // 2, 0, 1], [-10, -20, 30, 1])
    np.testing.assert_allclose(scan.affine @ [NX // 2 + 1, NY // 2, 0, 1], [-30, -20, 30, 1])


def test_the_order_of_readouts_does_not_matter(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = full_scan(kspace)
    rng.shuffle(lines)
    np.testing.assert_array_equal(load(write(tmp_path / "a.h5", lines)).kspace[0, 0], kspace)


def test_partial_encoding_is_placed_by_its_centre(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, 8)
    header = Header(limits="<kspace_encoding_step_1><center>2</center></kspace_encoding_step_1>")
    scan = load(write(tmp_path / "a.h5", full_scan(kspace), header))
    assert scan.mask[0, 0, 0].tolist() == [False] * 4 + [True] * 8  # line 2 goes to row 6 of 12
    np.testing.assert_array_equal(scan.kspace[0, 0, :, :, 4:], kspace)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ("", "does not say which line is the centre"),
        ("<kspace_encoding_step_1><center>0</center></kspace_encoding_step_1>", "outside of the matrix"),
    ],
)
def test_a_missing_or_impossible_centre_is_assumed_and_said(tmp_path, rng, limits, message):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", full_scan(kspace), Header(limits=limits)))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert any(message in sentence for sentence in scan.assumptions)


def test_a_header_that_is_too_small_for_the_data_is_not_believed(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", full_scan(kspace), Header(matrix=(8, 6, 1))))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert any("speaks of 8 samples" in sentence for sentence in scan.assumptions)
    assert any("speaks of 6 lines" in sentence for sentence in scan.assumptions)


def test_readout_oversampling_stays_in_kspace_and_not_in_the_image(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    header = Header(recon_matrix=(NX // 2, NY, 1), recon_fov=(160, 240, 5))
    scan = load(write(tmp_path / "a.h5", full_scan(kspace, head=AXIAL), header))
    assert scan.matrix_shape == (NX, NY)
    assert scan.image_shape == (NX // 2, NY)
    np.testing.assert_allclose(np.abs(np.diag(scan.affine)[:3]), [20, 20, 5])
    np.testing.assert_allclose(scan.affine @ [NX // 4, NY // 2, 0, 1], [0, 0, 0, 1], atol=1e-9)


def test_a_partial_echo_is_placed_by_its_centre_and_trimmed(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = [
        Line(kspace[:, 4:, y], y, head={"center_sample": 4, "discard_pre": 1, "discard_post": 2}) for y in range(NY)
    ]
    scan = load(write(tmp_path / "a.h5", lines))
    assert scan.mask[0, 0, :, 0].tolist() == [False] * 5 + [True] * 9 + [False] * 2
    np.testing.assert_array_equal(scan.kspace[0, 0, :, 5:14], kspace[:, 5:14])
    assert not scan.kspace[0, 0, :, :5].any()


def test_reversed_readouts_are_turned(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = full_scan(kspace)
    for line in lines[::2]:
        line.data = line.data[:, ::-1]
        line.flags = (ismrmrd.ACQ_IS_REVERSE,)
    # a partial echo that runs backwards: k from 15 down to 4, and k = 8 is its sample 7, which 12 - 5 says
    lines[0] = Line(kspace[:, :3:-1, 0], 0, (ismrmrd.ACQ_IS_REVERSE,), head={"center_sample": 8, "discard_pre": 1})
    scan = load(write(tmp_path / "a.h5", lines))
    np.testing.assert_array_equal(scan.kspace[0, 0, :, :, 1:], kspace[:, :, 1:])
    assert scan.mask[0, 0, :, 0].tolist() == [False] * 4 + [True] * 11 + [False]
    np.testing.assert_array_equal(scan.kspace[0, 0, :, 4:15, 0], kspace[:, 4:15, 0])


SKIPPED = [
    "ACQ_IS_NAVIGATION_DATA",
    "ACQ_IS_PHASECORR_DATA",
    "ACQ_IS_HPFEEDBACK_DATA",
    "ACQ_IS_DUMMYSCAN_DATA",
    "ACQ_IS_RTFEEDBACK_DATA",
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",
]


@pytest.mark.parametrize("flag", SKIPPED)
def test_readouts_that_are_no_image_are_left_out(tmp_path, rng, flag):
    kspace = complex_noise(rng, COILS, NX, NY)
    extra = Line(complex_noise(rng, COILS, NX), 3, (getattr(ismrmrd, flag),))
    scan = load(write(tmp_path / "a.h5", [extra, *full_scan(kspace)]))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert any("1 readouts that are no image data" in note for note in scan.notes)


def test_averages_are_averaged_by_how_many_there_are(tmp_path, rng):
    first, second = complex_noise(rng, 2, COILS, NX, NY)
    lines = full_scan(first) + [Line(second[:, :, y], y, idx={"average": 1}) for y in range(0, NY, 2)]
    noise = Line(complex_noise(rng, COILS, 4096), flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,))
    scan = load(write(tmp_path / "a.h5", [noise, *lines]))
    np.testing.assert_allclose(scan.kspace[0, 0, :, :, ::2], (first + second)[:, :, ::2] / 2, rtol=1e-6)
    np.testing.assert_array_equal(scan.kspace[0, 0, :, :, 1::2], first[:, :, 1::2])
    assert any("1 to 2 averages" in note for note in scan.notes)
    # half of the lines have half the noise variance
    np.testing.assert_allclose(np.diag(scan.noise_covariance).real, 2 * 0.75, rtol=0.1)


def test_two_readouts_in_one_place_without_a_label_are_not_mixed(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = [*full_scan(kspace), Line(kspace[:, :, 5], 5, idx={"segment": 1})]
    with pytest.raises(FormatError, match=r"1 readouts have the same place .* line 5, .* average counter"):
        load(write(tmp_path / "a.h5", lines))


def test_contrasts_and_repetitions_become_labelled_frames(tmp_path, rng):
    kspace = complex_noise(rng, 6, COILS, NX, NY)
    lines = []
    for frame, (contrast, repetition) in enumerate(np.ndindex(2, 3)):
        lines += full_scan(kspace[frame], idx={"contrast": contrast, "repetition": repetition, "phase": 4})
    rng.shuffle(lines)
    scan = load(write(tmp_path / "a.h5", lines))
    np.testing.assert_array_equal(scan.kspace[:, 0], kspace)
    assert scan.frame_labels[4] == {"contrast": 1, "repetition": 1}


def test_segments_are_merged(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = [Line(kspace[:, :, y], y, idx={"segment": y % 3}) for y in range(NY)]
    scan = load(write(tmp_path / "a.h5", lines))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert scan.n_frames == 1


def slices_at(kspace, positions):
    lines = []
    for number, position in enumerate(positions):
        lines += full_scan(kspace[number], idx={"slice": number}, head=AXIAL | {"position": position})
    return lines


def test_slices_are_sorted_by_their_position(tmp_path, rng):
    kspace = complex_noise(rng, 3, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", slices_at(kspace, [(0, 0, 10), (0, 0, -10), (0, 0, 0)])))
    np.testing.assert_array_equal(scan.kspace[0], kspace[[1, 2, 0]])
    np.testing.assert_allclose(scan.affine @ [NX // 2, NY // 2, 2, 1], [0, 0, 10, 1], atol=1e-9)
    assert scan.notes == ()


def test_a_slice_with_fewer_samples_and_lines_has_them_in_the_middle(tmp_path, rng):
    small, whole = complex_noise(rng, COILS, NX - 2, NY - 4), complex_noise(rng, COILS, NX, NY)
    lines = [Line(small[:, :, y], y + 2, idx={"slice": 1}) for y in range(NY - 4)]
    scan = load(write(tmp_path / "a.h5", full_scan(whole) + lines))
    assert scan.kspace.shape == (1, 2, COILS, NX, NY)
    middle = np.zeros((NX, NY), dtype=bool)
    middle[1:-1, 2:-2] = True
    np.testing.assert_array_equal(scan.mask[0, 1], middle)
    np.testing.assert_array_equal(scan.kspace[0, 1, :, 1:-1, 2:-2], small)


def test_unequal_spacing_is_reported(tmp_path, rng):
    kspace = complex_noise(rng, 3, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", slices_at(kspace, [(0, 0, 0), (0, 0, 5), (0, 0, 20)])))
    assert any("unequally spaced" in sentence and "5.0 mm" in sentence for sentence in scan.assumptions)


def test_slices_with_one_position_are_spaced_by_their_thickness(tmp_path, rng):
    kspace = complex_noise(rng, 3, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", slices_at(kspace, [(0, 0, 7)] * 3)))
    assert any("one position for all slices" in sentence for sentence in scan.assumptions)
    np.testing.assert_allclose(scan.affine @ [NX // 2, NY // 2, 2, 1], [0, 0, 17, 1], atol=1e-9)


def test_slices_that_are_not_parallel_are_refused(tmp_path, rng):
    kspace = complex_noise(rng, 2, COILS, NX, NY)
    lines = slices_at(kspace, [(0, 0, 0), (0, 0, 5)])
    for line in lines[NY:]:
        line.head = line.head | {"phase_dir": (0, 0, 1), "slice_dir": (0, 1, 0)}
    with pytest.raises(GeometryError, match="not parallel"):
        load(write(tmp_path / "a.h5", lines))


def test_no_geometry_is_said(tmp_path, rng):
    scan = load(write(tmp_path / "a.h5", full_scan(complex_noise(rng, COILS, NX, NY))))
    assert any("where the image lies" in sentence for sentence in scan.assumptions)
    np.testing.assert_allclose(scan.affine, default_affine((20, 20, 5), (NX, NY, 1)))


def test_siemens_directions_hold_for_the_mirrored_image(tmp_path, rng):
    lines = full_scan(complex_noise(rng, COILS, NX, NY), head=AXIAL)
    scan = load(write(tmp_path / "a.h5", lines, Header(vendor="SIEMENS")))
    np.testing.assert_allclose(
        np.diag(scan.affine)[:3], [20, 20, 5]
    )  # RAS: read is to the left, the image to the right


def test_a_3d_scan(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY, 4)
    lines = [
        Line(kspace[:, :, y, z], y, idx={"kspace_encode_step_2": z}, head=AXIAL | {"position": (1, 2, 3)})
        for y, z in np.ndindex(NY, 4)
        if (y + z) % 3
    ]
    header = Header(matrix=(NX, NY, 6), recon_matrix=(NX, NY, 6), fov=(320, 240, 60), recon_fov=(320, 240, 60))
    header.limits += "<kspace_encoding_step_2><center>1</center></kspace_encoding_step_2>"
    scan = load(write(tmp_path / "a.h5", lines, header))
    assert scan.kspace.shape == (1, 1, COILS, NX, NY, 6)
    assert scan.image_shape == (NX, NY, 6)
    expected = np.zeros((NY, 6), bool)
    for y, z in np.ndindex(NY, 4):
        expected[y, z + 2] = (y + z) % 3 > 0  # partition 1 goes to 3 of 6
    np.testing.assert_array_equal(scan.mask[0, 0], np.broadcast_to(expected, (NX, NY, 6)))
    np.testing.assert_array_equal(scan.kspace[0, 0, ..., 2:], kspace * expected[:, 2:])
    np.testing.assert_allclose(scan.affine @ [NX // 2, NY // 2, 3, 1], [-1, -2, 3, 1])
    np.testing.assert_allclose(scan.affine[2, 2], 10)


def test_the_first_slab_of_several_is_read(tmp_path, rng):
    kspace = complex_noise(rng, 2, COILS, NX, NY, 2)
    lines = [
        Line(kspace[slab, :, :, y, z], y, idx={"kspace_encode_step_2": z, "slice": slab})
        for slab, y, z in np.ndindex(2, NY, 2)
    ]
    header = Header(matrix=(NX, NY, 2), recon_matrix=(NX, NY, 2))
    header.limits += "<kspace_encoding_step_2><center>1</center></kspace_encoding_step_2>"
    scan = load(write(tmp_path / "a.h5", lines, header))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace[0])
    assert any("2 slabs" in note for note in scan.notes)


PARALLEL = "<parallelImaging><calibrationMode>{}</calibrationMode></parallelImaging>"
CALIBRATION = (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION,)
BOTH = (ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)


def accelerated(kspace):
    """Every third line, and lines 4 to 7 for calibration, some of which are in the image as well."""
    lines = [Line(kspace[:, :, y], y, BOTH if 4 <= y < 8 else ()) for y in range(0, NY, 3)]
    return lines + [Line(kspace[:, :, y], y, CALIBRATION) for y in range(4, 8) if y % 3]


@pytest.mark.parametrize("mode", ["embedded", "other"])
def test_embedded_calibration_lines_are_part_of_the_image(tmp_path, rng, mode):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", accelerated(kspace), Header(extra=PARALLEL.format(mode))))
    assert np.flatnonzero(scan.mask[0, 0, 0]).tolist() == [0, 3, 4, 5, 6, 7, 9]
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace * scan.mask[0, 0])
    assert scan.calibration is None
    said = any("calibration lines belong to the image" in sentence for sentence in scan.assumptions)
    assert said == (mode == "other")


def test_a_separate_calibration_scan_stays_separate(tmp_path, rng):
    kspace, reference = complex_noise(rng, 2, COILS, NX, NY)
    lines = [Line(kspace[:, :, y], y) for y in range(0, NY, 2)]
    # fewer samples, around the same centre
    lines += [Line(reference[:, 4:12, y], y, CALIBRATION, head={"center_sample": 4}) for y in range(4, 8)]
    scan = load(write(tmp_path / "a.h5", lines, Header(extra=PARALLEL.format("separate"))))
    assert np.flatnonzero(scan.mask[0, 0, 0]).tolist() == list(range(0, NY, 2))
    assert scan.calibration.shape == (1, 1, COILS, NX, NY)
    np.testing.assert_array_equal(scan.calibration[0, 0, :, 4:12, 4:8], reference[:, 4:12, 4:8])
    assert np.count_nonzero(scan.calibration) == COILS * 8 * 4


def test_calibration_lines_that_do_not_fit_are_left_out_with_a_word(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = [*full_scan(kspace), Line(kspace[:, :, 0], 40, CALIBRATION), Line(kspace[:1, :, 0], 3, CALIBRATION)]
    scan = load(write(tmp_path / "a.h5", lines, Header(extra=PARALLEL.format("separate"))))
    assert scan.calibration is None
    assert any("do not fit the matrix" in note for note in scan.notes)
    assert any("another number of coils" in note for note in scan.notes)


def test_a_calibration_scan_with_a_field_of_view_of_its_own_is_left_out(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    other = Line(kspace[:, :, 0], 3, CALIBRATION, head={"encoding_space_ref": 1})
    second = (
        "<encoding><encodedSpace><matrixSize><x>8</x><y>8</y><z>1</z></matrixSize>"
        "<fieldOfView_mm><x>500</x><y>500</y><z>5</z></fieldOfView_mm></encodedSpace></encoding>"
    )
    scan = load(write(tmp_path / "a.h5", [*full_scan(kspace), other], Header(second=second)))
    assert scan.calibration is None
    assert any("another encoding" in note for note in scan.notes)


def test_noise_is_scaled_to_the_bandwidth_of_the_image(tmp_path, rng):
    mixing = np.array([[2, 1j], [0, 1]])
    noise = (mixing @ complex_noise(rng, COILS, 60000)).astype(np.complex64)
    flags = (ismrmrd.ACQ_IS_NOISE_MEASUREMENT,)
    lines = [Line(noise, 0, flags, head={"sample_time_us": 20.0}), *full_scan(complex_noise(rng, COILS, NX, NY))]
    system = "<relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>"
    scan = load(write(tmp_path / "a.h5", lines, Header(system=system)))
    # samples of 5 us have 4 times the noise power of those of 20 us; complex_noise has power 2
    np.testing.assert_allclose(scan.noise_covariance, 2 * mixing @ mixing.conj().T * 4 / 0.8, atol=0.4)
    assert scan.assumptions[0].startswith("The file does not say where")


def test_a_missing_dwell_time_is_said(tmp_path, rng):
    flags = (ismrmrd.ACQ_IS_NOISE_MEASUREMENT,)
    lines = [
        Line(complex_noise(rng, COILS, 5000), 0, flags, head={"sample_time_us": 0.0}),
        Line(complex_noise(rng, COILS + 1, 50), 0, flags),
        *full_scan(complex_noise(rng, COILS, NX, NY)),
    ]
    scan = load(write(tmp_path / "a.h5", lines))
    np.testing.assert_allclose(np.diag(scan.noise_covariance).real, 2, rtol=0.2)
    assert any("dwell time" in sentence for sentence in scan.assumptions)


def test_the_group_may_have_any_name_and_the_last_of_several_is_read(tmp_path, rng):
    first, second = complex_noise(rng, 2, COILS, NX, NY)
    path = write(tmp_path / "a.h5", full_scan(first), group="localizer")
    write(path, full_scan(second), group="scan")
    scan = load(path)
    np.testing.assert_array_equal(scan.kspace[0, 0], second)
    assert scan.notes == ("Measurement 1 of 2 was read; the others are 0 (localizer).",)
    np.testing.assert_array_equal(load(path, measurement=0).kspace[0, 0], first)
    with pytest.raises(FormatError, match="0 to 1, there is no 2"):
        load(path, measurement=2)


def test_sequence_figures_are_in_si_units(tmp_path, rng):
    header = str(Header(system="<systemFieldStrength_T>1.5</systemFieldStrength_T>")).replace(
        "</ismrmrdHeader>",
        "<sequenceParameters><TR>10</TR><TE>2</TE><TE>4</TE><TI>0</TI><flipAngle_deg>90</flipAngle_deg>"
        "<echo_spacing>x</echo_spacing></sequenceParameters></ismrmrdHeader>",
    )
    scan = load(write(tmp_path / "a.h5", full_scan(complex_noise(rng, COILS, NX, NY)), header))
    assert scan.sequence == SequenceFigures(1.5, (0.01,), (0.002, 0.004), (), (np.pi / 2,), ())


def test_nothing_about_the_person_is_kept(tmp_path, rng):
    person = (
        "<subjectInformation><patientName>Doe^Jane</patientName><patientID>XQ4711</patientID>"
        "<patientBirthdate>1970-01-01</patientBirthdate></subjectInformation>"
    )
    header = str(Header()).replace("<encoding>", person + "<encoding>", 1)
    scan = load(write(tmp_path / "a.h5", full_scan(complex_noise(rng, COILS, NX, NY)), header))
    save_ismrmrd(scan, tmp_path / "b.h5")
    for secret in ("Doe", "XQ4711", "1970-01-01"):
        assert secret not in repr(scan)
        assert secret.encode() not in (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (Header(matrix=(2**60, NY, 1)), "matrix of 1152921504606846976 points"),
        (Header(matrix=(65000, 65000, 1)), "truncated or damaged"),
        ("<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><ismrmrdHeader>&a;</ismrmrdHeader>", "entities"),
        ("<ismrmrdHeader>", "no XML"),
        ("not even close", "no XML"),
        ("<a>" * 200_000, "no XML"),
        ("<mrdHeader/>", "its first element is <mrdHeader>"),
        ("<a>" * 200_000 + "</a>" * 200_000, "its first element is <a>"),
    ],
    ids=["2 to the 60", "too large", "entity", "unclosed", "text", "deep", "another", "deep and closed"],
)
def test_hostile_headers_end_in_one_line(tmp_path, rng, header, message):
    path = write(tmp_path / "a.h5", full_scan(complex_noise(rng, COILS, NX, NY)), header)
    with pytest.raises(FormatError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_a_header_with_nothing_in_it_is_enough(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.h5", full_scan(kspace), "<ismrmrdHeader/>"))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert len(scan.assumptions) == 5  # samples, lines, centre, voxel size, place


def test_a_file_without_image_data(tmp_path, rng):
    noise = Line(complex_noise(rng, COILS, NX), flags=(ismrmrd.ACQ_IS_NOISE_MEASUREMENT,))
    with pytest.raises(FormatError, match="none of the 1 readouts"):
        load(write(tmp_path / "a.h5", [noise]))


def test_readouts_whose_length_contradicts_their_header(tmp_path, rng):
    path = write(tmp_path / "a.h5", full_scan(complex_noise(rng, COILS, NX, NY)))
    with h5py.File(path, "r+") as file:
        records = file["dataset/data"][()]
        records["head"]["number_of_samples"][3] = NX - 1
        file["dataset/data"][...] = records
    with pytest.raises(FormatError, match="readout 3 should hold 60 numbers in 'data', but holds 64"):
        load(path)


def spokes(rng, n_spokes, n_samples, reach):
    angles = np.arange(n_spokes) * np.pi / n_spokes
    radius = np.linspace(-1, 1, n_samples) * reach
    trajectory = np.stack([np.outer(np.cos(angles), radius), np.outer(np.sin(angles), radius)], axis=2)
    data = complex_noise(rng, n_spokes, COILS, n_samples)
    return trajectory.astype(np.float32), data


@pytest.mark.parametrize(
    ("reach", "unit", "factor"),
    [(0.5, "cycles per pixel", NX), (np.pi, "radians per pixel", NX / (2 * np.pi)), (8, "cycles per field", 1)],
)
def test_a_trajectory_in_any_unit_becomes_cycles_per_field_of_view(tmp_path, rng, reach, unit, factor):
    trajectory, data = spokes(rng, 5, 20, reach)
    lines = [Line(data[i], i, traj=trajectory[i]) for i in range(5)]
    header = Header(
        trajectory="radial", matrix=(NX, NX, 1), recon_matrix=(NX, NX, 1), fov=(320, 320, 5), recon_fov=(320, 320, 5)
    )
    scan = load(write(tmp_path / "a.h5", lines, header))
    assert not scan.is_cartesian
    assert scan.image_shape == (NX, NX)
    np.testing.assert_array_equal(scan.kspace[0, 0], np.concatenate(data, axis=1))
    np.testing.assert_allclose(scan.trajectory[0], trajectory.reshape(-1, 2) * factor, rtol=1e-6)
    assert any(unit in sentence for sentence in scan.assumptions)


@pytest.mark.parametrize(("reach", "words"), [(1000, "far outside of the matrix"), (np.nan, "not finite")])
def test_a_trajectory_outside_of_k_space_is_refused(tmp_path, rng, reach, words):
    trajectory, data = spokes(rng, 5, 20, reach)
    lines = [Line(data[i], i, traj=trajectory[i]) for i in range(5)]
    with pytest.raises(FormatError, match=words):
        load(write(tmp_path / "a.h5", lines, Header(trajectory="radial")))


def test_density_weights_beside_the_trajectory_are_left_out(tmp_path, rng):
    trajectory, data = spokes(rng, 5, 20, 0.5)
    weights = np.abs(trajectory[..., :1]) + 0.1
    lines = [Line(data[i], i, traj=np.concatenate([trajectory[i], weights[i]], axis=1)) for i in range(5)]
    scan = load(write(tmp_path / "a.h5", lines, Header(trajectory="radial")))
    assert scan.trajectory.shape == (1, 100, 2)
    assert any("Density weights" in note for note in scan.notes)


def test_frames_of_a_non_cartesian_scan(tmp_path, rng):
    trajectory, data = spokes(rng, 6, 20, 0.5)
    lines = [Line(data[i], i, traj=trajectory[i], idx={"repetition": i % 2}, head={"discard_pre": 3}) for i in range(6)]
    scan = load(write(tmp_path / "a.h5", lines, Header(trajectory="goldenangle")))
    assert scan.kspace.shape == (2, 1, COILS, 3 * 17)
    np.testing.assert_array_equal(scan.kspace[1, 0, :, :17], data[1][:, 3:])
    np.testing.assert_allclose(scan.trajectory[1, :17], trajectory[1, 3:] * [NX, NY], rtol=1e-6)
    lines.append(Line(data[0], 9, traj=trajectory[0]))
    with pytest.raises(FormatError, match="same number of samples"):
        load(write(tmp_path / "b.h5", lines, Header(trajectory="goldenangle")))


def test_slices_must_share_their_trajectory(tmp_path, rng):
    trajectory, data = spokes(rng, 6, 20, 0.5)
    lines = [Line(data[i], i, traj=trajectory[i], idx={"slice": i % 2}) for i in range(6)]
    with pytest.raises(FormatError, match="different trajectories"):
        load(write(tmp_path / "a.h5", lines, Header(trajectory="radial")))


def test_a_trajectory_that_is_not_there(tmp_path, rng):
    lines = full_scan(complex_noise(rng, COILS, NX, NY))
    with pytest.raises(FormatError, match="radial, but the readouts come without one"):
        load(write(tmp_path / "a.h5", lines, Header(trajectory="radial")))


def test_a_trajectory_of_a_cartesian_scan_is_not_needed(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    lines = full_scan(kspace, traj=np.zeros((NX, 2), np.float32))
    assert load(write(tmp_path / "a.h5", lines)).is_cartesian
