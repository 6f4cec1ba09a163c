import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from dipmed.config import NetworkConfig
from dipmed.nets import make_network
from dipmed.scan import DipmedError, ShapeError
from dipmed.theory import TangentModel, dense_spectrum, gradient_descent, leading_spectrum, predict_path
from operators import Identity, ParallelBeam, SliceProjector, angles_over, slice_grid

SMALL = NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8)


def unet(A):
    channels = 2 if A.domain.is_complex else 1
    z = torch.rand((1, 4, 8, 8), generator=torch.Generator().manual_seed(2))
    return make_network(SMALL, 4, channels, 2, torch.Generator().manual_seed(3)), z


def dense_kernel(model):
    """From the whole Jacobian."""
    jacobian = jacrev(model.output)(model.weights)
    rows = torch.cat([part.reshape(model.stacked.n, -1) for part in jacobian.values()], 1)
    return rows @ rows.T


def dense_operator(model):
    return model.stacked.forward(torch.eye(model.stacked.n, dtype=torch.float64)).T


def test_kernel_of_a_linear_network_is_known(operator, linear_network):
    network, z = linear_network(operator)
    model = TangentModel(network, z, operator)
    kernel = model.kernel(torch.eye(model.stacked.n, dtype=torch.float64))
    torch.testing.assert_close(kernel, network.mixing @ network.mixing.T)


@pytest.mark.parametrize("chunk", [7, 64])
def test_kernel_of_a_unet_is_that_of_its_jacobian(operator, chunk):
    model = TangentModel(*unet(operator), operator, chunk=chunk)
    expected = dense_kernel(model)
    kernel = model.kernel(torch.eye(model.stacked.n, dtype=torch.float64))
    torch.testing.assert_close(kernel, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


def test_start_is_the_image_of_the_network(operator):
    network, z = unet(operator)
    model = TangentModel(network, z, operator)
    cropped = network(z)[:, :, : operator.domain.shape[1], : operator.domain.shape[2]]
    torch.testing.assert_close(model.start.float(), cropped.flatten())


def test_the_network_itself_stays_as_it_is(operator, double):
    network, z = unet(operator)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = TangentModel(network, z, operator)
    list(itertools.islice(gradient_descent(model, double(operator.range), 1e-6), 3))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_frozen_parameters_are_constants(operator, linear_network):
    _, z = linear_network(operator)
    network = nn.Sequential(nn.Conv2d(z.shape[1], 3, 3, padding=1), nn.Conv2d(3, z.shape[1], 1))
    network[0].requires_grad_(False)
    model = TangentModel(network, z, operator)
    features = functional_call(network[0], {k: v.double() for k, v in network[0].named_parameters()}, (z,))
    per_channel = torch.cat([features[0].flatten(1), torch.ones(1, features[0, 0].numel())]).T
    kernel = per_channel @ per_channel.T
    n = len(kernel)
    torch.testing.assert_close(model.kernel(torch.eye(model.stacked.n, dtype=torch.float64))[:n, :n], kernel)


@pytest.mark.parametrize("n_views", [4, 12])
def test_dense_spectrum_is_that_of_the_gram_matrix(operator, linear_network, n_views):
    if not operator.domain.is_complex:  # with many views there are more data than pixels
        operator = many_views(n_views)
    network, z = linear_network(operator)
    model = TangentModel(network, z, operator)
    spectrum = dense_spectrum(model)
    A, K = dense_operator(model), network.mixing @ network.mixing.T
    V = spectrum.modes
    torch.testing.assert_close(V @ spectrum.eigenvalues.diag() @ V.T, A @ K @ A.T)
    torch.testing.assert_close(spectrum.responses, K @ A.T @ V)
    assert spectrum.is_complete
    assert bool((spectrum.eigenvalues.diff() <= 0).all())
    assert float(spectrum.residuals.max()) < 1e-12 * float(spectrum.eigenvalues[0]) * spectrum.model.stacked.m


def many_views(n_views):
    beam = ParallelBeam(angles_over(n_views), 12, 1.0)
    return SliceProjector(slice_grid(beam, 8), beam)


def test_leading_modes_are_the_first_of_all(operator):
    model = TangentModel(*unet(operator), operator)
    full, first = (
        dense_spectrum(model),
        leading_spectrum(model, 6, sweeps=8, generator=torch.Generator().manual_seed(0)),
    )
    torch.testing.assert_close(first.eigenvalues, full.eigenvalues[:6], rtol=1e-4, atol=0.0)
    assert not first.is_complete
    nearest = (first.eigenvalues[:, None] - full.eigenvalues).abs().min(1).values
    assert bool((nearest <= first.residuals + 1e-9 * first.eigenvalues[0]).all())
    # the same images, whatever the signs of the modes
    overlap = (first.responses[:, 0] @ full.responses[:, 0]).abs() / full.responses[:, 0].norm() ** 2
    assert float(overlap) == pytest.approx(1, rel=1e-3)


def test_all_modes_at_random_predict_as_the_dense_ones(operator, linear_network, double):
    network, z = linear_network(operator)
    model = TangentModel(network, z, operator)
    dense = dense_spectrum(model)
    random = leading_spectrum(model, model.stacked.m, sweeps=0, generator=torch.Generator().manual_seed(0))
    y = double(operator.range)
    paths = [predict_path(spectrum, y, rate=dense.rate) for spectrum in (dense, random)]
    torch.testing.assert_close(paths[0].image(30), paths[1].image(30))


def test_dense_spectra_that_are_too_large_name_the_other_way(operator, linear_network):
    model = TangentModel(*linear_network(operator), operator)
    with pytest.raises(DipmedError, match=r"needs .* floats .* leading_spectrum"):
        dense_spectrum(model, max_floats=1000)


@pytest.mark.parametrize("n_modes", [0, 10_000])
def test_more_modes_than_data_are_refused(operator, linear_network, n_modes, generator):
    with pytest.raises(DipmedError, match="as many as data"):
        leading_spectrum(TangentModel(*linear_network(operator), operator), n_modes, generator=generator)


def test_weights_that_do_not_matter_are_refused(operator, linear_network):
    network, z = linear_network(operator)
    network.mixing.zero_()
    with pytest.raises(DipmedError, match="nothing to learn"):
        dense_spectrum(TangentModel(network, z, operator))


def test_networks_without_a_jacobian_are_refused():
    A, z = Identity((1, 4, 4), is_complex=False), torch.rand(1, 2, 4, 4)
    with pytest.raises(DipmedError, match="batch normalisation"):
        TangentModel(nn.Sequential(nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1)), z, A)
    with pytest.raises(DipmedError, match="dropout"):
        TangentModel(nn.Sequential(nn.Conv2d(2, 1, 1), nn.Dropout()), z, A)
    with pytest.raises(DipmedError, match="nothing to fit"):
        TangentModel(nn.Upsample(scale_factor=1), z, A)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_of_other_channels_is_refused(channels):
    with pytest.raises(ShapeError, match="the network must give"):
        TangentModel(nn.Conv2d(2, channels, 1), torch.rand(1, 2, 4, 4), Identity((1, 4, 4), is_complex=True))


def test_a_small_image_is_refused():
    with pytest.raises(ShapeError, match="the network must give"):
        TangentModel(nn.Conv2d(2, 2, 1), torch.rand(1, 2, 4, 3), Identity((1, 4, 4), is_complex=True))
