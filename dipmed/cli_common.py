"""What the commands share: options, checks of outputs, records as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from operators.errors import DipmedError

if TYPE_CHECKING:
    from dipmed.config import FitConfig
    from dipmed.dip import Uncertainty
    from dipmed.io.image_store import ImageStore
    from dipmed.settings import ReconSettings
    from dipmed.weights import PretrainedWeights

console = Console(stderr=True)  # standard output belongs to records
INTERRUPTED = 130
GO_ON = "go on from there with --resume"
state = {"debug": False, "told": False}

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write a record; - for standard output.")
]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: auto, cpu or cuda.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Same seed, same image.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Setting of the fit or option of the method, as `dipmed methods --json -` lists them; may be repeated. "
        "With METHOD.KEY=VALUE for that method alone.",
    ),
]
StopOption = Annotated[str | None, typer.Option(metavar="RULE", help="Stopping rule; `dipmed methods` lists them.")]
WatchOption = Annotated[
    str | None,
    typer.Option(
        metavar="a,b", help="Rules that keep a curve beside the stopping rule, and say what they would have chosen."
    ),
]
IterationsOption = Annotated[int | None, typer.Option(min=1, help="Most iterations of a fit.")]
LikeOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="DICOM: take patient, study and frame of reference from this series."),
]
SeriesOption = Annotated[
    str | None, typer.Option(metavar="NUMBER|UID", help="Which series of a folder that holds several.")
]
ModeOption = Annotated[
    str,
    typer.Option(
        metavar="slice|slab|3d|auto",
        help="Fit each slice by itself, overlapping slabs, or the volume by one network; auto says why it chose.",
    ),
]
SlabOption = Annotated[int | None, typer.Option(min=2, metavar="N", help="Most slices of a slab; with --mode slab.")]
MemoryOption = Annotated[
    float | None, typer.Option(min=0.0, metavar="GIB", help="Most memory to take; by default what is free.")
]
InFlightOption = Annotated[
    int | None,
    typer.Option(
        "--slices-in-flight",
        min=1,
        help="Slices to fit at a time as one program; by default one on the CPU, and what memory holds on a GPU.",
    ),
]
CompileOption = Annotated[
    str,
    typer.Option(
        "--compile", metavar="auto|on|off", help="Compile the fit by torch; `auto` does for several slices on a GPU."
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Fit slices in so many processes at a time, which share the cores.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Fit slices on the workers of this Dask scheduler.")
]
TimeOption = Annotated[float | None, typer.Option(metavar="S", help="End each fit after this many seconds.")]
SlicesOption = Annotated[str | None, typer.Option(metavar="A:B", help="Slices A to B - 1, counted from 0.")]

ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on where a run that did not end has left off, if there was one.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace existing files, and discard what a run that did not end has left.")
]

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


def changes(**options: Any) -> dict[str, Any]:
    """The options that were given, as changes to a preset."""
    return {name: value for name, value in options.items() if value is not None}


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Names with commas between them."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def parse_slices(text: str | None) -> tuple[int, int] | None:
    """Read ``A:B``; None for all slices."""
    if text is None:
        return None
    first, colon, end = text.partition(":")
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise DipmedError(f"--slices takes A:B with 0 <= A < B, got {text!r}")
    return int(first), int(end)


def check_json(target: str | None, *, force: bool) -> None:
    """Check that a record can be written there, before the work begins."""
    from dipmed.io.files import check_target

    if target is not None and target != "-":
        check_target(Path(target), force=force)


def write_json(target: str | None, record: dict[str, Any], *, force: bool = True) -> None:
    """Write a record to a file or to standard output; None for nowhere."""
    from dipmed.io.files import atomic_write

    if target is None:
        return
    text = json.dumps(record, indent=2, allow_nan=False)
    if target == "-":
        typer.echo(text)
        return
    with atomic_write(Path(target), force=force) as temporary:
        temporary.write_text(text + "\n")


@contextmanager
def kept(store: ImageStore, how_to_go_on: str) -> Iterator[None]:
    """Say of a run that does not end what it leaves."""
    try:
        yield
    except (DipmedError, KeyboardInterrupt) as end:
        _tell_kept(store, how_to_go_on, by_hand=isinstance(end, KeyboardInterrupt))
        raise


def end_store(store: ImageStore, how_to_go_on: str, *, was_interrupted: bool) -> None:
    """Remove the store of images that have been written, or keep it where a later run is to replace them."""
    if was_interrupted:
        store.keep()
        _tell_kept(store, how_to_go_on)
    else:
        store.remove()


def _tell_kept(store: ImageStore, how_to_go_on: str, *, by_hand: bool = False) -> None:
    n_done = len(store.places()) if store.folder.exists() else 0
    if n_done or store.is_kept:
        console.print(escape(f"images done: {n_done}, kept in {store.folder}; {how_to_go_on}"), soft_wrap=True)
        state["told"] = state["told"] or by_hand


def end_interrupted(out: list[Path]) -> None:
    """Say that what is there was written, and end the command.

    Raises
    ------
    typer.Exit
        Always.
    """
    console.print(
        f"interrupted: the best image so far was written to {escape(', '.join(map(str, out)))}", soft_wrap=True
    )
    state["told"] = True
    raise typer.Exit(INTERRUPTED)


def make_uncertainty(kind: str | None, samples: int | None) -> Uncertainty | None:
    """The map of the standard deviation that a user asks for; None for none."""
    from dipmed.dip import Uncertainty

    if kind is None and samples is not None:
        raise DipmedError("--uncertainty-samples needs --uncertainty, which says of what")
    return None if kind is None else Uncertainty(kind, samples)  # type: ignore[arg-type]  # it checks


def check_settings(settings: ReconSettings, method: str | None = None) -> FitConfig:
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


def load_weights(path: Path | None) -> PretrainedWeights | None:
    """Read pre-trained weights; None for none."""
    from dipmed.io import weights_file

    return None if path is None else weights_file.load_weights(path)
