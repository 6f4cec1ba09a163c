"""A list of scans, one after the other: what is finished is not made again, and none costs the others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipmed.cli_common import state
from dipmed.recon_command import ReconRequest
from dipmed.scan_list import Row
from operators.errors import DipmedError

if TYPE_CHECKING:
    from dipmed.cluster import Cluster

DONE, SKIPPED, FAILED, INTERRUPTED, LEFT = "done", "skipped", "failed", "interrupted", "left"


@dataclass(frozen=True)
class Outcome:
    """What became of one row.

    ``status`` is ``"done"``, ``"skipped"`` when it was finished before, ``"failed"`` with the reason in ``error``,
    ``"interrupted"``, or ``"left"`` when the list ended before it. ``stop`` names the rules that stopped its fits.
    """

    row: int
    out: str
    status: str
    images: int = 0
    seconds: float = 0.0
    stop: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""


def run_rows(
    rows: Sequence[Row], cluster: Cluster | None, *, force: bool = False, tell: Callable[[str], None]
) -> Iterator[Outcome]:
    """Make the images of one row after the other; an interruption leaves the rows after it.

    Parameters
    ----------
    force
        Make a row anew whose output is of other settings, of another scan or of something else.
    tell
        Takes a line about each row that begins.
    """
    is_over = False
    for number, row in enumerate(rows, start=1):
        if is_over:
            yield Outcome(row.number, row.out, LEFT)
            continue
        tell(f"scan {number} of {len(rows)}: {row.out}")
        start = time.perf_counter()
        try:
            outcome = _run_row(row, cluster, force=force)
        except KeyboardInterrupt:
            outcome = Outcome(row.number, row.out, INTERRUPTED)
        except Exception as error:  # whatever is wrong with one scan costs no other
            if state["debug"]:
                raise
            outcome = Outcome(row.number, row.out, FAILED, error=_words(error))
            tell(f"failed: {outcome.error}")
        is_over = outcome.status == INTERRUPTED
        if outcome.status == SKIPPED:
            tell("it is finished")
        yield outcome if outcome.status == SKIPPED else replace(outcome, seconds=time.perf_counter() - start)


def _run_row(row: Row, cluster: Cluster | None, *, force: bool) -> Outcome:
    request = replace(row.request, resume=True, force=force, how_to_go_on="the same command goes on from there")
    before = None if request.has_store else _read_record(Path(str(request.json_file)))
    if before is not None:
        is_same = _is_same(request, before)
        if is_same and _is_finished(before) and all(path.exists() for path in request.targets):
            return _outcome(row, SKIPPED, before)
        request = replace(request, force=True)  # it is this row's own, or may be replaced
    result, _ = request.run(nullcontext(cluster))
    record = json.loads(Path(str(request.json_file)).read_text())
    return _outcome(row, INTERRUPTED if result.was_interrupted else DONE, record)


def _is_same(request: ReconRequest, record: dict[str, Any]) -> bool:
    """Whether an image was made as it would be now.

    Raises
    ------
    OutputError
        When it was not, and may not be replaced.
    """
    from dipmed.io import load
    from dipmed.io.image_store import manifest_changes
    from dipmed.scan import OutputError

    changes = manifest_changes(record["asked"], json.loads(json.dumps(request.asked(load(request.file)))))
    if changes and not request.force:
        raise OutputError(
            f"the image that is there is of something else: {'; '.join(changes)}. Give what was given before, or make "
            "it anew with --force"
        )
    return not changes


def _is_finished(record: dict[str, Any]) -> bool:
    return all(image["status"] != INTERRUPTED for image in record["images"])


def _read_record(path: Path) -> dict[str, Any] | None:
    """A record of `dipmed recon`, None if it is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        is_ours = all(isinstance(group, dict) for group in record["asked"].values()) and bool(record["images"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if is_ours else None


def _outcome(row: Row, status: str, record: dict[str, Any]) -> Outcome:
    rules = dict.fromkeys(str(image["stop"]["rule"]) for image in record["images"])
    return Outcome(
        row.number,
        row.out,
        status,
        images=len(record["images"]),
        seconds=float(record["seconds"]["total"]),
        stop=" ".join(rules),
        warnings=tuple(record["warnings"]),
    )


def _words(error: Exception) -> str:
    """One line; of an error that is not ours also its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, DipmedError) else f"{type(error).__name__}: {text}"


__all__ = ["DONE", "FAILED", "INTERRUPTED", "LEFT", "SKIPPED", "Outcome", "run_rows"]
