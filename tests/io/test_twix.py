"""Siemens Twix: real files of software VE and XA, and files made here after twixtools' layout, VB among them."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from twixtools.hdr_def import MultiRaidFileHeader
from twixtools.mdh_def import Channel_header, Scan_header, VB17_header, mask_dict

from dipmed.io import load
from dipmed.scan import FormatError, GeometryError

NX, NY, COILS = 16, 12, 2
QUARTER_TURN = (np.sqrt(0.5), 0, 0, np.sqrt(0.5))  # read to the right, phase to the back, slice to the head


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def complex_noise(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def protocol(extra="", base=NX // 2, oversampling=2, lines=NY):
    """The parts of a header that matter, in the two notations that Siemens uses."""
    xprotocol = f'<ParamDouble."flReadoutOSFactor">  {{ <Precision> 6  {oversampling:.6f}  }}\n'
    values = (
        f"sKSpace.lBaseResolution\t = \t{base}\nsKSpace.lPhaseEncodingLines = {lines}\nsKSpace.lPartitions = 4\n"
        "sSliceArray.asSlice[0].dThickness = 5.0\nsSliceArray.asSlice[0].dPhaseFOV = 240.0\n"
        "sSliceArray.asSlice[0].dReadoutFOV = 160.0\nsRXSPEC.alDwellTime[0] = 5000\n"
        'tProtocolName = "gre"\nalTR[0] = 10000\nalTE[0] = 2000\nalTE[1] = 4000\nalTI[0] = 300000\n'
        "adFlipAngleDegree[0] = 90.0\nsProtConsistencyInfo.flNominalB0 = 2.9\nlContrasts = 1\n"
    )
    return f"{xprotocol}### ASCCONV BEGIN ###\n{values}{extra}\n### ASCCONV END ###\n"


@dataclass
class Readout:
    data: np.ndarray
    line: int = 0
    flags: tuple = ()
    counter: dict = field(default_factory=dict)
    head: dict = field(default_factory=dict)
    position: tuple = (0, 0, 0)
    quaternion: tuple = QUARTER_TURN


def full_scan(kspace, **kwargs):
    return [Readout(kspace[:, :, y], y, **kwargs) for y in range(kspace.shape[2])]


def fill_head(head, readout):
    n_coils, n_samples = readout.data.shape
    values = {"CenterCol": n_samples // 2, "CenterLin": NY // 2} | readout.head
    for name, value in (values | {"SamplesInScan": n_samples, "UsedChannels": n_coils}).items():
        setattr(head, name, value)
    for name, value in ({"Lin": readout.line} | readout.counter).items():
        setattr(head.Counter, name, value)
    head.EvalInfoMask = sum(1 << mask_dict[flag] for flag in readout.flags)
    for name, value in zip(("Sag", "Cor", "Tra"), readout.position, strict=True):
        setattr(head.SliceData.SlicePos, name, value)
    head.SliceData.Quaternion[:] = readout.quaternion
    return head


def block(readout, is_vb):
    if is_vb:
        heads = [fill_head(VB17_header(ChannelId=c), readout) for c in range(len(readout.data))]
        return b"".join(bytes(head) + row.tobytes() for head, row in zip(heads, readout.data, strict=True))
    rows = b"".join(bytes(Channel_header(ChannelId=c)) + row.tobytes() for c, row in enumerate(readout.data))
    return bytes(fill_head(Scan_header(), readout)) + rows


def end_mark(is_vb):
    head = VB17_header() if is_vb else Scan_header()
    head.EvalInfoMask = 1 << mask_dict["ACQEND"]
    return bytes(head) + bytes(160)


def measurement(readouts, text=None, is_vb=False, ending=None):
    part = (text or protocol()).encode() + bytes(10000 if is_vb else 0)  # a real header is long
    content = b"MeasYaps\0" + struct.pack("<I", len(part)) + part
    header = struct.pack("<2I", len(content) + 8, 1) + content
    return (
        header
        + b"".join(block(readout, is_vb) for readout in readouts)
        + (end_mark(is_vb) if ending is None else ending)
    )


def container(*measurements):
    header = np.zeros(1, MultiRaidFileHeader)
    header["hdr"]["count_"] = len(measurements)
    offset, body = 10240, bytes(10240 - MultiRaidFileHeader.itemsize)
    for number, content in enumerate(measurements):
        header["entry"][0, number]["off_"], header["entry"][0, number]["len_"] = offset, len(content)
        header["entry"][0, number]["patName_"] = b"Doe^Jane"
        padding = bytes(-len(content) % 512)
        body += content + padding
        offset += len(content) + len(padding)
    return header.tobytes() + body


def write(path: Path, readouts, text=None, **kwargs) -> Path:
    path.write_bytes(container(measurement(readouts, text, **kwargs)))
    return path


def test_a_full_scan_is_read_as_it_was_written(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.dat", full_scan(kspace, position=(10, 20, 30))))
    np.testing.assert_array_equal(scan.kspace, kspace[None, None])
    assert scan.mask.all()
    assert scan.image_shape == (NX // 2, NY)
    assert scan.assumptions == () == scan.notes
    assert scan.noise_covariance is None
    # RAS; the image runs against the directions of the header, so to the left and to the front
    np.testing.assert_allclose(scan.affine @ [NX // 4, NY // 2, 0, 1], [-10, -20, 30, 1], atol=1e-5)
    np.testing.assert_allclose(scan.affine[:3, :3], np.diag([-20, 20, 5]), atol=1e-5)
    assert scan.sequence.field_strength_t == 2.9
    np.testing.assert_allclose(scan.sequence.repetition_times_s, [0.01])
    np.testing.assert_allclose(scan.sequence.echo_times_s, [0.002])
    np.testing.assert_allclose(scan.sequence.flip_angles_rad, [np.pi / 2])
    assert scan.sequence.inversion_times_s == ()  # no inversion pulse, whatever the field says
    assert "Doe" not in repr(scan)


def test_software_vb(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    noise = Readout(complex_noise(rng, COILS, 1000), flags=("NOISEADJSCAN",))
    path = tmp_path / "meas.dat"
    path.write_bytes(measurement([noise, *full_scan(kspace)], is_vb=True))
    scan = load(path)
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    # 1000 noise samples take 1 s / 130, image samples 5 us; complex_noise has power 2
    expected = 2 * (1e6 / 1000 / 130) / 5 / 0.793
    np.testing.assert_allclose(np.diag(scan.noise_covariance).real, expected, rtol=0.2)


def test_the_length_of_a_lone_measurement_may_be_missing(tmp_path, rng):
    path = write(tmp_path / "a.dat", full_scan(complex_noise(rng, COILS, NX, NY)))
    content = bytearray(path.read_bytes())
    content[24:32] = bytes(8)
    path.write_bytes(content)
    assert load(path).mask.all()


def test_the_last_measurement_with_an_image_is_read(tmp_path, rng):
    first, second = complex_noise(rng, 2, COILS, NX, NY)
    noise = Readout(complex_noise(rng, COILS, 20000), flags=("NOISEADJSCAN",))
    adjust = protocol().replace('"gre"', '"AdjCoilSens"')
    path = tmp_path / "a.dat"
    path.write_bytes(
        container(
            measurement([noise], adjust),
            measurement(full_scan(first)),
            measurement(full_scan(second)),
            measurement([noise]),
        )
    )
    scan = load(path)
    np.testing.assert_array_equal(scan.kspace[0, 0], second)
    assert scan.notes == (
        "Measurement 2 of 4 was read; the others are 0 (AdjCoilSens, 0 image readouts), 1 (gre, 12 image readouts), "
        "3 (gre, 0 image readouts).",
    )
    # the nearest earlier measurement with noise, whose dwell time is that of the adjustment, 5 us
    np.testing.assert_allclose(np.diag(scan.noise_covariance).real, 2 / 0.793, rtol=0.05)
    np.testing.assert_array_equal(load(path, measurement=1).kspace[0, 0], first)
    for wanted, message in ((0, "no readouts that belong to an image"), (4, "0 to 3, there is no 4"), (-1, "no -1")):
        with pytest.raises(FormatError, match=message):
            load(path, measurement=wanted)


def test_noise_of_other_coils_is_not_used(tmp_path, rng):
    noise = Readout(complex_noise(rng, COILS + 1, 1000), flags=("NOISEADJSCAN",))
    scan = load(write(tmp_path / "a.dat", [noise, *full_scan(complex_noise(rng, COILS, NX, NY))]))
    assert scan.noise_covariance is None


def test_noise_in_the_same_measurement(tmp_path, rng):
    noise = Readout(complex_noise(rng, COILS, 7680), flags=("NOISEADJSCAN",))
    scan = load(write(tmp_path / "a.dat", [noise, *full_scan(complex_noise(rng, COILS, NX, NY))]))
    np.testing.assert_allclose(np.diag(scan.noise_covariance).real, 2 * (10 / 10 / 5) / 0.793, rtol=0.1)
    assert any("1 µs were assumed" in sentence for sentence in scan.assumptions)


@pytest.mark.parametrize("flag", ["RTFEEDBACK", "HPFEEDBACK", "PHASCOR", "REFPHASESTABSCAN", "PHASESTABSCAN"])
def test_readouts_that_are_no_image_are_left_out(tmp_path, rng, flag):
    kspace = complex_noise(rng, COILS, NX, NY)
    extra = Readout(complex_noise(rng, COILS, NX), 3, (flag,))
    scan = load(write(tmp_path / "a.dat", [extra, *full_scan(kspace)]))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert scan.notes == ("1 readouts that are no image data were left out.",)


def test_blocks_of_other_data_are_passed_over(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    head = Scan_header(FlagsAndDMALength=192 + 64)
    head.EvalInfoMask = 1 << mask_dict["SYNCDATA"]
    pulse_curve = bytes(head) + bytes(64)
    content = measurement(full_scan(kspace))
    start = struct.unpack_from("<I", content)[0]
    path = tmp_path / "a.dat"
    path.write_bytes(container(content[:start] + pulse_curve + content[start:]))
    np.testing.assert_array_equal(load(path).kspace[0, 0], kspace)


def test_reflected_readouts_are_turned(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    readouts = full_scan(kspace)
    for readout in readouts[1::2]:
        readout.data, readout.flags = np.ascontiguousarray(readout.data[:, ::-1]), ("REFLECT",)
    np.testing.assert_array_equal(load(write(tmp_path / "a.dat", readouts)).kspace[0, 0], kspace)


def test_partial_fourier_is_placed_by_its_centre(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, 8)
    scan = load(write(tmp_path / "a.dat", full_scan(kspace, head={"CenterLin": 2})))
    assert scan.mask[0, 0, 0].tolist() == [False] * 4 + [True] * 8
    np.testing.assert_array_equal(scan.kspace[0, 0, :, :, 4:], kspace)


def test_an_asymmetric_echo_is_placed_by_its_centre(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    head = {"CenterCol": 4}
    readouts = [Readout(kspace[:, 4:, y], y, head=head) for y in range(NY)]
    scan = load(write(tmp_path / "a.dat", readouts))
    np.testing.assert_array_equal(scan.kspace[0, 0, :, 4:], kspace[:, 4:])
    assert not scan.mask[0, 0, :4].any()
    assert scan.image_shape == (NX // 2, NY)


@pytest.mark.parametrize(
    ("oversampling", "base", "columns"), [(2, NX // 2, NX // 2), (1, NX, NX), (1, NX // 2, NX), (2, 100, NX)]
)
def test_oversampling_is_believed_only_when_the_samples_agree(tmp_path, rng, oversampling, base, columns):
    text = protocol(base=base, oversampling=oversampling)
    scan = load(write(tmp_path / "a.dat", full_scan(complex_noise(rng, COILS, NX, NY)), text))
    assert scan.matrix_shape == (NX, NY)
    assert scan.image_shape == (columns, NY)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 0]), 160 / columns)
    contradicted = base * oversampling != NX
    assert any(f"{NX} were measured" in sentence for sentence in scan.assumptions) == contradicted


def test_averages_echoes_and_slices(tmp_path, rng):
    kspace = complex_noise(rng, 2, 2, 3, COILS, NX, NY)  # average, echo, slice
    readouts = []
    for average, echo, number in np.ndindex(2, 2, 3):
        readouts += full_scan(
            kspace[average, echo, number],
            counter={"Ave": average, "Eco": echo, "Sli": number},
            position=(0, 0, (0, 20, 10)[number]),  # interleaved
        )
    scan = load(write(tmp_path / "a.dat", readouts))
    np.testing.assert_allclose(scan.kspace, kspace.mean(axis=0)[:, [0, 2, 1]], rtol=1e-6)
    assert scan.frame_labels == ({"contrast": 0}, {"contrast": 1})
    np.testing.assert_allclose(scan.affine[:3, 2], [0, 0, 10])


def test_echoes_without_a_counter_are_not_mixed(tmp_path, rng):
    readouts = full_scan(complex_noise(rng, COILS, NX, NY)) + full_scan(complex_noise(rng, COILS, NX, NY))
    with pytest.raises(FormatError, match="12 readouts have the same place"):
        load(write(tmp_path / "a.dat", readouts))


def test_a_3d_scan(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY, 4)
    readouts = []
    for z in range(4):
        readouts += full_scan(kspace[..., z], counter={"Par": z}, head={"CenterPar": 2}, position=(0, 0, 8))
    scan = load(write(tmp_path / "a.dat", readouts))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    # the slab of 5 mm has 4 partitions, which run to the feet since the third axis is encoded as well
    np.testing.assert_allclose(scan.affine @ [NX // 4, NY // 2, 3, 1], [0, 0, 8 - 1.25, 1], atol=1e-5)


def test_phase_oversampling_widens_the_field_of_view(tmp_path, rng):
    text = protocol("sKSpace.dPhaseOversamplingForDialog = 0.5")
    scan = load(write(tmp_path / "a.dat", full_scan(complex_noise(rng, COILS, NX, NY)), text))
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, 1]), 1.5 * 240 / NY, rtol=1e-6)


def test_reference_lines_in_place_and_apart(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    readouts = [
        Readout(kspace[:, :, y], y, ("PATREFSCAN", "PATREFANDIMASCAN") if y == 6 else ()) for y in range(0, NY, 3)
    ]
    readouts += [Readout(kspace[:, :, y], y, ("PATREFSCAN",)) for y in (4, 5, 7)]
    in_place = load(write(tmp_path / "a.dat", readouts, protocol("sPat.ucRefScanMode = 2")))
    assert np.flatnonzero(in_place.mask[0, 0, 0]).tolist() == [0, 3, 4, 5, 6, 7, 9]
    assert in_place.calibration is None
    apart = load(write(tmp_path / "b.dat", readouts, protocol("sPat.ucRefScanMode = 0x4")))
    assert np.flatnonzero(apart.mask[0, 0, 0]).tolist() == [0, 3, 6, 9]
    np.testing.assert_array_equal(apart.calibration[0, 0, :, :, [4, 5, 7]], kspace.transpose(2, 0, 1)[[4, 5, 7]])


@pytest.mark.parametrize(("number", "kind"), [(2, "radial"), (4, "spiral")])
def test_trajectories_are_not_in_twix_files(tmp_path, rng, number, kind):
    text = protocol(f"sKSpace.ucTrajectory = {number}")
    with pytest.raises(FormatError, match=f"is a {kind} scan"):
        load(write(tmp_path / "a.dat", full_scan(complex_noise(rng, COILS, NX, NY)), text))


def test_no_orientation_is_said(tmp_path, rng):
    readouts = full_scan(complex_noise(rng, COILS, NX, NY), quaternion=(0, 0, 0, 0))
    scan = load(write(tmp_path / "a.dat", readouts))
    assert any("where the image lies" in sentence for sentence in scan.assumptions)


def test_an_impossible_orientation_is_refused(tmp_path, rng):
    readouts = full_scan(complex_noise(rng, COILS, NX, NY), quaternion=(1, 1, 1, 1))
    with pytest.raises(GeometryError, match="unit quaternion"):
        load(write(tmp_path / "a.dat", readouts))


def test_a_header_without_a_protocol_is_enough(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, NY)
    scan = load(write(tmp_path / "a.dat", full_scan(kspace), "nothing"))
    np.testing.assert_array_equal(scan.kspace[0, 0], kspace)
    assert any("base resolution" in sentence for sentence in scan.assumptions)
    assert any("field of view" in sentence for sentence in scan.assumptions)


def test_a_scan_that_was_stopped_is_read_with_a_word(tmp_path, rng):
    kspace = complex_noise(rng, COILS, NX, 9)
    scan = load(write(tmp_path / "a.dat", full_scan(kspace), ending=b""))
    assert scan.notes == ("The measurement has no end mark; the scan may have been stopped before its end.",)
    assert np.flatnonzero(scan.mask[0, 0, 0]).tolist() == list(range(9))


@pytest.mark.parametrize("keep", [0.2, 0.9, 0.99])
@pytest.mark.parametrize("is_vb", [False, True])
def test_a_truncated_file_is_to_be_copied_again(tmp_path, rng, keep, is_vb):
    content = measurement(full_scan(complex_noise(rng, COILS, NX, NY)), is_vb=is_vb)
    path = tmp_path / "a.dat"
    start = struct.unpack_from("<I", content)[0]
    cut = start + int(keep * (len(content) - start - len(end_mark(is_vb)) - 1))  # within the readouts
    whole = content if is_vb else container(content)
    path.write_bytes(whole[: len(whole) - len(content) + cut] if is_vb else whole[: 10240 + cut])
    with pytest.raises(FormatError, match="copy it again"):
        load(path)


def hostile(rng, change):
    content = bytearray(container(measurement(full_scan(complex_noise(rng, COILS, NX, NY)))))
    change(content)
    return bytes(content)


def first_readout(content):
    return 10240 + struct.unpack_from("<I", content, 10240)[0]


def a_block_of_no_length(content):
    at = first_readout(content)
    struct.pack_into("<I", content, at, 0)
    struct.pack_into("<Q", content, at + 40, 1 << mask_dict["SYNCDATA"])


def too_many_coils(content):
    struct.pack_into("<2H", content, first_readout(content) + 48, 65535, 65535)


def a_header_beyond_the_end(content):
    struct.pack_into("<I", content, 10240, 2**31)


def a_measurement_beyond_the_end(content):
    struct.pack_into("<Q", content, 24, 2**60)


def an_offset_beyond_everything(content):
    struct.pack_into("<Q", content, 16, 2**64 - 8)


def measurements_on_top_of_each_other(content):
    struct.pack_into("<I", content, 4, 2)
    content[8 + 152 : 8 + 304] = content[8 : 8 + 152]


@pytest.mark.parametrize(
    "change",
    [
        a_block_of_no_length,
        too_many_coils,
        a_header_beyond_the_end,
        a_measurement_beyond_the_end,
        an_offset_beyond_everything,
        measurements_on_top_of_each_other,
    ],
)
@pytest.mark.timeout(20)
def test_hostile_lengths_end_in_one_line(tmp_path, rng, change):
    path = tmp_path / "a.dat"
    path.write_bytes(hostile(rng, change))
    with pytest.raises(FormatError) as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.timeout(20)
def test_a_hostile_protocol_neither_hangs_nor_fills_the_memory(tmp_path, rng):
    attack = "sSliceArray.asSlice[999999999].dThickness = 1\n" + "a" * 200_000 + '"flReadoutOSFactor">' * 10_000
    scan = load(write(tmp_path / "a.dat", full_scan(complex_noise(rng, COILS, NX, NY)), protocol(attack)))
    assert scan.mask.all()


# --- scans from scanners ---------------------------------------------------------------------------------------


def image_of(scan):
    """Root sum of squares, (x, y), of the part of the only slice that is shown."""
    axes = (-2, -1)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(scan.kspace[0, 0], axes=axes), norm="ortho"), axes=axes)
    start = scan.matrix_shape[0] // 2 - scan.image_shape[0] // 2
    return np.sqrt((np.abs(image) ** 2).sum(axis=0))[start : start + scan.image_shape[0]]


def test_a_phantom_on_software_ve(data_dir):
    scan = load(data_dir / "twix_skyra_gre2" / "gre.dat")
    assert scan.kspace.shape == (1, 1, 2, 320, 160)
    assert scan.image_shape == (160, 160)
    assert scan.mask.all()
    assert scan.assumptions == () == scan.notes
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [1.25, 1.25, 4], rtol=1e-5)
    np.testing.assert_allclose(scan.affine @ [80, 80, 0, 1], [2.5897, -53.9224, -53.9995, 1], atol=1e-3)
    image = image_of(scan)
    assert np.median(image[60:100, 10:60]) > 5 * np.median(image[:4, :4])  # phantom inside, air in the corner
    # the phantom is not quite full; the level of the water is on top, as the patient lies on the back
    assert image[100:115, 152:156].mean() < 0.2 * image[100:115, 135:140].mean()
    towards_air = (scan.affine[:3, :3] @ [0, 1, 0])[1]
    assert towards_air > 1.2


def test_a_pulseq_scan_on_software_xa_with_placeholders_in_its_header(data_dir):
    scan = load(data_dir / "twix_cimax_phantom16" / "20240206160052_flash16.dat")
    assert scan.kspace.shape == (1, 1, 16, 128, 128)
    assert scan.image_shape == (128, 128)  # not oversampled, whatever the base resolution of 64 says
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [2, 2, 3], rtol=1e-5)
    said = " ".join(scan.assumptions)
    assert "64 samples" in said
    assert "64 lines" in said
    assert "Pulseq" in said
    energy = (np.abs(scan.kspace[0, 0]) ** 2).sum(axis=0)
    assert energy[54:74, 54:74].sum() > 0.5 * energy.sum()
    image = image_of(scan)
    assert image[64, 64] > 10 * image[2:6, 2:6].mean()  # the bottle is in the middle, not folded
