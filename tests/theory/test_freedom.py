import math
from itertools import islice

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.scan import DipmedError, ShapeError
from dipmed.theory import TangentModel, degrees_of_freedom, dense_spectrum, gradient_descent, predict_path
from dipmed.theory.stacked import Stacked


def test_probes_of_a_linear_network_scatter_about_the_trace(operator, linear_network, double, generator):
    model = TangentModel(*linear_network(operator), operator)
    spectrum, y = dense_spectrum(model), double(operator.range)
    curve = degrees_of_freedom(
        lambda data: islice(gradient_descent(model, data, spectrum.rate), 20),
        y,
        operator,
        0.1,
        n_probes=6,
        generator=generator,
    )
    path = predict_path(spectrum, y)
    assert curve.mean.shape == (20,)
    assert float(curve.mean[0]) == 0
    for step in (1, 8, 19):
        learnt = 1 - path.filter(spectrum.eigenvalues, step)[0]
        deviation = math.sqrt(2 * float(learnt.square().sum()) / 6)
        assert float(curve.mean[step]) == pytest.approx(path.degrees_of_freedom(step), abs=3 * deviation)
        assert float(curve.standard_error[step]) == pytest.approx(deviation, rel=0.7)


def test_a_fit_of_all_data_has_as_many_degrees_as_data(operator, double, generator):
    pseudo_inverse = operator.H  # Aᴴ alone is not, but A Aᴴ has a known trace
    y = double(operator.range)
    curve = degrees_of_freedom(lambda data: [pseudo_inverse(data)], y, operator, 1.0, n_probes=400, generator=generator)
    unit = torch.eye(math.prod(operator.range.shape), dtype=y.dtype).reshape(-1, *operator.range.shape)
    trace = float(operator(operator.H(unit)).flatten(1).diagonal().sum().real) * (2 if y.is_complex() else 1)
    assert float(curve.mean[0]) == pytest.approx(trace, abs=4 * float(curve.standard_error[0]))


def test_a_fit_of_dipmed_itself_can_be_probed(operator, double, generator):
    config = FitConfig(
        network=NetworkConfig((8, 8), 4, 8),
        inputs=("noise",),
        input_update="none",
        iterations=20,
        averaging=0.0,
        stop="budget",
        phase_weight=0.0,
        data_consistency_steps=0,
        mixed_precision="off",
    )

    def fit(data):
        images = []
        prior = DeepImagePrior(config, observer=lambda _, image: images.append(image), observer_interval=10)
        prior(data, operator)
        return images

    y = operator(double(operator.domain)).to(torch.complex64 if operator.domain.is_complex else torch.float32)
    curve = degrees_of_freedom(fit, y, operator, 0.3, probe_size=0.5, generator=generator)
    assert curve.probes.shape == (2, 2)
    assert bool((curve.mean > 0).all())
    assert bool((curve.mean < Stacked(operator).m).all())


def test_one_probe_has_no_scatter(operator, double, generator):
    y = double(operator.range)
    curve = degrees_of_freedom(lambda data: [operator.H(data)], y, operator, 1.0, n_probes=1, generator=generator)
    assert bool(curve.standard_error.isnan().all())


def test_fits_of_unequal_length_are_refused(operator, double, generator):
    lengths = iter([2, 2, 3])

    def fit(data):
        return [operator.H(data)] * next(lengths)

    with pytest.raises(DipmedError, match="different numbers of images"):
        degrees_of_freedom(fit, double(operator.range), operator, 1.0, generator=generator)


@pytest.mark.parametrize("wrong", [{"n_probes": 0}, {"probe_size": 0.0}, {"sigma": 0.0}])
def test_probes_of_no_size_are_refused(operator, double, generator, wrong):
    settings = {"sigma": 1.0} | wrong
    with pytest.raises(DipmedError):
        degrees_of_freedom(lambda y: [operator.H(y)], double(operator.range), operator, generator=generator, **settings)


def test_a_fit_without_images_is_refused(operator, double, generator):
    with pytest.raises(DipmedError, match="gave no image"):
        degrees_of_freedom(lambda _: [], double(operator.range), operator, 1.0, generator=generator)


def test_data_of_another_shape_are_refused(operator, generator):
    with pytest.raises(ShapeError):
        degrees_of_freedom(lambda y: [operator.H(y)], torch.zeros(3), operator, 1.0, generator=generator)
