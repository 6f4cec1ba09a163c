"""The command line: one-line errors, records as JSON, images written whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dipmed import __version__
from dipmed.cli_common import (
    INTERRUPTED,
    DeviceOption,
    IterationsOption,
    JsonOption,
    LikeOption,
    MemoryOption,
    ModeOption,
    SeedOption,
    SeriesOption,
    SetOption,
    SlabOption,
    SlicesOption,
    StopOption,
    TimeOption,
    WatchOption,
    changes,
    check_json,
    console,
    end_interrupted,
    parse_slices,
    split_names,
    state,
    write_json,
)
from dipmed.cli_restore import restore
from dipmed.cli_send import send
from operators.errors import DipmedError

if TYPE_CHECKING:
    from dipmed.config import FitConfig
    from dipmed.dip import Uncertainty
    from dipmed.io.image_store import ImageStore
    from dipmed.prepare import ReconSettings
    from dipmed.recon import ScanResult
    from dipmed.weights import PretrainedWeights

app = typer.Typer(
    help="Reconstruct MRI and CT scans from their own measurements, without training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FileArgument = Annotated[
    Path,
    typer.Argument(
        help="File of k-space or projections, or a folder of projections; "
        "for BART the .cfl, the .hdr or their common name."
    ),
]
UndersampleOption = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Undersample first, e.g. random:R=4,acs=16,seed=0; also equispaced, poisson, golden; "
        "add partial=0.75 (partial Fourier), echo=0.8 (asymmetric echo) or shutter=1 (elliptical).",
    ),
]
MapsOption = Annotated[str, typer.Option(metavar="espirit|jsense|FILE", help="Sensitivity maps.")]
JoinOption = Annotated[bool, typer.Option("--join-frames", help="Take all frames of a trajectory as one acquisition.")]
SplitOption = Annotated[
    bool,
    typer.Option("--split-readout", help="Take a 3-D Cartesian scan slice by slice, across its fully sampled readout."),
]
PoissonOption = Annotated[bool, typer.Option("--poisson", help="CT: weight each ray by its photons in a fit.")]
RebinOption = Annotated[bool, typer.Option("--rebin", help="CT: turn a helical scan into slices, by rebinning.")]
SetsOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="Sets of ESPIRiT maps; 2 for a field of view smaller than the object.")
]
CoilsOption = Annotated[int | None, typer.Option(min=1, help="Compress to this many virtual coils.")]
ViewsOption = Annotated[int | None, typer.Option(min=1, help="CT: keep this many of the views, evenly.")]
MatrixOption = Annotated[
    int | None, typer.Option(min=2, metavar="N", help="CT: N x N pixels over the same field of view.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Pre-trained weights, .safetensors, for the methods that start from some."),
]
GuideOption = Annotated[
    Path | None,
    typer.Option("--reference-image", metavar="FILE", help="Similar image on the scan's grid, for reference-guided."),
]
UncertaintyOption = Annotated[
    str | None,
    typer.Option(
        metavar="ensemble|jitter|sgld",
        help="Map of the standard deviation: of fits from several seeds, of one network that sees fresh noise, or of "
        "the samples of --method sgld.",
    ),
]
SamplesOption = Annotated[
    int | None, typer.Option("--uncertainty-samples", min=2, metavar="N", help="Fits of an ensemble, or outputs.")
]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dipmed {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001  # its callback prints and exits
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    state["debug"] = debug


@app.command()
def info(file: FileArgument, json_file: JsonOption = None) -> None:
    """Show what a file holds, and what it does not say."""
    from dipmed.display import show_scan
    from dipmed.io import load
    from dipmed.record import scan_record

    check_json(json_file, force=True)
    record = scan_record(load(file))
    show_scan(console if json_file == "-" else Console(), record)
    write_json(json_file, record)


@app.command()
def recon(
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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Fit slices in so many processes at a time, which share the cores.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Fit slices on the workers of this Dask scheduler.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run that did not end has left off, if there was one.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files, and discard what a run that did not end has left.")
    ] = False,
) -> None:
    """Reconstruct an image from k-space or projections, stopped by the scan itself."""
    from dipmed.cluster import find_cluster
    from dipmed.devices import resolve_device
    from dipmed.display import FitProgress
    from dipmed.io import load
    from dipmed.io.image_store import open_store, store_path
    from dipmed.mode import choose_mode
    from dipmed.outputs import check_outputs, dicom_details, find_study, save_outputs
    from dipmed.prepare import ReconSettings, check_weights
    from dipmed.recon import reconstruct
    from dipmed.record import recon_record

    settings = ReconSettings(
        method=method,
        preset=preset,
        changes=changes(stop=stop, watch=split_names(watch), iterations=iterations, time_limit=time_limit, seed=seed),
        sets=tuple(sets or ()),
        weights=_load_weights(weights),
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
        uncertainty=_uncertainty(uncertainty, uncertainty_samples),
        mode=mode,
        slab=slab,
        memory_gib=memory,
        device=device,
    )
    # everything that can be refused is refused before the work starts
    _check_settings(settings)
    check_weights(settings, [method])
    # of another machine nothing is known before it is asked
    where = resolve_device("cpu" if scheduler is not None else device)
    force_files = force or (resume and store_path(out[0]).exists())
    check_outputs(out, with_std=uncertainty is not None, force=force_files)
    check_json(json_file, force=force_files)
    study = find_study(out, like=like, series=series, patient_id=patient_id)
    with open_store(out[0], resume=resume, force=force) as store, _kept(store):
        scan = load(file)
        choice = choose_mode(scan, settings, where)
        dicom = None if study is None else dicom_details(scan, choice.settings, study, out)
        with find_cluster(workers, scheduler) as cluster:
            console.print(escape(choice.reason), soft_wrap=True)
            console.print(f"fitting with {method}; Ctrl-C keeps the best image so far", soft_wrap=True)
            with FitProgress(console) as progress:
                result = reconstruct(scan, settings, choice=choice, progress=progress, store=store, cluster=cluster)
        written = save_outputs(result, out, complex=complex_image, dicom=dicom, force=force_files)
        write_json(json_file, recon_record(result, settings), force=force_files)
        if not result.was_interrupted:
            store.remove()
        _tell_result(result, written)


@app.command()
def simulate(
    volume: Annotated[
        Path, typer.Argument(help="Image volume, .nii.gz or .nii, a folder of DICOM slices or a .dcm of many.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.h5", help="Scan to write.")],
    modality: Annotated[str, typer.Option(metavar="ct|mri", help="What measures the volume.")],
    geometry: Annotated[
        str | None, typer.Option(metavar="parallel|fan|cone", help="CT: rays; by default a fan.")
    ] = None,
    views: Annotated[int | None, typer.Option(min=1, help="CT: how many views, evenly.")] = None,
    photons: Annotated[
        float | None, typer.Option(metavar="N0", help="CT: photons of each ray without an object; by default no noise.")
    ] = None,
    water: Annotated[
        float | None, typer.Option(metavar="MU", help="CT: attenuation of water in 1/mm; by default 0.02.")
    ] = None,
    n_coils: Annotated[int | None, typer.Option(min=1, help="MRI: coils on a ring; by default 8.")] = None,
    noise: Annotated[
        float | None, typer.Option(metavar="SIGMA", help="MRI: of each sample, in units of the brightest voxel.")
    ] = None,
    undersample: Annotated[
        str | None, typer.Option(metavar="SPEC", help="MRI: lines to measure, e.g. random:R=4,acs=16,seed=0.")
    ] = None,
    series: SeriesOption = None,
    slices: SlicesOption = None,
    reduce: Annotated[
        int, typer.Option(metavar="K", help="Reconstruct pixels K times larger than the voxels; 2 or more.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same file.")] = 0,
    json_file: JsonOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Measure an image volume on a finer grid than is reconstructed; the truth goes to a file beside the scan."""
    from dipmed.record import simulation_record
    from dipmed.simulate import check_outputs, make_settings, read_volume, reference_path, save_simulation
    from dipmed.simulate import simulate as measure

    of_ct = changes(geometry=geometry, n_views=views, photons=photons, water_per_mm=water)
    of_mri = changes(n_coils=n_coils, noise=noise, undersample=undersample)
    settings = make_settings(modality, of_ct, of_mri, reduce=reduce, seed=seed)
    chosen = parse_slices(slices)
    check_outputs(out, force=force)
    check_json(json_file, force=force)
    parts = "views" if modality == "ct" else "slices"
    with console.status("reading") as status:
        result = measure(
            read_volume(volume, modality, series),
            settings,
            chosen,
            progress=lambda done, total: status.update(f"measured {done} of {total} {parts}"),
        )
    save_simulation(result, out, force=force)
    write_json(json_file, simulation_record(result), force=force)
    for sentence in (*result.assumptions, *result.scan.notes):
        console.print(f"[yellow]assumed:[/] {escape(sentence)}", soft_wrap=True)
    console.print(f"{escape(str(out))}, and the truth in {escape(str(reference_path(out)))}", soft_wrap=True)


app.command()(restore)
app.command()(send)


@app.command()
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
    from dipmed.io.files import check_target
    from dipmed.plot import save_comparison
    from dipmed.prepare import ReconSettings, check_weights
    from dipmed.record import versions

    names = split_names(methods)
    settings = ReconSettings(
        preset=preset,
        changes=changes(watch=split_names(watch), iterations=iterations, seed=seed),
        sets=tuple(sets or ()),
        weights=_load_weights(weights),
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
        uncertainty=_uncertainty(uncertainty, uncertainty_samples),
        device=device,
    )
    for name in names or ("dip",):
        _check_settings(settings, name)
    check_weights(settings, names or ["dip"])
    resolve_device(device)
    if plot is not None:
        if plot.suffix != ".png":
            raise DipmedError(f"--plot draws a .png, got {plot.name}")
        check_target(plot, force=force)
    check_json(json_file, force=force)
    scan = load(file)
    with console.status("starting") as status:
        result = comparing.compare(
            scan, names, settings, reference=reference, on_method=lambda name: status.update(f"running {name}")
        )
    show_comparison(console if json_file == "-" else Console(), result)
    if plot is not None:
        save_comparison(result, plot, force=force)
    record = {
        "undersample": result.data_left,
        "slice": result.slice,
        "seed": seed,
        "reference": "full" if reference == "full" else "file",
        "rows": result.rows,
        "versions": versions(),
    }
    write_json(json_file, record, force=force)


@app.command()
def methods(json_file: JsonOption = None) -> None:
    """List the methods, presets and stopping rules."""
    from dipmed.display import show_methods
    from dipmed.record import methods_record

    check_json(json_file, force=True)
    if json_file != "-":
        show_methods(Console())
    write_json(json_file, methods_record())


@app.command()
def doctor() -> None:
    """Show versions and devices, and check that the physics works here."""
    from dipmed.doctor import run_checks

    if not run_checks(Console()):
        raise typer.Exit(1)


@app.command(name="init-bundle")
def init_bundle(
    folder: Annotated[Path, typer.Argument(help="Folder of the bundle, made if it is not there.")],
    method: Annotated[str, typer.Option(help="Method, see `dipmed methods`.")] = "dip",
    preset: Annotated[str | None, typer.Option(help="Preset; by default the one for the scan.")] = None,
) -> None:
    """Write a MONAI bundle that reconstructs a file, for `python -m monai.bundle run`."""
    from dipmed import bundle

    for path in bundle.init_bundle(folder, method, preset):
        typer.echo(path)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to make and write to.")] = Path("demo-output"),
    device: DeviceOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Simulate a small scan in closed form, reconstruct it and compare the methods."""
    from dipmed.io import save_ismrmrd
    from dipmed.io.files import check_target
    from dipmed.phantom import brain_phantom_scan

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DipmedError(f"cannot make the folder {out}: {error.strerror}") from error
    scan_file = out / "scan.h5"
    check_target(scan_file, force=force)
    scan, _ = brain_phantom_scan()
    save_ismrmrd(scan, scan_file, force=force)
    images = [out / "image.nii.gz", out / "image.png"]
    spec = "random:R=4,acs=16,seed=0"
    recon(scan_file, images, undersample=spec, device=device, json_file=str(out / "recon.json"), force=force)
    compare(
        scan_file,
        undersample=spec,
        json_file=str(out / "compare.json"),
        plot=out / "compare.png",
        device=device,
        force=force,
    )


@contextmanager
def _kept(store: ImageStore) -> Iterator[None]:
    """Say of a run that does not end what it leaves, and how to go on."""
    try:
        yield
    except (DipmedError, KeyboardInterrupt, typer.Exit) as end:
        n_done = len(store.places()) if store.folder.exists() else 0
        if n_done:
            words = f"images done: {n_done}, kept in {store.folder}; go on from there with --resume"
            console.print(escape(words), soft_wrap=True)
            state["told"] = state["told"] or isinstance(end, KeyboardInterrupt)
        raise


def _uncertainty(kind: str | None, samples: int | None) -> Uncertainty | None:
    from dipmed.dip import Uncertainty

    if kind is None and samples is not None:
        raise DipmedError("--uncertainty-samples needs --uncertainty, which says of what")
    return None if kind is None else Uncertainty(kind, samples)  # type: ignore[arg-type]  # it checks


def _check_settings(settings: ReconSettings, method: str | None = None) -> FitConfig:
    """Fail early on unknown names and impossible values; the dimensions are not known yet."""
    from dataclasses import replace

    from dipmed.dip import find_rule
    from operators import parse_undersampling

    if settings.undersample is not None:
        parse_undersampling(settings.undersample)
    config = replace(settings, method=method or settings.method).fit_config("mri", 2)
    for name in (config.stop, *(config.watch or ())):
        find_rule(name)
    if method is None:
        settings.check_uncertainty("mri", 2)
    return config


def _load_weights(path: Path | None) -> PretrainedWeights | None:
    from dipmed.io.weights_file import load_weights

    return None if path is None else load_weights(path)


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


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 1."""
    try:
        app()
    except DipmedError as error:
        if state["debug"]:
            raise
        console.print(f"[bold red]error:[/] {escape(' '.join(str(error).split()))}", soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        # typer turns Ctrl-C outside a fit into this exit code without a word
        if end.code == INTERRUPTED and not state["told"]:
            console.print("interrupted: nothing was written", soft_wrap=True)
        raise
    except MemoryError:
        if state["debug"]:
            raise
        console.print("[bold red]error:[/] out of memory; try --coils N, --matrix N or --slices A:B", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
