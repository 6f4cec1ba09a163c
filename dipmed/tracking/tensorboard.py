"""A run in a folder for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from dipmed.scan import MissingExtra
from dipmed.tracking.base import Picture

_FLUSH_S = 10


class TensorBoardWriter:
    """Writes event files.

    Raises
    ------
    MissingExtra
        When TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("--log-to tensorboard: needs TensorBoard: pip install 'dipmed[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder), flush_secs=_FLUSH_S)

    def settings(self, values: dict[str, str]) -> None:
        self.text("settings", "\n".join(f"- {name}: {value}" for name, value in values.items()))

    def scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def picture(self, name: str, pixels: Picture, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HW")

    def text(self, name: str, words: str) -> None:
        self._writer.add_text(name, words)

    def flush(self) -> None:
        """Nothing: the writer does it by itself, every few seconds."""

    def close(self, status: str) -> None:
        self.text("end", status)
        self._writer.close()
