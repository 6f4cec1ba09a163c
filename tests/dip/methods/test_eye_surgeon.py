import numpy as np
import pytest
import torch

from dipmed.config import FitConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.eye_surgeon import OptimalEyeSurgeon
from dipmed.io.mask_file import load_masks, save_masks
from dipmed.methods import METHODS
from dipmed.nets.masks import kept_share, prunable_weights
from dipmed.scan import DipmedError, FormatError, OutputError, ShapeError

CONFIG = OptimalEyeSurgeon.configure(FitConfig(), "mri").replace(iterations=10)
SMALL = {"channels": (8, 8), "mask_steps": 10}


class Watched(OptimalEyeSurgeon):
    """Keeps the fit, and the weights before and after the masks came."""

    def begin(self, fit):
        self.fit = fit
        self.drawn = {name: weight.detach().clone() for name, weight in prunable_weights(fit.network).items()}
        super().begin(fit)
        self.begun = {name: weight.detach().clone() for name, weight in prunable_weights(fit.network).items()}


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_twentieth_of_the_weights_as_drawn_is_fitted_alone(small_scan, optimizer):
    y, A, _, _ = small_scan
    found = {}
    method = Watched(**SMALL, on_masks=found.update)
    DeepImagePrior(CONFIG.replace(optimizer=optimizer), method=method)(y, A)
    assert kept_share(found) == pytest.approx(0.05, abs=1e-4)
    moved = 0
    for name, weight in prunable_weights(method.fit.network).items():
        assert torch.equal(method.begun[name], method.drawn[name] * found[name])
        assert not weight[~found[name]].any()
        moved += int((weight != method.begun[name]).sum())
    assert moved > 0.5 * sum(int(mask.sum()) for mask in found.values())


def test_the_search_lowers_the_misfit_of_the_drawn_weights(small_scan):
    y, A, _, _ = small_scan
    losses = []

    class Searching(OptimalEyeSurgeon):
        def data_term(self, fit, prediction):
            value, gradient = super().data_term(fit, prediction)
            losses.append(float(value))
            return value, gradient

    method = Searching(channels=(16, 16), mask_steps=80)
    DeepImagePrior(CONFIG.replace(iterations=1), method=method)(y, A)
    assert np.mean(losses[70:80]) < 0.8 * np.mean(losses[:10])


def test_masks_go_from_scan_to_scan_through_a_file(small_scan, tmp_path):
    y, A, _, _ = small_scan
    found = {}
    DeepImagePrior(CONFIG.replace(iterations=1), method=OptimalEyeSurgeon(**SMALL, on_masks=found.update))(y, A)
    path = tmp_path / "masks.npz"
    save_masks(found, path)
    with pytest.raises(OutputError, match="exists"):
        save_masks(found, path)
    read = load_masks(path)
    assert read.keys() == found.keys()
    assert all(torch.equal(read[name], mask) for name, mask in found.items())
    again = {}
    method = Watched(**SMALL, masks=read, on_masks=again.update)
    DeepImagePrior(CONFIG.replace(iterations=2), method=method)(2 * y, A)
    assert not again
    assert all(torch.equal(method.begun[name] != 0, mask) for name, mask in found.items())
    with pytest.raises(ShapeError, match="another network"):
        DeepImagePrior(CONFIG, method=OptimalEyeSurgeon(channels=(8, 12), masks=read))(y, A)


def test_files_of_other_things_are_no_masks(tmp_path):
    np.savez(tmp_path / "image.npz", image=np.ones((4, 4)))
    with pytest.raises(FormatError, match="masks"):
        load_masks(tmp_path / "image.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FormatError):
        load_masks(tmp_path / "text.npz")


@pytest.mark.parametrize("scan", ["small_slice", "small_volume"])
def test_projections_and_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    method = OptimalEyeSurgeon(channels=(16, 16), mask_steps=30, keep=0.2)
    result = DeepImagePrior(CONFIG.replace(iterations=60, stop="budget"), method=method)(y, A)
    assert result.image.shape == truth.shape
    assert (result.image - truth).norm() < 0.8 * truth.norm()


def test_what_a_text_cannot_give_is_no_setting():
    keys = METHODS["optimal-eye-surgeon"].keys
    assert {"keep", "mask_steps", "channels"} <= keys.keys()
    assert not {"masks", "on_masks"} & keys.keys()


def test_impossible_options_are_refused():
    with pytest.raises(DipmedError, match="keep"):
        OptimalEyeSurgeon(keep=0.0)
