"""Damaged files: whatever bytes are flipped or cut off, a reader gives a scan or an error of ours in one line.

The last test runs in a process of its own, with a bound on memory and time, since the libraries below could crash.
"""

import json
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from twixtools.hdr_def import MultiRaidFileHeader
from twixtools.mdh_def import Channel_header, Scan_header, VB17_header

from dipmed.io import load, save_ismrmrd
from dipmed.io.projection_file import save_projections
from dipmed.patient import default_affine
from dipmed.record import peak_memory_mib
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan
from operators import FanBeam, angles_over, slice_grid

NX, NY, COILS = 16, 12, 2


@cache
def kspace():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((COILS, NX, NY)) + 1j * rng.standard_normal((COILS, NX, NY))).astype(np.complex64)


def make_ismrmrd(path):
    stack = np.stack([np.stack([kspace(), 2 * kspace()])] * 2)  # (frame, slice, coil, x, y)
    mask = np.ones((2, 2, NX, NY), bool)
    labels = ({"contrast": 0}, {"contrast": 1})
    affine = default_affine((1, 1, 3), (NX // 2, NY, 2))
    save_ismrmrd(KSpaceScan(stack, mask, affine, (NX // 2, NY), "fuzz", labels, calibration=stack[:1]), path)


def make_fastmri(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", data=kspace()[None], chunks=(1, 1, NX, NY), compression="gzip")
        file["mask"] = np.ones(NY, bool)
        file["ismrmrd_header"] = "<ismrmrdHeader><encoding/></ismrmrdHeader>"


def make_trajectory(path):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace()[None]
        file["traj"] = np.random.default_rng(0).uniform(-0.5, 0.5, (1, NX, NY, 2)).astype(np.float32)
        file.attrs["matrix"] = [NX, NX]


def make_npy(path):
    with path.open("wb") as file:
        np.save(file, kspace())


def make_npz(path):
    with path.open("wb") as file:
        np.savez_compressed(file, kspace=kspace(), mask=np.ones(NY, bool))


def make_matlab5(path):
    with path.open("wb") as file:
        scipy.io.savemat(file, {"kspace": kspace().transpose(1, 2, 0)}, do_compression=True)


def make_matlab73(path):
    pair = np.dtype([("real", "<f8"), ("imag", "<f8")])
    with h5py.File(path, "w", userblock_size=512) as file:
        file["kspace"] = np.stack([kspace().real, kspace().imag], axis=-1).astype(np.float64).view(pair)[..., 0]
        file["kspace"].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def make_bart(path):
    kspace().transpose(1, 2, 0).ravel(order="F").tofile(path)
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{NX} {NY} 1 {COILS}\n")


def twix_measurement(is_vb):
    protocol = b"sKSpace.lBaseResolution = 8\nsKSpace.lPhaseEncodingLines = 12\n" + bytes(11000)
    content = (len(protocol) + 17).to_bytes(4, "little") + b"\1\0\0\0MeasYaps\0" + protocol
    for line in range(NY):
        heads = [(VB17_header if is_vb else Scan_header)() for _ in range(COILS)]
        for head in heads:
            head.SamplesInScan, head.UsedChannels, head.Counter.Lin = NX, COILS, line
            head.CenterCol, head.CenterLin = NX // 2, NY // 2
            head.SliceData.Quaternion[:] = (1, 0, 0, 0)
        rows = [row.tobytes() for row in kspace()[:, :, line]]
        if is_vb:
            content += b"".join(bytes(head) + row for head, row in zip(heads, rows, strict=True))
        else:
            content += bytes(heads[0]) + b"".join(bytes(Channel_header()) + row for row in rows)
    return content


def make_twix_ve(path):
    header = np.zeros(1, MultiRaidFileHeader)
    content = twix_measurement(is_vb=False)
    header["hdr"]["count_"] = 1
    header["entry"][0, 0]["off_"], header["entry"][0, 0]["len_"] = 10240, len(content)
    path.write_bytes(header.tobytes().ljust(10240, b"\0") + content)


def make_twix_vb(path):
    path.write_bytes(twix_measurement(is_vb=True))


@cache
def fan():
    return FanBeam(angles_over(NX, 6.2), NY, 2.0, 100.0, 200.0)


@cache
def integrals():
    return np.abs(kspace()) / 4  # (slice, view, column)


def make_projections(path):
    affine = default_affine((1, 1, 3), (NY, NY, COILS))
    save_projections(ProjectionScan(integrals(), fan(), slice_grid(fan()), affine, "fuzz", np.exp(-integrals())), path)


def make_data_exchange(path):
    with h5py.File(path, "w") as file:
        readings = (1000 * np.exp(-integrals())).transpose(1, 0, 2)
        file.create_dataset("exchange/data", data=readings.astype(np.uint16), chunks=(4, COILS, NY), compression="gzip")
        file["exchange/data_white"] = np.full((2, COILS, NY), 1000, np.float32)
        file["exchange/data_dark"] = np.zeros((2, COILS, NY), np.float32)
        file["exchange/theta"] = np.linspace(0, 180, NX, endpoint=False)


def structure():
    parameters = {"distanceSourceOrigin": 100.0, "distanceSourceDetector": 200.0, "angles": np.arange(0.0, 360, 22.5)}
    parameters |= {"pixelSizePost": 2.0, "numDetectorsPost": float(NY), "distanceUnit": "mm"}
    return {"type": "2D", "sinogram": integrals()[0].astype(np.float64), "parameters": parameters}


def make_htc5(path):
    with path.open("wb") as file:
        scipy.io.savemat(file, {"CtDataFull": structure()}, do_compression=True)


def make_htc73(path):
    content = structure()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["CtDataFull/sinogram"] = content["sinogram"].T
        for name, value in content["parameters"].items():
            if name != "distanceUnit":
                file[f"CtDataFull/parameters/{name}"] = np.atleast_2d(value).T
        file["CtDataFull/parameters/distanceUnit"] = np.array([[109], [109]], np.uint16)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def describe(path):
    beam = {"kind": "fan", "angles_deg": list(range(0, 360, 22)[:NX]), "n_columns": NY, "column_mm": 2}
    beam |= {"source_to_axis_mm": 100, "source_to_detector_mm": 200}
    path.with_suffix(".json").write_text(json.dumps({"beam": beam, "axes": ["slice", "view", "column"]}))


def make_npy_projections(path):
    with path.open("wb") as file:
        np.save(file, integrals())
    describe(path)


def make_tiff(path, **options):
    pages = [Image.fromarray(page) for page in integrals()]
    pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:], **options)
    describe(path)


def make_packed_tiff(path):
    make_tiff(path, compression="tiff_adobe_deflate")


def make_frames(path):
    """A DICOM-CT-PD scan in one file, of implicit type as they are published."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ImplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.66"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = Dataset()
    dataset.file_meta, dataset.NumberOfFrames, dataset.Rows, dataset.Columns = meta, NX, COILS, NY
    dataset.BitsAllocated, dataset.RescaleSlope, dataset.RescaleIntercept = 16, 1e-3, 0
    for tag in (0x70290010, 0x70310010):
        dataset.add_new(tag, "LO", "CtProjectionData-MayoClinc-v1")
    for tag, kind, value in (
        (0x70291002, "FL", 2.0),
        (0x70291006, "FL", 3.0),
        (0x7029100B, "CS", "CYLINDRICAL"),
        (0x70291010, "US", COILS),
        (0x70291011, "US", NY),
        (0x70311003, "FL", 100.0),
        (0x70311031, "FL", 200.0),
        (0x70311033, "FL", [6.5, 1.5]),
    ):
        dataset.add_new(tag, kind, value)
    items = []
    for view in range(NX):
        item = Dataset()
        item.add_new(0x70310010, "LO", "CtProjectionData-MayoClinc-v1")
        item.add_new(0x70311001, "FL", 0.4 * view)
        item.add_new(0x70311002, "FL", 0.1 * view)
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(items)
    dataset.add_new(0x7FE00010, "OW", (1000 * integrals().transpose(1, 0, 2)).astype("<u2").tobytes())
    dataset.save_as(path, enforce_file_format=True)


MAKERS = {
    "frames.dcm": make_frames,
    "projections.npy": make_npy_projections,
    "pages.tif": make_tiff,
    "packed.tif": make_packed_tiff,
    "htc5.mat": make_htc5,
    "htc73.mat": make_htc73,
    "exchange.h5": make_data_exchange,
    "projections.h5": make_projections,
    "ismrmrd.h5": make_ismrmrd,
    "fastmri.h5": make_fastmri,
    "trajectory.h5": make_trajectory,
    "array.npy": make_npy,
    "archive.npz": make_npz,
    "matlab5.mat": make_matlab5,
    "matlab73.mat": make_matlab73,
    "bart.cfl": make_bart,
    "ve.dat": make_twix_ve,
    "vb.dat": make_twix_vb,
}
SIDECARS = (".hdr", ".json")
REAL = [
    "ismrmrd_bottles14_r3/meas_MID00349_FID09273_SNR_R3.h5",
    "radial_cardiac12/radial_cardiac12_derived.mrd.h5",
    "twix_skyra_gre2/gre.dat",
    "mat73_brain16/raw_data.mat",
    "radial_cardiac12/radial_cardiac_25_projections.mat",
    "ct_tooth_parallel/tooth.h5",
    "ct_htc_tb_fan/tb_subsample_90.mat",
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    for name, make in MAKERS.items():
        make(folder / name)
    return folder


def outcome(path: Path) -> str:
    """Load, and say what came; anything but a scan or an error of ours is raised."""
    try:
        scan = load(path)
    except DipmedError as error:
        message = str(error)
        assert message.isprintable(), f"not one line of text: {message!r}"
        assert len(message) > 20, f"not a sentence: {message!r}"
        return type(error).__name__
    measured = scan.projections if isinstance(scan, ProjectionScan) else scan.kspace.view(np.float32)
    assert np.isfinite(measured).all()
    assert np.isfinite(scan.affine).all()
    return "scan"


def places(size):
    """Anywhere in a file, more often near its ends, where headers are."""
    edge = min(size, 2048)
    return st.integers(0, edge - 1) | st.integers(size - edge, size - 1) | st.integers(0, size - 1)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for place, value in draw(st.lists(st.tuples(places(len(content)), st.integers(0, 255)), max_size=12)):
        changed[place] = value
    for place, bit in draw(st.lists(st.tuples(places(len(content)), st.integers(0, 7)), max_size=4)):
        changed[place] ^= 1 << bit
    if draw(st.booleans()):
        return bytes(changed[: draw(places(len(content)))])
    return bytes(changed)


@pytest.mark.parametrize("name", MAKERS)
def test_the_undamaged_file_is_read(folder, name):
    assert outcome(folder / name) == "scan"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
def test_damaged_files(folder, tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data.draw(damaged((folder / name).read_bytes()), label="content"))
    for beside in SIDECARS:
        if (folder / name).with_suffix(beside).exists():
            content = data.draw(damaged((folder / name).with_suffix(beside).read_bytes()), label=beside)
            path.with_suffix(beside).write_bytes(content)
    outcome(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", REAL)
@settings(max_examples=8)
@given(data=st.data())
def test_damaged_real_files(data_dir, tmp_path, name, data):
    path = tmp_path / Path(name).name
    path.write_bytes(data.draw(damaged((data_dir / name).read_bytes()), label="content"))
    outcome(path)


def run_many(folder: Path, n_files: int, most_bytes: int) -> dict:
    """Load many damaged files with a bound on memory; meant for a process of its own."""
    import resource

    for name in MAKERS:
        outcome(folder / name)  # imports take memory as well
    before = psutil.Process().memory_info()
    resource.setrlimit(resource.RLIMIT_AS, (before.vms + most_bytes, before.vms + most_bytes))
    rng = random.Random(0)
    outcomes: Counter = Counter()
    for _ in range(n_files):
        name = rng.choice(list(MAKERS))
        content = bytearray((folder / name).read_bytes())
        for _ in range(rng.choice([1, 1, 2, 8, 32])):
            near = rng.choice([2048, len(content)])
            content[rng.randrange(min(near, len(content)))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        path = folder / f"damaged-{name}"
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        for beside in SIDECARS:
            if (folder / name).with_suffix(beside).exists():
                path.with_suffix(beside).write_bytes((folder / name).with_suffix(beside).read_bytes())
        outcomes[outcome(path)] += 1
    return {"outcomes": outcomes, "grown_bytes": peak_memory_mib() * 2**20 - before.rss}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound the memory of a process")
def test_no_damaged_file_crashes_hangs_or_fills_the_memory(folder):
    n_files = 300
    process = subprocess.run(
        [sys.executable, __file__, str(folder), str(n_files)], capture_output=True, text=True, timeout=240, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    result = json.loads(process.stdout)
    assert sum(result["outcomes"].values()) == n_files
    assert set(result["outcomes"]) <= {"scan", "FormatError", "GeometryError", "ShapeError"}
    assert min(result["outcomes"]["scan"], result["outcomes"]["FormatError"]) > n_files / 10  # both do happen
    assert result["grown_bytes"] < 200 * 2**20


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_many(Path(sys.argv[1]), int(sys.argv[2]), most_bytes=2**30)))
