"""Damaged and hostile files of images, weights and masks: what they hold, or an error of ours in one line."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, RLELossless

from dipmed.config import NetworkConfig
from dipmed.io import load_image, save_image
from dipmed.io.arrays import load_maps, load_mask
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study, study_of
from dipmed.io.mask_file import load_masks, save_masks
from dipmed.io.weights_file import load_weights, save_weights
from dipmed.patient import default_affine
from dipmed.record import peak_memory_mib
from dipmed.scan import DipmedError, ImageVolume
from dipmed.weights import PretrainedWeights

SHAPE = (9, 8, 4)
PLANTED = "Planted^Name"
BOMB = 13000
"""Pixels along a side: as bytes they take 161 MiB, which Pillow lets pass."""


def volume():
    values = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.float32)
    return ImageVolume(values, default_affine((1, 1, 3), SHAPE))


def save(path):
    study = new_study("P-17")
    study.elements.PatientName = PLANTED
    save_image(volume(), path, dicom=DicomDetails("mri", study=study))


def pack(path, syntax, picture):
    """A slice whose pixels are packed."""
    folder = path.with_name(f"{path.stem}-{syntax.replace('.', '-')}")
    save(folder)
    item = pydicom.dcmread(next(folder.iterdir()))
    item.BitsAllocated = item.BitsStored = 8
    item.HighBit = 7
    item.file_meta.TransferSyntaxUID = syntax
    item.PixelData = encapsulate([picture])
    item["PixelData"].VR = "OB"
    item["PixelData"].is_undefined_length = True
    item.save_as(path, enforce_file_format=True)


def packed(kind, shape=SHAPE[:2], **options):
    content = io.BytesIO()
    Image.new("L", shape, 100).save(content, kind, **options)
    return content.getvalue()


def run_lengths(*pairs):
    return struct.pack("<16L", 1, 64, *[0] * 14) + bytes(value for pair in pairs for value in pair)


def make_weights(path):
    network = NetworkConfig((2, 2), 1, 2)
    weights = {"a": torch.ones(2, 3), "b": torch.zeros(2)}
    save_weights(PretrainedWeights(network, "mri", 2, weights), path)


MAKERS = {
    "series": (save, load_image),
    "enhanced.dcm": (save, load_image),
    "capture.sc.dcm": (save, load_image),
    "like.dcm": (save, study_of),
    "jpeg.dcm": (lambda path: pack(path, JPEGBaseline8Bit, packed("JPEG")), load_image),
    "jpeg2000.dcm": (lambda path: pack(path, JPEG2000, packed("JPEG2000", no_jp2=True)), load_image),
    "rle.dcm": (lambda path: pack(path, RLELossless, run_lengths((256 - 71, 5))), load_image),
    "image.nii": (save, load_image),
    "image.nii.gz": (save, load_image),
    "image.npz": (save, load_image),
    "image.cfl": (save, load_image),
    "maps.npz": (lambda path: np.savez_compressed(path, maps=np.ones((2, 6, 5), np.complex64)), load_maps),
    "mask.npy": (lambda path: np.save(path, np.ones((6, 5), bool)), load_mask),
    "masks.npz": (lambda path: save_masks({"a": torch.ones(6, 5, dtype=torch.bool)}, path), load_masks),
    "weights.safetensors": (make_weights, load_weights),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    for name, (make, _) in MAKERS.items():
        make(folder / name)
    return folder


@pytest.fixture
def little_memory():
    """Fail where a test has taken 100 MiB; the files have less than 2 KiB."""
    if sys.platform != "linux":
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = peak_memory_mib()
    yield
    assert peak_memory_mib() < before + 100


def opened(read, path):
    """What a reader gives, or None after an error of ours, which names nobody."""
    try:
        return read(path)
    except DipmedError as error:
        message = str(error)
        assert message.isprintable(), f"not one line of text: {message!r}"
        assert len(message) > 20, f"not a sentence: {message!r}"
        assert "Planted" not in message
        return None


@st.composite
def damaged(draw, content):
    changed = bytearray(content)
    places = st.integers(0, min(len(content), 2048) - 1) | st.integers(0, len(content) - 1)
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        changed[place] = value
    for place, bit in draw(st.lists(st.tuples(places, st.integers(0, 7)), max_size=4)):
        changed[place] ^= 1 << bit
    return bytes(changed[: draw(places)] if draw(st.booleans()) else changed)


@pytest.mark.parametrize("name", MAKERS)
def test_the_undamaged_file_is_read(folder, name):
    assert opened(MAKERS[name][1], folder / name) is not None


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=20)
@given(data=st.data())
def test_damaged_files(folder, tmp_path, name, data):
    whole, path = folder / name, tmp_path / name
    if whole.is_dir():
        path.mkdir(exist_ok=True)
        for file in whole.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        whole, broken = whole / "00002.dcm", path / "00002.dcm"
    else:
        broken = path
    broken.write_bytes(data.draw(damaged(whole.read_bytes()), label="content"))
    if whole.suffix == ".cfl":
        path.with_suffix(".hdr").write_bytes(data.draw(damaged(whole.with_suffix(".hdr").read_bytes()), label=".hdr"))
    found = opened(MAKERS[name][1], path)
    if isinstance(found, ImageVolume):
        assert np.isfinite(found.data).all()
        assert np.isfinite(found.affine).all()


def bomb(kind):
    """A picture of a few pixels that calls itself large."""
    if kind == "JPEG2000":
        content = bytearray(packed(kind, no_jp2=True))
        struct.pack_into(">2L", content, 8, BOMB, BOMB)  # and as large in a single tile
        struct.pack_into(">2L", content, 24, BOMB, BOMB)
        return bytes(content)
    content = bytearray(packed(kind))
    struct.pack_into(">2H", content, content.index(b"\xff\xc0") + 5, BOMB, BOMB)
    return bytes(content)


@pytest.mark.usefixtures("little_memory")
def test_packed_pictures_are_as_large_as_they_say(folder, tmp_path):
    for kind, syntax in (("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000)):
        pack(tmp_path / f"{kind}.dcm", syntax, bomb(kind))
    item = pydicom.dcmread(folder / "jpeg.dcm")
    item.Rows = item.Columns = 60000
    item.save_as(tmp_path / "header.dcm")
    for path in tmp_path.glob("*.dcm"):
        with pytest.raises(DipmedError, match=r"are said|asks for"):
            load_image(path)
