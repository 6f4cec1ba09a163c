"""The command `dipmed recon`."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from dipmed.cli_common import (
    CoilsOption,
    CompileOption,
    DeviceOption,
    FileArgument,
    ForceOption,
    GuideOption,
    InFlightOption,
    IterationsOption,
    JoinOption,
    JsonOption,
    LikeOption,
    MapsOption,
    MatrixOption,
    MemoryOption,
    ModeOption,
    PoissonOption,
    RebinOption,
    ResumeOption,
    SamplesOption,
    SchedulerOption,
    SeedOption,
    SeriesOption,
    SetOption,
    SetsOption,
    SlabOption,
    SlicesOption,
    SplitOption,
    StopOption,
    TimeOption,
    UncertaintyOption,
    UndersampleOption,
    ViewsOption,
    WatchOption,
    WeightsOption,
    WorkersOption,
    changes,
    console,
    end_interrupted,
    load_weights,
    make_uncertainty,
    parse_slices,
    split_names,
)
from dipmed.recon_command import ReconRequest

if TYPE_CHECKING:
    from dipmed.recon import ScanResult


def recon_request(
    file: FileArgument,
    out: Annotated[
        list[Path],
        typer.Option(
            "-o",
            "--out",
            help="Image to write, by ending: .nii.gz .nii .npz .cfl .h5 .png, DICOM .dcm .sc.dcm, or without an "
            "ending a folder of DICOM slices; may be repeated.",
        ),
    ],
    method: Annotated[str, typer.Option(metavar="NAME", help="`dipmed methods` lists them.")] = "dip",
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Settings by name; by default those for the scan's dimensions.")
    ] = None,
    stop: StopOption = None,
    watch: WatchOption = None,
    iterations: IterationsOption = None,
    time_limit: TimeOption = None,
    sets: SetOption = None,
    weights: WeightsOption = None,
    undersample: UndersampleOption = None,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep only the samples of this mask.")] = None,
    reference_image: GuideOption = None,
    maps: MapsOption = "espirit",
    map_sets: SetsOption = 1,
    coils: CoilsOption = None,
    join_frames: JoinOption = False,
    split_readout: SplitOption = False,
    rebin: RebinOption = False,
    poisson: PoissonOption = False,
    views: ViewsOption = None,
    matrix: MatrixOption = None,
    hounsfield: Annotated[bool, typer.Option("--hounsfield", help="CT: write Hounsfield units, not 1/mm.")] = False,
    water: Annotated[
        float | None, typer.Option(metavar="MU", help="CT: attenuation of water in 1/mm, for Hounsfield units.")
    ] = None,
    slices: SlicesOption = None,
    warm_start: Annotated[
        bool,
        typer.Option(
            "--warm-start",
            help="Start the fit of each slice from the one before, for a shorter fit and a worse image, by up to 3 dB.",
        ),
    ] = False,
    uncertainty: UncertaintyOption = None,
    uncertainty_samples: SamplesOption = None,
    mode: ModeOption = "auto",
    slab: SlabOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    complex_image: Annotated[
        bool,
        typer.Option(
            "--complex",
            help="Keep the complex image, not its magnitude; of several map sets with the phase of the first.",
        ),
    ] = False,
    like: LikeOption = None,
    series: SeriesOption = None,
    patient_id: Annotated[
        str | None, typer.Option("--patient-id", metavar="ID", help="DICOM: whose image it is; by default nobody's.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page to look at image, stop and warnings.")
    ] = None,
    identify: Annotated[
        bool, typer.Option("--identify", help="Let the report name the scan's file, and the patient of a DICOM study.")
    ] = False,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            "--log-to",
            metavar="tensorboard:DIR|mlflow:URI",
            help="Log curves, stops and pictures of slices while the fits run, without names; may be repeated.",
        ),
    ] = None,
    in_flight: InFlightOption = None,
    compile_fit: CompileOption = "auto",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
) -> ReconRequest:
    """Reconstruct an image from k-space or projections, stopped by the scan itself."""
    from dipmed.settings import ReconSettings

    return ReconRequest(
        file=file,
        out=out,
        settings=ReconSettings(
            method=method,
            preset=preset,
            changes=changes(
                stop=stop, watch=split_names(watch), iterations=iterations, time_limit=time_limit, seed=seed
            ),
            sets=tuple(sets or ()),
            weights=load_weights(weights),
            undersample=undersample,
            mask=mask,
            reference_image=reference_image,
            maps=maps,
            map_sets=map_sets,
            n_coils=coils,
            join_frames=join_frames,
            split_readout=split_readout,
            rebin=rebin,
            poisson=poisson,
            views=views,
            matrix=matrix,
            hounsfield=hounsfield,
            water=water,
            slices=parse_slices(slices),
            warm_start=warm_start,
            uncertainty=make_uncertainty(uncertainty, uncertainty_samples),
            mode=mode,
            slab=slab,
            memory_gib=memory,
            device=device,
            in_flight=in_flight,
            compile=compile_fit,
        ),
        json_file=json_file,
        complex_image=complex_image,
        like=like,
        series=series,
        patient_id=patient_id,
        report=report,
        identify=identify,
        log_to=tuple(log_to or ()),
        workers=workers,
        scheduler=scheduler,
        resume=resume,
        force=force,
    )


@wraps(recon_request)  # whose options it has
def recon(*arguments: Any, **options: Any) -> None:
    """Do what the options ask for, and tell of it."""
    from dipmed.cluster import find_cluster

    request = recon_request(*arguments, **options)
    _tell_result(*request.run(find_cluster(request.workers, request.scheduler)))


def _tell_result(result: ScanResult, out: list[Path]) -> None:
    for sentence in result.assumptions:
        console.print(f"[yellow]assumed:[/] {escape(sentence)}", soft_wrap=True)
    for sentence in result.warnings:
        console.print(f"[bold yellow]warning:[/] {escape(sentence)}", soft_wrap=True)
    first = result.reconstructions[0]
    names = ", ".join(str(path) for path in out)
    if result.was_interrupted:
        end_interrupted(out)
    console.print(
        f"{escape(names)}: {first.method}, {first.iterations} iterations, {result.seconds['total']:.1f} s; "
        f"image of iteration {first.stop.iteration}: {escape(first.stop.reason)}",
        soft_wrap=True,
    )
