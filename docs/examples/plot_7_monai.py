"""
In a MONAI pipeline
===================

From a file to an image that knows its place, as transforms of MONAI. :doc:`/monai` lists them all.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from monai.transforms import Compose, ScaleIntensityd, Spacingd

from dipmed.io import save_ismrmrd
from dipmed.phantom import brain_phantom_scan
from dipmed.transforms import DIPReconstructd, EstimateCoilMapsd, LoadScand, UndersampleKSpaced

folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "scan.h5"
save_ismrmrd(brain_phantom_scan((64, 64), n_coils=4)[0], file)

# %%
# What follows the reconstruction is MONAI's own: here voxels of 2 mm, and brightness from 0 to 1.

pipeline = Compose(
    [
        LoadScand(keys="kspace"),
        UndersampleKSpaced("kspace", "random:R=3,acs=16,seed=0"),
        EstimateCoilMapsd(keys="kspace", maps_key="maps"),
        DIPReconstructd(
            "kspace", maps_key="maps", output_key="image", iterations=60, sets=("network.channels=32,32,32",)
        ),
        Spacingd("image", pixdim=(2.0, 2.0, 5.0)),
        ScaleIntensityd("image"),
    ]
)
found = pipeline({"kspace": file})
folder.cleanup()
image = found["image"]  # (frame, x, y, z)
print(tuple(image.shape), image.pixdim.tolist())
print(image.meta["stop"])

# %%
# The maps are there as well, for other methods.

figure, axes = plt.subplots(1, 5, figsize=(10, 2.3), layout="constrained")
axes[0].imshow(image[0, :, :, 0].numpy().T, cmap="gray")
axes[0].set_title("image")
for number, axis in enumerate(axes[1:]):
    axis.imshow(abs(found["maps"][0, 0, number].numpy()).T, cmap="magma", vmin=0, vmax=1)
    axis.set_title(f"map of coil {number + 1}")
for axis in axes:
    axis.set_axis_off()
plt.show()
