from dataclasses import fields

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import LoadImage

from dipmed.io import load, save_ismrmrd
from dipmed.scan import DipmedError, ImageVolume, SequenceFigures
from dipmed.simulate import ProjectionSettings, simulate
from dipmed.transforms import scan_from_tensor, scan_to_tensor, volume_from_tensor, volume_to_tensor


def assert_same(found, expected):
    assert type(found) is type(expected)
    for entry in fields(expected):
        one, other = getattr(found, entry.name), getattr(expected, entry.name)
        if isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other, err_msg=entry.name)
            assert one.dtype == other.dtype, entry.name
        else:
            assert one == other, entry.name


def test_everything_of_a_cartesian_scan_comes_back(scan):
    full = scan.replace(
        calibration=scan.kspace[:1],
        sequence=SequenceFigures(3.0, (0.5,), (0.01, 0.02)),
        assumptions=("one", "two"),
        notes=("three",),
    )
    assert full.noise_covariance is not None
    assert_same(scan_from_tensor(scan_to_tensor(full)), full)


def test_everything_of_a_radial_scan_comes_back(data_dir):
    scan = load(data_dir / "dyn_vfa_radial5/vfa_radial5.h5")
    assert scan.n_readouts is not None
    assert_same(scan_from_tensor(scan_to_tensor(scan)), scan)


@pytest.mark.parametrize("geometry", ["parallel", "fan", "cone"])
def test_everything_of_projections_comes_back(attenuating, geometry):
    volume = volume_from_tensor(torch.cat([attenuating, attenuating], -1))
    made = simulate(volume, ProjectionSettings(7, geometry, photons=1e4)).scan
    scan = made.replace(counts=made.projections + 1, centre_known=False)
    assert_same(scan_from_tensor(scan_to_tensor(scan)), scan)


@pytest.mark.parametrize("frames", [1, 3])
def test_an_image_comes_back(frames):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(4, 5, 6, frames))
    volume = ImageVolume(data[..., 0] if frames == 1 else data, np.diag([1.0, 2, 3, 1]))
    tensor = volume_to_tensor(volume)
    assert tensor.shape == (frames, 4, 5, 6)
    assert_same(volume_from_tensor(tensor), volume)


def test_scans_are_stacked_in_a_batch_and_taken_apart(scan):
    others = [scan, scan.replace(kspace=scan.kspace * 3, notes=("two", "notes"))]
    loader = DataLoader(Dataset([{"kspace": scan_to_tensor(one)} for one in others]), batch_size=2)
    batch = next(iter(loader))
    assert batch["kspace"].shape == (2, *scan.kspace.shape)
    for one, expected in zip(decollate_batch(batch), others, strict=True):
        assert_same(scan_from_tensor(one["kspace"]), expected)


@pytest.mark.parametrize("tensor", [torch.zeros(1, 1, 2, 8, 8), MetaTensor(torch.zeros(1, 4, 4, 4))])
def test_what_is_no_scan_is_refused(tensor):
    with pytest.raises(DipmedError, match="expected k-space or projections as LoadScan"):
        scan_from_tensor(tensor)


@pytest.mark.filterwarnings("ignore:.*nvImageCodec:UserWarning")  # of another reader of MONAI's
@pytest.mark.parametrize("dtype", [np.float32, np.float64, None])
def test_monai_s_reader_loses_no_phase(scan, tmp_path, dtype):
    save_ismrmrd(scan, tmp_path / "scan.h5")
    found = LoadImage(dtype=dtype)(tmp_path / "scan.h5")
    assert found.shape == (*scan.kspace.shape, 2)
    assert_same(scan_from_tensor(found), load(tmp_path / "scan.h5"))


def test_k_space_without_its_phase_is_refused(scan):
    with pytest.raises(DipmedError, match="its phase was lost"):
        scan_from_tensor(scan_to_tensor(scan).real)


def test_a_scan_is_no_image(scan):
    with pytest.raises(DipmedError, match="expected an image"):
        volume_from_tensor(scan_to_tensor(scan))
