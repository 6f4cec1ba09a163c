"""The container of Siemens Twix files: measurements, their protocol text and the headers of their readouts.

The layout of all binary headers is twixtools'. Its own reading loop and protocol parser trust every length and
index in the file, so that a damaged one can make them run forever or fill the memory; here each is checked first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import Complex64, FormatError

_MOST_MEASUREMENTS = 64
_LEAST_VB_HEADER = 10000  # bytes; smaller numbers at the start of a file belong to later software
_MOST_PARTS = 32  # of a protocol header
_LARGEST_HEADER = 16 * 2**20
_MOST_NUMBER_TEXT = 200
_MOST_OCCURRENCES = 20
_COPY_AGAIN = "it is truncated or damaged, copy it again from the scanner"
_DMA_LENGTH = 2**25  # the length of a block is stored in the lower 25 bits
# values of the protocol that are read; nothing about the person is among them
_WANTED = re.compile(
    r"^(sKSpace\.\w{1,40}|sPat\.\w{1,40}|sSliceArray\.asSlice\[0\]\.(?:dThickness|dPhaseFOV|dReadoutFOV)"
    r"|sRXSPEC\.alDwellTime\[0\]|sProtConsistencyInfo\.flNominalB0|sPrepPulses\.ucInversion|lContrasts|tSequenceFileName|tProtocolName"
    r"|al(?:TR|TE|TI)\[\d{1,3}\]|adFlipAngleDegree\[\d{1,3}\])[ \t]{0,9}=[ \t]{0,9}(\S{1,200})",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Measurement:
    """One measurement of a Twix file.

    Parameters
    ----------
    path
        The file.
    is_vb
        Whether it is of software VA or VB, where each channel has a full header of its own.
    text
        The header as text.
    start
        Offset of each readout's block in the file.
    heads
        Header of each readout, as twixtools defines it.
    is_complete
        Whether the measurement ends with the mark that the scanner puts there.
    """

    path: Path
    is_vb: bool
    text: str
    start: NDArray[np.int64]
    heads: NDArray[Any]
    is_complete: bool

    def flagged(self, *names: str) -> NDArray[np.bool_]:
        """For each readout whether one of these flags is set; the names are twixtools'."""
        from twixtools.mdh_def import mask_dict

        return (self.heads["EvalInfoMask"] & np.uint64(sum(1 << mask_dict[name] for name in names))) != 0

    def samples(self, numbers: NDArray[np.int64]) -> Iterator[Complex64]:
        """Yield ``(coil, sample)`` of the readouts with these numbers."""
        first, between = _header_sizes(self.is_vb)
        with self.path.open("rb") as file:
            for number in numbers.tolist():
                n_coils, n_samples = (int(self.heads[number][name]) for name in ("UsedChannels", "SamplesInScan"))
                block = np.dtype([("header", f"V{between}"), ("data", "<c8", (n_samples,))])
                file.seek(int(self.start[number]) + first)
                content = file.read(n_coils * block.itemsize)
                if len(content) < n_coils * block.itemsize:
                    raise FormatError(f"{self.path} ends within readout {number}; {_COPY_AGAIN}")
                yield np.frombuffer(content, block)["data"].astype(np.complex64)

    def channels(self, number: int) -> tuple[int, ...]:
        """Return which receivers a readout has."""
        from twixtools.mdh_def import Channel_header, VB17_header

        header = np.dtype(VB17_header if self.is_vb else Channel_header)
        first, between = _header_sizes(self.is_vb)
        head = self.heads[number]
        stride = between + 8 * int(head["SamplesInScan"])
        with self.path.open("rb") as file:
            file.seek(int(self.start[number]) + first)
            content = file.read(int(head["UsedChannels"]) * stride)
        starts = range(0, len(content) - header.itemsize + 1, stride)
        return tuple(int(np.frombuffer(content, header, 1, at)[0]["ChannelId"]) for at in starts)

    @cached_property
    def protocol(self) -> dict[str, str]:
        """Return the values of the protocol that a reconstruction needs, as text."""
        values: dict[str, str] = {}
        for match in _WANTED.finditer(self.text):  # the protocol is there more than once
            values.setdefault(match[1], match[2].strip('"'))
        return values

    def parameter(self, name: str) -> float | None:
        """Return the first number of a parameter of the XProtocol part of the header."""
        for found in islice(re.finditer(rf'"{re.escape(name)}">', self.text), _MOST_OCCURRENCES):
            content = self.text[found.end() : found.end() + _MOST_NUMBER_TEXT].partition("}")[0]
            number = re.search(r"(?:<Precision>\s*\d+)?\s*\{?\s*(?:<Precision>\s*\d+)?\s*(-?\d+\.?\d*)", content)
            if number:
                return float(number[1])
        return None


def looks_like_twix(head: bytes, size: int) -> bool:
    """Whether the first bytes of a file of this size can be the start of a Twix file of any software version."""
    if len(head) < 32:
        return False
    first, second = struct.unpack_from("<2I", head)
    if first < _LEAST_VB_HEADER and 1 <= second <= _MOST_MEASUREMENTS:
        (start,) = struct.unpack_from("<Q", head, 16)
        return start + 64 <= size and (start + 64 > len(head) or _starts_with_name(head[start + 8 :]))
    return _LEAST_VB_HEADER <= first < size and 1 <= second <= _MOST_PARTS and _starts_with_name(head[8:])


def _starts_with_name(content: bytes) -> bool:
    """Whether this is the first part of a protocol header, which begins with its name."""
    return re.match(rb"\w{4,40}\0", content) is not None


def read_measurements(path: Path) -> list[Measurement]:
    """Read the headers of all measurements in a Twix file.

    Raises
    ------
    FormatError
        When a length or offset does not fit the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        first, count = struct.unpack("<2I", file.read(8))
    is_vb = first >= _LEAST_VB_HEADER
    content = np.memmap(path, np.uint8, "r")
    spans = [(0, size)] if is_vb else _spans(content, count, path)
    return [_read_measurement(content, start, end, path, is_vb=is_vb) for start, end in spans]


def _header_sizes(is_vb: bool) -> tuple[int, int]:
    """Bytes before the first channel, and before the samples of each channel."""
    from twixtools.mdh_def import Channel_header, Scan_header, VB17_header

    if is_vb:
        return 0, np.dtype(VB17_header).itemsize
    return np.dtype(Scan_header).itemsize, np.dtype(Channel_header).itemsize


def _spans(content: NDArray[np.uint8], count: int, path: Path) -> list[tuple[int, int]]:
    from twixtools.hdr_def import MultiRaidFileHeader

    if content.size < MultiRaidFileHeader.itemsize or not 1 <= count <= _MOST_MEASUREMENTS:
        raise FormatError(f"{path} has no measurement; {_COPY_AGAIN}")
    entries = np.frombuffer(content[: MultiRaidFileHeader.itemsize].tobytes(), MultiRaidFileHeader)[0]["entry"]
    spans = []
    for number in range(count):
        start, length = int(entries[number]["off_"]), int(entries[number]["len_"])
        if length == 0 and count == 1:
            length = content.size - start  # software XA leaves the length of a lone measurement at zero
        if not MultiRaidFileHeader.itemsize <= start < start + length <= content.size:
            raise FormatError(
                f"{path}: measurement {number} should be {length} bytes from byte {start}, but the file has "
                f"{content.size}; {_COPY_AGAIN}"
            )
        spans.append((start, start + length))
    if any(end > start for (_, end), (start, _) in pairwise(sorted(spans))):
        raise FormatError(f"{path}: its measurements overlap; {_COPY_AGAIN}")
    return spans


def _read_measurement(content: NDArray[np.uint8], start: int, end: int, path: Path, *, is_vb: bool) -> Measurement:
    length = int.from_bytes(content[start : start + 4].tobytes(), "little")
    if not 8 <= length <= min(_LARGEST_HEADER, end - start):
        raise FormatError(f"{path}: the header should have {length} bytes of {end - start}; {_COPY_AGAIN}")
    text = content[start : start + length].tobytes().decode("latin-1")
    starts, heads, is_complete = _walk(content, start + length, end, path, is_vb=is_vb)
    return Measurement(path, is_vb, text, starts, heads, is_complete)


def _walk(
    content: NDArray[np.uint8], start: int, end: int, path: Path, *, is_vb: bool
) -> tuple[NDArray[np.int64], NDArray[Any], bool]:
    """Go from readout to readout; blocks of other data, like the pulse curve, are passed over."""
    from twixtools.mdh_def import Scan_header, VB17_header, mask_dict

    layout = np.dtype(VB17_header if is_vb else Scan_header)
    first, between = _header_sizes(is_vb)
    last, other = 1 << mask_dict["ACQEND"], 1 << mask_dict["SYNCDATA"]
    starts: list[int] = []
    heads: list[bytes] = []
    is_complete = False
    at = start
    while at + layout.itemsize <= end:
        raw = content[at : at + layout.itemsize].tobytes()
        head = np.frombuffer(raw, layout)[0]
        flags = int(head["EvalInfoMask"])
        if flags & last:
            is_complete = True
            break
        if flags & other:
            length = int(head["FlagsAndDMALength"]) % _DMA_LENGTH
        else:
            length = first + int(head["UsedChannels"]) * (between + 8 * int(head["SamplesInScan"]))
            starts.append(at)
            heads.append(raw)
        if length < layout.itemsize or at + length > end:
            raise FormatError(f"{path} ends within readout {len(starts)} or has a wrong length there; {_COPY_AGAIN}")
        at += length
    return np.array(starts, np.int64), np.frombuffer(b"".join(heads), layout), is_complete
