"""
Your own arrays
===============

k-space in a numpy array, from a program of your own: say what its axes mean and where the voxels lie, and
everything that works for files works for it. :doc:`/own-arrays` has more of it.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from dipmed.config import NetworkConfig
from dipmed.io import load_image, save_image
from dipmed.patient import default_affine
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.scan import KSpaceScan
from dipmed.settings import ReconSettings

# %%
# Here the array comes from a simulation, with every third line missing outside of the centre.

kspace = brain_phantom_scan((64, 64), n_coils=4)[0].kspace[0, 0]  # (coil, x, y), x is the readout
keep = np.arange(64) % 3 == 0
keep[24:40] = True
kspace = np.where(keep, kspace, 0)

# %%
# A scan has two more axes in front, frame and slice. The centre of k-space is at ``n // 2``. If you know the
# place of the image, give its affine from voxel to millimetres (RAS); ``default_affine`` puts it around the
# origin.

scan = KSpaceScan(
    kspace=kspace[None, None].astype(np.complex64),
    mask=np.broadcast_to(keep, (1, 1, 64, 64)),
    affine=default_affine((3.4, 3.4, 5.0), (64, 64, 1)),
    image_shape=(64, 64),
    source="my own program",
)

# %%
# ``reconstruct`` does what ``dipmed recon`` does: whitening, sensitivity maps, the method, and the way back
# to the patient.

short = {"iterations": 60, "network": NetworkConfig(channels=(32, 32, 32))}
settings = ReconSettings(method="dip", device="cpu", changes=short)
found = reconstruct(scan, settings)
print(found.reconstructions[0].stop.reason)
for sentence in found.assumptions:
    print("assumed:", sentence)

# %%
# What is written can be read back by any program, in its place.

with tempfile.TemporaryDirectory() as folder:
    save_image(found.volume, Path(folder) / "image.nii.gz")
    image = load_image(Path(folder) / "image.nii.gz")
print(image.data.shape, image.affine.diagonal())

plt.figure(figsize=(3, 3), layout="constrained")
plt.imshow(abs(image.data[:, :, 0]).T, cmap="gray")
plt.axis("off")
plt.show()
