"""The package as a whole: its names, and what importing it costs."""

import subprocess
import sys

import dipmed.operators
import operators


def test_dipmed_operators_are_the_same_objects() -> None:
    assert dipmed.operators.__all__ == operators.__all__
    for name in operators.__all__:
        assert getattr(dipmed.operators, name) is getattr(operators, name)


def test_all_public_names_are_documented_and_sorted() -> None:
    assert operators.__all__ == sorted(operators.__all__)
    for name in operators.__all__:
        assert getattr(operators, name).__doc__, name


def test_the_physics_needs_torch_and_numpy_alone() -> None:
    heavy = ["sigpy", "numba", "monai", "h5py", "ismrmrd", "nibabel", "pydicom", "matplotlib", "dipmed"]
    code = f"""
import sys
for name in {heavy}: sys.modules[name] = None
import operators
operators.make_mask("poisson:R=3,acs=2", (8, 8))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
