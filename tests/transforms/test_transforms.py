import pickle
import warnings

import monai
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, decollate_batch
from monai.data.utils import pickle_hashing
from monai.engines import SupervisedEvaluator
from monai.handlers import PeakSignalToNoiseRatio, from_engine
from monai.metrics import RMSEMetric
from monai.transforms import Compose, Flipd, LoadImaged, SaveImage, SaveImaged, Spacingd
from packaging.version import Version

from dipmed.baselines import BASELINES
from dipmed.calib.coils import compress_coils
from dipmed.calib.noise import prewhiten
from dipmed.ct_baselines import CT_BASELINES
from dipmed.evaluate import score
from dipmed.io import load, load_image
from dipmed.io.dicom_series import read_series
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, ShapeError
from dipmed.settings import ReconSettings
from dipmed.transforms import (
    AdjointReconstructd,
    CGLeastSquaresd,
    CGSensed,
    CGTotalVariationd,
    CompressCoilsd,
    DIPReconstruct,
    DIPReconstructd,
    EstimateCoilMapsd,
    FBPd,
    KeepViewsd,
    L1Waveletd,
    LoadScand,
    Prewhitend,
    RandUndersampleKSpaced,
    Reconstruct,
    Reconstructd,
    SaveDicomSeriesd,
    ScoreImage,
    ScoreImaged,
    SimulateKSpaced,
    SimulateSinogram,
    SimulateSinogramd,
    SIRTd,
    TotalVariationd,
    UndersampleKSpaced,
    VolumeWriter,
    reconstructing,
    scan_from_tensor,
    scan_to_tensor,
)

KEEPS_META = Version(monai.__version__) >= Version("1.6")
"""Whether this MONAI's persistent data sets can keep what a tensor says of a scan."""

RULE = "random:R=2,acs=12"
BRIEF = {"iterations": 4, "sets": ("network.channels=8,8",), "device": "cpu"}


def direct(scan, **settings):
    return reconstruct(scan, ReconSettings(device="cpu", **settings)).volume


def test_from_a_file_to_the_same_image_as_the_direct_call(scan_file):
    pipeline = Compose(
        [
            LoadScand(keys="kspace"),
            UndersampleKSpaced("kspace", f"{RULE},seed=0"),
            EstimateCoilMapsd(keys="kspace", maps_key="maps"),
            DIPReconstructd(keys="kspace", maps_key="maps", output_key="image", **BRIEF),
        ]
    )
    image = pipeline({"kspace": str(scan_file)})["image"]
    expected = direct(
        load(scan_file), undersample=f"{RULE},seed=0", sets=BRIEF["sets"], changes={"iterations": BRIEF["iterations"]}
    )
    np.testing.assert_allclose(
        image[0].numpy(), np.abs(expected.data), rtol=1e-5, atol=1e-5 * np.abs(expected.data).max()
    )
    np.testing.assert_array_equal(image.affine.numpy(), expected.affine)
    assert image.shape == (1, 32, 28, 2)
    assert image.meta["method"] == "dip"
    assert image.meta["stop"].count("\n") == 1
    assert image.meta["filename_or_obj"] == str(scan_file)


@pytest.mark.filterwarnings("ignore:.*nvImageCodec:UserWarning")  # of another reader of MONAI's
def test_monai_loads_and_saves_our_files(scan_file, tmp_path):
    pipeline = Compose(
        [
            LoadImaged(keys="kspace"),
            Reconstructd("kspace", "cg-sense", output_key="image", device="cpu"),
            SaveImaged("image", output_dir=tmp_path, output_ext=".nii.gz", output_postfix="", separate_folder=False),
            SaveImaged("image", output_dir=tmp_path, output_ext=".npz", output_postfix="", separate_folder=False),
        ]
    )
    pipeline({"kspace": str(scan_file)})
    expected = direct(load(scan_file), method="cg-sense")
    for ending in (".nii.gz", ".npz"):
        found = load_image(tmp_path / f"scan{ending}")
        np.testing.assert_allclose(found.data, np.abs(expected.data), rtol=1e-5)
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)


def test_one_slice_is_saved_by_our_writer(scan, tmp_path):
    one = scan.replace(kspace=scan.kspace[:, :1], mask=scan.mask[:, :1])
    image = Reconstruct("zero-filled", device="cpu")(scan_to_tensor(one))
    SaveImage(tmp_path, "", separate_folder=False, writer=VolumeWriter, print_log=False)(
        image, filename=tmp_path / "one"
    )
    found = load_image(tmp_path / "one.nii.gz")
    np.testing.assert_allclose(found.data, image[0].numpy())
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)


def test_coils_are_whitened_and_compressed_as_by_hand(scan):
    found = Compose([Prewhitend("kspace"), CompressCoilsd("kspace", 2)])({"kspace": scan_to_tensor(scan)})["kspace"]
    np.testing.assert_array_equal(scan_from_tensor(found).kspace, compress_coils(prewhiten(scan), 2).kspace)


def test_random_undersampling_follows_the_random_state_and_changes_with_each_call(scan):
    data = {"kspace": scan_to_tensor(scan)}
    masks = []
    for _ in range(2):
        pipeline = Compose([RandUndersampleKSpaced("kspace", RULE)]).set_random_state(seed=3)
        masks.append([pipeline(data)["kspace"].meta["mask"] for _ in range(2)])
    (first, second), (again, _) = masks
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not scan_to_tensor(scan).meta["mask"].logical_not().any()


def test_an_image_is_measured_and_comes_back(scan):
    image = direct(scan, method="zero-filled")
    tensor = torch.from_numpy(np.abs(image.data))[None]
    pipeline = Compose(
        [
            SimulateKSpaced("image", 4, output_key="kspace", reference_key="truth"),
            AdjointReconstructd("kspace", output_key="found", device="cpu"),
        ]
    )
    made = pipeline({"image": tensor})
    error = (made["found"] - made["truth"]).norm() / made["truth"].norm()
    assert made["found"].shape == (1, 16, 14, 2)
    assert error < 0.1


def test_projections_are_made_and_reconstructed(attenuating):
    pipeline = Compose(
        [
            SimulateSinogramd("image", 60, geometry="parallel", output_key="scan", reference_key="truth"),
            KeepViewsd("scan", 30),
            FBPd("scan", output_key="fbp", device="cpu"),
            AdjointReconstructd("scan", output_key="adjoint", device="cpu"),
            DIPReconstructd("scan", output_key="dip", **BRIEF),
        ]
    )
    made = pipeline({"image": attenuating})
    assert made["scan"].shape[:2] == (2, 30)
    assert made["fbp"][0, 12:20, 12:20].mean() == pytest.approx(0.02, rel=0.02)
    for key in ("fbp", "adjoint", "dip"):
        assert made[key].shape == made["truth"].shape
        np.testing.assert_allclose(made[key].affine, made["truth"].affine)
    assert made["dip"].meta["unit"] == "1/mm"


@pytest.mark.parametrize("made", [L1Waveletd, TotalVariationd, SIRTd, CGLeastSquaresd, CGTotalVariationd])
def test_each_baseline_gives_the_image_of_the_direct_call(scan, attenuating, made):
    method = made.made.default
    if method in BASELINES:
        measured = scan_to_tensor(scan.replace(kspace=scan.kspace[:, :1], mask=scan.mask[:, :1]))
    else:
        measured = SimulateSinogram(12, geometry="parallel", reduce=4)(attenuating)[0]
    image = made("scan", output_key="image", device="cpu")({"scan": measured})["image"]
    expected = direct(scan_from_tensor(measured), method=method).data
    expected = np.abs(expected) if method in BASELINES else expected
    assert image.meta["method"] == method
    np.testing.assert_allclose(image[0].numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_no_baseline_is_without_a_transform():
    named = {
        one.default for one in vars(reconstructing).values() if isinstance(one, type) and issubclass(one, Reconstruct)
    }
    assert named - {"dip"} == {*BASELINES, *CT_BASELINES} - {"zero-filled"}  # which AdjointReconstruct gives


def test_own_maps_and_own_arrays(scan):
    data = {"kspace": scan_to_tensor(scan)}
    estimated = EstimateCoilMapsd("kspace", maps_key="maps")(data)
    own = {**data, "maps": torch.from_numpy(estimated["maps"].numpy()[0])}
    one, other = (CGSensed("kspace", maps_key="maps", device="cpu")(given)["kspace"] for given in (estimated, own))
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-4 * float(one.max()))


@pytest.mark.parametrize("transform", [EstimateCoilMapsd, CGSensed, AdjointReconstructd, LoadScand])
def test_missing_keys_are_told_or_passed_over(transform):
    with pytest.raises(KeyError):
        transform("kspace")({})
    assert transform("kspace", allow_missing_keys=True)({"other": 1}) == {"other": 1}


def test_transforms_are_pickled(scan):
    pipeline = Compose(
        [UndersampleKSpaced("kspace", f"{RULE},seed=0"), Reconstructd("kspace", "zero-filled", device="cpu")]
    )
    again = pickle.loads(pickle.dumps(pipeline))  # noqa: S301  # our own bytes
    data = {"kspace": scan_to_tensor(scan)}
    assert torch.equal(again(data)["kspace"].as_tensor(), pipeline(data)["kspace"].as_tensor())


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: DIPReconstruct("no-such"), "unknown method"),
        (lambda: DIPReconstruct(iterations=0), "iterations must be at least 1"),
        (lambda: DIPReconstruct(no_such=1), "no_such"),
        (lambda: RandUndersampleKSpaced("kspace", "random:R=2,seed=1"), "draws its seed itself"),
        (lambda: CGSensed(("a", "b"), output_key="c"), "as many places"),
    ],
)
def test_wrong_settings_are_told_when_the_transform_is_made(made, expected):
    with pytest.raises((DipmedError, TypeError, ValueError), match=expected):
        made()


def test_maps_of_another_scan_are_refused(scan):
    maps = EstimateCoilMapsd("kspace", maps_key="maps")({"kspace": scan_to_tensor(scan)})["maps"]
    half = scan.replace(kspace=scan.kspace[:, :1], mask=scan.mask[:, :1])
    with pytest.raises(DipmedError, match="another scan"):
        CGSensed("kspace", maps_key="maps")({"kspace": scan_to_tensor(half), "maps": maps})


def test_projections_have_no_coils(attenuating):
    made = SimulateSinogramd("image", 10)({"image": attenuating})
    with pytest.raises(DipmedError, match="is for k-space"):
        EstimateCoilMapsd("image")(made)


def test_in_datasets_and_workers(scan_file, tmp_path):
    data = [{"kspace": str(scan_file)}] * 2
    load_once = [LoadScand("kspace")]
    random = [RandUndersampleKSpaced("kspace", RULE), AdjointReconstructd("kspace", output_key="image", device="cpu")]
    pipeline = Compose([*load_once, *random])
    datasets = [CacheDataset(data, pipeline, cache_rate=1.0, num_workers=1, progress=False)]
    if KEEPS_META:
        datasets.append(PersistentDataset(data, pipeline, tmp_path, track_meta=True, weights_only=False))
    for dataset in datasets:
        pipeline.set_random_state(seed=0)
        batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context="fork")))
        assert batch["image"].shape == (2, 1, 32, 28, 2)
        masks = [one["kspace"].meta["mask"] for one in decollate_batch(batch)]
        assert not torch.equal(*masks)

    assert len(list(tmp_path.iterdir())) == KEEPS_META


def test_other_settings_are_other_entries_of_a_cache(tmp_path):
    def hashed(rule):
        pipeline = Compose([LoadScand("kspace"), UndersampleKSpaced("kspace", rule)])
        return PersistentDataset([], pipeline, tmp_path, hash_transform=pickle_hashing).transform_hash

    assert hashed(f"{RULE},seed=0") == hashed(f"{RULE},seed=0") != hashed(f"{RULE},seed=1")


def test_a_dicom_series_lies_where_the_scan_does(scan_file, tmp_path):
    pipeline = Compose(
        [
            LoadScand("kspace"),
            Reconstructd("kspace", "cg-sense", output_key="image", device="cpu"),
            SaveDicomSeriesd("image", tmp_path, patient_id="P-17"),
        ]
    )
    image = pipeline({"kspace": str(scan_file)})["image"]
    found = read_series(tmp_path / "scan")
    assert image.meta["saved_to"] == str(tmp_path / "scan")
    assert found.modality == "MR"
    # the pictures may be turned, so the brightest voxel is compared in mm
    places = []
    for data, affine in ((image[0].numpy(), image.affine.numpy()), (found.volume.data, found.volume.affine)):
        index = np.unravel_index(data.argmax(), data.shape)
        places.append(affine @ [*index, 1])
    np.testing.assert_allclose(*places, atol=1e-3)


@pytest.mark.parametrize("lazy", [False, True])
def test_what_was_applied_is_traced_and_taken_back(scan_file, tmp_path, lazy):
    pipeline = Compose(
        [
            LoadScand("kspace"),
            RandUndersampleKSpaced("kspace", RULE),
            AdjointReconstructd("kspace", output_key="image", device="cpu"),
            Spacingd("image", (4.0, 4.0, -1)),
            Flipd("image", 0),
            SaveDicomSeriesd("image", tmp_path, modality="mri"),
        ],
        lazy=lazy,
    ).set_random_state(seed=3)
    made = pipeline({"kspace": str(scan_file)})
    image = made["image"]
    names = [operation["class"] for operation in image.applied_operations]
    assert names[:2] == ["RandUndersampleKSpace", "AdjointReconstruct"]
    assert len(names) > 2
    rule = image.applied_operations[0]["extra_info"]["rule"]
    again = UndersampleKSpaced("kspace", rule)({"kspace": LoadScand("kspace")({"kspace": str(scan_file)})["kspace"]})
    assert torch.equal(again["kspace"].meta["mask"], made["kspace"].meta["mask"])
    series = read_series(tmp_path / "scan").volume
    assert sorted(series.data.shape) == sorted(image.shape[1:])
    np.testing.assert_allclose(np.sort(np.linalg.norm(series.affine[:3, :3], axis=0))[:2], 4.0, rtol=1e-6)
    with warnings.catch_warnings(action="ignore"):  # MONAI warns of those that cannot be taken back
        back = pipeline.inverse({"image": image})["image"]
    np.testing.assert_allclose(back.affine, load(scan_file).affine, atol=1e-6)


def test_images_are_scored_as_compare_does_and_by_monai(scan):
    data = [{"kspace": scan_to_tensor(one)} for one in (scan, scan.replace(kspace=scan.kspace * 3))]
    pipeline = Compose(
        [
            AdjointReconstructd("kspace", output_key="truth", device="cpu"),
            UndersampleKSpaced("kspace", f"{RULE},seed=0"),
            AdjointReconstructd("kspace", output_key="image", device="cpu"),
            ScoreImaged("image", "truth"),
        ]
    )
    batch = next(iter(DataLoader(Dataset(data, pipeline), batch_size=2)))
    metric = RMSEMetric()
    for one, scores in zip(decollate_batch(batch), batch["image_scores"]["psnr_raw"], strict=True):
        image, truth = one["image"][0].numpy(), one["truth"][0].numpy()
        expected = [score(image[..., index], truth[..., index]).psnr_raw for index in range(2)]
        assert float(scores) == pytest.approx(np.mean(expected), rel=1e-5)
        metric([one["image"]], [one["truth"]])
    rmse = (batch["image"] - batch["truth"]).square().mean((1, 2, 3, 4)).sqrt()
    assert float(metric.aggregate()) == pytest.approx(float(rmse.mean()), rel=1e-5)
    whole = ScoreImage(3)(torch.ones(1, 8, 8, 8), torch.ones(1, 8, 8, 8) * 2)
    assert (whole["nrmse"], whole["nrmse_raw"]) == (0, 0.5)
    with pytest.raises(ShapeError, match="differ in shape"):
        ScoreImage()(torch.ones(1, 8, 8, 8), torch.ones(1, 8, 8, 7))


def test_an_evaluator_with_a_handler_of_monai_s_scores_images(scan):
    pipeline = Compose(
        [
            AdjointReconstructd("kspace", output_key="truth", device="cpu"),
            UndersampleKSpaced("kspace", f"{RULE},seed=0"),
            CGSensed("kspace", output_key="image", device="cpu"),
        ]
    )
    data = [{"kspace": scan_to_tensor(one)} for one in (scan, scan.replace(kspace=scan.kspace * 3))]
    loader = DataLoader(Dataset(data, pipeline), batch_size=1)
    largest = 2.0
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=torch.nn.Identity(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], batch["truth"]),
        key_val_metric={"psnr": PeakSignalToNoiseRatio(largest, output_transform=from_engine(["pred", "label"]))},
    )
    evaluator.run()
    errors = [(batch["image"] - batch["truth"]).as_tensor().square().mean() for batch in loader]
    assert errors[0] != errors[1]
    expected = np.mean([10 * np.log10(largest**2 / float(error)) for error in errors])
    assert evaluator.state.metrics["psnr"] == pytest.approx(expected, rel=1e-5)


def test_an_image_of_unknown_modality_is_no_dicom(tmp_path):
    with pytest.raises(DipmedError, match="give modality='mri' or 'ct'"):
        SaveDicomSeriesd("image", tmp_path)({"image": torch.ones(1, 8, 8, 2)})
    assert not list(tmp_path.iterdir())
