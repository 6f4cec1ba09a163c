from itertools import islice

import pytest
import torch

from dipmed.config import NetworkConfig
from dipmed.nets import make_network
from dipmed.scan import DipmedError, ShapeError
from dipmed.theory import TangentModel, dense_spectrum, gradient_descent, leading_spectrum, predict_path


@pytest.mark.parametrize("share", [0.5, 1.0, 1.9])
def test_path_of_a_linear_network_is_gradient_descent(operator, linear_network, double, share):
    model = TangentModel(*linear_network(operator), operator)
    spectrum = dense_spectrum(model)
    y = double(operator.range)
    rate = share * spectrum.rate
    path = predict_path(spectrum, y, rate=rate)
    for step, image in enumerate(islice(gradient_descent(model, y, rate), 40)):
        assert float((path.image(step) - image).norm() / image.norm()) < 1e-10
        residual = model.stacked.data_vector(operator(image) - y)
        assert path.data_error(step) == pytest.approx(float(residual.square().sum()), rel=1e-10)


def test_flow_solves_its_differential_equation(operator, linear_network, double):
    network, z = linear_network(operator)
    model = TangentModel(network, z, operator)
    y = double(operator.range)
    path = predict_path(dense_spectrum(model), y, rate=0.7, flow=True)
    A = model.stacked.forward(torch.eye(model.stacked.n, dtype=torch.float64)).T
    gram = A @ network.mixing @ network.mixing.T @ A.T
    start = model.stacked.data_vector(y) - A @ model.start
    residual = torch.linalg.matrix_exp(-0.7 * 2.5 * gram) @ start
    fitted = model.stacked.data_vector(operator(path.image(2.5)))
    torch.testing.assert_close(model.stacked.data_vector(y) - fitted, residual)
    assert path.data_error(2.5) == pytest.approx(float(residual.square().sum()))


def test_modes_without_an_eigenvalue_stay(operator, linear_network, double):
    model = TangentModel(*linear_network(operator, n_weights=5), operator)
    spectrum = dense_spectrum(model)
    y = double(operator.range)
    path = predict_path(spectrum, y)
    images = list(islice(gradient_descent(model, y, spectrum.rate), 200))
    torch.testing.assert_close(path.image(199), images[-1])
    assert path.degrees_of_freedom(10**6) == pytest.approx(5, abs=1e-3)


def test_degrees_of_freedom_are_the_trace_of_the_fit(operator, linear_network):
    model = TangentModel(*linear_network(operator), operator)
    stacked, spectrum = model.stacked, dense_spectrum(model)
    step = 20

    def fitted(y):
        return stacked.data_vector(operator(predict_path(spectrum, stacked.data(y)).image(step)))

    zero = fitted(torch.zeros(stacked.m, dtype=torch.float64))
    influence = torch.stack([fitted(unit) - zero for unit in torch.eye(stacked.m, dtype=torch.float64)])
    path = predict_path(spectrum, stacked.data(torch.zeros(stacked.m, dtype=torch.float64)))
    assert path.degrees_of_freedom(step) == pytest.approx(float(influence.trace()), rel=1e-9)
    assert path.degrees_of_freedom(0) == 0


def small_unet(A):
    config = NetworkConfig(channels=(16, 16), skip_channels=8, up_channels=16)
    z = torch.rand((1, 8, 8, 8), generator=torch.Generator().manual_seed(2))
    channels = 2 if A.domain.is_complex else 1
    return make_network(config, 8, channels, 2, torch.Generator().manual_seed(3)), z


def test_a_real_network_follows_the_prediction_the_better_the_less_it_moves(operator, double):
    model = TangentModel(*small_unet(operator), operator)
    spectrum = dense_spectrum(model)
    here, away = operator(model.stacked.image(model.start)), double(operator.range)
    deviations = []
    for distance in (1e-2, 1e-3):
        y = here + distance * away
        path = predict_path(spectrum, y)
        start, *_, late = islice(gradient_descent(model, y, spectrum.rate), 31)
        deviations.append(float((path.image(30) - late).norm() / (late - start).norm()))
    assert deviations[0] < 0.2
    assert deviations[1] < deviations[0] / 5  # the second order, relative to the first


def test_few_modes_predict_the_first_steps(operator, double):
    model = TangentModel(*small_unet(operator), operator)
    full = dense_spectrum(model)
    first = leading_spectrum(model, 12, sweeps=8, generator=torch.Generator().manual_seed(0))
    y = double(operator.range)
    all_modes, few = (predict_path(spectrum, y, rate=full.rate) for spectrum in (full, first))
    assert few.data_error(0) == pytest.approx(all_modes.data_error(0))
    moved = all_modes.image(1) - all_modes.image(0)
    missed = 1 - float(few.degrees_of_freedom(1) / all_modes.degrees_of_freedom(1))
    assert 0 < missed < 0.5
    assert float((few.image(1) - all_modes.image(1)).norm() / moved.norm()) < 0.3


def test_steps_that_diverge_are_refused(operator, linear_network, double):
    spectrum = dense_spectrum(TangentModel(*linear_network(operator), operator))
    for rate in (0.0, 2.1 * spectrum.rate):
        with pytest.raises(DipmedError, match="largest eigenvalue"):
            predict_path(spectrum, double(operator.range), rate=rate)
    assert predict_path(spectrum, double(operator.range), rate=2.1 * spectrum.rate, flow=True).data_error(9) > 0


@pytest.mark.parametrize("step", [-1, 2.5])
def test_steps_of_gradient_descent_are_counted(operator, linear_network, double, step):
    path = predict_path(dense_spectrum(TangentModel(*linear_network(operator), operator)), double(operator.range))
    with pytest.raises(DipmedError, match="whole numbers"):
        path.image(step)


def test_data_of_another_shape_are_refused(operator, linear_network):
    spectrum = dense_spectrum(TangentModel(*linear_network(operator), operator))
    with pytest.raises(ShapeError):
        predict_path(spectrum, torch.zeros(3, 3))
