"""What decides images: whatever changes them changes the manifest, and nothing in it names a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dipmed.manifest import checksum, make_manifest
from dipmed.phantom import brain_phantom_scan
from dipmed.settings import ReconSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scan():
    return brain_phantom_scan((24, 20), n_coils=2)[0]


@pytest.fixture
def settings(tmp_path):
    np.save(tmp_path / "Doe^Jane.npy", np.ones(20, dtype=bool))
    return ReconSettings(mask=tmp_path / "Doe^Jane.npy", changes={"iterations": 9})


def test_it_is_the_same_for_the_same(scan, settings, tmp_path):
    copy = scan.replace(kspace=np.asfortranarray(scan.kspace.copy()))
    moved = settings.mask.rename(tmp_path / "other.npy")
    before = make_manifest(copy, replace(settings, mask=moved), CPU)
    moved.rename(settings.mask)
    assert make_manifest(scan, settings, CPU) == before


def test_it_names_nobody(scan, settings):
    assert "Doe" not in str(make_manifest(scan, settings, CPU))


def test_whatever_changes_the_images_changes_it(scan, settings):
    kspace = scan.kspace.copy()
    kspace[0, 0, 1, 7, 7] *= 1 + 1e-6
    affine = scan.affine + np.eye(4) * 1e-6
    others = [
        make_manifest(scan.replace(kspace=kspace), settings, CPU),
        make_manifest(scan.replace(affine=affine), settings, CPU),
        make_manifest(scan, settings, torch.device("meta")),
        *(
            make_manifest(scan, replace(settings, **change), CPU)
            for change in (
                {"changes": {"iterations": 10}},
                {"sets": ("rate=0.5",)},
                {"sets": ("network.channels=8,8",)},
                {"method": "deep-red"},
                {"n_coils": 2},
                {"preset": "mri-2d-fast"},
                {"slices": (0, 1)},
            )
        ),
    ]
    np.save(settings.mask, np.arange(20) != 3)
    others.append(make_manifest(scan, settings, CPU))
    texts = {str(other) for other in others}
    assert len(texts) == len(others)


def test_containers_of_the_same_values_differ():
    values = [(1, 2), ((1,), 2), (1, (2,)), ("1", 2), ("12",), ("1", "2"), {1: 2}, None, np.array([1, 2]), [[1, 2]]]
    assert len({checksum(value) for value in values}) == len(values)
    assert checksum(torch.ones(3)) == checksum(np.ones(3, np.float32)) != checksum(np.ones(3))
