"""Rules that choose the iterate of a fit from the scan alone.

Every rule sees the same things and keeps a curve. One rule decides; the others only watch. The iteration budget, the
time limit and an interruption end any fit, and then the deciding rule still says which iterate it chose.

What a rule needs is given to it whether it decides or watches: locations are held out, noise is added to what is
fitted, a twin runs beside. The first two change the fit that all rules judge.
"""

from __future__ import annotations

from dipmed.dip.stopping.base import Sight, StoppingRule, Verdict
from dipmed.dip.stopping.panel import Panel
from dipmed.dip.stopping.registry import RULES, find_rule, make_rules, n_fits

__all__ = ["RULES", "Panel", "Sight", "StoppingRule", "Verdict", "find_rule", "make_rules", "n_fits"]
