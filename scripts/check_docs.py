"""Run the python code of the documentation, and check its dipmed command lines against the command's own help.

Every ```python block of README.md and docs/*.md is executed in its own namespace and its own empty folder. Every
`dipmed` command in a ```bash block must name a command that exists and options that its ``--help`` lists.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, with the line on which its code starts."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of one Markdown page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        yield Block(page, line, match["language"], match["code"])


def run_python(block: Block) -> str | None:
    """Execute a block; return what went wrong, or None."""
    padded = "\n" * (block.line - 1) + block.code  # so that a traceback shows the line of the page
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            exec(compile(padded, str(block.page), "exec"), {"__name__": "__main__"})  # noqa: S102 - our own pages
        except Exception:  # whatever a page's code raises is the finding
            return traceback.format_exc()
    return None


def dipmed_commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each `dipmed` command line; continued lines are joined first."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words and words[0] == "dipmed":
            # only the command itself: not what it is piped into, nor where its output goes
            end = next((i for i, word in enumerate(words) if word in {"|", ">", ">>", "&&", ";"}), len(words))
            yield words[1:end]


@cache
def help_text(*command: str) -> str | None:
    """Return what ``dipmed COMMAND --help`` prints, or None when it fails."""
    environment = os.environ | {"COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"}
    program = Path(sys.executable).with_name("dipmed")
    done = subprocess.run([program, *command, "--help"], capture_output=True, text=True, env=environment, check=False)
    return done.stdout if done.returncode == 0 else None


def check_command(words: list[str]) -> str | None:
    """Compare one command line with the help; return what is wrong, or None."""
    command = [words[0]] if words and not words[0].startswith("-") else []
    text = help_text(*command)
    if text is None:
        return f"`dipmed {' '.join(command)} --help` fails: no such command?"
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))
    given = {word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)}
    unknown = sorted(given - known)
    return f"`dipmed {' '.join(words)}`: the help does not list {', '.join(unknown)}" if unknown else None


def check(page: Path) -> list[str]:
    """Return the problems of one page, each with its place."""
    problems = []
    for block in blocks(page):
        if block.language == "python":
            print(f"{block}: running python", flush=True)
            error = run_python(block)
            problems += [f"{block}: {error}"] if error else []
        elif block.language in {"bash", "sh", "console"}:
            for words in dipmed_commands(block.code):
                print(f"{block}: checking dipmed {' '.join(words)}", flush=True)
                error = check_command(words)
                problems += [f"{block}: {error}"] if error else []
    return problems


def main() -> int:
    """Check the pages given as arguments, or README.md and docs/*.md."""
    pages = [Path(page) for page in sys.argv[1:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    problems = [problem for page in pages for problem in check(page.resolve())]
    print("\n".join(problems) or "every code block of the documentation works", file=sys.stderr if problems else None)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
