"""A list of scans as a CSV file: a row for each, a column for each option of `dipmed recon`."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from dipmed.recon_command import ReconRequest
from operators.errors import DipmedError

SCAN, OUT = "scan", "out"
_FILES = ("weights", "mask", "maps", "reference-image", "like")
_FOR_ALL_ROWS = ("json", "log-to", "workers", "scheduler", "resume", "force", "help")
_YES_NO = {"yes": True, "no": False, "": False}
_BETWEEN = ";"  # between values of an option that may be repeated


@dataclass(frozen=True)
class Row:
    """A row of a list, as the command line reads it; ``number`` counts like a spreadsheet, the header being row 1."""

    number: int
    out: str
    request: ReconRequest


class ListReader:
    """Reads lists with the options of a command.

    Parameters
    ----------
    make_request
        Function with the options of `dipmed recon` as typer reads them.
    scheduler
        Of all rows, see `dipmed.cluster`; None for none.
    """

    def __init__(self, make_request: Callable[..., ReconRequest], scheduler: str | None = None) -> None:
        self._scheduler = scheduler
        app = typer.Typer(add_completion=False)
        app.command()(make_request)
        self._command: Any = typer.main.get_command(app)
        options = {option.opts[-1].removeprefix("--"): option for option in self._command.params}
        self._options: dict[str, Any] = {
            name: option
            for name, option in options.items()
            if name not in _FOR_ALL_ROWS and option.param_type_name == "option"
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that a list may have."""
        return (SCAN, *self._options)

    def read(self, path: Path) -> list[Row]:
        """Read a list, and refuse it as a whole if something is wrong with one of its rows.

        Paths are relative to the folder of the list, and stay in it unless they are absolute.

        Raises
        ------
        DipmedError
            Naming the row and, where one is to blame, the column.
        """
        rows = [
            Row(number, cells[OUT], self._request(number, cells, path.parent))
            for number, cells in _read_cells(path, self.columns)
        ]
        if not rows:
            raise DipmedError(f"{path} lists no scan")
        _check_names(rows)
        return rows

    def _request(self, number: int, cells: Mapping[str, str], folder: Path) -> ReconRequest:
        """Read a row; of what is refused, find the cell without which it is not."""
        for column in (SCAN, OUT):
            if not cells[column].strip(f"{_BETWEEN} "):
                raise _refuse(number, column, "it is empty")
        try:
            return self._checked(number, cells, folder)
        except _RowError:
            raise
        except DipmedError as error:
            optional = [column for column in cells if column not in (SCAN, OUT) and cells[column]]
            for column in optional:
                if self._is_accepted(number, cells, folder, [column]):
                    raise _refuse(number, column, str(error)) from error
            if not self._is_accepted(number, cells, folder, optional):
                raise _refuse(number, OUT, str(error)) from error
            raise DipmedError(f"row {number}: {error}") from error

    def _is_accepted(self, number: int, cells: Mapping[str, str], folder: Path, without: Sequence[str]) -> bool:
        try:
            self._checked(number, {**cells, **dict.fromkeys(without, "")}, folder)
        except DipmedError:
            return False
        return True

    def _checked(self, number: int, cells: Mapping[str, str], folder: Path) -> ReconRequest:
        words = [word for column, text in cells.items() for word in self._words(number, column, text, folder)]
        scan = _existing(number, SCAN, cells[SCAN], folder)
        try:
            request: ReconRequest = self._command.main([*words, "--", str(scan)], "recon", standalone_mode=False)
        except typer.BadParameter as error:
            name = "" if error.param is None else error.param.opts[-1].removeprefix("--")
            column = name if name in cells else SCAN
            raise _refuse(number, column, f"{error.message}, got {cells[column]!r}") from error
        request = replace(request, json_file=str(record_path(request.out[0])), scheduler=self._scheduler)
        replace(request, force=True).check()  # what is there already is the concern of each row's run
        return request

    def _words(self, number: int, column: str, text: str, folder: Path) -> Iterator[str]:
        """Say a cell as the command line would."""
        from dipmed.calib.coils import MAP_METHODS

        if column == SCAN or not text:
            return
        option = self._options[column]
        if option.is_flag:
            if text.lower() not in _YES_NO:
                raise _refuse(number, column, f"it is yes or no, got {text!r}")
            if _YES_NO[text.lower()]:
                yield f"--{column}"
            return
        values = [value.strip() for value in text.split(_BETWEEN)] if option.multiple else [text]
        for value in filter(None, values):
            if column in (OUT, "report"):
                yield f"--{column}={_inside(number, column, value, folder)}"
            elif column in _FILES and not (column == "maps" and value in MAP_METHODS):
                yield f"--{column}={_existing(number, column, value, folder)}"
            else:
                yield f"--{column}={value}"


class _RowError(DipmedError):
    """An error whose text names row and column."""


def _refuse(number: int, column: str, why: str) -> _RowError:
    return _RowError(f"row {number}, column {column}: {why}")


def record_path(image: Path) -> Path:
    """Where the record of an image lies: ``image.nii.gz`` and ``image.json``."""
    from dipmed.io.files import ending_of

    return image.with_name(image.name[: len(image.name) - len(ending_of(image))] + ".json")


def _read_cells(path: Path, known: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells of each row that is not empty."""
    from dipmed.io.files import check_source

    check_source(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DipmedError(f"{path} is no CSV file in UTF-8: {error}") from error
    header = [name.strip() for name in lines[0]] if lines else []
    for column in header:
        if column not in known:
            raise DipmedError(f"{path}, row 1: there is no column {column!r}; choose of {', '.join(known)}")
        if header.count(column) > 1:
            raise DipmedError(f"{path}, row 1: there are two columns {column!r}")
    if not {SCAN, OUT} <= set(header):
        raise DipmedError(f"{path}, row 1: a list needs the columns {SCAN} and {OUT}, with commas between them")
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line]
        if len(cells) > len(header):
            raise DipmedError(f"{path}, row {number}: it has {len(cells)} cells, and there are {len(header)} columns")
        if any(cells):
            yield number, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))


def _inside(number: int, column: str, text: str, folder: Path) -> Path:
    """A path of a list, which does not leave the folder of the list by ``..``."""
    inner = Path(os.path.normpath(text))
    if not inner.is_absolute() and inner.parts[:1] == (os.pardir,):
        raise _refuse(number, column, f"{text} leaves the folder of the list; name it from the root of the disk")
    return folder / inner


def _existing(number: int, column: str, text: str, folder: Path) -> Path:
    path = _inside(number, column, text, folder)
    if not any(Path(f"{path}{ending}").exists() for ending in ("", ".cfl")):  # a pair of BART by its common name
        raise _refuse(number, column, f"{text} does not exist")
    return path


def _check_names(rows: Sequence[Row]) -> None:
    """Refuse files that two rows would write, or that one would write over the scan of another."""
    written: set[Path] = set()
    scans = {row.request.file.absolute() for row in rows}
    for row in rows:
        for path in (target.absolute() for target in row.request.targets):
            if path in written:
                raise _refuse(row.number, OUT, f"{path.name} would be written twice; choose other names")
            if path in scans:
                raise _refuse(row.number, OUT, f"{path.name} is a scan of the list; choose another name")
            written.add(path)


__all__ = ["ListReader", "Row", "record_path"]
