"""What people want of dipmed, from beginning to end, on measured data.

From a file of k-space to an archive: `tests/reference/test_pacs.py`.
"""

import json
import re

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK
from monai.transforms import Compose, SaveImaged
from PIL import Image

from dipmed.io import load
from dipmed.transforms import DIPReconstructd, EstimateCoilMapsd, LoadScand, UndersampleKSpaced, VolumeWriter

SMALL = ("network.channels=8,8", "network.up_channels=8", "inputs=noise")
METHODS = ("zero-filled", "cg-sense", "l1-wavelet", "dip-vanilla", "dip-tv")


def test_a_monai_pipeline_saves_each_voxel_in_its_place(data_dir, tmp_path):
    file = data_dir / "twix_skyra_gre2/gre.dat"
    fit = {"iterations": 20, "sets": SMALL, "device": "cpu"}
    pipeline = Compose(
        [
            LoadScand(keys="kspace"),
            UndersampleKSpaced("kspace", "random:R=2,acs=24,seed=0"),
            EstimateCoilMapsd(keys="kspace", maps_key="maps"),
            DIPReconstructd(keys="kspace", maps_key="maps", output_key="image", **fit),
            SaveImaged(
                "image",
                output_dir=tmp_path,
                output_postfix="",
                separate_folder=False,
                writer=VolumeWriter,
                print_log=False,
            ),
        ]
    )
    image = pipeline({"kspace": str(file)})["image"]
    affine = load(file).affine
    assert image.shape == (1, 160, 160, 1)
    saved = tmp_path / "gre.nii.gz"
    by_nibabel, by_itk = nibabel.load(saved), SimpleITK.ReadImage(str(saved))
    for index in ((0, 0, 0), (159, 0, 0), (0, 159, 0), (40, 90, 0)):
        place = (affine @ [*index, 1])[:3]
        np.testing.assert_allclose((by_nibabel.affine @ [*index, 1])[:3], place, atol=1e-3)
        lps = np.array(by_itk.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(lps * (-1, -1, 1), place, atol=1e-3)
        value = pytest.approx(float(image[(0, *index)]), rel=1e-6)
        assert by_nibabel.dataobj[index] == value
        assert by_itk[index] == value
    assert float(image[0, 40:120, 40:120].mean()) > 2 * float(image[0, :16, :16].mean())


def test_five_methods_on_an_array_of_ones_own_by_one_command(run_cli, data_dir, tmp_path):
    with h5py.File(data_dir / "mat73_brain16/raw_data.mat") as file:
        stored = file["raw"][()]
    own = (stored["real"] + 1j * stored["imag"]).squeeze().astype(np.complex64)
    np.save(tmp_path / "mine.npy", own)
    (tmp_path / "mine.json").write_text(json.dumps({"axes": ["coil", "y", "x"], "voxel_mm": [2, 2, 5]}))
    fit = ("--iterations", 20, *(word for entry in SMALL for word in ("--set", entry)))
    files = ("--json", tmp_path / "scores.json", "--plot", tmp_path / "plot.png")
    undersampled = ("--undersample", "random:R=3,acs=16,seed=0", "--coils", 4)
    done = run_cli("compare", tmp_path / "mine.npy", "--methods", ",".join(METHODS), *undersampled, *fit, *files)
    assert done.code == 0, done.err
    rows = {row["method"]: row for row in json.loads((tmp_path / "scores.json").read_text())["rows"]}
    assert tuple(rows) == METHODS
    assert all(np.isfinite(row[score]) for row in rows.values() for score in ("psnr", "ssim", "nrmse"))
    assert rows["zero-filled"]["psnr"] < min(rows["cg-sense"]["psnr"], rows["l1-wavelet"]["psnr"])
    for method, row in rows.items():
        assert re.search(rf"{method}\b.*{row['psnr']:.2f}", done.out), f"{method} is not in the table"
    with Image.open(tmp_path / "plot.png") as plot:
        assert min(plot.size) > 300
        assert np.asarray(plot.convert("L")).std() > 10
