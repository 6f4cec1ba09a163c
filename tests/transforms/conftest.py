import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from dipmed.io import save_ismrmrd
from dipmed.phantom import brain_phantom_scan


@pytest.fixture(scope="session")
def scan():
    """Two slices in an oblique place."""
    one = brain_phantom_scan((32, 28), n_coils=4, noise=0.01)[0]
    turn = np.array([[0.8, -0.6, 0, 10], [0.6, 0.8, 0, -20], [0, 0, 1, 30], [0, 0, 0, 1.0]])
    kspace = np.concatenate([one.kspace, one.kspace * 2], axis=1)
    return one.replace(kspace=kspace, mask=np.repeat(one.mask, 2, axis=1), affine=turn @ one.affine)


@pytest.fixture(scope="session")
def scan_file(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    save_ismrmrd(scan, path)
    return path


@pytest.fixture
def attenuating():
    """A disc of water in Hounsfield units, ``(channel, x, y, z)``, in an oblique place."""
    x, y = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5, indexing="ij")
    disc = np.where(np.hypot(x, y) < 24, 0.0, -1000.0)[None, :, :, None].repeat(2, axis=-1)
    affine = np.array([[-0.5, 0, 0, 7], [0, -0.5, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1.0]])
    return MetaTensor(torch.from_numpy(disc.astype(np.float32)), affine=torch.from_numpy(affine))
