import math
from dataclasses import replace

import pytest
import torch

from dipmed.scan import DipmedError
from dipmed.theory import TangentModel, dense_spectrum, expected_risk, predict_path, predict_stop
from operators import add_noise

SIGMA = 0.3


@pytest.fixture
def spectrum(operator, linear_network):
    return dense_spectrum(TangentModel(*linear_network(operator), operator))


def test_expected_errors_are_means_over_noise(operator, spectrum, double, generator):
    truth = double(operator.domain)
    steps = (0, 3, 30, 1000)
    risk = expected_risk(spectrum, truth, SIGMA, steps)
    clean = operator(truth)
    image, data = [], []
    for _ in range(300):
        path = predict_path(spectrum, add_noise(clean, SIGMA, generator))
        errors = [path.image(step) - truth for step in steps]
        image.append([float(error.abs().square().sum()) for error in errors])
        data.append([float(operator(error).abs().square().sum()) for error in errors])
    for drawn, expected in ((image, risk.image), (data, risk.data)):
        values = torch.tensor(drawn, dtype=torch.float64)
        standard_error = values.std(0) / math.sqrt(len(values))
        assert bool(
            ((values.mean(0) - torch.tensor(expected, dtype=torch.float64)).abs() <= 4 * standard_error + 1e-9).all()
        )
    assert risk.degrees_of_freedom[2] == pytest.approx(path.degrees_of_freedom(30))


def test_best_steps_are_those_of_the_smallest_errors(operator, spectrum, double):
    risk = expected_risk(spectrum, double(operator.domain), 1.0, range(0, 400, 4))
    assert risk.image[risk.steps.index(risk.best_image_step)] == min(risk.image)
    assert risk.data[risk.steps.index(risk.best_data_step)] == min(risk.data)


def test_discrepancy_is_the_first_step_down_to_the_noise(operator, spectrum, double, generator):
    y = add_noise(operator(5 * double(operator.domain)), SIGMA, generator)
    path = predict_path(spectrum, y)
    step = predict_stop(path, SIGMA).discrepancy
    stacked = spectrum.model.stacked
    goal = stacked.m * stacked.deviation(SIGMA) ** 2
    assert step > 1
    assert path.data_error(step) <= goal < path.data_error(step - 1)


def test_data_that_are_fitted_from_the_start_need_no_step(operator, spectrum):
    y = operator(spectrum.model.stacked.image(spectrum.model.start))
    assert predict_stop(predict_path(spectrum, y), SIGMA).discrepancy == 0


def test_data_that_cannot_be_fitted_have_no_stop(operator, linear_network, double):
    spectrum = dense_spectrum(TangentModel(*linear_network(operator, n_weights=2), operator))
    assert predict_stop(predict_path(spectrum, double(operator.range)), 1e-3).discrepancy is None


def test_modes_are_learnt_until_their_best_share_of_noise_is_left(operator, spectrum, double):
    path = predict_path(spectrum, double(operator.range))
    variance = spectrum.model.stacked.deviation(SIGMA) ** 2
    # eight modes whose signal is eight times the noise, then eight as strong as the noise alone
    coefficients = torch.zeros_like(path.coefficients)
    coefficients[:8] = math.sqrt(9 * variance)
    coefficients[8:16] = math.sqrt(variance)
    step = predict_stop(replace(path, coefficients=coefficients), SIGMA).mode_snr
    pace = path.filter.rate * float(spectrum.eigenvalues[:8].log().mean().exp())
    assert step == round(math.log(9) / pace)


def test_noise_alone_is_not_worth_a_step(operator, spectrum, double):
    path = predict_path(spectrum, double(operator.range))
    noise = torch.full_like(path.coefficients, spectrum.model.stacked.deviation(SIGMA))
    assert predict_stop(replace(path, coefficients=noise), SIGMA).mode_snr is None


def test_noise_of_no_size_is_refused(operator, spectrum, double):
    with pytest.raises(DipmedError, match="positive and finite"):
        predict_stop(predict_path(spectrum, double(operator.range)), 0.0)
    with pytest.raises(DipmedError, match="positive and finite"):
        expected_risk(spectrum, double(operator.domain), -1.0, [1])
