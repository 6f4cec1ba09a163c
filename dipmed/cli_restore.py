"""The command `dipmed restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dipmed.cli_common import (
    GO_ON,
    DeviceOption,
    ForceOption,
    IterationsOption,
    JsonOption,
    ResumeOption,
    SeedOption,
    SeriesOption,
    SetOption,
    SlicesOption,
    StopOption,
    changes,
    check_json,
    console,
    end_interrupted,
    end_store,
    kept,
    parse_slices,
    write_json,
)
from operators.errors import DipmedError


def restore(
    volume: Annotated[
        Path, typer.Argument(help="Image volume, .nii.gz .nii .npz .npy, or DICOM: a folder of slices, or .dcm.")
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--out",
            help="Image to write, by ending: .nii.gz .nii .npz .h5 .png, from DICOM also .dcm .sc.dcm or without an "
            "ending a folder of slices; may be repeated.",
        ),
    ],
    task: Annotated[str, typer.Option(metavar="denoise|superres|inpaint|deblur", help="What is to be done.")],
    sigma: Annotated[
        float | None,
        typer.Option(help="Standard deviation of the noise, in units of the volume; by default estimated."),
    ] = None,
    factor: Annotated[
        int | None, typer.Option(metavar="N", help="superres: how many slices become of one, 2 or more.")
    ] = None,
    thickness: Annotated[
        float | None,
        typer.Option(metavar="MM", help="superres: of the measured slices; by default the distance between them."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="inpaint: image on the same grid, not zero where to fill.")
    ] = None,
    fwhm: Annotated[
        float | None, typer.Option(metavar="MM", help="deblur: full width at half maximum of the Gaussian blur.")
    ] = None,
    mode: Annotated[
        str, typer.Option(metavar="slice|3d", help="A fit for each plane, or one for the volume.")
    ] = "slice",
    series: SeriesOption = None,
    slices: SlicesOption = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Settings by name.")] = None,
    stop: StopOption = None,
    iterations: IterationsOption = None,
    sets: SetOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
) -> None:
    """Restore an image volume that has no raw data: less noise, thinner slices, filled holes, less blur."""
    from dipmed.devices import resolve_device
    from dipmed.dip import find_rule
    from dipmed.fit_progress import FitProgress
    from dipmed.image_pieces import Task
    from dipmed.io.image_store import check_unfinished, open_store, store_path
    from dipmed.io.images import save_image
    from dipmed.io.source_volume import read_holes, read_source_volume
    from dipmed.outputs import check_outputs, find_source, restored_details
    from dipmed.record import restore_record
    from dipmed.restore import RestoreSettings
    from dipmed.restore import restore as restore_volume
    from dipmed.settings import ReconSettings

    if mode not in ("slice", "3d"):
        raise DipmedError(f"--mode is slice or 3d, got {mode!r}")
    if (mask is not None) != (task == "inpaint"):
        raise DipmedError("--task inpaint needs --mask FILE, the voxels to fill; other tasks take none")
    settings = RestoreSettings(
        task=Task(task, factor, thickness, fwhm, in_3d=mode == "3d"),
        sigma=sigma,
        slices=parse_slices(slices),
        fit=ReconSettings(
            preset=preset,
            changes=changes(stop=stop, iterations=iterations, seed=seed),
            sets=tuple(sets or ()),
            device=device,
        ),
    )
    # everything that can be refused is refused before the work starts
    find_rule(settings.config().stop)
    resolve_device(device)
    check_unfinished(out[0], resume=resume, force=force)
    replaces = force or (resume and store_path(out[0]).exists())
    check_outputs(out, with_std=False, force=replaces)
    check_json(json_file, force=replaces)
    study = find_source(out, volume, series)
    source = read_source_volume(volume, series)
    dicom = None if study is None else restored_details(source, task, study, out)
    holes = None if mask is None else read_holes(mask, source.volume)
    with open_store(out[0], resume=resume, force=force) as store, kept(store, GO_ON):
        with FitProgress(console) as progress:
            result = restore_volume(source, settings, holes, progress=progress, store=store)
        for path in out:
            save_image(result.volume, path, dicom=dicom, force=replaces)
        write_json(json_file, restore_record(result, settings), force=replaces)
        end_store(store, GO_ON, was_interrupted=result.was_interrupted)
    for sentence in result.assumptions:
        console.print(f"[yellow]assumed:[/] {escape(sentence)}", soft_wrap=True)
    for sentence in result.notes:
        console.print(f"note: {escape(sentence)}", soft_wrap=True)
    if result.was_interrupted:
        end_interrupted(out)
    names = escape(", ".join(map(str, out)))
    fitted = sum(part.iterations > 0 for part in result.parts)
    console.print(
        f"{names}: {task}, {fitted} of {len(result.parts)} pieces fitted, {result.seconds:.1f} s", soft_wrap=True
    )
