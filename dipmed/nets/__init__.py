"""Untrained networks and the border between complex images and their channels."""

from dipmed.nets.channels import channels_last, crop_to, last_format, pad_to_multiple, to_channels, to_image
from dipmed.nets.conv_decoder import ConvDecoder
from dipmed.nets.deep_decoder import DeepDecoder
from dipmed.nets.factory import build, initialise, make_network
from dipmed.nets.hourglass import Hourglass
from dipmed.nets.implicit import ImplicitNetwork, coordinates, fourier_features
from dipmed.nets.low_pass import Gaussian, Kaiser
from dipmed.nets.noise import low_pass_noise
from dipmed.nets.time_decoder import TimeDecoder, helix
from dipmed.nets.unet import UNet, checkpoint_activations

__all__ = [
    "ConvDecoder",
    "DeepDecoder",
    "Gaussian",
    "Hourglass",
    "ImplicitNetwork",
    "Kaiser",
    "TimeDecoder",
    "UNet",
    "build",
    "channels_last",
    "checkpoint_activations",
    "coordinates",
    "crop_to",
    "fourier_features",
    "helix",
    "initialise",
    "last_format",
    "low_pass_noise",
    "make_network",
    "pad_to_multiple",
    "to_channels",
    "to_image",
]
