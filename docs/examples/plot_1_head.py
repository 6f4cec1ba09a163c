"""
A head from a quarter of its lines
==================================

The whole way in one page: simulate a scan with six coils, leave out three lines of four, and reconstruct the
image without any training data. ``y`` are the samples, ``A`` is the operator that turns an image into such
samples, and every method is called as ``method(y, A)``.
"""

import matplotlib.pyplot as plt
import torch

from dipmed.baselines import L1Wavelet, ZeroFilled
from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.evaluate import match_scale, score
from dipmed.operators import CartesianMRI, make_mask
from dipmed.phantom import brain_phantom_scan

# %%
# The scan. Its k-space is known in closed form, so the reconstruction cannot profit from the pixels of the
# simulation.

scan, truth = brain_phantom_scan((96, 96), n_coils=6, noise=0.01, seed=0)
mask = make_mask("random:R=4,acs=16,seed=0", scan.matrix_shape)  # (x, y), y is the phase encode
A = CartesianMRI(torch.from_numpy(truth.maps), mask)
y = torch.from_numpy(scan.kspace[0, 0]) * mask  # (coil, x, y)

# %%
# Three methods. The network is smaller than the default's and the fit shorter, so that this page builds in
# seconds; ``DeepImagePrior()`` alone is the real thing.

short = FitConfig(network=NetworkConfig(channels=(32, 32, 32)), iterations=100)
methods = {"zero-filled": ZeroFilled(), "l1-wavelet": L1Wavelet(), "dip": DeepImagePrior(short)}
results = {name: method(y, A) for name, method in methods.items()}

for name, result in results.items():
    print(f"{name:12} {score(result.image, truth.image).psnr:5.1f} dB; stopped because {result.stop.reason}")

# %%
# The truth is used for these scores and pictures alone; no fit sees it.

reference = abs(truth.image[0])
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
axes[0].imshow(reference.T, cmap="gray", vmax=1)
axes[0].set_title("truth")
for axis, (name, result) in zip(axes[1:], results.items(), strict=True):
    axis.imshow(match_scale(result.image[0].abs(), reference).T, cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{name}, {score(result.image, truth.image).psnr:.1f} dB")
for axis in axes:
    axis.set_axis_off()
plt.show()
