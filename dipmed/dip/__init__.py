"""The deep image prior fit: sees the data and the operator only, never a file, a patient or a ground truth."""

from dipmed.dip.loop import DeepImagePrior, Observer, ProgressCallback
from dipmed.dip.progress import Progress
from dipmed.dip.stopping import RULES, find_rule, n_fits
from dipmed.dip.uncertainty import Uncertainty

__all__ = ["RULES", "DeepImagePrior", "Observer", "Progress", "ProgressCallback", "Uncertainty", "find_rule", "n_fits"]
