"""The store of finished images beside an output: what a run that ends early has done is not lost.

``OUT.parts/`` holds ``manifest.json``, which says what decides the images, and for each that is finished one
``frame-FFFF-slice-SSSS.npz``: its arrays, and as JSON whatever else is known of it. No file ever stands there in part,
none needs pickle, and none names the scan or where it came from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dipmed.io.files import atomic_write, cannot_write
from dipmed.io.npy import npz_variables, read_npz
from dipmed.scan import DipmedError, FormatError, OutputError, Reconstruction, StopReason

FORMAT = 1

Place = tuple[int, int]
"""Frame and slice of an image; a series of frames that were fitted together is at frame 0."""

_MANIFEST, _LOCK = "manifest.json", "lock"
_IMAGE = re.compile(r"frame-(\d{4,})-slice-(\d{4,})\.npz")
_UNFINISHED = ".dipmed-*"
"""Names of files that were being written when a process was killed, see `dipmed.io.files.atomic_write`."""

_ARRAYS = ("image", "std", "weights")
_MOST_MANIFEST = 2**20


def store_path(output: Path) -> Path:
    """Where the store of an output lies: ``image.nii.gz`` and ``image.nii.gz.parts``."""
    return output.with_name(output.name + ".parts")


class ImageStore:
    """Finished images of one run, each written as it is finished; `open_store` makes one.

    Parameters
    ----------
    folder
        Where they lie.
    resume
        Whether to go on with what is there.
    force
        Whether to discard it; with ``resume`` only if it cannot be gone on with.
    """

    def __init__(self, folder: Path, *, resume: bool, force: bool = False) -> None:
        self.folder = folder
        self.resume = resume
        self.force = force
        # a run that did not come to its first image may have written an output, which a later one is to replace
        self.is_kept = (folder / _MANIFEST).exists()

    def keep(self) -> None:
        """Leave the store there even without a finished image, because what was written is no finished work."""
        self.is_kept = True

    def begin(self, manifest: dict[str, Any]) -> None:
        """Say what decides the images of this run; what is in the store is kept if that is the same.

        Parameters
        ----------
        manifest
            Groups of settings, each a dictionary that JSON can hold.

        Raises
        ------
        FormatError
            When the store is damaged, or of a newer version.
        OutputError
            When something else decided the images that are there, or the disk is full.
        """
        if self.resume and (self.places() or self.is_kept):
            try:
                self._check(json.loads(json.dumps(manifest)))
            except DipmedError:
                if not self.force:
                    raise
            else:
                return
        self._clear()
        self.is_kept = False
        with atomic_write(self.folder / _MANIFEST) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT, **manifest}, indent=2) + "\n")

    def _check(self, manifest: dict[str, Any]) -> None:
        changes = manifest_changes(self._read_manifest(), manifest)
        if changes:
            raise OutputError(
                f"{self.folder} cannot be resumed, for its images are of something else: {'; '.join(changes)}. Give "
                "what was given before, or begin anew with --force"
            )

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / _MANIFEST
        try:
            if path.stat().st_size > _MOST_MANIFEST:
                raise ValueError("it is too large")
            found = json.loads(path.read_text())
            written = int(found["format"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{path} is missing or damaged ({error}); begin anew with --force") from error
        if written > FORMAT:
            raise FormatError(
                f"{self.folder} is of format {written}, and this version of dipmed reads {FORMAT}: it was written by a "
                "newer one; resume with that, or begin anew with --force"
            )
        return found

    def places(self) -> list[Place]:
        """Which images are finished."""
        found = (_IMAGE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def put(self, place: Place, parts: Sequence[Reconstruction]) -> None:
        """Write a finished image, or those of a series; afterwards not even a power failure loses it.

        Raises
        ------
        OutputError
            When the disk is full.
        """
        arrays: dict[str, Any] = {
            "parts": np.frombuffer(json.dumps([_describe(part) for part in parts]).encode(), "u1")
        }
        for number, part in enumerate(parts):
            for name in _ARRAYS:
                value = getattr(part, name)
                if value is not None:
                    arrays[f"{name}-{number}"] = value.cpu().numpy()
        with atomic_write(self._path(place), force=True) as temporary:
            np.savez(temporary, **arrays)

    def read(self, place: Place) -> list[Reconstruction]:
        """Read what was put there.

        Raises
        ------
        FormatError
            When the file is damaged.
        """
        path = self._path(place)
        try:
            names = npz_variables(path)
            texts = json.loads(read_npz(path, "parts").tobytes())
            found = []
            for number, text in enumerate(texts):
                named = ((name, f"{name}-{number}") for name in _ARRAYS)
                arrays = {name: torch.from_numpy(read_npz(path, key)) for name, key in named if key in names}
                found.append(_recall(text, arrays))
        except (FormatError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{path} is no finished image ({error}); remove it, and it will be made again") from error
        return found

    def remove(self) -> None:
        """Remove the store, and nothing that is not of it."""
        self._clear()
        with suppress(OSError):  # somebody has put something else there
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()

    def _clear(self) -> None:
        try:
            for path in (*map(self._path, self.places()), *self.folder.glob(_UNFINISHED), self.folder / _MANIFEST):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def _path(self, place: Place) -> Path:
        return self.folder / f"frame-{place[0]:04d}-slice-{place[1]:04d}.npz"


def check_unfinished(output: Path, *, resume: bool, force: bool) -> None:
    """Refuse to begin where that would discard finished images, unless that or to go on is asked for.

    Raises
    ------
    OutputError
        When neither is.
    """
    folder = store_path(output)
    n_done = len(ImageStore(folder, resume=resume).places()) if folder.is_dir() else 0
    if n_done and not (resume or force):
        raise OutputError(
            f"{folder} holds the work of a run that did not end (images done: {n_done}); go on from there with "
            "--resume, or discard it with --force"
        )


@contextmanager
def open_store(output: Path, *, resume: bool = False, force: bool = False) -> Iterator[ImageStore]:
    """Give the store of an output to one run alone; without a finished image it is gone afterwards, unless it is kept.

    Parameters
    ----------
    output
        The image that is to be written.
    resume
        Go on with what an earlier run has left.
    force
        Or discard it; with both, discard it if it cannot be gone on with.

    Raises
    ------
    OutputError
        When another run holds it, when unfinished work is there and neither is asked for, or when the system refuses.
    """
    folder = store_path(output)
    try:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        if not _take(lock, folder / _LOCK):
            raise OutputError(f"another run is at work on {output}; wait for its end, or choose another name")
        check_unfinished(output, resume=resume, force=force)
        store = ImageStore(folder, resume=resume, force=force)
        try:
            yield store
        finally:
            if folder.exists() and not (store.places() or store.is_kept):
                store.remove()
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> bool:
    """Lock a file against other processes; the system lets go of it however this one ends, ``kill -9`` included."""
    try:
        import fcntl
    except ImportError:  # Windows: runs on one output are not told from each other there
        return True
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the run before may have ended, and removed the file, after it was opened here
        return path.stat().st_ino == os.fstat(lock).st_ino
    except OSError:
        return False


def manifest_changes(before: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what of two manifests, as JSON holds them, is not the same."""
    return [
        f"{name} was {_shown(old.get(name))} and is now {_shown(new.get(name))}"
        for old, new in ((before.get(group, {}), now[group]) for group in now)
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def _describe(part: Reconstruction) -> dict[str, Any]:
    described = {field.name: getattr(part, field.name) for field in fields(part) if field.name not in _ARRAYS}
    return {**described, "stop": asdict(part.stop)}


def _recall(text: dict[str, Any], arrays: dict[str, torch.Tensor]) -> Reconstruction:
    curves = {name: [(int(i), float(value)) for i, value in curve] for name, curve in text["curves"].items()}
    rest = {**text, "stop": StopReason(**text["stop"]), "curves": curves, "assumptions": tuple(text["assumptions"])}
    return Reconstruction(**{**rest, **arrays})


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


__all__ = ["FORMAT", "ImageStore", "Place", "check_unfinished", "manifest_changes", "open_store", "store_path"]
