"""Functions compiled by torch where that is asked for and works; where it does not, they run as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Program:
    """Functions that are compiled together, or not.

    Parameters
    ----------
    compiles
        Whether they are compiled.
    device
        Where they run: on CUDA a call is replayed as one graph, which takes no time to launch.
    """

    def __init__(self, compiles: bool, device: torch.device) -> None:
        self.compiles = compiles
        self._mode = "reduce-overhead" if device.type == "cuda" else None

    def __call__(self, function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """Return the function, compiled at its first call and as long as that works."""
        if not self.compiles:
            return function
        # one program a shape: a batch keeps its shape, and a size that may change is slower
        compiled: Any = torch.compile(function, mode=self._mode, dynamic=False)

        def run(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
            chosen = compiled if self.compiles else function
            result: _Result = chosen(*arguments, **named)
            return result

        return run

    def begin_step(self) -> None:
        """Say that what was returned before is no longer needed, where graphs use its memory again."""
        if self.compiles and self._mode is not None:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def give_up(self) -> None:
        """Run all functions as they are from now on."""
        self.compiles = False
