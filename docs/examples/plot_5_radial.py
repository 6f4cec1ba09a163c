"""
Along a trajectory
==================

Radial spokes instead of lines. ``NonCartesianMRI`` takes the positions of the samples in cycles per field of
view; with weights against their density its adjoint is an image already, and least squares converges in a few
iterations.
"""

import matplotlib.pyplot as plt
import torch

from dipmed.baselines import CGSense
from dipmed.evaluate import match_scale, score
from dipmed.operators import NonCartesianMRI, density_compensation, dot_test, radial
from dipmed.phantom import brain_phantom_scan

scan, truth = brain_phantom_scan((96, 96), n_coils=6)
image, maps = torch.from_numpy(truth.image), torch.from_numpy(truth.maps)

# %%
# Thirty spokes, of about 150 that would be needed, each turned by the golden angle from the one before.

spokes = radial((96, 96), n_spokes=30, golden=True)  # (readout, spoke, dimension)
positions = spokes.reshape(-1, 2)
A = NonCartesianMRI(maps, positions, density_compensation(positions, (96, 96)))
print(f"adjoint and forward agree to {dot_test(A):.0e}")

y = A(image)  # what a scanner would measure, multiplied by the root of the weights

# %%
# The adjoint, and least squares with all six coils.

images = {"adjoint": A.H(y), "cg-sense": CGSense(max_iter=20)(y, A).image}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
axes[0].plot(*positions.T, ".", markersize=0.5, color="C0")
axes[0].set_aspect("equal")
axes[0].set_title("positions")
axes[1].imshow(image[0].abs().T, cmap="gray", vmin=0, vmax=1)
axes[1].set_title("truth")
for axis, (name, found) in zip(axes[2:], images.items(), strict=True):
    axis.imshow(match_scale(found[0].abs(), image[0].abs()).T, cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{name}, {score(found, image).psnr:.1f} dB")
for axis in axes:
    axis.set_axis_off()
plt.show()
