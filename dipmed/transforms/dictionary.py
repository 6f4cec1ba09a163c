"""The same transforms for dictionaries: ``keys`` name what is changed, other keys where results go."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils.misc import ensure_tuple_rep

from dipmed.scan import DipmedError
from dipmed.transforms import array, reconstructing

Data = Mapping[Hashable, Any]


class _Mapped(MapTransform):
    """Applies one array transform to each key.

    Parameters
    ----------
    keys
        Of the dictionary.
    output_key
        Where the result goes, one for each key; None for where it came from.
    allow_missing_keys
        Pass over keys that are not there.
    parameters
        Of the array transform.
    """

    made: ClassVar[type[Any]]

    def __init__(
        self,
        keys: KeysCollection,
        *args: Any,
        output_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **parameters: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = self.made(*args, **parameters)
        self.outputs = self.keys if output_key is None else ensure_tuple_rep(output_key, len(self.keys))
        if len(set(self.outputs)) < len(self.keys):
            raise DipmedError(f"{len(self.keys)} keys need as many places for their results, got {self.outputs}")

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the dictionary with the results in it."""
        found = dict(data)
        for key, output in self.key_iterator(found, self.outputs):
            found[output] = self.apply(found, key)
        return found

    def apply(self, data: Mapping[Hashable, Any], key: Hashable) -> Any:
        """Return the result for one key."""
        return self.transform(data[key])


class _RandomlyMapped(_Mapped, Randomizable):
    """The same with an array transform that draws."""

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> _RandomlyMapped:
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self


class _WithMaps(_Mapped):
    """The same with sensitivity maps from another key.

    Parameters
    ----------
    maps_key
        Of the maps; None to estimate them. Projections need none.
    """

    def __init__(self, keys: KeysCollection, *args: Any, maps_key: str | None = None, **parameters: Any) -> None:
        super().__init__(keys, *args, **parameters)
        self.maps_key = maps_key

    def apply(self, data: Mapping[Hashable, Any], key: Hashable) -> Any:
        if self.maps_key is None:
            return self.transform(data[key])
        if self.maps_key not in data:
            raise KeyError(f"there are no maps under {self.maps_key!r}; EstimateCoilMapsd(keys, maps_key=…) makes them")
        return self.transform(data[key], data[self.maps_key])


class LoadScand(_Mapped):
    """`LoadScan` for dictionaries."""

    made = array.LoadScan


class Prewhitend(_Mapped):
    """`Prewhiten` for dictionaries."""

    made = array.Prewhiten


class RemoveOversamplingd(_Mapped):
    """`RemoveOversampling` for dictionaries."""

    made = array.RemoveOversampling


class CompressCoilsd(_Mapped):
    """`CompressCoils` for dictionaries."""

    made = array.CompressCoils


class UndersampleKSpaced(_Mapped):
    """`UndersampleKSpace` for dictionaries."""

    made = array.UndersampleKSpace


class RandUndersampleKSpaced(_RandomlyMapped):
    """`RandUndersampleKSpace` for dictionaries."""

    made = array.RandUndersampleKSpace


class KeepViewsd(_Mapped):
    """`KeepViews` for dictionaries."""

    made = array.KeepViews


class EstimateCoilMapsd(_Mapped):
    """`EstimateCoilMaps` for dictionaries; the maps go to ``maps_key``."""

    made = array.EstimateCoilMaps

    def __init__(
        self,
        keys: KeysCollection,
        method: str = "espirit",
        n_sets: int = 1,
        *,
        maps_key: KeysCollection = "maps",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, method, n_sets, output_key=maps_key, allow_missing_keys=allow_missing_keys)


class _Simulated(_RandomlyMapped):
    """Turns an image into a scan.

    Parameters
    ----------
    reference_key
        Where the image goes that the scan should give; None to leave it out.
    """

    def __init__(
        self, keys: KeysCollection, *args: Any, reference_key: KeysCollection | None = None, **parameters: Any
    ) -> None:
        super().__init__(keys, *args, **parameters)
        self.references = ensure_tuple_rep(reference_key, len(self.keys))

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        found = dict(data)
        for key, output, reference in self.key_iterator(found, self.outputs, self.references):
            found[output], truth = self.transform(found[key])
            if reference is not None:
                found[reference] = truth
        return found


class SimulateKSpaced(_Simulated):
    """`SimulateKSpace` for dictionaries."""

    made = array.SimulateKSpace


class SimulateSinogramd(_Simulated):
    """`SimulateSinogram` for dictionaries."""

    made = array.SimulateSinogram


class Reconstructd(_WithMaps):
    """`Reconstruct` for dictionaries."""

    made = reconstructing.Reconstruct


class DIPReconstructd(_WithMaps):
    """`DIPReconstruct` for dictionaries."""

    made = reconstructing.DIPReconstruct


class SaveDicomSeriesd(_Mapped):
    """`SaveDicomSeries` for dictionaries."""

    made = array.SaveDicomSeries


class FBPd(_Mapped):
    """`FBP` for dictionaries."""

    made = reconstructing.FBP


class CGSensed(_WithMaps):
    """`CGSense` for dictionaries."""

    made = reconstructing.CGSense


class L1Waveletd(_WithMaps):
    """`L1Wavelet` for dictionaries."""

    made = reconstructing.L1Wavelet


class TotalVariationd(_WithMaps):
    """`TotalVariation` for dictionaries."""

    made = reconstructing.TotalVariation


class SIRTd(_Mapped):
    """`SIRT` for dictionaries."""

    made = reconstructing.SIRT


class CGLeastSquaresd(_Mapped):
    """`CGLeastSquares` for dictionaries."""

    made = reconstructing.CGLeastSquares


class CGTotalVariationd(_Mapped):
    """`CGTotalVariation` for dictionaries."""

    made = reconstructing.CGTotalVariation


class AdjointReconstructd(_WithMaps):
    """`AdjointReconstruct` for dictionaries."""

    made = reconstructing.AdjointReconstruct
