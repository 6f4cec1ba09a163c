"""The store of finished images: whole files, one run at a time, and nothing of anybody else's removed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from dipmed.io.image_store import FORMAT, open_store, store_path
from dipmed.scan import FormatError, OutputError, Reconstruction, StopReason

MANIFEST = {"fit": {"seed": 3, "rate": 0.1, "channels": (4, 4)}, "input": {"the scan": "0123"}}

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


def part(seed=0, std=True):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, 5, 4, dtype=torch.complex64, generator=generator)
    return Reconstruction(
        image=image,
        method="dip",
        stop=StopReason("held-out", 40, "the held-out error rose"),
        iterations=60,
        seconds=1 / 3,
        curves={"held-out": [(10, 0.1 + seed), (20, 1e-30)]},
        scale=2 / 7,
        choices={"budget": 60},
        assumptions=("white noise",),
        std=image.abs() if std else None,
        status="retried",
        trouble="with seed 1000",
    )


def same(one, other):
    arrays = {"image": None, "std": None}
    assert torch.equal(one.image, other.image)
    assert (one.std is None) == (other.std is None)
    assert one.std is None or torch.equal(one.std, other.std)
    return replace(one, **arrays) == replace(other, **arrays)


@pytest.fixture
def out(tmp_path):
    """An output, with one finished image of a run that did not end."""
    out = tmp_path / "image.nii.gz"
    with open_store(out) as store:
        store.begin(MANIFEST)
        store.put((0, 1), [part()])
    return out


def test_images_come_back_bit_for_bit(out):
    with open_store(out, resume=True) as store:
        store.begin(MANIFEST)
        store.put((2, 10000), [part(1), part(2, std=False)])
        assert store.places() == [(0, 1), (2, 10000)]
        assert same(store.read((0, 1))[0], part())
        assert all(same(*pair) for pair in zip(store.read((2, 10000)), [part(1), part(2, std=False)], strict=True))


def test_work_is_discarded_only_when_that_is_asked_for(out):
    with pytest.raises(OutputError, match=r"images done: 1\).*--resume.*--force"), open_store(out):
        pass
    with open_store(out, force=True) as store:
        assert store.places() == [(0, 1)]  # a run that fails early has discarded nothing
        store.begin(MANIFEST)
        assert store.places() == []
    assert not store_path(out).exists()


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({**MANIFEST, "fit": {"seed": 4, "rate": 0.1, "channels": (4, 4)}}, "seed was 3 and is now 4"),
        ({**MANIFEST, "fit": {"seed": 3, "channels": (4, 4)}}, "rate was 0.1 and is now nothing"),
        ({**MANIFEST, "input": {"the scan": "4567"}}, "the scan was 0123 and is now 4567"),
    ],
)
def test_other_settings_are_named(out, manifest, words):
    with open_store(out, resume=True) as store:
        with pytest.raises(OutputError, match=rf"{words}\. .*--force"):
            store.begin(manifest)
        assert store.places() == [(0, 1)]


@pytest.mark.parametrize(("manifest", "n_kept"), [(MANIFEST, 1), ({**MANIFEST, "input": {"the scan": "4567"}}, 0)])
def test_with_both_what_cannot_be_resumed_is_discarded(out, manifest, n_kept):
    with open_store(out, resume=True, force=True) as store:
        store.begin(manifest)
        assert len(store.places()) == n_kept


def test_a_newer_store_is_left_alone(out):
    path = store_path(out) / "manifest.json"
    path.write_text(json.dumps({"format": FORMAT + 1, "parts": "elsewhere"}))
    with open_store(out, resume=True) as store, pytest.raises(FormatError, match="written by a newer"):
        store.begin(MANIFEST)
    assert json.loads(path.read_text())["format"] == FORMAT + 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x"}', "[" * 10**5, "\x00"])
def test_a_damaged_manifest_is_told_of(out, text):
    (store_path(out) / "manifest.json").write_text(text)
    with open_store(out, resume=True) as store, pytest.raises(FormatError, match=r"manifest\.json.*--force"):
        store.begin(MANIFEST)


def test_a_damaged_image_is_told_of(out):
    path = store_path(out) / "frame-0000-slice-0001.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with open_store(out, resume=True) as store, pytest.raises(FormatError, match="it will be made again"):
        store.read((0, 1))


def test_what_is_not_of_the_store_stays(out):
    folder = store_path(out)
    (folder / "notes.txt").write_text("mine")
    (folder / ".dipmed-0123.npz").write_text("half an ima")
    with open_store(out, force=True) as store:
        store.begin(MANIFEST)
        store.put((0, 0), [part()])
        store.remove()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_one_run_at_a_time_whose_death_lets_the_next_go_on(out):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-c", HOLD, str(store_path(out) / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            for options in ({}, {"resume": True}, {"force": True}):
                with pytest.raises(OutputError, match=r"another run is at work on .*image\.nii\.gz"):
                    open_store(out, **options).__enter__()
        finally:
            other.kill()
    with open_store(out, resume=True) as store:
        assert store.places() == [(0, 1)]


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path):
    store_path(tmp_path / "a.nii").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*a\.nii\.parts"), open_store(tmp_path / "a.nii"):
        pass
