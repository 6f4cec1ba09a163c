"""How a scan is taken apart: what is chosen, why, and what is refused; and that the ways agree."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dipmed.compare import compare
from dipmed.mode import choose_mode, memory_needed, workers_worth
from dipmed.phantom import brain_phantom_scan
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.recon_command import ReconRequest
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan
from dipmed.settings import ReconSettings
from dipmed.stacks import jobs_of, n_jobs_of
from operators import ConeBeam, Grid, ParallelBeam, SliceProjector, StackedProjector, angles_over, make_mask

SMALL = {"iterations": 40, "network": {"channels": (8, 8)}, "inputs": ("zero-filled",), "averaging": 0.9}


def volume_scan(shape=(160, 128, 96)):
    kspace = np.zeros((1, 1, 4, *shape), dtype=np.complex64)  # which take no memory before they are written to
    return KSpaceScan(kspace, np.ones((1, 1, *shape), dtype=bool), np.eye(4), shape, "test")


def slices_of_ct(n_slices=10, n=24, n_views=16):
    """Balls on a plate; slices are seen by parallel rays."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, k) for k in (n, n, n_slices)], indexing="ij")
    body = (x**2 + y**2 < 0.8).astype(np.float32) + ((x - 0.3) ** 2 + y**2 + (z / 2) ** 2 < 0.1)
    grid, beam = Grid((n, n), (1.0, 1.0)), ParallelBeam(angles_over(n_views, np.pi), 36, 1.0)
    truth = 0.02 * body.astype(np.float32)
    A = StackedProjector(SliceProjector(grid, beam), n_slices)
    lines = A.data_of(A(torch.from_numpy(truth)[None]))[:, 0].numpy()
    counts = np.exp(-lines) * np.linspace(1, 2, n_slices, dtype=np.float32)[:, None, None]
    return ProjectionScan(lines, beam, grid, np.eye(4), "test", counts=counts), truth


def slices_of_mri(n_slices=6):
    scan, truth = brain_phantom_scan((32, 28), n_coils=4)
    bright = np.linspace(1, 1.5, n_slices, dtype=np.float32)
    kspace = np.concatenate([scan.kspace * one for one in bright], axis=1)
    stack = scan.replace(kspace=kspace, mask=np.repeat(scan.mask, n_slices, axis=1))
    return stack, np.abs(truth.image[0])[..., None] * bright


def cone_scan():
    beam = ConeBeam(angles_over(12, 2 * np.pi), 12, 16, 2.0, 2.0, 60.0, 100.0)
    grid = Grid((16, 16, 12), (1.0, 1.0, 1.0))
    return ProjectionScan(np.ones((1, 12, 12, 16), np.float32), beam, grid, np.eye(4), "test")


def error(image, truth):
    image = np.abs(image)
    return np.linalg.norm(image * (image * truth).sum() / (image**2).sum() - truth) / np.linalg.norm(truth)


def test_auto_takes_images_as_they_were_measured_and_says_why():
    choice = choose_mode(slices_of_mri()[0], ReconSettings())
    assert choice.settings.mode == "slice"
    assert choice.reason == "slice: the scan was taken slice by slice; each of 6 is fitted by itself"
    choice = choose_mode(cone_scan(), ReconSettings())
    assert choice.settings.mode == "3d"
    assert choice.reason == "3d: the scan is one volume, and one network fits 16 x 16 x 12 voxels"
    assert choose_mode(volume_scan(), ReconSettings(split_readout=True)).settings.mode == "slice"


@pytest.mark.parametrize(
    ("n_views", "options", "preset"),
    [
        (60, {}, "ct-2d-many-views"),
        (45, {}, "ct-2d-many-views"),
        (44, {}, "ct-2d"),
        (24, {}, "ct-2d"),
        (23, {}, "ct-2d-few-views"),
        (60, {"views": 18}, "ct-2d-few-views"),
        (60, {"views": 30}, "ct-2d"),
        (60, {"preset": "ct-2d"}, "ct-2d"),
        (60, {"mode": "3d"}, "ct-3d-slices"),
    ],
)
def test_slices_of_many_and_of_few_views_have_presets_of_their_own(n_views, options, preset):
    scan, _ = slices_of_ct(2, 8, n_views)
    settings = choose_mode(scan, ReconSettings(**options)).settings
    assert settings.preset_for("ct", settings.ndim_for(scan)) == preset


@pytest.mark.parametrize(("views", "preset"), [(45, "ct-2d-many-views"), (24, "ct-2d"), (None, "ct-2d-few-views")])
def test_compared_methods_have_the_preset_of_the_views_that_are_kept(views, preset):
    scan, _ = slices_of_ct(2, 8, 60)  # of which a quarter is kept where nothing else is said
    assert compare(scan, ["fbp"], ReconSettings(views=views)).settings.preset_for("ct", 2) == preset


@pytest.mark.parametrize(
    ("n_slices", "threads", "options", "n_workers"),
    [
        (6, 2, {}, 2),
        (6, 8, {}, 3),
        (3, 8, {}, 1),
        (6, 1, {}, 1),
        (6, 2, {"slices": (0, 2)}, 1),
        (6, 2, {"method": "cg-sense"}, 1),
        (6, 2, {"warm_start": True}, 1),
        (6, 2, {"mode": "3d"}, 1),
        (6, 8, {"memory_gib": 1.4}, 2),
    ],
)
def test_workers_are_worth_their_start_for_slices_that_memory_holds_beside_each_other(
    monkeypatch, n_slices, threads, options, n_workers
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("dipmed.memory.available_memory", lambda: 64 * 2**30)
    scan, _ = slices_of_mri(n_slices)
    settings = choose_mode(scan, ReconSettings(**options)).settings
    assert workers_worth(scan, settings) == n_workers


def test_what_a_run_notes_as_asked_for_is_what_it_does():
    scan, _ = slices_of_ct(2, 8, 60)
    noted = ReconRequest(Path("scan.h5"), [Path("a.nii.gz")], ReconSettings()).asked(scan)
    assert (
        noted["fit"]["iterations"] == choose_mode(scan, ReconSettings()).settings.fit_config("ct", 2).iterations == 600
    )


def test_auto_joins_slices_that_are_alike_and_says_why():
    scan, _ = slices_of_ct(10)
    choice = choose_mode(scan, ReconSettings())
    assert (choice.settings.mode, choice.settings.preset) == ("3d", "ct-3d-slices")
    assert choice.reason == "3d: from one slice to the next 13% of the image changes; one network fits all 10 slices"
    scan, _ = slices_of_mri(8)
    choice = choose_mode(scan, ReconSettings())
    assert choice.settings.mode == "3d"
    assert choice.reason == "3d: from one slice to the next 6% of the image changes; one network fits all 8 slices"


def test_auto_leaves_slices_alone_that_are_not_alike():
    scan, _ = slices_of_mri(8)
    sign = (-1.0) ** np.arange(8)
    choice = choose_mode(
        scan.replace(kspace=scan.kspace * sign[:, None, None, None].astype(np.float32)), ReconSettings()
    )
    assert choice.settings.mode == "slice"
    assert "200% of the image changes; each of 8 is fitted by itself" in choice.reason
    damaged = scan.kspace.copy()
    damaged[:, 4] = 0  # as a reader leaves it
    choice = choose_mode(scan.replace(kspace=damaged), ReconSettings())
    assert choice.settings.mode == "slice"
    assert "and one is empty" in choice.reason


@pytest.mark.parametrize(
    "options",
    [
        {"slices": (1, 8)},
        {"preset": "ct-2d"},
        {"method": "dip-vanilla"},
        {"method": "fbp"},
        {"warm_start": True},
        {"in_flight": 2},
        {"sets": ("time_limit=60",)},
        {"mode": "slice"},
        {"map_sets": 2},
    ],
    ids=str,
)
def test_what_is_chosen_for_slices_keeps_them_apart(options):
    scan = slices_of_mri(10)[0] if "map_sets" in options else slices_of_ct(10)[0]
    assert choose_mode(scan, ReconSettings(**options)).settings.mode == "slice"


def test_slices_of_many_views_are_fitted_one_by_one():
    scan, _ = slices_of_ct(10, 8, 60)
    assert choose_mode(scan, ReconSettings()).settings.preset == "ct-2d-many-views"
    assert choose_mode(scan, ReconSettings(views=30)).settings.preset == "ct-3d-slices"


def test_data_that_are_left_out_do_not_choose():
    scan, _ = slices_of_ct(10)
    lines = scan.projections.copy()
    lines[:, 1::2] *= np.tile(np.float32([1, 3]), 5)[:, None, None]
    scan = scan.replace(projections=lines)
    assert choose_mode(scan, ReconSettings()).settings.mode == "slice"
    assert choose_mode(scan, ReconSettings(views=8)).settings.mode == "3d"
    stack, _ = slices_of_mri(8)
    kspace = stack.kspace.copy()
    kspace[..., ~make_mask("random:R=2,acs=8,seed=0", (32, 28)).numpy()] = 0
    kept = stack.replace(kspace=kspace)
    undersampled = ReconSettings(undersample="random:R=2,acs=8,seed=0")
    assert choose_mode(stack, undersampled).reason == choose_mode(kept, undersampled).reason


def test_alike_slices_that_memory_does_not_hold_become_slabs_then_slices():
    scan, _ = slices_of_ct(24)
    whole = memory_needed(scan, ReconSettings(mode="3d", changes={"checkpointing": True}))
    smallest = memory_needed(scan, ReconSettings(mode="slab", slab=8, changes={"checkpointing": True}))
    assert smallest < whole

    def within(n_bytes):
        return choose_mode(scan, ReconSettings(memory_gib=n_bytes / 2**30))

    choice = within((whole + smallest) / 2)
    assert choice.settings.mode == "slab"
    assert 8 <= choice.settings.slab < 24
    choice = within(0.99 * smallest)
    assert choice.settings.mode == "slice"
    assert "memory does not hold 8 at a time; each of 24" in choice.reason


def test_what_is_noted_as_asked_for_is_the_mode_that_the_data_ask_for():
    scan, _ = slices_of_ct(10)
    noted = ReconRequest(Path("scan.h5"), [Path("a.nii.gz")], ReconSettings()).asked(scan)
    assert noted["settings"]["mode"] == "3d"
    assert (
        noted["fit"]["variation_weight"]
        == choose_mode(scan, ReconSettings()).settings.fit_config("ct", 3).variation_weight
    )


def test_with_less_memory_auto_computes_again_then_makes_slabs_then_slices():
    scan, settings = volume_scan(), ReconSettings()
    whole = memory_needed(scan, ReconSettings(mode="3d"))
    saving = memory_needed(scan, ReconSettings(mode="3d", changes={"checkpointing": True}))
    slab = ReconSettings(mode="slab", slab=8, split_readout=True, changes={"checkpointing": True})
    smallest = memory_needed(scan, slab)
    assert smallest < saving < whole

    def within(n_bytes):
        return choose_mode(scan, ReconSettings(memory_gib=n_bytes / 2**30))

    assert not within(whole).settings.changes
    choice = within(saving)
    assert (choice.settings.mode, choice.settings.changes) == ("3d", {"checkpointing": True})
    assert choice.reason.endswith("computing features again to save memory")
    choice = within((smallest + saving) / 2)
    assert (choice.settings.mode, choice.settings.split_readout) == ("slab", True)
    assert 8 <= choice.settings.slab < 160
    assert "160 x 128 x 96 voxels needs more memory than there is" in choice.reason
    assert memory_needed(scan, choice.settings) <= (smallest + saving) / 2
    with pytest.raises(DipmedError, match=r"dip of 4 coils.* may be taken; .*--coils N, or .*--split-readout"):
        within(2**20)
    assert settings.mode == "auto"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: brain_phantom_scan((32, 28), 2)[0],
            {"mode": "3d"},
            "--mode 3d is for several slices, and there is one",
        ),
        (lambda: slices_of_mri()[0], {"mode": "3d", "slices": (2, 3)}, "several slices"),
        (cone_scan, {"mode": "slab"}, "--mode slab .* rays of a cone .* --mode 3d"),
        (cone_scan, {"mode": "slice"}, "--mode slice .* --rebin"),
        (cone_scan, {"mode": "3d", "memory_gib": 1e-3}, r"dip of 16 x 16 x 12 needs about .* --matrix N"),
        (lambda: slices_of_ct()[0], {"mode": "3d", "memory_gib": 1e-3}, "choose --mode slab or slice, or take fewer"),
        (lambda: slices_of_ct()[0], {"mode": "slab", "memory_gib": 1e-3}, "choose --mode slice"),
        (lambda: slices_of_mri()[0], {"mode": "volume"}, "unknown mode 'volume'; choose one of auto, slice"),
        (lambda: slices_of_mri()[0], {"slab": 4}, "--slab N is for --mode slab"),
        (lambda: slices_of_mri()[0], {"mode": "slab", "method": "time-dependent"}, "time-dependent .* no --mode slab"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(make, options, message):
    with pytest.raises(DipmedError, match=message):
        choose_mode(make(), ReconSettings(**options))


def test_a_volume_with_gaps_along_the_readout_has_no_slabs():
    scan = volume_scan()
    mask = scan.mask.copy()
    mask[..., :10, :, ::2] = False
    partial = scan.replace(mask=mask)
    with pytest.raises(DipmedError, match="readout of this volume is not"):
        choose_mode(partial, ReconSettings(mode="slab"))
    needed = memory_needed(partial, ReconSettings(mode="3d", changes={"checkpointing": True}))
    with pytest.raises(DipmedError, match="GiB of memory"):
        choose_mode(partial, ReconSettings(memory_gib=0.9 * needed / 2**30))


@pytest.mark.parametrize(("kind", "size"), [("ct", 6), ("mri", 4)])
def test_slabs_agree_with_the_whole_volume(kind, size):
    scan, truth = slices_of_ct() if kind == "ct" else slices_of_mri()
    errors, images = {}, {}
    for mode, slab in (("3d", None), ("slab", size)):
        changes = SMALL | {"iterations": 80 if kind == "ct" else 40}  # of CT, pixels have parts, and take longer
        settings = ReconSettings(mode=mode, slab=slab, changes=changes, device="cpu", poisson=kind == "ct")
        result = reconstruct(scan, settings)
        assert len(result.reconstructions) == n_jobs_of(prepare(scan, settings), settings) == (1 if slab is None else 2)
        assert result.volume.data.shape == truth.shape
        images[mode] = np.abs(result.volume.data)
        errors[mode] = error(images[mode], truth)
    assert max(errors.values()) < 0.3
    assert abs(errors["slab"] - errors["3d"]) < 0.05
    assert np.linalg.norm(images["slab"] - images["3d"]) < 0.15 * np.linalg.norm(images["3d"])


def test_a_stack_holds_what_its_slices_hold():
    scan, _ = slices_of_ct()
    settings = ReconSettings(mode="slab", slab=6, poisson=True)
    single = list(jobs_of(scan, ReconSettings(mode="slice", poisson=True), torch.device("cpu")))
    stacked = list(jobs_of(scan, settings, torch.device("cpu")))
    assert [(job.slice, job.A.n_slices) for job in stacked] == [(0, 6), (4, 6)]
    for job in stacked:
        for offset in range(job.A.n_slices):
            one = single[job.slice + offset]
            torch.testing.assert_close(job.y[:, :, offset], one.y)
            # one scale for all: the brightest ray of all slices has the weight one
            ratio = (job.ray_weights[:, offset] / one.ray_weights).flatten()
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert max(float(job.ray_weights.max()) for job in stacked) == pytest.approx(1)


def test_slices_of_a_stack_lie_as_far_apart_as_the_scan_says():
    scan, _ = slices_of_ct()
    (job,) = jobs_of(scan, ReconSettings(mode="3d"), torch.device("cpu"))
    assert job.A.pitch == 1
    thick = scan.replace(affine=np.diag([0.5, 0.5, 2.0, 1.0]))
    (job,) = jobs_of(thick, ReconSettings(mode="3d"), torch.device("cpu"))
    assert job.A.pitch == 4


def test_classical_methods_take_stacks_too():
    scan, truth = slices_of_ct()
    for method in ("fbp", "cg-tv"):
        whole = reconstruct(scan, ReconSettings(method=method, mode="3d", device="cpu")).volume.data
        assert error(whole, truth) < 0.4
    scan, truth = slices_of_mri()
    for method in ("zero-filled", "tv"):
        assert error(reconstruct(scan, ReconSettings(method=method, mode="3d", device="cpu")).volume.data, truth) < 0.25


def test_who_has_workers_is_told_that_one_of_them_has_all_the_slices(capsys):
    scan, _ = slices_of_ct(10)
    for mode, is_told in (("auto", True), ("3d", False), ("slice", False)):
        request = ReconRequest(Path("scan.h5"), [Path("a.nii.gz")], ReconSettings(mode=mode))
        request._advise(scan, choose_mode(scan, request.settings), cluster=object())
        assert ("--mode slice would share them" in capsys.readouterr().err) == is_told
