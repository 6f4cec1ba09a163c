"""
CT from few views
=================

Thirty views of a fan beam instead of several hundred. Filtered back-projection answers with streaks; total
variation and a fit know that images are not made of them. This phantom has flat parts and sharp edges, which
is all that total variation asks of an image: anatomy is less obliging.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from dipmed.config import NetworkConfig, find_preset
from dipmed.ct_baselines import CGTotalVariation, FilteredBackProjection
from dipmed.dip import DeepImagePrior
from dipmed.evaluate import score
from dipmed.operators import SliceProjector
from dipmed.scan import ImageVolume
from dipmed.simulate import ProjectionSettings, simulate

# %%
# A phantom in Hounsfield units: a body of water with ribs, two lungs, and small nodules in them. It has twice
# as many pixels along each side as the image that is asked for.

x, y = np.meshgrid(*2 * [np.linspace(-1, 1, 160)], indexing="ij")
hounsfield = np.where((x / 0.85) ** 2 + (y / 0.65) ** 2 < 1, 0.0, -1000.0)
for side in (-1, 1):
    hounsfield[((x - side * 0.38) / 0.3) ** 2 + (y / 0.45) ** 2 < 1] = -850
    for number, radius in enumerate((0.07, 0.045, 0.03, 0.02)):
        hounsfield[(x - side * 0.38) ** 2 + (y + 0.3 - 0.2 * number) ** 2 < radius**2] = 40
hounsfield[(np.abs((x / 0.78) ** 2 + (y / 0.58) ** 2 - 1) < 0.08) & (np.cos(12 * np.arctan2(y, x)) > 0.3)] = 700
volume = ImageVolume(hounsfield[:, :, None].astype(np.float32), np.diag([2.0, 2.0, 5.0, 1.0]))

found = simulate(volume, ProjectionSettings(n_views=30, photons=1e5))
scan, reference = found.scan, found.reference.data[:, :, 0]  # 1/mm
print("; ".join(found.assumptions))

# %%
# The operator is made of the beam and of the pixels, and the methods are called as those of MRI are.

A = SliceProjector(scan.grid, scan.beam)
data = torch.from_numpy(scan.projections[0])[None]  # (1, view, column), line integrals
preset = find_preset("ct-2d").replace(network=NetworkConfig(channels=(32, 32, 32)), iterations=80)
methods = {"fbp": FilteredBackProjection(), "cg-tv": CGTotalVariation(), "dip": DeepImagePrior(preset)}
images = {name: method(data, A).image[0] for name, method in methods.items()}

# %%
# Attenuation from air to a little above water.

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for axis, (name, image) in zip(axes, {"truth": torch.from_numpy(reference), **images}.items(), strict=True):
    axis.imshow(image.T, cmap="gray", vmin=0, vmax=0.03)
    axis.set_title(name if name == "truth" else f"{name}, {score(image, reference).psnr:.1f} dB")
    axis.set_axis_off()
plt.show()
