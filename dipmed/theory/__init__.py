"""What the linearised network says about a fit: its path, its noise, when to stop, and what it can never recover."""

from dipmed.theory.freedom import FreedomCurve, degrees_of_freedom
from dipmed.theory.path import PredictedPath, predict_path
from dipmed.theory.recovery import RecoveryReport, exact_recovery, limit_projection
from dipmed.theory.risk import PredictedStop, Risk, expected_risk, predict_stop
from dipmed.theory.spectrum import Spectrum, dense_spectrum, leading_spectrum
from dipmed.theory.tangent import TangentModel, gradient_descent

__all__ = [
    "FreedomCurve",
    "PredictedPath",
    "PredictedStop",
    "RecoveryReport",
    "Risk",
    "Spectrum",
    "TangentModel",
    "degrees_of_freedom",
    "dense_spectrum",
    "exact_recovery",
    "expected_risk",
    "gradient_descent",
    "leading_spectrum",
    "limit_projection",
    "predict_path",
    "predict_stop",
]
