"""A MONAI bundle of a reconstruction: a folder that ``python -m monai.bundle run`` executes on a file of k-space."""

from __future__ import annotations

import json
from importlib.metadata import files, metadata, version
from pathlib import Path
from typing import Any

from dipmed.config import find_preset
from dipmed.io.files import atomic_write, check_target
from dipmed.methods import find_method
from dipmed.scan import DipmedError

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""Where MONAI keeps what it checks the metadata of a bundle against."""

_PACKAGES = ("monai", "torch", "numpy")

_README = """# {method}: a reconstruction without training data

A MONAI bundle made by dipmed {version}. It holds no weights: a network is fitted to the data of each scan.

```bash
python -m monai.bundle run --config_file configs/inference.json --bundle_root . --scan FILE --output_dir OUT
```

`FILE` is k-space or projections in any format that dipmed reads. Further options: `--method` (`dipmed methods` lists
them), `--preset`, `--output_ext` (`.nii.gz`, `.npz`, `.h5`), `--device`. For research use; not a medical device.
"""


def init_bundle(folder: Path, method: str = "dip", preset: str | None = None) -> list[Path]:
    """Write a bundle into a folder, which is made if it is not there; return the files.

    Raises
    ------
    DipmedError
        When the method or the preset is unknown.
    OutputError
        When a file is there already or cannot be written.
    """
    chosen = find_method(method)
    if chosen.takes_weights or chosen.takes_guide:
        raise DipmedError(f"{method} needs a file beside the scan, which a bundle does not hold; choose another method")
    if preset is not None:
        find_preset(preset)
    texts = {
        "configs/inference.json": json.dumps(_inference(method, preset), indent=4) + "\n",
        "configs/metadata.json": json.dumps(_metadata(method, chosen.citation), indent=4) + "\n",
        "docs/README.md": _README.format(method=method, version=version("dipmed")),
        "LICENSE": _licence(),
    }
    paths = [folder / name for name in texts]
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DipmedError(f"cannot make the folder {path.parent}: {error.strerror}") from error
        check_target(path)
    for path, text in zip(paths, texts.values(), strict=True):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def _inference(method: str, preset: str | None) -> dict[str, Any]:
    ours = "dipmed.transforms"
    return {
        "bundle_root": ".",
        "scan": "",
        "output_dir": "$@bundle_root + '/eval'",
        "output_ext": ".nii.gz",
        "method": method,
        "preset": preset,
        "device": "auto",
        "settings": {},
        "preprocessing": {"_target_": f"{ours}.LoadScand", "keys": "scan"},
        "reconstruction": {
            "_target_": f"{ours}.Reconstructd",
            "keys": "scan",
            "output_key": "image",
            "method": "@method",
            "preset": "@preset",
            "device": "@device",
            "changes": "@settings",
        },
        "postprocessing": {
            "_target_": "SaveImaged",
            "keys": "image",
            "output_dir": "@output_dir",
            "output_ext": "@output_ext",
            "output_postfix": "@method",
            "separate_folder": False,
            "writer": f"{ours}.VolumeWriter",
            "print_log": False,
        },
        "pipeline": {
            "_target_": "Compose",
            "transforms": ["@preprocessing", "@reconstruction", "@postprocessing"],
        },
        "dataset": {"_target_": "Dataset", "data": [{"scan": "@scan"}], "transform": "@pipeline"},
        "run": ["$[item for item in @dataset]"],
    }


def _metadata(method: str, citation: str) -> dict[str, Any]:
    image = {
        "type": "image",
        "format": "magnitude or attenuation",
        "num_channels": 1,
        "spatial_shape": ["*", "*", "*"],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {"0": "image"},
    }
    return {
        "schema": SCHEMA,
        "version": version("dipmed"),
        "changelog": {version("dipmed"): f"Made by dipmed {version('dipmed')}."},
        **{f"{'pytorch' if name == 'torch' else name}_version": version(name).split("+")[0] for name in _PACKAGES},
        "required_packages_version": {"dipmed": version("dipmed")},
        "task": "Reconstruction of k-space or projections without training data",
        "description": f"The method {method} of dipmed, fitted to each scan by itself; for research use.",
        "authors": "The dipmed developers",
        "copyright": "Apache-2.0",
        "data_type": "file of k-space or projections",
        "intended_use": "Research; not a medical device.",
        "references": [citation],
        "network_data_format": {
            "inputs": {"image": {**image, "type": "measurement", "format": "k-space or projections"}},
            "outputs": {"pred": image},
        },
    }


def _licence() -> str:
    """The licence of dipmed, as it was installed."""
    found = [path for path in files("dipmed") or () if path.name == "LICENSE"]
    return found[0].read_text(encoding="utf-8") if found else f"{metadata('dipmed')['License-Expression']}\n"
