"""
When not to trust it
====================

An image can agree with every measured sample and still lack what matters. Here three spots of the same
brightness and of different size are put into a head, and only one line in six is measured.
"""

import matplotlib.pyplot as plt
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior, Uncertainty
from dipmed.evaluate import calibration
from dipmed.operators import CartesianMRI, add_noise, make_mask
from dipmed.phantom import brain_phantom_scan

scan, truth = brain_phantom_scan((96, 96), n_coils=6, noise=0.01)
image = torch.from_numpy(truth.image)
x, y = torch.meshgrid(*2 * [torch.arange(96)], indexing="ij")
spots = {radius: (x - 38) ** 2 + (y - centre) ** 2 <= radius**2 for radius, centre in ((0, 30), (1, 42), (3, 56))}
for inside in spots.values():
    image[0, inside] = 1.2 * image[0].abs().max() * image[0, inside] / image[0, inside].abs()

A = CartesianMRI(torch.from_numpy(truth.maps), make_mask("random:R=6,acs=12,seed=1", (96, 96)))
data = add_noise(A(image), 0.01, torch.Generator().manual_seed(0)) * A.mask

# %%
# The fit, with a map of the standard deviation of its outputs.

short = FitConfig(network=NetworkConfig(channels=(32, 32, 32)), iterations=80)
result = DeepImagePrior(short, uncertainty=Uncertainty("jitter"))(data, A)
misfit = (A(result.image) - data).norm() / data.norm()
print(f"the image explains the data to {100 * misfit:.1f} %")
for inside in spots.values():
    kept = result.image[0, inside].abs().mean() / image[0, inside].abs().mean()
    print(f"a spot of {int(inside.sum()):2} pixels keeps {100 * kept:.0f} % of its brightness")

# %%
# Agreement with the data does not tell that the spots are dimmer than they were and smeared along the phase
# encode: the samples that would have shown it were not measured. The map of the standard deviation does not
# tell either. It says how much the outputs of this fit differ, not what all of them get wrong; were it the
# error, 68 % of the pixels would be within one standard deviation.

error = (result.image[0].abs() - image[0].abs()).abs()
within = calibration(result.image, result.std, image, image.abs() > 0.05).within[0]
print(f"within one standard deviation: {100 * within:.0f} % of the pixels")

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
shown = {
    "truth": image[0].abs(),
    "dip": result.image[0].abs(),
    "error × 5": 5 * error,
    "deviation × 5": 5 * result.std[0],
}
for axis, (title, picture) in zip(axes, shown.items(), strict=True):
    axis.imshow(picture.T, cmap="gray", vmin=0, vmax=1.2)
    axis.set_title(title)
    axis.set_axis_off()
plt.show()
