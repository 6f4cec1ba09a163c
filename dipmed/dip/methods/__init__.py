"""Every method of the deep image prior, one class each."""

from __future__ import annotations

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import Default, TotalVariation, Vanilla

FIT_METHODS: dict[str, type[FitMethod]] = {method.name: method for method in (Default, Vanilla, TotalVariation)}
"""By their names on the command line."""

__all__ = ["FIT_METHODS", "FitMethod"]
