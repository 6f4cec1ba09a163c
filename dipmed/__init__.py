"""dipmed: training-free reconstruction of MRI and CT scans with deep image priors."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dipmed")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
