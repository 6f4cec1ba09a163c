"""The physics under the project's own name: the public objects of the package `operators`, the same ones."""

from operators import *  # noqa: F403  # every public name, so that the two lists cannot differ
from operators import __all__ as __all__
