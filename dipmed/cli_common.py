"""What the commands share: options, checks of outputs, records as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from operators.errors import DipmedError

console = Console(stderr=True)  # standard output belongs to records
INTERRUPTED = 130
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
TimeOption = Annotated[float | None, typer.Option(metavar="S", help="End each fit after this many seconds.")]
SlicesOption = Annotated[str | None, typer.Option(metavar="A:B", help="Slices A to B - 1, counted from 0.")]


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
