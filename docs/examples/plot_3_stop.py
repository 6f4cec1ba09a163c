"""
When to stop
============

A network that is fitted long enough explains the noise as well. Somewhere before, the image is best, but
without the truth nobody sees where. A stopping rule guesses it from the measured data alone; here several
rules look at one fit of noisy data, and the truth shows what their guesses are worth.
"""

import matplotlib.pyplot as plt
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.evaluate import SnapshotScores
from dipmed.methods import find_method
from dipmed.operators import CartesianMRI, make_mask
from dipmed.phantom import brain_phantom_scan

# %%
# A noisy scan, and the deep image prior as it was published, but for the optimizer: orthogonalised momentum
# gets there sooner than Adam, and this page has to be built in seconds.

scan, truth = brain_phantom_scan((48, 48), n_coils=4, noise=0.1, seed=0)
mask = make_mask("random:R=2,acs=12,seed=0", scan.matrix_shape)
A = CartesianMRI(torch.from_numpy(truth.maps), mask)
y = torch.from_numpy(scan.kspace[0, 0]) * mask

small = FitConfig(network=NetworkConfig(channels=(32, 32, 32)))
settings = (
    find_method("dip-vanilla")
    .configure(small, "mri")
    .replace(
        optimizer="muon",
        rate=0.02,
        iterations=260,
        stop="held-out",
        watch=("self-referenced", "windowed-variance"),
    )
)
scores = SnapshotScores(truth.image)
result = DeepImagePrior(settings, observer=scores, observer_interval=10)(y, A)
print(result.stop.reason)

# %%
# The line is what nobody knows outside of a simulation, the marks are what each rule would have returned.

iterations, psnr, _ = zip(*scores.curve, strict=True)
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
axis.plot(iterations, psnr, color="0.3")
for name, chosen in result.choices.items():
    axis.axvline(chosen, linestyle="--", color=f"C{list(result.choices).index(name)}", label=f"{name}: {chosen}")
axis.set(xlabel="iteration", ylabel="PSNR of the iterate, dB")
axis.legend(frameon=False)
plt.show()
