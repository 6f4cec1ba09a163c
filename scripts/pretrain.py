"""Pre-train a network on synthetic images, for the methods that start from weights: ``edip`` and ``subspace``.

Run as ``python scripts/pretrain.py FILE.safetensors [--modality mri|ct] [--ndim 2|3] [--directions N] [--minutes M]``.
The images are random shapes, made on the fly from a seed, and their scans are simulated: no patient's data is used.
The network learns to turn the direct image of a scan, zero-filled or back-projected, into the image. With directions,
the principal ones of the weights along the training are kept as well, as `subspace` needs them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import synthetic_images

import dipmed
from dipmed.config import FitConfig, NetworkConfig, find_preset
from dipmed.dip.optimizers import cosine_decay, make_optimizers, remember_rates, set_rate
from dipmed.io.files import check_target
from dipmed.io.weights_file import save_weights
from dipmed.nets import make_network, to_channels
from dipmed.weights import PretrainedWeights

BURN_IN = 0.1
"""Share of the steps before the first checkpoint."""

SPARE = 1.5
"""Checkpoints for each direction that is kept."""

TRAINING = FitConfig(optimizer="muon", rate=0.02, adam_rate=2e-3)


@dataclass(frozen=True)
class Settings:
    """What is learned, and for how long: ``steps`` or, where they are None, ``minutes``."""

    modality: str = "mri"
    ndim: int = 2
    size: int = 96
    batch: int = 4
    steps: int | None = None
    minutes: float = 5.0
    n_directions: int = 0
    seed: int = 0
    network: NetworkConfig | None = None


class Budget:
    """Says how far a training is, 0 to 1, by its steps or by the clock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.start = time.perf_counter()

    def progress(self, step: int) -> float:
        if self.settings.steps is not None:
            return step / self.settings.steps
        return (time.perf_counter() - self.start) / (60 * self.settings.minutes)


def pretrain(settings: Settings, *, report: bool = False) -> PretrainedWeights:
    """Train a network from a seed; with a number of steps, the same seed gives the same weights."""
    generator = torch.Generator().manual_seed(settings.seed)
    n_channels = 2 if settings.modality == "mri" else 1
    sizes = settings.network or find_preset(f"{settings.modality}-{settings.ndim}d").network
    network = make_network(sizes, n_channels, n_channels, settings.ndim, generator)
    optimizers = make_optimizers(network, TRAINING)
    remember_rates(optimizers)
    budget, step, checkpoints = Budget(settings), 0, Checkpoints(settings.n_directions)
    running = None
    while (progress := budget.progress(step)) < 1:
        set_rate(optimizers, cosine_decay(progress))
        loss = train_step(network, optimizers, settings, generator)
        step += 1
        checkpoints.look(network, progress)
        running = loss if running is None else 0.95 * running + 0.05 * loss
        if report and step % 50 == 0:
            print(f"step {step}, {progress:.0%}: relative squared error {running:.4f}", flush=True)
    return PretrainedWeights(
        network=sizes,
        modality=settings.modality,
        ndim=settings.ndim,
        weights={name: value.detach().clone() for name, value in network.state_dict().items()},
        directions=checkpoints.directions(network),
        steps=step,
        seed=settings.seed,
        version=dipmed.__version__,
    )


def train_step(
    network: nn.Module, optimizers: list[torch.optim.Optimizer], settings: Settings, generator: torch.Generator
) -> float:
    """Learn from one batch; return its squared error, relative to the energy of its images."""
    shape = (settings.size,) * settings.ndim
    pairs = [synthetic_images.training_pair(settings.modality, shape, generator) for _ in range(settings.batch)]
    seen, wanted = (to_channels(torch.stack(images)) for images in zip(*pairs, strict=True))
    loss = (network(seen) - wanted).square().sum() / wanted.square().sum()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


class Checkpoints:
    """Weights along a training, evenly by its progress, and their principal directions."""

    def __init__(self, n_directions: int) -> None:
        self.n_directions = n_directions
        self.n_wanted = round(SPARE * n_directions) + 1 if n_directions else 0
        self.taken: list[Tensor] = []

    def look(self, network: nn.Module, progress: float) -> None:
        """Take the weights if one is due."""
        due = (progress - BURN_IN) / (1 - BURN_IN) * self.n_wanted
        if len(self.taken) < self.n_wanted and len(self.taken) <= due:
            self.taken.append(flatten(network))

    def directions(self, network: nn.Module) -> dict[str, Tensor]:
        """Principal directions of the weights about their mean, the last ones among them, by parameter."""
        if not self.n_directions:
            return {}
        points = torch.stack([*self.taken, flatten(network)])
        points -= points.mean(0)
        if len(points) <= self.n_directions:
            raise SystemExit(f"{len(points)} steps after the first tenth cannot span {self.n_directions} directions")
        # of far fewer points than weights, by the eigenvectors of their small Gram matrix
        values, vectors = torch.linalg.eigh((points @ points.T).double())
        largest = torch.arange(len(points) - 1, len(points) - 1 - self.n_directions, -1)
        basis = (vectors[:, largest].T / values[largest, None].clamp(min=1e-12).sqrt()).float() @ points
        basis = torch.linalg.qr(basis.T).Q.T  # what single precision has left of their angles
        shapes = {name: value.shape for name, value in network.named_parameters()}
        parts = basis.split([shape.numel() for shape in shapes.values()], dim=1)
        return {name: part.reshape(-1, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def flatten(network: nn.Module) -> Tensor:
    """All weights of a network in one row."""
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def main() -> None:
    """Parse the options, train and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="the file to write, .safetensors; one that exists is replaced")
    parser.add_argument("--modality", choices=("mri", "ct"), default="mri")
    parser.add_argument("--ndim", type=int, choices=(2, 3), default=2, help="CT: 2 alone (default: %(default)s)")
    parser.add_argument("--size", type=int, help="pixels along each axis (default: 96, in 3-D 32)")
    parser.add_argument("--batch", type=int, default=4, help="images of a step (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to train (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="how long instead; then the same seed gives the same file")
    parser.add_argument("--directions", type=int, default=0, metavar="N", help="principal directions to keep")
    parser.add_argument("--seed", type=int, default=0, help="of images and first weights (default: %(default)s)")
    wanted = parser.parse_args()
    if wanted.modality == "ct" and wanted.ndim == 3:
        parser.error("volumes of CT are not simulated here; --ndim 2")
    if wanted.output.suffix != ".safetensors":
        parser.error(f"the file should end in .safetensors, got {wanted.output.name}")
    check_target(wanted.output, force=True)
    settings = Settings(
        wanted.modality,
        wanted.ndim,
        wanted.size or (96 if wanted.ndim == 2 else 32),
        wanted.batch,
        wanted.steps,
        wanted.minutes,
        wanted.directions,
        wanted.seed,
    )
    pretrained = pretrain(settings, report=True)
    save_weights(pretrained, wanted.output, force=True)
    print(f"wrote {wanted.output}: {pretrained.steps} steps, {pretrained.n_directions} directions")


if __name__ == "__main__":
    main()
