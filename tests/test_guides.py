"""Similar images from files: whose grid they must have, and which slices of them are taken."""

from dataclasses import replace

import numpy as np
import pytest

from dipmed.compare import compare
from dipmed.guides import check_guide, load_guides
from dipmed.io import save_image
from dipmed.methods import find_method
from dipmed.phantom import brain_phantom_scan
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, GeometryError, ImageVolume, ShapeError
from dipmed.settings import ReconSettings

SMALL = ("network.channels=8,8", "network.skip_channels=4", "iterations=3", "stop=budget")


@pytest.fixture(scope="module")
def three_slices():
    scan, _ = brain_phantom_scan((32, 28), n_coils=3)
    affine = scan.affine.copy()
    affine[:3, 3] += (40, -30, 20)
    return scan.replace(kspace=np.tile(scan.kspace, (1, 3, 1, 1, 1)), mask=np.repeat(scan.mask, 3, 1), affine=affine)


def written(tmp_path, scan, n_slices=3, shift_mm=0.0, name="similar.nii"):
    data = np.random.default_rng(0).random((*scan.image_shape, n_slices)).astype(np.float32)
    affine = scan.affine.copy()
    affine[0, 3] += shift_mm
    save_image(ImageVolume(data, affine), tmp_path / name)
    return data, tmp_path / name


def guides_of(scan, file, **choices):
    settings = ReconSettings(method="reference-guided", reference_image=file, device="cpu", **choices)
    return load_guides(scan, prepare(scan, settings), settings)


def test_each_slice_has_its_own(three_slices, tmp_path):
    data, file = written(tmp_path, three_slices)
    np.testing.assert_array_equal(guides_of(three_slices, file), np.moveaxis(data, 2, 0))
    np.testing.assert_array_equal(guides_of(three_slices, file, slices=(1, 2)), np.moveaxis(data[:, :, 1:2], 2, 0))


def test_chosen_slices_may_be_all_that_the_file_holds(three_slices, tmp_path):
    moved = three_slices.affine.copy()
    moved[:3, 3] += moved[:3, 2]
    data, file = written(tmp_path, three_slices.replace(affine=moved), n_slices=1)
    np.testing.assert_array_equal(guides_of(three_slices, file, slices=(1, 2))[0], data[:, :, 0])


def test_an_image_of_another_grid_is_refused(three_slices, tmp_path):
    with pytest.raises(ShapeError, match=r"\(32, 28, 3\)"):
        guides_of(three_slices, written(tmp_path, three_slices, n_slices=2)[1])


def test_an_image_of_another_place_is_refused_where_both_places_are_known(three_slices, tmp_path):
    _, near = written(tmp_path, three_slices, shift_mm=0.1, name="near.nii")
    assert guides_of(three_slices, near) is not None
    data, far = written(tmp_path, three_slices, shift_mm=5.0)
    with pytest.raises(GeometryError, match=r"5\.0 mm"):
        guides_of(three_slices, far)
    np.save(tmp_path / "placeless.npy", data)
    assert guides_of(three_slices, tmp_path / "placeless.npy") is not None


def test_a_missing_or_needless_image_is_refused_before_any_work(three_slices, tmp_path):
    with pytest.raises(DipmedError, match="--reference-image FILE"):
        reconstruct(three_slices, ReconSettings(method="reference-guided", device="cpu"))
    _, file = written(tmp_path, three_slices)
    with pytest.raises(DipmedError, match="not for dip"):
        check_guide(ReconSettings(reference_image=file), [find_method("dip")])


def test_the_image_reaches_the_fits_of_recon_and_compare(three_slices, tmp_path):
    results = []
    for name in ("one.nii", "other.nii"):
        data, file = written(tmp_path, three_slices, name=name)
        if name == "other.nii":
            save_image(ImageVolume(data[::-1].copy(), three_slices.affine), file, force=True)
        settings = ReconSettings(method="reference-guided", reference_image=file, sets=SMALL, device="cpu")
        less = replace(settings, undersample="random:R=2,acs=12,seed=0")
        volume = reconstruct(three_slices, settings).volume.data
        found = compare(three_slices, ["zero-filled", "reference-guided"], less)
        results.append((volume, found.images["reference-guided"], found.images["zero-filled"]))
    assert not np.allclose(results[0][0], results[1][0])
    assert not np.allclose(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][2], results[1][2])
