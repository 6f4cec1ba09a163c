import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/check_dependencies.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_dependencies", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND (BSD-2-Clause OR MIT)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only", False),
        ("MIT AND LGPL-2.1-or-later", False),
        ("nothing", False),
    ],
)
def test_only_permissive_licences_pass(script, expression, allowed):
    assert script.is_permissive(expression) is allowed


def test_what_is_wrong_is_named(script, monkeypatch):
    pinned = {name: Version(version(name)) for name in ("jinja2", "markupsafe")}
    assert list(script.complaints(["jinja2"], pinned)) == []
    (line,) = script.complaints(["jinja2<3"], pinned)
    assert line.endswith("but dipmed needs <3")
    (line,) = script.complaints(["jinja2"], {**pinned, "jinja2": Version("1")})
    assert "but 1 stands in constraints.txt" in line
    (line,) = script.complaints(["jinja2"], {"jinja2": pinned["jinja2"]})
    assert line == "markupsafe: constraints.txt does not say which version was tested"
    monkeypatch.setattr(script, "PERMISSIVE", {"MIT"})
    assert [line.split(":")[0] for line in script.complaints(["jinja2"], pinned)] == ["jinja2", "markupsafe"]
