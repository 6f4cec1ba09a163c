"""Which reconstruction shows which slice, and how the user calls both."""

from __future__ import annotations

from dataclasses import dataclass

from dipmed.jobs import n_frames
from dipmed.scan import Scan
from dipmed.settings import ReconSettings
from dipmed.slabs import Range
from dipmed.stacks import stacks_of


@dataclass(frozen=True)
class Places:
    """The slices of a prepared scan and the reconstructions that they are from, frame by frame.

    ``ranges`` are the slices of each reconstruction of a frame, None of one volume; ``first`` is what the user counts
    the first slice as.
    """

    ranges: tuple[Range, ...] | None
    n_frames: int
    first: int

    @property
    def n_parts(self) -> int:
        """Reconstructions of a frame."""
        return 1 if self.ranges is None else len(self.ranges)

    def number(self, frame: int, first_slice: int) -> int:
        """Number of the reconstruction of a frame that begins at a slice."""
        if self.ranges is None:
            return frame
        return frame * self.n_parts + next(n for n, (first, _) in enumerate(self.ranges) if first == first_slice)

    def part_of(self, frame: int, index: int) -> int:
        """Number of the reconstruction that a slice is from; of overlapping slabs, the one whose middle is nearest."""
        if self.ranges is None:
            return frame
        distances = [abs(first + end - 1 - 2 * index) for first, end in self.ranges]
        return frame * self.n_parts + distances.index(min(distances))

    def name_slice(self, frame: int, index: int) -> str:
        return f"slice {self.first + index}" + self._of_frame(frame)

    def name_part(self, number: int) -> str:
        frame, index = divmod(number, self.n_parts)
        if self.ranges is None:
            return "the volume" + self._of_frame(frame)
        first, end = self.ranges[index]
        if end - first == 1:
            return self.name_slice(frame, first)
        return f"slices {self.first + first} to {self.first + end - 1}" + self._of_frame(frame)

    def _of_frame(self, frame: int) -> str:
        return f" of frame {frame}" if self.n_frames > 1 else ""


def places_of(scan: Scan, settings: ReconSettings) -> Places:
    """The places of a prepared scan."""
    first = 0 if settings.slices is None else settings.slices[0]
    if scan.ndim == 3:
        return Places(None, n_frames(scan), first)
    stacks = stacks_of(scan, settings) or [(index, index + 1) for index in range(scan.n_slices)]
    return Places(tuple(stacks), n_frames(scan), first)
