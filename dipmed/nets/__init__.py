"""Untrained networks and the border between complex images and their channels."""

from dipmed.nets.channels import crop_to, pad_to_multiple, to_channels, to_image
from dipmed.nets.factory import make_network
from dipmed.nets.unet import UNet

__all__ = ["UNet", "crop_to", "make_network", "pad_to_multiple", "to_channels", "to_image"]
