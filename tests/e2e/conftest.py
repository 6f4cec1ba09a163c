import sys
from dataclasses import dataclass

import numpy as np
import pytest

from dipmed import cli
from dipmed.io import save_ismrmrd
from dipmed.phantom import brain_phantom_scan


@dataclass
class Finished:
    code: int
    out: str
    err: str

    @property
    def error_lines(self):
        return [line for line in self.err.splitlines() if line.startswith("error:")]


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Run the command line in this process, as the installed command would."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dipmed", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def scan():
    return brain_phantom_scan((48, 40), n_coils=4, noise=0.01)[0]


@pytest.fixture(scope="session")
def scan_file(scan, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    save_ismrmrd(scan, path)
    return path


@pytest.fixture(scope="session")
def three_slices(scan, tmp_path_factory):
    """Three slices of the same phantom, each twice as bright as the one before."""
    kspace = np.concatenate([scan.kspace * 2**i for i in range(3)], axis=1)
    path = tmp_path_factory.mktemp("slices") / "slices.h5"
    save_ismrmrd(scan.replace(kspace=kspace, mask=np.repeat(scan.mask, 3, axis=1)), path)
    return path
