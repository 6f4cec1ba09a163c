"""The command `dipmed batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dipmed.cli_common import INTERRUPTED as EXIT_INTERRUPTED
from dipmed.cli_common import SchedulerOption, WorkersOption, console, state
from dipmed.cli_recon import recon_request


def batch(
    list_file: Annotated[
        Path,
        typer.Argument(
            metavar="LIST.csv",
            help="A row for each scan, with the columns scan, out, and any option of `dipmed recon` by its long name.",
        ),
    ],
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE.csv|.json", help="Write what became of each row.")
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make rows anew whose output is there, but of other settings or data.")
    ] = False,
) -> None:
    """Reconstruct a list of scans one after the other; the same command again goes on where it was."""
    from dipmed.batch import FAILED, INTERRUPTED, run_rows
    from dipmed.batch_summary import check_summary, show_summary, write_summary
    from dipmed.cluster import find_cluster
    from dipmed.scan_list import ListReader

    rows = ListReader(recon_request, scheduler).read(list_file)
    if summary is not None:
        files = [path for row in rows for path in (row.request.file, *row.request.targets)]
        check_summary(summary, [list_file, *files])
    outcomes = []
    with find_cluster(workers, scheduler) as cluster:
        for outcome in run_rows(rows, cluster, force=force, tell=_tell):
            outcomes.append(outcome)
            if summary is not None:
                write_summary(summary, outcomes)
    show_summary(console, outcomes)
    statuses = {outcome.status for outcome in outcomes}
    if INTERRUPTED in statuses:
        _tell("interrupted: what is finished is kept, and the same command goes on from there")
        state["told"] = True
        raise typer.Exit(EXIT_INTERRUPTED)
    if FAILED in statuses:
        raise typer.Exit(1)


def _tell(line: str) -> None:
    console.print(escape(line), soft_wrap=True)
