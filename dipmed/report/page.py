"""From what a page shows to one HTML file: its style and its script lie in it, and its policy forbids to fetch any."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipmed.io.files import atomic_write, check_target
from dipmed.report.charts import Chart
from dipmed.report.viewer import Viewer
from dipmed.scan import DipmedError

Table = tuple[str, tuple[tuple[str, str], ...]]
"""A title, and names with values."""

_SCRIPT = "viewer.js"


@dataclass(frozen=True)
class Choice:
    """A rule, the iteration that it would have kept, and how good that image would have been, if that is known."""

    rule: str
    iteration: int
    quality: str = ""


@dataclass(frozen=True)
class Part:
    """What there is to say of one fit, shown with its slices.

    Parameters
    ----------
    name
        Of the slice or frame.
    lines
        Sentences: what was kept and why, how well it agrees with the data.
    choices
        What each rule would have kept.
    decided_by
        The rule that did.
    charts
        Curves over the iterations.
    """

    name: str
    lines: tuple[str, ...]
    choices: tuple[Choice, ...] = ()
    decided_by: str = ""
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """Which data were measured: a sentence, and a PNG as a ``data:`` address or polylines in 200 x 200."""

    about: str
    picture: str | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """A table: names of the columns, its rows, and what the numbers mean."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    about: str


@dataclass(frozen=True)
class Page:
    """All that a page says; every text of it may come from a file, and is escaped.

    Parameters
    ----------
    warnings
        What to know before looking, one sentence each.
    figures
        Names and values in one line below.
    remarks
        Titles with sentences.
    tables
        Titles with names and values.
    all_well
        What is said where there are no warnings.
    scores
        A table above the images; None for none.
    parts_follow
        Whether only the part of the slice in view is shown, or all parts are.
    identity
        Names and values that tell whose scan it is; empty by default.
    """

    title: str
    warnings: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    viewer: Viewer
    parts: tuple[Part, ...]
    sampling: Sampling
    remarks: tuple[tuple[str, tuple[str, ...]], ...]
    tables: tuple[Table, ...]
    all_well: str
    scores: Scores | None = None
    parts_follow: bool = True
    identity: tuple[tuple[str, str], ...] = ()


def check_page(path: Path | None, *, identify: bool = False, force: bool = False) -> None:
    """Check that a page can be written there, before the work begins; None for nowhere.

    Raises
    ------
    DipmedError
        When the name has another ending, or there is no page that could ``identify`` anybody.
    OutputError
        When it cannot be written.
    """
    if path is None:
        if identify:
            raise DipmedError("--identify is for --report FILE.html, which is missing")
        return
    if path.suffix.lower() != ".html":
        raise DipmedError(f"--report writes a .html, got {path.name}")
    check_target(path, force=force)


def render(page: Page) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dipmed.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # the script in the page is the only one that a browser runs, whatever else got into it
    script = environment.get_template(_SCRIPT).render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(page=page, script_digest=digest)


def save_page(page: Page, path: Path, *, force: bool = False) -> None:
    """Write the page.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    text = render(page)
    with atomic_write(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")


def table(values: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values of a record, those of records within it by their full names."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += [(f"{name}.{inner}", text) for inner, text in table(value)]
        else:
            rows.append((name, words(value)))
    return tuple(rows)


def words(value: Any) -> str:
    """A value of a record for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(words, value)) or "–"
    return str(value)
