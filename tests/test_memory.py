"""Memory: what there is, what a reconstruction takes, and what is refused before it starts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dipmed import memory
from dipmed.compare import compare
from dipmed.config import find_preset
from dipmed.mode import memory_needed
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan
from dipmed.settings import ReconSettings
from operators import FanBeam, Grid, angles_over, can_be_divided

on_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")

MEASURE = """
import sys
import numpy as np
import sigpy.app
from dipmed.memory import kspace_memory
from dipmed.settings import ReconSettings
from dipmed.recon import reconstruct
from dipmed.scan import KSpaceScan

def held(name):
    return next(int(line.split()[1]) * 2**10 for line in open("/proc/self/status") if line.startswith(name))

shape = (8, 64, 64, 48)
kspace = np.ones((1, 1, *shape), dtype=np.complex64)
mask = np.ones((1, 1, *shape[1:]), dtype=bool)
scan = KSpaceScan(kspace, mask, np.eye(4), shape[1:], "test", noise_covariance=np.eye(8) + 0j)
settings = ReconSettings(method="cg-sense", maps=sys.argv[1], undersample="random:R=2,acs=8", device="cpu")
open("/proc/self/clear_refs", "w").write("5")
before = held("VmRSS")
reconstruct(scan, settings)
needed = kspace_memory(scan, "cg-sense", None, shape=shape[1:], n_coils=None, n_sets=1)
print(needed / (held("VmHWM") - before))
"""


@on_linux
def test_the_estimate_is_near_what_is_taken(tmp_path):
    maps = np.full((1, 8, 64, 64, 48), 8**-0.5, dtype=np.complex64)
    np.save(tmp_path / "maps.npy", maps)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "maps.npy")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0.6 < float(done.stdout) < 1.8


@on_linux
def test_there_is_memory_and_not_more_than_the_machine_has():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 2**10
    assert 2**20 < memory.available_memory() <= total


def test_a_container_has_what_is_left_of_its_limit(monkeypatch):
    files = {
        "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000000\n",
        "/sys/fs/cgroup/memory.current": "1000000000\n",
        "/sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 250000000\n",
    }

    def read(path, *_args, **_kwargs):
        if str(path) not in files:
            raise FileNotFoundError(path)
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.available_memory() == 2_250_000_000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert memory.available_memory() == 8_000_000 * 2**10
    del files["/proc/meminfo"]
    assert memory.available_memory() is None
    memory.check_memory(1e30, "everything", "wait")  # where nobody says, nothing is refused


def volume(n_coils):
    # zeros take no memory before they are written to
    kspace = np.zeros((1, 1, n_coils, 64, 64, 32), dtype=np.complex64)
    mask = np.ones((1, 1, 64, 64, 32), dtype=bool)
    return KSpaceScan(kspace=kspace, mask=mask, affine=np.eye(4), image_shape=(64, 64, 32), source="test")


def test_what_will_not_fit_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10 * 2**20)
    with pytest.raises(DipmedError, match=r"dip of 4 coils of 64 x 64 x 32.* GiB.*--coils.*--split-readout"):
        reconstruct(volume(4), ReconSettings(device="cpu"))
    monkeypatch.setattr(memory, "available_memory", lambda: 30 * 2**20)
    with pytest.raises(DipmedError, match=r"tv of 1 coils.*--coils N$"):
        compare(brain_phantom_scan((256, 256), 1)[0], ["zero-filled", "tv"], ReconSettings(device="cpu"))


def test_fewer_coils_slices_and_features_take_less():
    scan = volume(8)

    def needed(preset="mri-3d", shape=(64, 64, 32), n_coils=None, n_sets=1):
        return memory.kspace_memory(scan, "dip", find_preset(preset), shape=shape, n_coils=n_coils, n_sets=n_sets)

    assert needed(n_coils=4) < needed()
    assert needed(shape=(64, 32)) < needed()
    assert needed(n_sets=2) > needed()
    assert needed("mri-2d") > needed()


def fan_scan(n_views):
    """Projections of nothing by a fan beam, which take no memory before they are written to."""
    beam = FanBeam(angles_over(n_views, 2 * np.pi), 736, 1.0, 500.0, 1000.0)
    return ProjectionScan(np.zeros((1, *beam.shape), np.float32), beam, Grid((512, 512), (0.7, 0.7)), np.eye(4), "test")


@pytest.mark.parametrize(("n_views", "is_divided"), [(10, True), (720, False)])
def test_pixels_that_stay_whole_are_not_counted_in_parts(n_views, is_divided):
    scan = fan_scan(n_views)
    divided, whole = (
        memory.projection_memory(scan, find_preset("ct-2d").replace(subpixels=n), shape=(512, 512), n_views=None)
        for n in (2, 1)
    )
    assert can_be_divided(scan.grid, scan.beam, 2) == is_divided
    assert divided > 1.2 * whole if is_divided else divided == whole


def test_stacks_of_slices_are_counted_with_pixels_in_parts():
    beam = FanBeam(angles_over(10, 2 * np.pi), 90, 1.0, 100.0, 200.0)
    lines = np.zeros((6, *beam.shape), np.float32)
    scan = ProjectionScan(lines, beam, Grid((64, 64), (0.7, 0.7)), np.eye(4), "test")
    stack, whole = (memory_needed(scan, ReconSettings(mode="3d", preset=preset)) for preset in (None, "ct-3d"))
    assert stack > 1.2 * whole
