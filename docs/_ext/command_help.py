"""The directive ``command-help``: what ``dipmed COMMAND --help`` prints, so that the page cannot differ from it."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command
from typer.testing import CliRunner

from dipmed.cli import app

WIDTH = 96


class CommandHelp(SphinxDirective):
    """Show the help of the command that is named."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        plain = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
        done = CliRunner().invoke(app, [name, "--help"], env=plain, prog_name="dipmed")
        if done.exit_code != 0 or name not in get_command(app).commands:
            raise self.error(f"`dipmed {name} --help` fails: no such command?")
        block = nodes.literal_block(done.output.strip("\n"), done.output.strip("\n"))
        block["language"] = "none"
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
