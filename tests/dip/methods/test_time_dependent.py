from itertools import pairwise

import numpy as np
import pytest
import torch

from dipmed.compare import compare
from dipmed.config import FitConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.time_dependent import TimeDependent
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, KSpaceScan
from dipmed.settings import ReconSettings
from operators import CartesianMRI, Frames, NonCartesianMRI, NonUniformFourier, make_mask, radial

CONFIG = TimeDependent.configure(FitConfig(), "mri").replace(adam_rate=5e-3)
MATRIX = (32, 32)


def error(image, truth):
    return float((image - truth).norm() / truth.norm())


def make_series(maps, truth, kind="cartesian"):
    """Three frames in which a spot brightens, each with its own samples: (y, A, images)."""
    images = truth.repeat(3, *[1] * (truth.ndim - 1))
    images[:, 9:13, 8:12] *= torch.tensor([0.5, 1.0, 1.5])[:, None, None]
    if kind == "cartesian":
        masks = [make_mask(f"random:R=2,acs=6,seed={seed}", tuple(truth.shape[1:])) for seed in range(3)]
        A = Frames([CartesianMRI(maps, mask) for mask in masks])
    else:
        spokes = radial(tuple(truth.shape[1:]), 36, golden=True).reshape(3, -1, 2).float()
        A = Frames([NonCartesianMRI(maps, frame, torch.full((frame.shape[0],), 0.05)) for frame in spokes])
    return A(images), A, images


class Watched(TimeDependent):
    def begin(self, fit):
        super().begin(fit)
        self.drawn = []
        self.weights = next(fit.network.parameters())

    def after_step(self, fit, gradient):
        self.drawn += fit.state["drawn"].tolist()
        super().after_step(fit, gradient)


@pytest.mark.parametrize("kind", ["cartesian", "radial"])
def test_every_frame_is_fitted_by_one_network(small_scan, kind):
    _, one, truth, _ = small_scan
    y, A, images = make_series(one.maps, truth, kind)
    method = Watched(channels=24)
    result = DeepImagePrior(CONFIG.replace(iterations=300), method=method)(y, A)
    assert result.image.shape == images.shape
    assert len(method.drawn) == 300
    assert set(method.drawn) == {0, 1, 2}
    for image, direct, expected in zip(result.image, A.adjoint(y), images, strict=True):
        as_bright = direct * ((direct.conj() * expected).sum() / direct.abs().square().sum())
        assert error(image, expected) < 0.95 * error(as_bright, expected)
    # the spot brightens
    spots = result.image[:, 9:13, 8:12].abs().mean((1, 2))
    assert spots[0] < spots[1] < spots[2]
    assert result.stop.rule == "held-out"


def test_several_frames_can_share_a_step(small_scan):
    _, one, truth, _ = small_scan
    y, A, _ = make_series(one.maps, truth)
    method = Watched(channels=8, n_frames_per_step=2)
    DeepImagePrior(CONFIG.replace(iterations=5), method=method)(y, A)
    assert len(method.drawn) == 10
    assert all(a != b for a, b in zip(method.drawn[::2], method.drawn[1::2], strict=True))


def test_a_step_changes_the_drawn_frame_alone(small_scan):
    _, one, truth, _ = small_scan
    y, A, _ = make_series(one.maps, truth)
    seen = []

    class Noting(TimeDependent):
        def after_step(self, fit, gradient):
            seen.append((int(fit.state["drawn"]), fit.output.clone()))

    DeepImagePrior(CONFIG.replace(iterations=8), method=Noting(channels=8))(y, A)
    for (_, before), (drawn, after) in pairwise(seen):
        changed = (before != after).flatten(2).any(2)[0]
        assert changed.tolist() == [frame == drawn for frame in range(3)]


@pytest.mark.parametrize("stop", ["budget", "discrepancy", "windowed-variance", "exponential-variance"])
def test_other_rules_see_a_series_as_one_image(small_scan, stop):
    _, one, truth, variance = small_scan
    y, A, images = make_series(one.maps, truth)
    fit = DeepImagePrior(
        CONFIG.replace(iterations=20, stop=stop), method=TimeDependent(channels=8), noise_variance=variance
    )
    assert fit(y, A).image.shape == images.shape


def test_a_single_frame_is_refused(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="this is a single one"):
        DeepImagePrior(CONFIG, method=TimeDependent())(y, A)
    scan, _ = brain_phantom_scan(MATRIX, n_coils=3)
    with pytest.raises(DipmedError, match="this scan has one; choose another method"):
        reconstruct(scan, ReconSettings(method="time-dependent", device="cpu"))
    with pytest.raises(DipmedError, match="one image is compared"):
        compare(scan, ["time-dependent"], ReconSettings(device="cpu"))


@pytest.mark.parametrize("kind", ["cartesian", "radial"])
def test_the_frames_of_a_scan_come_out_in_their_order(kind):
    one, truth = brain_phantom_scan(MATRIX, n_coils=4)
    factors = np.array([1.0, 2.0, 3.0], np.float32)
    if kind == "cartesian":
        kspace = np.concatenate([one.kspace, 2 * one.kspace], axis=1)  # two slices
        kspace = np.concatenate([factor * kspace for factor in factors])
        mask = np.ones((3, 2, *MATRIX), bool)
        scan = one.replace(kspace=kspace, mask=mask, calibration=None, frame_labels=({},) * 3, noise_covariance=None)
    else:
        positions = radial(MATRIX, 60, golden=True).reshape(3, -1, 2).float()
        images = torch.from_numpy(truth.maps * truth.image[0])
        frames = [
            f * NonUniformFourier((4, *MATRIX), p)(images).numpy() for f, p in zip(factors, positions, strict=True)
        ]
        scan = KSpaceScan(
            kspace=np.stack(frames)[:, None].astype(np.complex64),
            mask=None,
            affine=np.eye(4),
            image_shape=MATRIX,
            source="test",
            frame_labels=({},) * 3,
            trajectory=positions.numpy(),
        )
    sets = ("channels=16", "n_frames_per_step=3", "adam_rate=0.01", "stop=budget")
    settings = ReconSettings(method="time-dependent", sets=sets, changes={"iterations": 60}, device="cpu")
    result = reconstruct(scan, settings)
    n_slices = 2 if kind == "cartesian" else 1
    assert result.volume.data.shape == (*MATRIX, n_slices, 3)
    assert len(result.reconstructions) == 3 * n_slices
    brightness = np.abs(result.volume.data).mean((0, 1))
    assert (np.diff(brightness, axis=1) > 0.05 * brightness[:, :1]).all()
    if n_slices == 2:
        np.testing.assert_allclose(brightness[1] / brightness[0], 2, rtol=0.2)
