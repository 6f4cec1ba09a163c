"""MONAI transforms: from a file of k-space or projections to an image, in one ``Compose``.

Array transforms and their ``...d`` pairs for dictionaries follow MONAI's conventions. What they hand on is described in
`dipmed.transforms.tensors`. Importing this package also lets ``monai.transforms.LoadImage`` open every file of k-space
and projections that `dipmed.load` opens, and ``SaveImage`` write the formats of `dipmed.io.save_image` that it lacks.
"""

from __future__ import annotations

from dipmed.transforms.array import (
    CompressCoils,
    EstimateCoilMaps,
    KeepViews,
    LoadScan,
    Prewhiten,
    RandUndersampleKSpace,
    RemoveOversampling,
    SaveDicomSeries,
    SimulateKSpace,
    SimulateSinogram,
    UndersampleKSpace,
)
from dipmed.transforms.dictionary import (
    AdjointReconstructd,
    CGLeastSquaresd,
    CGSensed,
    CGTotalVariationd,
    CompressCoilsd,
    DIPReconstructd,
    EstimateCoilMapsd,
    FBPd,
    KeepViewsd,
    L1Waveletd,
    LoadScand,
    Prewhitend,
    RandUndersampleKSpaced,
    Reconstructd,
    RemoveOversamplingd,
    SaveDicomSeriesd,
    SimulateKSpaced,
    SimulateSinogramd,
    SIRTd,
    TotalVariationd,
    UndersampleKSpaced,
)
from dipmed.transforms.files import ScanReader, VolumeWriter, register
from dipmed.transforms.reconstructing import (
    FBP,
    SIRT,
    AdjointReconstruct,
    CGLeastSquares,
    CGSense,
    CGTotalVariation,
    DIPReconstruct,
    L1Wavelet,
    Reconstruct,
    TotalVariation,
)
from dipmed.transforms.scores import ScoreImage, ScoreImaged
from dipmed.transforms.tensors import scan_from_tensor, scan_to_tensor, volume_from_tensor, volume_to_tensor

register()

__all__ = [
    "FBP",
    "SIRT",
    "AdjointReconstruct",
    "AdjointReconstructd",
    "CGLeastSquares",
    "CGLeastSquaresd",
    "CGSense",
    "CGSensed",
    "CGTotalVariation",
    "CGTotalVariationd",
    "CompressCoils",
    "CompressCoilsd",
    "DIPReconstruct",
    "DIPReconstructd",
    "EstimateCoilMaps",
    "EstimateCoilMapsd",
    "FBPd",
    "KeepViews",
    "KeepViewsd",
    "L1Wavelet",
    "L1Waveletd",
    "LoadScan",
    "LoadScand",
    "Prewhiten",
    "Prewhitend",
    "RandUndersampleKSpace",
    "RandUndersampleKSpaced",
    "Reconstruct",
    "Reconstructd",
    "RemoveOversampling",
    "RemoveOversamplingd",
    "SIRTd",
    "SaveDicomSeries",
    "SaveDicomSeriesd",
    "ScanReader",
    "ScoreImage",
    "ScoreImaged",
    "SimulateKSpace",
    "SimulateKSpaced",
    "SimulateSinogram",
    "SimulateSinogramd",
    "TotalVariation",
    "TotalVariationd",
    "UndersampleKSpace",
    "UndersampleKSpaced",
    "VolumeWriter",
    "register",
    "scan_from_tensor",
    "scan_to_tensor",
    "volume_from_tensor",
    "volume_to_tensor",
]
