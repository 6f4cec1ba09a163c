"""From a scan to an image volume: calibrate, fit each slice by itself, put the slices back together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dipmed.assemble_volume import assemble_volume
from dipmed.calib.coils import CoilMaps
from dipmed.cluster import Cluster, Report
from dipmed.config import FitConfig
from dipmed.devices import resolve_device
from dipmed.dip import Observer, Progress, ProgressCallback
from dipmed.guides import check_guide, load_guides
from dipmed.io.image_store import ImageStore, Place
from dipmed.jobs import Job, n_frames
from dipmed.listener import Listener, Listeners
from dipmed.manifest import make_manifest
from dipmed.methods import find_method
from dipmed.mode import Choice, choose_mode
from dipmed.places import places_of
from dipmed.prepare import prepare
from dipmed.run_job import DIRECT, by_frame, run_direct, run_or_fill
from dipmed.run_together import ALONE, make_plan, run_together
from dipmed.scan import DipmedError, DivergedError, ImageVolume, Reconstruction, Scan
from dipmed.settings import ReconSettings, check_weights
from dipmed.stacks import jobs_of, n_jobs_of, stacks_of

ONE_AFTER_THE_OTHER = (
    "a warm start goes from slice to slice, one after the other; leave out --warm-start or the workers"
)


@dataclass(frozen=True)
class ScanResult:
    """The volume and what is worth recording about how it came about.

    ``unit`` is ``"1/mm"`` or ``"HU"`` of projections, None of k-space, whose scale is the scanner's. ``std`` is the
    standard deviation of what is shown, None where it was not asked for or an interruption left an image without.
    ``n_resumed`` images were there before, and ``seconds`` are those of this run. ``warnings`` tell of images that are
    not what was asked for, or came another way. ``choice`` says how the volume was taken apart, and why; ``in_flight``
    slices were fitted at a time.
    """

    volume: ImageVolume
    unit: str | None
    reconstructions: list[Reconstruction]
    choice: Choice
    preset: str
    config: FitConfig
    seconds: dict[str, float]
    device: str
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    std: ImageVolume | None = None
    n_resumed: int = 0
    warnings: tuple[str, ...] = ()
    in_flight: int = 1

    @property
    def was_interrupted(self) -> bool:
        return any(part.status == "interrupted" for part in self.reconstructions)


def reconstruct(
    scan: Scan,
    settings: ReconSettings,
    *,
    choice: Choice | None = None,
    progress: Callable[[int, int, Progress], None] | None = None,
    observer: Observer | None = None,
    listeners: Sequence[Listener] = (),
    maps: Sequence[Sequence[CoilMaps]] | None = None,
    store: ImageStore | None = None,
    cluster: Cluster | None = None,
) -> ScanResult:
    """Reconstruct all images of a scan.

    An interruption ends the image in progress with the best so far; the images after it are zero-filled or filtered
    back-projections. An image whose fit diverges twice is filled by another method, see `dipmed.run_job.run_or_fill`.

    Parameters
    ----------
    choice
        What `dipmed.mode.choose_mode` made of the scan and the settings; None to ask it here.
    progress
        Takes the image's number, how many there are, and the progress of its fit.
    observer
        Passed on to the fits, for evaluation from outside.
    listeners
        Told of the run, of fits in progress and of finished images.
    maps
        Sensitivity maps of k-space, for each frame those of each slice; None to do as the settings say.
    store
        Where each finished image is put, and the images of a run before are taken from. Whoever writes the volume
        removes it afterwards.
    cluster
        Processes that do the work, see `dipmed.cluster`; None to do it here. There is no observer then.

    Raises
    ------
    DivergedError
        When no image became what was asked for.
    DipmedError
        When a setting does not fit the scan, or the store.
    """
    start = time.perf_counter()
    method = find_method(settings.method, scan.modality)
    check_guide(settings, [method])
    settings.check_warm_start()
    if settings.warm_start and cluster is not None:
        raise DipmedError(ONE_AFTER_THE_OTHER)
    device = resolve_device(settings.device) if cluster is None else cluster.device_for(settings)
    choice = choose_mode(scan, settings, device) if choice is None else choice
    settings = choice.settings
    config = settings.fit_config(scan.modality, settings.ndim_for(scan))
    settings.check_uncertainty(scan.modality, settings.ndim_for(scan))
    check_weights(settings, [method.name], scan.modality, settings.ndim_for(scan))
    if store is not None:
        store.begin(make_manifest(scan, settings, device, maps))
    prepared = prepare(scan, settings)
    guides = load_guides(scan, prepared, settings)
    found = {} if store is None else {place: _without_weights(store.read(place)) for place in store.places()}
    n_resumed = len(found)
    n_left = n_jobs_of(prepared, settings) - n_resumed
    # what goes to other processes starts from here, on whatever device they have
    start_from = device if cluster is None else torch.device("cpu")
    todo = jobs_of(prepared, settings, start_from, guides, maps, skip=tuple(found))
    listening = Listeners(listeners)
    listening.begin(prepared, settings, n_resumed)
    report = _for_images(progress, listening, prepared, settings)
    plan = ALONE if cluster is not None or observer is not None else make_plan(scan, settings, device, n_left)
    told = list(plan.notes)
    if plan.is_joint:
        results = run_together(todo, settings, report, plan, told.append)
    elif cluster is None:
        results = one_by_one(todo, settings, report, observer, store)
    else:
        results = cluster.run(todo, settings, report)
    found |= _keep(results, store, listening)
    if all(part.status == "filled" for parts in found.values() for part in parts):
        if store is not None:
            store.remove()
        raise DivergedError(f"no image became what was asked for; the first was filled {found[0, 0][0].trouble}")
    parts = _in_order(found)
    total = time.perf_counter() - start - listening.seconds
    fit_seconds = sum(part.seconds for place in list(found)[n_resumed:] for part in found[place])
    volume, std, unit = assemble_volume(
        parts, prepared, stacks=stacks_of(prepared, settings), in_hounsfield=settings.hounsfield
    )
    return ScanResult(
        volume=volume,
        unit=unit,
        reconstructions=parts,
        choice=choice,
        preset=settings.preset_for(scan.modality, settings.ndim_for(scan)),
        config=config,
        seconds={"total": total, "calibration": total - fit_seconds, "fit": fit_seconds},
        device=device.type,
        # each once, however many images share it
        assumptions=(*prepared.assumptions, *dict.fromkeys(text for part in parts for text in part.assumptions)),
        notes=scan.notes + _notes(parts, n_jobs_of(prepared, settings), scan, settings, has_std=std is not None),
        std=std,
        n_resumed=n_resumed,
        warnings=(*_warnings(parts, prepared, settings), *told),
        in_flight=plan.in_flight,
    )


def one_by_one(
    todo: Iterable[Job], settings: ReconSettings, report: Report, observer: Observer | None, store: ImageStore | None
) -> Iterator[tuple[Job, Reconstruction]]:
    """Run one job after the other; after an interruption, make of the others what takes no time."""
    interrupted = False
    before: tuple[Place, Tensor | None] | None = None
    for job in todo:
        if interrupted:
            yield job, run_direct(job, settings)
            continue
        weights = _neighbour(job.place, before, store) if settings.warm_start else None
        part = run_or_fill(job, settings, progress=report(job), observer=observer, start=weights)
        before = (job.place, part.weights)
        interrupted = part.status == "interrupted"
        yield job, part


def _keep(
    results: Iterable[tuple[Job, Reconstruction]], store: ImageStore | None, listening: Listener
) -> dict[Place, list[Reconstruction]]:
    """Collect what comes, and put what is finished into the store."""
    found: dict[Place, list[Reconstruction]] = {}
    for job, part in results:
        parts = by_frame(part, job.A)
        found[job.place] = _without_weights(parts)
        if store is not None and part.status != "interrupted":
            store.put(job.place, parts)
        listening.finished(job, found[job.place])
    return found


def _neighbour(place: Place, before: tuple[Place, Tensor | None] | None, store: ImageStore | None) -> Tensor | None:
    """Weights of the slice before, of this run or of the one that is resumed; None where it has none.

    None has the first slice, and whatever follows one that was filled or holds air.
    """
    wanted = (place[0], place[1] - 1)
    if before is not None and before[0] == wanted:
        return before[1]
    return store.read(wanted)[0].weights if store is not None and wanted in store.places() else None


def _without_weights(parts: list[Reconstruction]) -> list[Reconstruction]:
    """What is kept in memory of the images of a whole volume."""
    return [replace(part, weights=None) for part in parts]


def _in_order(found: dict[Place, list[Reconstruction]]) -> list[Reconstruction]:
    """All images, frame by frame and slice by slice within; of a series, those of a slice lie together."""
    parts = [found[place] for place in sorted(found)]
    frames = zip(*parts, strict=True) if len(parts[0]) > 1 else [[part for (part,) in parts]]
    return [part for frame in frames for part in frame]


def _notes(
    parts: Sequence[Reconstruction], n_images: int, scan: Scan, settings: ReconSettings, *, has_std: bool
) -> tuple[str, ...]:
    """What is worth knowing of the run as a whole."""
    notes: tuple[str, ...] = ()
    if any(part.status == "interrupted" for part in parts):
        n_left = sum(part.status == "interrupted" and part.stop.rule != "interrupted" for part in parts)
        notes += (f"interrupted: {n_left} of {n_images} images were not fitted and are {DIRECT[scan.modality]}",)
    if settings.uncertainty is not None and not has_std:
        notes += ("there is no map of the standard deviation: too few samples were drawn of some image",)
    return notes


def _warnings(parts: Sequence[Reconstruction], prepared: Scan, settings: ReconSettings) -> tuple[str, ...]:
    """Name the images that are not what was asked for, by the slices that the user counts."""
    first = 0 if settings.slices is None else settings.slices[0]
    stacks = stacks_of(prepared, settings)
    n_images = prepared.n_slices if stacks is None else len(stacks)
    found = []
    for number, part in enumerate(parts):
        if part.trouble:
            frame, index = divmod(number, n_images)
            place = f"slice {first + index}"
            if stacks is not None:
                place = f"the slab of slices {first + stacks[index][0]} to {first + stacks[index][1] - 1}"
            place += f" of frame {frame}" if n_frames(prepared) > 1 else ""
            found.append(f"{place} was {part.status} {part.trouble}")
    return tuple(found)


def _for_images(
    progress: Callable[[int, int, Progress], None] | None, listening: Listeners, prepared: Scan, settings: ReconSettings
) -> Report:
    """Number the images for a display of their progress."""
    n_images, places = n_jobs_of(prepared, settings), places_of(prepared, settings)

    def report(job: Job) -> ProgressCallback | None:
        if progress is None and not listening:
            return None

        def tell(state: Progress) -> None:
            if progress is not None:
                progress(places.number(*job.place), n_images, state)
            listening.progress(job, state)

        return tell

    return report
