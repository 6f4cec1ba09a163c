"""What the command line shows on a terminal: tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dipmed.compare import Comparison, score_cells
from dipmed.config import PRESETS
from dipmed.dip import RULES
from dipmed.evaluate import GAUSSIAN_WITHIN
from dipmed.methods import METHODS


def show_scan(console: Console, record: dict[str, Any]) -> None:
    """Show the record of a scan as a table."""
    table = Table(show_header=False, box=None)
    for name, value in record.items():
        if name in ("affine", "assumptions", "notes", "sequence", "frame_labels"):
            continue
        table.add_row(name.replace("_", " "), _words(value))
    for name, value in record.get("sequence", {}).items():
        if value not in (None, ()):
            table.add_row(name.replace("_", " "), _words(value))
    for row in record["affine"][:3]:
        table.add_row("affine (RAS, mm)", "  ".join(f"{entry:9.3f}" for entry in row))
    console.print(table)
    for sentence in record["assumptions"]:
        console.print(f"[yellow]assumed:[/] {escape(sentence)}")
    for sentence in record["notes"]:
        console.print(f"note: {escape(sentence)}")


def _words(value: Any) -> str:
    if value is None:
        return "not stated"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return " x ".join(_words(entry) for entry in value)
    return escape(str(value))


def show_comparison(console: Console, result: Comparison) -> None:
    """Show the scores of a comparison."""
    # narrow, so that nothing is cut off at 80 columns
    table = Table(title=f"slice {result.slice}, {result.data_left or 'as measured'}", box=None, padding=(0, 2, 0, 0))
    table.add_column("method", overflow="fold")
    for name in ("PSNR dB", "SSIM", "NRMSE", "fit s", "iterations", "regret dB"):
        table.add_column(name, justify="right")
    table.add_column("stop", overflow="fold")
    has_std = any(row["calibration"] for row in result.rows)
    if has_std:
        table.add_column(f"in 1/2/3 σ, Gauss {_percentages(GAUSSIAN_WITHIN)}", justify="right")
    for row in result.rows:
        table.add_row(
            *score_cells(row),
            *([_percentages(row["calibration"]["within"]) if row["calibration"] else ""] if has_std else []),
        )
    console.print(table)


def _percentages(shares: Sequence[float]) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares) + " %"


def show_methods(console: Console) -> None:
    """List methods, presets and stopping rules."""
    table = Table("method", "family", "what it is", "for", "cost", "source")
    for method in METHODS.values():
        scans = ", ".join(name.upper() for name in method.modalities)
        cost = "" if method.cost is None else f"{method.cost:g}"
        table.add_row(method.name, method.family, method.summary, scans, cost, method.citation)
    console.print(table)
    console.print(f"presets: {', '.join(PRESETS)}")
    rules = Table("stopping rule", "keeps")
    for name, rule in RULES.items():
        rules.add_row(name, (rule.__doc__ or "").splitlines()[0])
    console.print(rules)
