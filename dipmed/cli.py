"""The command line: one-line errors, records as JSON, images written whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dipmed import __version__
from dipmed.allocation import keep_freed_memory
from dipmed.cli_batch import batch
from dipmed.cli_common import (
    INTERRUPTED,
    DeviceOption,
    FileArgument,
    JsonOption,
    SeriesOption,
    SlicesOption,
    changes,
    check_json,
    console,
    parse_slices,
    state,
    write_json,
)
from dipmed.cli_compare import compare
from dipmed.cli_recon import recon
from dipmed.cli_restore import restore
from dipmed.cli_send import send
from operators.errors import DipmedError

app = typer.Typer(
    help="Reconstruct MRI and CT scans from their own measurements, without training data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


app.command(name="recon")(recon)
app.command()(batch)


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
app.command()(compare)


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


def main() -> None:
    """Run the command line; an error of ours is one line and exit code 1."""
    keep_freed_memory()
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
