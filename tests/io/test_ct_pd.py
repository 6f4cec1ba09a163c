"""DICOM-CT-PD: files are built to the published layout, from sources and detector elements in the scanner's own words.

Nothing here uses the geometry under test: a ball in the patient is seen by rays between places that the layout defines.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dipmed.calib.projections import resample_grid
from dipmed.ct_baselines import SIRT
from dipmed.io import load
from dipmed.io.sniff import sniff
from dipmed.recon import reconstruct
from dipmed.record import scan_record
from dipmed.scan import FormatError, GeometryError, ShapeError
from dipmed.settings import ReconSettings
from operators import ConeBeam, FanBeam, VolumeProjector, filtered_back_projection

RADIUS, DISTANCE = 300.0, 500.0
N_COLUMNS, ROW_MM, COLUMN_MM = 72, 9.0, 4.0
BALL = np.array([25.0, -40.0, 12.0])  # LPS of the patient
BALL_RADIUS, ATTENUATION = 22.0, 0.02
SLOPE = 2e-5


@dataclass(frozen=True)
class Detector:
    """What varies from test to test; central column and row are counted from 1."""

    shape: str = "CYLINDRICAL"
    n_rows: int = 6
    centre: tuple[float, float] = (36.125, 3.75)


SIX_ROWS = Detector()

# directions of the layout, seen from the table: right, up, into the gantry
HEAD_FIRST_ON_BACK = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1]])  # L, A, H in LPS
FEET_FIRST_ON_FACE = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -1]])  # L, P, F

FLYING = [(0.004, 0.0, 0.0), (-0.004, 0.0, 0.0), (0.002, 0.7, -3.0)]
"""Shifts of φ, z and ρ of the focal spot, one view after the other."""


def on_circle(n_views=90, z=3.0):
    return [(5.0 + 2 * math.pi * view / n_views, z, (0.0, 0.0, 0.0)) for view in range(n_views)]


def on_helix(n_views=45):
    return [(0.3 + 0.2 * view, -20.0 + view, FLYING[view % 3]) for view in range(n_views)]


def place(radius, angle, z):
    """Cartesian coordinates of the layout: φ = 0 is up, and grows towards the left."""
    return np.array([-radius * math.sin(angle), radius * math.cos(angle), z])


def chords(angle, z, shift, detector=SIX_ROWS, directions=HEAD_FIRST_ON_BACK):
    """Line integrals of the ball, ``(row, column)``, for one view."""
    angle_shift, axial_shift, radius_shift = shift
    source = place(RADIUS + radius_shift, angle + angle_shift, z + axial_shift)
    focal_centre = place(RADIUS, angle, z)
    inwards = place(-1, angle, 0)
    # with the detector at six o'clock, φ = 0, column 1 is the leftmost and row 1 the farthest from the table
    rightwards = np.array([math.cos(angle), math.sin(angle), 0])
    s = (np.arange(1, N_COLUMNS + 1) - detector.centre[0]) * COLUMN_MM
    if detector.shape == "CYLINDRICAL":
        across, depth = DISTANCE * np.sin(s / DISTANCE), DISTANCE * np.cos(s / DISTANCE)
    else:
        across, depth = s, np.full_like(s, DISTANCE)
    heights = (detector.centre[1] - np.arange(1, detector.n_rows + 1)) * ROW_MM
    cells = focal_centre + (depth[:, None] * inwards + across[:, None] * rightwards)[None]
    cells = cells + heights[:, None, None] * np.array([0, 0, 1])
    ball = directions @ BALL  # rows of `directions` are unit vectors, so this is right, up, into the gantry
    rays = cells - source
    away = np.linalg.norm(np.cross(ball - source, rays), axis=-1) / np.linalg.norm(rays, axis=-1)
    return 2 * ATTENUATION * np.sqrt(np.clip(BALL_RADIUS**2 - away**2, 0, None))


def private(dataset, group, elements):
    dataset.add_new(group << 16 | 0x10, "LO", "CtProjectionData-MayoClinc-v1")
    for element, (kind, value) in elements.items():
        dataset.add_new(group << 16 | element, kind, value)


def view_elements(angle, z, shift):
    """Private elements that differ from view to view."""
    return {
        0x7031: {0x1001: ("FL", angle), 0x1002: ("FL", z), 0x1003: ("FL", RADIUS)},
        0x7033: {0x100B: ("FL", shift[0]), 0x100C: ("FL", shift[1]), 0x100D: ("FL", shift[2])},
    }


def scan_elements(detector):
    return {
        0x7029: {
            0x1002: ("FL", COLUMN_MM),
            0x1006: ("FL", ROW_MM),
            0x100B: ("CS", detector.shape),
            0x1010: ("US", detector.n_rows),
            0x1011: ("US", N_COLUMNS),
        },
        0x7031: {0x1031: ("FL", DISTANCE), 0x1033: ("FL", list(detector.centre))},
        0x7033: {0x1063: ("US", 1), 0x1065: ("FL", (np.arange(N_COLUMNS) + 1000.0).tolist())},
        0x7039: {0x1009: ("CS", "YES")},
        0x7041: {0x1001: ("DS", "0.0193")},
    }


def stored(integrals):
    return np.round(integrals / SLOPE).astype("<u2")


def make(view, number, *, detector=SIX_ROWS, position="HFS", directions=HEAD_FIRST_ON_BACK, swapped=True):
    """One projection; some files call the detector's columns the picture's rows."""
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Doe^Jane", "4711", "19700101"
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.InstanceNumber = number
    dataset.PatientPosition = position
    pixels = stored(chords(*view, detector, directions))
    if swapped:
        pixels = pixels.T
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = SLOPE, 0.0
    for elements in (scan_elements(detector), view_elements(*view)):
        for group, entries in elements.items():
            private(dataset, group, entries)
    dataset.add_new(0x7FE00010, "OW", pixels.tobytes())
    return dataset


def save(dataset, path, syntax=ImplicitVRLittleEndian):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)


def write(folder, views, syntax=ImplicitVRLittleEndian, change=None, **options):
    folder.mkdir(exist_ok=True)
    for number, view in enumerate(views, start=1):
        dataset = make(view, number, **options)
        if change is not None:
            change(dataset, number)
        # names in another order than the numbers
        save(dataset, folder / f"{(number * 7) % 997:03d}.dcm", syntax)
    return folder


def expected_through(beam, views, position):
    """What the rays of a beam would measure of the ball at a place of its own axes, ``(view, row, column)``."""
    rows, columns = (np.arange(float(n)) for n in beam.shape[1:])
    found = []
    for view in range(len(views)):
        points, directions = beam.rays(view, rows, columns)
        away = np.linalg.norm(np.cross(position - points, directions), axis=-1)
        found.append(2 * ATTENUATION * np.sqrt(np.clip(BALL_RADIUS**2 - away**2, 0, None)))
    return np.stack(found)


@pytest.mark.parametrize("views", [on_circle(12), on_helix()], ids=["circle", "helix with flying focal spot"])
@pytest.mark.parametrize("shape", ["CYLINDRICAL", "FLAT"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"])
def test_rays_run_where_the_layout_says(tmp_path, views, shape, syntax):
    options = {"detector": Detector(shape), "swapped": syntax == ImplicitVRLittleEndian}
    folder = write(tmp_path / "scan", views, syntax, **options)
    assert sniff(folder) == "dicom-ct-pd"
    scan = load(folder)
    assert isinstance(scan.beam, ConeBeam)
    assert scan.beam.curved == (shape == "CYLINDRICAL")
    # on the back, head first, the axes of the beam are those of LPS
    seen = expected_through(scan.beam, views, BALL)
    assert seen.max() > 0.5 * 2 * ATTENUATION * BALL_RADIUS
    np.testing.assert_allclose(scan.projections[0], seen, atol=2e-3)
    assert np.abs(scan.projections[0] - seen).mean() < 2 * SLOPE
    # voxels along R, A, S: the place of the ball in the volume is its place in the patient
    index = (BALL - np.array(scan.grid.centre_mm)) / scan.grid.spacing_mm + (np.array(scan.grid.shape) - 1) / 2
    assert (scan.affine @ [*index, 1])[:3] == pytest.approx(BALL * [-1, -1, 1])


def test_the_flying_focal_spot_is_needed(tmp_path):
    scan = load(write(tmp_path / "scan", on_helix()))
    still = expected_through(replace(scan.beam, source_shift_mm=()), on_helix(), BALL)
    assert np.abs(scan.projections[0] - still).max() > 0.02


@pytest.mark.parametrize(
    ("position", "directions"), [("HFS", HEAD_FIRST_ON_BACK), ("FFP", FEET_FIRST_ON_FACE)], ids=["HFS", "FFP"]
)
def test_one_row_reconstructs_the_ball_where_it_is_in_the_patient(tmp_path, position, directions):
    views = on_circle(120, float(directions[2] @ BALL))
    options = {"detector": Detector(n_rows=1, centre=(36.125, 1.0)), "position": position, "directions": directions}
    scan = load(write(tmp_path / "scan", views, **options))
    assert isinstance(scan.beam, FanBeam)
    image = filtered_back_projection(torch.from_numpy(scan.projections), scan.beam, scan.grid)[0].numpy()
    inside = np.argwhere(image > ATTENUATION / 2)
    assert (scan.affine @ [*inside.mean(axis=0), 0, 1])[:3] == pytest.approx(BALL * [-1, -1, 1], abs=0.5)
    assert image[image > ATTENUATION / 2].mean() == pytest.approx(ATTENUATION, rel=0.05)
    assert np.linalg.norm(scan.affine[:3, 2]) == pytest.approx(ROW_MM * RADIUS / DISTANCE)


def test_a_helix_reconstructs_the_ball_where_it_is_in_the_patient(tmp_path):
    views = [(0.3 + 0.25 * view, -28.0 + 1.6 * view, FLYING[view % 3]) for view in range(50)]
    scan = load(write(tmp_path / "scan", views))
    coarse = resample_grid(scan, 40)
    A = VolumeProjector(coarse.grid, scan.beam)
    image = SIRT(25)(torch.from_numpy(scan.projections), A).image[0].numpy()
    inside = np.argwhere(image > ATTENUATION / 2)
    assert (coarse.affine @ [*inside.mean(axis=0), 1])[:3] == pytest.approx(BALL * [-1, -1, 1], abs=0.7)
    volume = len(inside) * abs(np.linalg.det(coarse.affine[:3, :3]))
    assert volume == pytest.approx(4 / 3 * math.pi * BALL_RADIUS**3, rel=0.1)


def test_a_helix_is_rebinned_to_slices_in_their_place(tmp_path):
    still = (0.0, 0.0, 0.0)
    scan = load(write(tmp_path / "scan", [(0.3 - 0.05 * view, 40.0 - 0.2 * view, still) for view in range(400)]))
    result = reconstruct(scan, ReconSettings(method="fbp", rebin=True, matrix=64))
    image, affine = result.volume.data.real, result.volume.affine
    inside = np.argwhere(image > ATTENUATION / 2)
    assert (affine @ [*inside.mean(axis=0), 1])[:3] == pytest.approx(BALL * [-1, -1, 1], abs=0.7)
    assert result.preset == "ct-2d-many-views"
    assert any("single-slice rebinning" in sentence for sentence in result.assumptions)


def test_weights_water_and_what_is_assumed(tmp_path):
    scan = load(write(tmp_path / "scan", on_circle(12)))
    before = np.arange(N_COLUMNS) + 1000.0
    np.testing.assert_allclose(scan.counts[0], before * np.exp(-scan.projections[0]), rtol=1e-5)
    assert scan.water_per_mm == 0.0193
    assert scan.assumptions == ("The rotation axis was put at x = y = 0 of the patient's coordinates.",)

    def strip(dataset, _):
        for tag in (0x00185100, 0x7033100B, 0x7033100C, 0x7033100D, 0x70331065, 0x70391009, 0x70411001):
            del dataset[tag]

    bare = load(write(tmp_path / "bare", on_circle(12), change=strip))
    assert (bare.counts, bare.water_per_mm) == (None, None)
    assert [sentence.split()[1] for sentence in bare.assumptions[:3]] == ["focal", "values", "patient"]
    np.testing.assert_array_equal(bare.projections, scan.projections)


def test_a_file_of_many_frames(tmp_path):
    views = on_helix(9)
    dataset = make(views[0], 1, swapped=False)
    dataset.NumberOfFrames = len(views)
    dataset[0x7FE00010].value = b"".join(stored(chords(*view)).tobytes() for view in views)
    items = []
    for number, view in enumerate(views):
        item = target = Dataset()
        if number % 2:  # in a sequence in the item, and not in itself
            target = Dataset()
            item.CTPositionSequence = Sequence([target])
        for group, entries in view_elements(*view).items():
            private(target, group, entries)
        items.append(item)
    for group in (0x7031, 0x7033):
        for element in view_elements(*views[0])[group]:
            del dataset[group << 16 | element]
    dataset.PerFrameFunctionalGroupsSequence = Sequence(items)
    save(dataset, tmp_path / "scan.dcm", ExplicitVRLittleEndian)
    one, many = load(tmp_path / "scan.dcm"), load(write(tmp_path / "scan", views))
    np.testing.assert_array_equal(one.projections, many.projections)
    assert one.beam == many.beam
    dataset.PerFrameFunctionalGroupsSequence = Sequence(items[:5])
    save(dataset, tmp_path / "short.dcm", ExplicitVRLittleEndian)
    with pytest.raises(FormatError, match="9 frames, but 5 items"):
        load(tmp_path / "short.dcm")


def test_no_patient_is_in_the_scan(tmp_path):
    scan = load(write(tmp_path / "scan", on_circle(4)))
    text = repr(scan) + repr(scan_record(scan))
    assert not any(word in text for word in ("Doe", "Jane", "4711", "1970"))


NEEDED = {
    0x70291010: "NumberofDetectorRows",
    0x70291002: "DetectorElementTransverseSpacing",
    0x70291006: "DetectorElementAxialSpacing",
    0x7029100B: "DetectorShape",
    0x70311001: "DetectorFocalCenterAngularPosition",
    0x70311002: "DetectorFocalCenterAxialPosition",
    0x70311003: "DetectorFocalCenterRadialDistance",
    0x70311031: "ConstantRadialDistance",
    0x70311033: "DetectorCentralElement",
    0x00281053: "RescaleSlope",
    0x00280010: "Rows",
}


@pytest.mark.parametrize("tag", NEEDED, ids=NEEDED.values())
def test_a_missing_element_is_named(tmp_path, tag):
    def strip(dataset, _):
        del dataset[tag]

    with pytest.raises(FormatError, match=rf"\({tag >> 16:04X},{tag & 0xFFFF:04X}\) {NEEDED[tag]}"):
        load(write(tmp_path / "scan", on_circle(4), change=strip))


def changed(tag, value, numbers=(3,)):
    def change(dataset, number):
        if number in numbers:
            dataset[tag].value = value

    return change


BROKEN = {
    "sizes": (changed(0x70291011, 71), GeometryError, "NumberofDetectorColumns changes"),
    "picture": (changed(0x70291011, 71, range(9)), ShapeError, "has a picture of"),
    "radius": (changed(0x70311003, 310.0), GeometryError, "DetectorFocalCenterRadialDistance changes"),
    "centre": (changed(0x70311033, [30.0, 3.0]), GeometryError, "DetectorCentralElement changes"),
    "NaN": (changed(0x70311001, math.nan), FormatError, "DetectorFocalCenterAngularPosition should hold 1 finite"),
    "shape": (changed(0x7029100B, "SPHERICAL", range(9)), FormatError, "'SPHERICAL'; expected CYLINDRICAL or FLAT"),
    "counts": (changed(0x70391009, "NO"), FormatError, "LogFlag is NO"),
    "numbers": (changed(0x00200013, 2), FormatError, "several views of the same"),
    "series": (changed(0x0020000E, "1.2.4"), FormatError, "several scans, by .*SeriesInstanceUID"),
    "energies": (changed(0x70331063, 2), FormatError, "several scans, by .*SpectrumIndex"),
    "photons": (changed(0x70331065, [1.0, 2.0]), FormatError, "PhotonStatistics should hold 72"),
    "one angle": (changed(0x70311001, 1.0, range(9)), GeometryError, "all 8 views have the same angle"),
    "position": (changed(0x00185100, "XYZ", range(9)), GeometryError, "'XYZ' is unknown"),
    "distance": (changed(0x70311031, -1.0, range(9)), GeometryError, "must be positive"),
    "beside": (changed(0x70311033, [100.0, 3.0], range(9)), GeometryError, "no point is seen"),
    "far away": (changed(0x70311002, 1e30), GeometryError, "the image would have|no size"),
    "bits": (changed(0x00280100, 8), FormatError, "16 bits"),
    "pixels": (changed(0x7FE00010, b"1234"), FormatError, "truncated"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(tmp_path, case):
    change, error, message = BROKEN[case]
    with pytest.raises(error, match=message):
        load(write(tmp_path / "scan", on_circle(8), change=change))


def test_one_view_is_no_scan(tmp_path):
    folder = write(tmp_path / "scan", on_circle(4))
    with pytest.raises(ShapeError, match="name the folder"):
        load(next(folder.glob("*.dcm")))


def test_images_are_to_be_simulated_first(data_dir):
    folder = data_dir / "dicom_ct_plastichead"
    for path in (folder, next(path for path in sorted(folder.iterdir()) if path.suffix not in (".md", ".png"))):
        with pytest.raises(FormatError, match="simulate a scan of them with `dipmed simulate`"):
            load(path)
    with pytest.raises(FormatError, match="simulate a scan of them with `dipmed simulate`"):
        load(next((data_dir / "nifti_ct_lung1").glob("*.nii*")))


def test_big_endian_is_refused(tmp_path):
    path = write(tmp_path / "scan", on_circle(1)) / "007.dcm"
    content = path.read_bytes().replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.3\0")
    path.write_bytes(content)
    with pytest.raises(FormatError, match="compressed or big-endian"):
        load(path)
