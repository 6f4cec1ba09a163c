"""How close images of a pipeline are to references, as `dipmed compare` scores them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform
from monai.utils.misc import ensure_tuple_rep
from torch import Tensor

from dipmed.evaluate import score
from dipmed.scan import ShapeError
from dipmed.transforms.tensors import volume_from_tensor


class ScoreImage:
    """Compare an image with a reference; each slice of each frame by itself, and the mean of their scores.

    Parameters
    ----------
    ndim
        3 to compare volumes as wholes.
    """

    def __init__(self, ndim: int = 2) -> None:
        if ndim not in (2, 3):
            raise ValueError(f"images have 2 or 3 dimensions, got {ndim}")
        self.ndim = ndim

    def __call__(self, image: Tensor, reference: Tensor) -> dict[str, float]:
        """Return the scores of `dipmed.evaluate.Scores` by name.

        Parameters
        ----------
        image, reference
            ``(frame, x, y, z)``.

        Raises
        ------
        ShapeError
            When the shapes differ.
        DipmedError
            When a value is not finite, or a slice of the reference is zero.
        """
        both = [volume_from_tensor(one).data for one in (image, reference)]
        if both[0].shape != both[1].shape:
            raise ShapeError(f"the image {both[0].shape} and its reference {both[1].shape} differ in shape")
        pairs = [one.reshape(*one.shape[: self.ndim], -1) for one in both]
        scores = [asdict(score(*(one[..., index] for one in pairs))) for index in range(pairs[0].shape[-1])]
        return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}


class ScoreImaged(MapTransform):
    """`ScoreImage` for dictionaries.

    Parameters
    ----------
    keys
        Of the images.
    reference_key
        Of the reference, one for all or one for each.
    output_key
        Where the scores go; None for ``"…_scores"`` of each key.
    ndim, allow_missing_keys
        As for `ScoreImage`, and for all transforms.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference_key: KeysCollection,
        output_key: KeysCollection | None = None,
        *,
        ndim: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ScoreImage(ndim)
        self.references = ensure_tuple_rep(reference_key, len(self.keys))
        own = tuple(f"{key}_scores" for key in self.keys)
        self.outputs = own if output_key is None else ensure_tuple_rep(output_key, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the scores in it."""
        found = dict(data)
        for key, reference, output in self.key_iterator(found, self.references, self.outputs):
            found[output] = self.transform(found[key], found[reference])
        return found
