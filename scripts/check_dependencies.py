"""Check what an installation without extras brings along: its licences, and that each version is the tested one.

Looks at the packages of this environment alone and asks no server. What is known of weaknesses in these versions has
to be asked of one: ``pip-audit -r constraints.txt``. CUDA builds of torch bring libraries under NVIDIA's own licences,
which are named; the tested set is that for the CPU.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-CMU", "PSF-2.0"),
    *("Zlib", "LLVM-exception"),
}
"""By their SPDX identifiers."""

KNOWN = {
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages without an SPDX expression say."""

JUDGED = {
    # MIT with a clause against the use of names
    "ismrmrd": "LicenseRef-IsmrmrdSoftwareLicense",
    # copyleft of single files, which are used unchanged
    "tqdm": "MPL-2.0 AND MIT",
}
"""Packages whose licence was read, with what they say; another text has to be read again."""


def installed(requirements: list[str]) -> dict[str, tuple[Distribution, list[tuple[str, Requirement]]]]:
    """Packages that are needed, by name, each with who asks for it and what for.

    Raises
    ------
    PackageNotFoundError
        When one is missing.
    """
    found: dict[str, tuple[Distribution, list[tuple[str, Requirement]]]] = {}
    done: set[tuple[str, str]] = set()
    todo = [("dipmed", Requirement(text)) for text in requirements]
    while todo:
        asker, needed = todo.pop()
        name = canonicalize_name(needed.name)
        package = found.setdefault(name, (distribution(name), []))
        package[1].append((asker, needed))
        for extra in {"", *needed.extras}:
            if (name, extra) not in done:
                done.add((name, extra))
                wanted = map(Requirement, package[0].requires or [])
                todo += [(name, entry) for entry in wanted if _applies(entry, extra)]
    return found


def _applies(needed: Requirement, extra: str) -> bool:
    if needed.marker is None:
        return extra == ""
    return needed.marker.evaluate({"extra": extra}) and not (extra and needed.marker.evaluate({"extra": ""}))


def licence_of(package: Distribution) -> str:
    """What the package says, as an SPDX expression where that is possible."""
    for expression in package.metadata.get_all("License-Expression") or []:
        return expression
    classifiers = package.metadata.get_all("Classifier") or []
    said = [entry.rpartition(" :: ")[2] for entry in classifiers if entry.startswith("License ::")]
    if not said:
        said = [text.partition("\n")[0] for text in package.metadata.get_all("License") or ["nothing"]]
    return " AND ".join(KNOWN.get(entry, entry) for entry in said)


def is_permissive(expression: str) -> bool:
    """Whether each licence of an expression is; ``A OR B`` has to be judged by hand where one is not."""
    names = re.split(r"\s+(?:AND|OR|WITH)\s+", expression.replace("(", " ").replace(")", " ").strip())
    return PERMISSIVE.issuperset(names)


def pins(text: str) -> dict[str, Version]:
    """Versions of a file of constraints, by name."""
    lines = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


def complaints(requirements: list[str], pinned: dict[str, Version]) -> Iterator[str]:
    """Yield what is wrong, a line each."""
    for name, (package, askers) in sorted(installed(requirements).items()):
        licence, version = licence_of(package), Version(package.version)
        if not is_permissive(licence) and JUDGED.get(name) != licence:
            yield f"{name}: the licence is {licence!r}; read it, and add it to JUDGED if dipmed may need it"
        if name not in pinned:
            yield f"{name}: constraints.txt does not say which version was tested"
        elif Version(version.public) != pinned[name]:
            yield f"{name}: {version} is installed, but {pinned[name]} stands in constraints.txt"
        for asker, needed in askers:
            if not needed.specifier.contains(Version(version.public), prereleases=True):
                yield f"{name}: {version} is installed, but {asker} needs {needed.specifier}"


def main() -> int:
    """Check this environment."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    try:
        found = list(complaints(project["dependencies"], pinned))
    except PackageNotFoundError as error:
        found = [f"{error.name}: it is not installed"]
    for line in found:
        print(line)
    if not found:
        print(f"{len(installed(project['dependencies']))} packages: permissive licences, tested versions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
