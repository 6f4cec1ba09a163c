"""The command `dipmed compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dipmed.cli_common import (
    CoilsOption,
    DeviceOption,
    FileArgument,
    GuideOption,
    IterationsOption,
    JoinOption,
    JsonOption,
    MapsOption,
    MatrixOption,
    PoissonOption,
    RebinOption,
    SamplesOption,
    SeedOption,
    SetOption,
    SetsOption,
    SplitOption,
    UncertaintyOption,
    UndersampleOption,
    ViewsOption,
    WatchOption,
    WeightsOption,
    changes,
    check_json,
    check_settings,
    console,
    load_weights,
    make_uncertainty,
    split_names,
    write_json,
)
from operators.errors import DipmedError


def compare(
    file: FileArgument,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="a,b,c",
            help="Names; by default zero-filled,cg-sense,l1-wavelet,tv,dip, of projections fbp,sirt,cg-tv,dip.",
        ),
    ] = None,
    undersample: UndersampleOption = None,
    reference: Annotated[
        str, typer.Option(metavar="full|FILE", help="The scan itself with all its samples or views, or an image file.")
    ] = "full",
    json_file: JsonOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw images and errors.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a page to look at images, errors, scores and stops."),
    ] = None,
    identify: Annotated[
        bool, typer.Option("--identify", help="Let the report name the files of scan and reference.")
    ] = False,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Settings of the fits by name.")] = None,
    watch: WatchOption = None,
    iterations: IterationsOption = None,
    sets: SetOption = None,
    weights: WeightsOption = None,
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
    slice_number: Annotated[
        int | None, typer.Option("--slice", min=0, help="Which slice; by default the middle one.")
    ] = None,
    uncertainty: UncertaintyOption = None,
    uncertainty_samples: SamplesOption = None,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Score several methods on the same part of a scan's data against a reference that no fit sees."""
    from dipmed import compare as comparing
    from dipmed.devices import resolve_device
    from dipmed.display import show_comparison
    from dipmed.io import load
    from dipmed.plot import save_comparison
    from dipmed.record import comparison_record
    from dipmed.report import check_page, comparison_page, save_page
    from dipmed.settings import ReconSettings, check_weights

    names = split_names(methods)
    settings = ReconSettings(
        preset=preset,
        changes=changes(watch=split_names(watch), iterations=iterations, seed=seed),
        sets=tuple(sets or ()),
        weights=load_weights(weights),
        undersample=undersample,
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
        slices=None if slice_number is None else (slice_number, slice_number + 1),
        uncertainty=make_uncertainty(uncertainty, uncertainty_samples),
        device=device,
    )
    for name in names or ("dip",):
        check_settings(settings, name)
    check_weights(settings, names or ["dip"])
    resolve_device(device)
    _check_plot(plot, force=force)
    check_page(report, identify=identify, force=force)
    check_json(json_file, force=force)
    scan = load(file)
    with console.status("starting") as status:
        result = comparing.compare(
            scan, names, settings, reference=reference, on_method=lambda name: status.update(f"running {name}")
        )
    show_comparison(console if json_file == "-" else Console(), result)
    if plot is not None:
        save_comparison(result, plot, force=force)
    record = comparison_record(result, from_file=reference != "full")
    write_json(json_file, record, force=force)
    if report is not None:
        files = [("file", file.name), *([] if reference == "full" else [("reference", Path(reference).name)])]
        page = comparison_page(result, record, identity=tuple(files) if identify else ())
        save_page(page, report, force=force)


def _check_plot(path: Path | None, *, force: bool) -> None:
    from dipmed.io.files import check_target

    if path is None:
        return
    if path.suffix != ".png":
        raise DipmedError(f"--plot draws a .png, got {path.name}")
    check_target(path, force=force)
