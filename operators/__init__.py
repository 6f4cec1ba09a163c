"""Physics-accurate forward operators: torch in, torch out, exact adjoints."""

from operators.base import Adjoint, Composition, LinearOperator, Normal, Scaled, Space, Sum
from operators.blur import Blur, Separable, SliceProfile
from operators.cartesian import CartesianMRI
from operators.checks import batch_test, dot_test, gradient_test, norm_bound, normal_test, operator_norm
from operators.coils import Sensitivity, combine_sets
from operators.ct_cone import ConeBeam, PosedBeam, posed, volume_grid, volume_of_view_mm
from operators.ct_coverage import missing_directions
from operators.ct_filtered import FilteredProjector, Projector
from operators.ct_geometry import FanBeam, Grid, ParallelBeam, angles_over, field_of_view_mm, slice_grid
from operators.ct_march import VolumeProjector
from operators.ct_sparse import SliceProjector
from operators.ct_stack import StackedProjector
from operators.differences import FiniteDifferences, total_variation
from operators.errors import DipmedError, ShapeError
from operators.fbp import filtered_back_projection
from operators.fdk import feldkamp
from operators.fourier import FourierTransform, centred_fft, centred_ifft
from operators.frames import Frames, Series, Slices
from operators.image import Identity, ImageMask
from operators.noise import add_noise
from operators.noncartesian import MRIOperator, NonCartesianMRI
from operators.nufft import NonUniformFourier
from operators.off_resonance import OffResonance
from operators.sampling import CartesianSampling, UndersamplingSpec, make_mask, parse_undersampling
from operators.sigpy_bridge import from_sigpy, to_sigpy
from operators.subpixels import block_means, can_be_divided, parts_gib, subdivided, through_parts
from operators.trajectories import density_compensation, radial, spiral
from operators.transmission import attenuation, hounsfield, line_integrals, photon_counts

__all__ = [
    "Adjoint",
    "Blur",
    "CartesianMRI",
    "CartesianSampling",
    "Composition",
    "ConeBeam",
    "DipmedError",
    "FanBeam",
    "FilteredProjector",
    "FiniteDifferences",
    "FourierTransform",
    "Frames",
    "Grid",
    "Identity",
    "ImageMask",
    "LinearOperator",
    "MRIOperator",
    "NonCartesianMRI",
    "NonUniformFourier",
    "Normal",
    "OffResonance",
    "ParallelBeam",
    "PosedBeam",
    "Projector",
    "Scaled",
    "Sensitivity",
    "Separable",
    "Series",
    "ShapeError",
    "SliceProfile",
    "SliceProjector",
    "Slices",
    "Space",
    "StackedProjector",
    "Sum",
    "UndersamplingSpec",
    "VolumeProjector",
    "add_noise",
    "angles_over",
    "attenuation",
    "batch_test",
    "block_means",
    "can_be_divided",
    "centred_fft",
    "centred_ifft",
    "combine_sets",
    "density_compensation",
    "dot_test",
    "feldkamp",
    "field_of_view_mm",
    "filtered_back_projection",
    "from_sigpy",
    "gradient_test",
    "hounsfield",
    "line_integrals",
    "make_mask",
    "missing_directions",
    "norm_bound",
    "normal_test",
    "operator_norm",
    "parse_undersampling",
    "parts_gib",
    "photon_counts",
    "posed",
    "radial",
    "slice_grid",
    "spiral",
    "subdivided",
    "through_parts",
    "to_sigpy",
    "total_variation",
    "volume_grid",
    "volume_of_view_mm",
]
