"""Physics-accurate forward operators: torch in, torch out, exact adjoints."""

from operators.base import Adjoint, Composition, LinearOperator, Normal, Scaled, Space, Sum
from operators.errors import DipmedError, ShapeError
from operators.fourier import FourierTransform, centred_fft, centred_ifft

__all__ = [
    "Adjoint",
    "Composition",
    "DipmedError",
    "FourierTransform",
    "LinearOperator",
    "Normal",
    "Scaled",
    "ShapeError",
    "Space",
    "Sum",
    "centred_fft",
    "centred_ifft",
]
