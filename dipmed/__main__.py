"""The command: what has to be settled before torch is loaded, and then the command line."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line with threads that sleep while they wait, unless the environment says otherwise.

    Threads that spin keep a core from the thread that they wait for as soon as another program has work, see
    `scripts/benchmark_busy.py`. OpenMP reads this once, when torch loads it; workers of ours inherit it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dipmed.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
