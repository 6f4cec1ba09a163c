"""What no module may do: run what a file says, or trust it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("dipmed", "operators") for path in (ROOT / package).rglob("*.py"))

# YAML is not needed at all: bundles are JSON
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "tempfile.mktemp", "pandas.read_pickle"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "np.load", "numpy.load", "np.genfromtxt"),
    *("pydoc.locate", "ssl._create_unverified_context"),
}
FORBIDDEN_OPTIONS = {
    ("autoescape", False),
    ("allow_pickle", True),
    ("weights_only", False),
    ("shell", True),
    ("verify", False),
}
"""Of any call. Without one numpy and torch refuse pickles by themselves, but their readers are not used anyway."""


def name_of(node: ast.expr) -> str:
    """The dotted name that is called, as ``np.load``; what is called on a result is left out."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(text: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{name.name}" for name in node.names)]
        else:
            modules = []
        found += [f"{node.lineno}: imports {name}" for name in modules if name.split(".")[0] in FORBIDDEN_IMPORTS]
        found += [f"{node.lineno}: imports {name}" for name in modules if name in FORBIDDEN_CALLS]
        if isinstance(node, ast.Call):
            if name_of(node.func) in FORBIDDEN_CALLS:
                found.append(f"{node.lineno}: calls {name_of(node.func)}")
            for option in node.keywords:
                value = option.value.value if isinstance(option.value, ast.Constant) else None
                if (option.arg, value) in FORBIDDEN_OPTIONS:
                    found.append(f"{node.lineno}: {option.arg}={value}")
    return found


def test_no_module_runs_or_trusts_what_a_file_says():
    assert len(SOURCES) > 100
    assert not [f"{path.relative_to(ROOT)}:{fault}" for path in SOURCES for fault in faults(path.read_text())]


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from numpy import load\nfrom pickle import loads as read",
        "import yaml.loader",
        "from torch import load",
        "eval(input())",
        "import numpy as np\nnp.load('a.npy')",
        "read(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_finds(text):
    assert faults(text)
