"""The deep image prior fit: sees the data and the operator only, never a file, a patient or a ground truth."""

from dipmed.dip.fit import Progress
from dipmed.dip.loop import DeepImagePrior, Observer, ProgressCallback
from dipmed.dip.stopping import RULES, find_rule, n_fits

__all__ = ["RULES", "DeepImagePrior", "Observer", "Progress", "ProgressCallback", "find_rule", "n_fits"]
