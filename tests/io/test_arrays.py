import numpy as np
import pytest

from dipmed.io.arrays import load_maps, load_mask
from dipmed.io.cfl import write_cfl
from dipmed.scan import FormatError


def maps(*shape: int):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 8, 6), (1, 2, 8, 6)), ((3, 2, 8, 6), (3, 2, 8, 6)), ((1, 2, 8, 6, 4), (1, 2, 8, 6, 4))],
)
def test_maps_of_numpy(tmp_path, shape, expected):
    array = maps(*shape)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", maps=array, other=np.ones(3))
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(load_maps(tmp_path / name), array.reshape(expected))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 6, 1, 2), (1, 2, 8, 6)),
        ((1, 8, 6, 2), (1, 2, 8, 6)),
        ((8, 6, 4, 2), (1, 2, 8, 6, 4)),
        ((8, 6, 1, 2, *[1] * 9, 3), (3, 2, 8, 6)),
    ],
)
def test_maps_of_bart(tmp_path, shape, expected):
    array = maps(*shape)
    write_cfl(tmp_path / "a.cfl", array)
    found = load_maps(tmp_path / "a.cfl")
    assert found.shape == expected
    np.testing.assert_array_equal(
        found[0, 1], array[:, :, :, 1].squeeze() if array.ndim == 4 else array[:, :, 0, 1, ..., 0].squeeze()
    )


def test_one_set_of_maps_only(tmp_path):
    write_cfl(tmp_path / "a.cfl", maps(8, 6, 1, 2, 2))
    with pytest.raises(FormatError, match=r"more than one set of maps \(axis 4: 2"):
        load_maps(tmp_path / "a.cfl")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((2, 8, 6)), "a coil sensitivity map is complex"),
        (np.zeros((2, 8, 6), complex), "are zero"),
        (np.full((2, 8, 6), np.nan + 0j), "NaN"),
        (maps(8, 6), "should hold maps"),
        (maps(2, 2, 8, 6, 4), "should hold maps"),
    ],
)
def test_arrays_that_are_no_maps(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FormatError, match=words):
        load_maps(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(6,), (8, 6), (8, 6, 4)])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64, np.complex64])
def test_masks_of_numpy(tmp_path, shape, dtype):
    mask = np.random.default_rng(0).random(shape) < 0.5
    mask.flat[0] = True
    np.save(tmp_path / "a.npy", mask.astype(dtype))
    np.savez(tmp_path / "a.npz", mask.astype(dtype))
    for name in ("a.npy", "a.npz"):
        found = load_mask(tmp_path / name)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 6), (8, 6)), ((1, 8, 6), (8, 6)), ((1, 6), (6,)), ((8, 6, 4), (8, 6, 4))]
)
def test_masks_of_bart(tmp_path, shape, expected):
    mask = np.random.default_rng(0).random(shape) < 0.5
    mask.flat[0] = True
    write_cfl(tmp_path / "a.cfl", mask)
    np.testing.assert_array_equal(load_mask(tmp_path / "a.cfl"), mask.reshape(expected))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((8, 6), 2), "0 .not sampled. and 1"),
        (np.full((8, 6), 0.5), "0 .not sampled. and 1"),
        (np.full((8, 6), np.nan), "0 .not sampled. and 1"),
        (np.full((8, 6), 1j), "0 .not sampled. and 1"),
        (np.zeros((8, 6)), "nothing was sampled"),
        (np.ones((1, 2, 8, 6)), "should hold a mask"),
        (np.array(1), "should hold a mask"),
        (np.array(["1"]), "not plain numbers"),
    ],
)
def test_arrays_that_are_no_masks(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(FormatError, match=words):
        load_mask(tmp_path / "a.npy")


def test_bart_mask_with_coils(tmp_path):
    write_cfl(tmp_path / "a.cfl", np.ones((8, 6, 1, 2)))
    with pytest.raises(FormatError, match="axes 0 to 2 alone"):
        load_mask(tmp_path / "a.cfl")


@pytest.mark.parametrize("load", [load_maps, load_mask])
def test_files_of_other_kinds(tmp_path, load):
    with pytest.raises(FormatError, match=r"\.npy, \.npz or \.cfl"):
        load(tmp_path / "a.txt")
    np.savez(tmp_path / "a.npz", first=np.ones(3), second=np.ones(3))
    with pytest.raises(FormatError, match="has first, second"):
        load(tmp_path / "a.npz")
    for name in ("b.npy", "b.npz", "b.cfl"):
        with pytest.raises(FormatError, match="does not exist"):
            load(tmp_path / name)


def test_real_mask(data_dir):
    mask = load_mask(data_dir / "sim3d_mc6/mask_yz.npy")
    assert mask.shape == (64, 48)
    assert mask.mean() == pytest.approx(0.25, abs=0.01)
