import io

import pytest
import torch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def stored():
    """Write a whole network, which pickles it, and read it back."""

    def write_and_read(network):
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    return write_and_read
