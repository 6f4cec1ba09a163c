"""The records that go beside an image: plain JSON, without anything that names a patient."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import dipmed
from dipmed.compare import Comparison
from dipmed.config import PRESETS
from dipmed.dip import RULES
from dipmed.methods import METHODS, find_method
from dipmed.recon import ScanResult
from dipmed.restore import Restoration, RestoreSettings
from dipmed.scan import KSpaceScan, ProjectionScan, Reconstruction, Scan
from dipmed.settings import ReconSettings
from dipmed.simulate import Simulation
from dipmed.weights import PretrainedWeights

_LISTED = ("name", "family", "summary", "suits", "citation", "deviations", "cost", "modalities")
_RECORDED_PACKAGES = ("torch", "numpy", "scipy", "sigpy", "monai", "nibabel", "h5py", "ismrmrd", "twixtools")


def versions() -> dict[str, str | None]:
    """Versions of dipmed, Python and the packages that decide an image."""
    found: dict[str, str | None] = {"dipmed": dipmed.__version__, "python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def peak_memory_mib() -> float | None:
    """Most memory that this process has held, in MiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, where ru_maxrss would count what the parent held when it started this process
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        return None if line is None else int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def scan_record(scan: Scan) -> dict[str, Any]:
    """What `dipmed info` tells of a scan."""
    return _kspace_record(scan) if isinstance(scan, KSpaceScan) else _projection_record(scan)


def _projection_record(scan: ProjectionScan) -> dict[str, Any]:
    beam = asdict(scan.beam)
    angles = np.degrees(beam["angles"]) if beam.get("angles") else None
    heights = beam.get("z_mm")
    return {
        "source": scan.source,
        "beam": type(scan.beam).__name__,
        "dimensions": scan.ndim,
        "slices": scan.n_slices,
        "views": scan.n_views,
        "first_angle_deg": None if angles is None else round(float(angles.min()), 6),
        "last_angle_deg": None if angles is None else round(float(angles.max()), 6),
        "source_moves_along_z_mm": round(max(heights) - min(heights), 6) if heights else 0.0,
        **{name: value for name, value in beam.items() if not isinstance(value, tuple)},
        "rotation_axis_known": scan.centre_known,
        "image_shape": list(scan.grid.shape),
        "voxel_mm": [round(float(size), 6) for size in np.linalg.norm(scan.affine[:3, :3], axis=0)],
        "affine": scan.affine.tolist(),
        "largest_line_integral": round(float(scan.projections.max()), 6),
        "has_counts": scan.counts is not None,
        "water_per_mm": scan.water_per_mm,
        "assumptions": list(scan.assumptions),
        "notes": list(scan.notes),
    }


def _kspace_record(scan: KSpaceScan) -> dict[str, Any]:
    voxel = np.linalg.norm(scan.affine[:3, :3], axis=0)
    return {
        "source": scan.source,
        "cartesian": scan.is_cartesian,
        "dimensions": scan.ndim,
        "frames": scan.n_frames,
        "frame_labels": list(scan.frame_labels),
        "slices": scan.n_slices,
        "coils": scan.n_coils,
        "matrix": list(scan.matrix_shape),
        "image_shape": list(scan.image_shape),
        "samples": None if scan.is_cartesian else scan.kspace.shape[-1],
        "voxel_mm": [round(float(size), 6) for size in voxel],
        "affine": scan.affine.tolist(),
        "sampled_fraction": None if scan.mask is None else float(scan.mask.mean()),
        "has_noise_measurement": scan.noise_covariance is not None,
        "has_reference_lines": scan.calibration is not None,
        "sequence": asdict(scan.sequence),
        "assumptions": list(scan.assumptions),
        "notes": list(scan.notes),
    }


def recon_record(result: ScanResult, settings: ReconSettings) -> dict[str, Any]:
    """What `dipmed recon --json` writes: how an image came about."""
    first = result.reconstructions[0]
    config = asdict(result.config)
    return {
        "method": settings.method,
        "preset": result.preset,
        "seed": result.config.seed,
        "stop": asdict(first.stop),
        "iterations": first.iterations,
        "images": [_part_record(part) for part in result.reconstructions],
        "resumed_images": result.n_resumed,
        "seconds": result.seconds,
        "peak_memory_mib": peak_memory_mib(),
        "device": result.device,
        "image": {"shape": list(result.volume.data.shape), "affine": result.volume.affine.tolist()},
        "undersample": settings.undersample,
        "reference_image": settings.reference_image is not None,
        "mode": {
            "name": result.choice.settings.mode,
            "reason": result.choice.reason,
            "slab": result.choice.settings.slab,
        },
        "split_readout": result.choice.settings.split_readout,
        "rebin": settings.rebin,
        "poisson": settings.poisson,
        "warm_start": settings.warm_start,
        "slices_in_flight": result.in_flight,
        "views": settings.views,
        "unit": result.unit,
        "maps": settings.maps if settings.maps in ("espirit", "jsense") else "file",
        "map_sets": settings.map_sets,
        "config": config,
        "options": settings.method_options(),
        "uncertainty": None
        if settings.uncertainty is None
        else {"kind": settings.uncertainty.kind, "samples": settings.uncertainty.samples},
        "weights": _weights_record(settings.weights),
        "assumptions": list(result.assumptions),
        "warnings": list(result.warnings),
        "notes": list(result.notes),
        "versions": versions(),
    }


def comparison_record(result: Comparison, *, from_file: bool) -> dict[str, Any]:
    """What `dipmed compare --json` writes; ``from_file`` says whether the reference is an image that was given."""
    settings = result.settings
    return {
        "undersample": result.data_left,
        "slice": result.slice,
        "seed": settings.changes.get("seed", 0),
        "reference": "file" if from_file else "full",
        "rows": result.rows,
        "preset": settings.preset_for(result.prepared.modality, settings.ndim_for(result.prepared)),
        "configs": {name: _fit_record(replace(settings, method=name), result.prepared) for name in _fits(result)},
        "reference_image": settings.reference_image is not None,
        "maps": settings.maps if settings.maps in ("espirit", "jsense") else "file",
        "map_sets": settings.map_sets,
        "coils": settings.n_coils,
        "poisson": settings.poisson,
        "views": settings.views,
        "weights": _weights_record(settings.weights),
        "device": result.device,
        "peak_memory_mib": peak_memory_mib(),
        "versions": versions(),
    }


def _fits(result: Comparison) -> list[str]:
    return [row["method"] for row in result.rows if find_method(row["method"]).is_fit]


def _fit_record(settings: ReconSettings, scan: Scan) -> dict[str, Any]:
    config = settings.fit_config(scan.modality, settings.ndim_for(scan))
    return {**asdict(config), "options": settings.method_options()}


def restore_record(result: Restoration, settings: RestoreSettings) -> dict[str, Any]:
    """What `dipmed restore --json` writes: how an image came about, of which nothing was measured anew."""
    return {
        "input": "image",
        "measured_anew": False,
        "statement": "Made from an image and not from k-space or projections: a model filled in what it did not show.",
        "task": asdict(settings.task),
        "preset": settings.preset,
        "seed": settings.config().seed,
        "slices": settings.slices,
        "noise_level": result.sigma,
        "noise_level_given": settings.sigma is not None,
        "pieces": [_part_record(part) for part in result.parts],
        "resumed_pieces": result.n_resumed,
        "seconds": {"total": result.seconds},
        "peak_memory_mib": peak_memory_mib(),
        "device": result.device,
        "image": {"shape": list(result.volume.data.shape), "affine": result.volume.affine.tolist()},
        "unit": result.unit,
        "config": asdict(settings.config()),
        "assumptions": list(result.assumptions),
        "notes": list(result.notes),
        "versions": versions(),
    }


def _part_record(part: Reconstruction) -> dict[str, Any]:
    return {
        "method": part.method,
        "status": part.status,
        "trouble": part.trouble,
        "stop": asdict(part.stop),
        "iterations": part.iterations,
        "started_from_neighbour": part.is_warm,
        "seconds": part.seconds,
        "scale": part.scale,
        "raised_weights": part.raised,
        "last_steps": part.last_steps,
        "first_jitter": part.first_jitter,
        "curves": part.curves,
        "choices": part.choices,
    }


def _weights_record(weights: PretrainedWeights | None) -> dict[str, Any] | None:
    if weights is None:
        return None
    return {name: getattr(weights, name) for name in ("modality", "ndim", "steps", "seed", "version")}


def methods_record() -> dict[str, Any]:
    """What `dipmed methods --json` writes: every method with its settings, the presets and the stopping rules."""
    return {
        "methods": [
            {
                **{name: getattr(method, name) for name in _LISTED},
                "settings": {key: _describe(hint) for key, hint in method.keys.items()} if method.is_fit else {},
            }
            for method in METHODS.values()
        ],
        "presets": {name: asdict(preset) for name, preset in PRESETS.items()},
        "rules": {name: (rule.__doc__ or "").splitlines()[0] for name, rule in RULES.items()},
    }


def _describe(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def simulation_record(simulation: Simulation) -> dict[str, Any]:
    """What `dipmed simulate --json` writes: how a scan came about."""
    scan = simulation.scan
    return {
        "modality": scan.modality,
        "settings": asdict(simulation.settings),
        "assumptions": list(simulation.assumptions),
        "scan": scan_record(scan),
        "versions": versions(),
    }
