"""Fixtures shared by all tests: where real data lies, and how inputs are generated."""

import importlib.util
import os
import signal
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, settings

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# Deadlines measure the machine and not the code. In CI the examples are the same on every run.
settings.register_profile(
    "dipmed",
    max_examples=25,
    deadline=None,
    derandomize=IN_CI,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("dipmed")

# a shell that starts a command in the background lets it ignore Ctrl-C, and all that it starts
signal.signal(signal.SIGINT, signal.default_int_handler)


def missing(what: str) -> None:
    """Skip on a desk, fail in CI: there, a test that did not run must not look like one that passed."""
    if IN_CI:
        pytest.fail(f"{what}, and CI must run this test")
    pytest.skip(what)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real scans that the environment variable DIPMED_DATA names."""
    value = os.environ.get("DIPMED_DATA", "")
    if not value:
        missing("DIPMED_DATA is not set")
    path = Path(value)
    if not path.is_dir():
        missing("DIPMED_DATA names no folder")
    return path


@pytest.fixture(scope="session")
def astra() -> ModuleType:
    """ASTRA, to compare projections with."""
    if importlib.util.find_spec("astra") is None:
        missing("astra-toolbox is not installed")
    return importlib.import_module("astra")


@pytest.fixture
def generator() -> torch.Generator:
    """A random generator on the CPU with a fixed seed."""
    return torch.Generator().manual_seed(0)
