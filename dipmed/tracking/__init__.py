"""Fits in progress where others look at them: TensorBoard, MLflow; without the name of a patient or of a file."""

from dipmed.tracking.open import check_targets, open_trackers

__all__ = ["check_targets", "open_trackers"]
