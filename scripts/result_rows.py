"""Rows of a benchmark, one line of JSON each, so that one that was interrupted goes on where it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """Read the rows that are there already; none where there is no file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_row(file: Path, row: Row) -> None:
    """Write one row more."""
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
