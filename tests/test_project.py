"""The project as a whole: what imports on a bare machine, the command's version, and a map that matches the tree."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dipmed

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BARE = ["torch", "numpy", "scipy"]

BARE_MACHINE = """
import importlib, importlib.abc, json, pkgutil, sys

absent = set(json.loads(sys.argv[1]))

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not on a bare machine", name=name)

sys.meta_path.insert(0, Absent())
for package in sys.argv[2:]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        # the MONAI side and the GPU's kernels, which are asked for by name
        if module.name not in ("operators.transforms", "operators.march_triton"):
            importlib.import_module(module.name)
"""


def import_names(requirements: list[str]) -> set[str]:
    """Top-level modules of the named distributions."""
    wanted = {re.split(r"[^A-Za-z0-9_-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}
    owners = importlib.metadata.packages_distributions()
    return {module for module, names in owners.items() if wanted & {name.lower() for name in names}}


def on_a_bare_machine(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    absent = import_names(PROJECT["dependencies"] + extras) - import_names(BARE)
    assert {"monai", "sigpy", "h5py", "typer", "matplotlib", "skimage"} <= absent
    command = [sys.executable, "-W", "error", "-c", code, json.dumps(sorted(absent)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("package", ["operators", "dipmed.dip", "dipmed.nets", "dipmed.theory"])
def test_imports_with_torch_numpy_and_scipy_alone(package):
    done = on_a_bare_machine(BARE_MACHINE, package)
    assert done.returncode == 0, done.stderr


def test_the_bare_machine_is_bare():
    done = on_a_bare_machine(BARE_MACHINE + "import sigpy", "operators")
    assert "sigpy is not on a bare machine" in done.stderr


def test_command_knows_its_version():
    program = Path(sys.executable).with_name("dipmed")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert dipmed.__version__ in done.stdout


def test_version_is_the_same_everywhere():
    assert dipmed.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def layout() -> set[str]:
    """The files that the first code block of docs/architecture.md lists, as paths from the root."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^## Layout\n.*?^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block, "docs/architecture.md has no code block under '## Layout'"
    paths: set[str] = set()
    folders: list[str] = []
    for line in block[1].splitlines():
        name = line.split()[0] if line.strip() else ""
        if not name or line.startswith(" " * 8):  # a description that goes on
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            paths.add("".join([*folders, name]))
    return paths


def test_map_of_the_source_matches_the_tree():
    modules = {
        str(path.relative_to(ROOT))
        for package in ("operators", "dipmed")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    listed = {path for path in layout() if path.startswith(("operators/", "dipmed/"))}
    assert listed == modules, f"missing in docs/architecture.md: {modules - listed}; gone: {listed - modules}"


def test_everything_on_the_map_exists():
    assert not [path for path in layout() if not (ROOT / path).exists()]


def test_links_between_pages_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))]
    broken = [f"{page.name}: {link}" for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


def test_every_page_is_in_the_contents_of_the_site():
    listed = set((ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines())
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= listed, f"name them in a list of docs/index.md: {pages - listed}"


def test_tested_set_covers_what_the_project_needs():
    pinned = set(
        re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8").lower(), re.MULTILINE)
    )
    needs = [need for extra in PROJECT["optional-dependencies"].values() for need in extra] + PROJECT["dependencies"]
    names = {re.split(r"[^\w.-]", need, maxsplit=1)[0].lower() for need in needs}
    assert names <= pinned, names - pinned
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
