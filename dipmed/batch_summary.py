"""What became of a list of scans: a table on the terminal, and a file."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dipmed.batch import Outcome
from dipmed.io.files import atomic_write, check_target
from operators.errors import DipmedError

_COLUMNS = tuple(field.name for field in fields(Outcome))
_STARTS = {".csv": ",".join(_COLUMNS).encode(), ".json": b'{\n  "batch": ['}


def check_summary(path: Path, others: Sequence[Path]) -> None:
    """Refuse a summary that could not be written, or would replace anything but a summary.

    Parameters
    ----------
    others
        What else is read and written.

    Raises
    ------
    OutputError
        When it cannot be written.
    DipmedError
        When it has another ending, or is one of the others.
    """
    start = _STARTS.get(path.suffix)
    if start is None:
        raise DipmedError(f"--summary is a .csv or a .json file, got {path.name}")
    if path.absolute() in {other.absolute() for other in others}:
        raise DipmedError(f"{path} is a file of the list; choose another name for the summary")
    is_summary = path.is_file() and path.read_bytes()[: len(start)] == start
    check_target(path, force=is_summary)


def write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the table, in place of the one of an earlier run."""
    rows = [asdict(outcome) for outcome in outcomes]
    if path.suffix == ".json":
        text = json.dumps({"batch": rows}, indent=2) + "\n"
    else:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {**row, "seconds": round(row["seconds"], 1), "warnings": "; ".join(row["warnings"])} for row in rows
        )
        text = lines.getvalue()
    with atomic_write(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def show_summary(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Show the table, and how many rows came to what."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("row", "images", "seconds"):
        table.add_column(name, justify="right")
    for name in ("status", "out", "stop", "what is to know"):
        table.add_column(name, overflow="fold")
    for outcome in outcomes:
        table.add_row(
            str(outcome.row),
            str(outcome.images or ""),
            f"{outcome.seconds:.1f}" if outcome.seconds else "",
            outcome.status,
            escape(outcome.out),
            outcome.stop,
            escape(outcome.error or "; ".join(outcome.warnings)),
        )
    console.print(table)
    counts = Counter(outcome.status for outcome in outcomes)
    console.print(", ".join(f"{status}: {count}" for status, count in counts.items()))


__all__ = ["check_summary", "show_summary", "write_summary"]
