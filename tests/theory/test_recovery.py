import pytest
import torch

from dipmed.scan import DipmedError
from dipmed.theory import (
    TangentModel,
    dense_spectrum,
    exact_recovery,
    leading_spectrum,
    limit_projection,
    predict_path,
)


@pytest.fixture
def spectrum(operator, linear_network):
    return dense_spectrum(TangentModel(*linear_network(operator), operator))


def start_of(spectrum):
    return spectrum.model.stacked.image(spectrum.model.start)


def test_the_limit_is_an_oblique_projector_along_the_null_space(operator, spectrum, double):
    d = double(operator.domain, (3,))
    once = limit_projection(spectrum, d)
    torch.testing.assert_close(limit_projection(spectrum, once), once, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(operator(once), operator(d), rtol=1e-7, atol=1e-7)
    stacked = spectrum.model.stacked
    A = stacked.forward(torch.eye(stacked.n, dtype=torch.float64)).T
    unseen = torch.linalg.svd(A)[2][torch.linalg.matrix_rank(A, rtol=1e-6) :]
    assert len(unseen)
    assert float(limit_projection(spectrum, stacked.image(unseen)).abs().max()) < 1e-6


def test_what_data_can_lead_to_is_recovered_exactly(spectrum, generator):
    stacked = spectrum.model.stacked
    coefficients = torch.randn((1, stacked.m), dtype=torch.float64, generator=generator)
    planted = stacked.image(spectrum.model.through_kernel(coefficients)[0])
    report = exact_recovery(spectrum, start_of(spectrum) + planted)
    assert report.limit_error < 1e-8
    assert report.distance_to_range < 1e-8
    assert report.null_space_predicted == pytest.approx(1)
    assert report.null_space_share > 0.1


def test_any_other_image_is_not(operator, spectrum, double):
    report = exact_recovery(spectrum, double(operator.domain))
    assert 0.1 < report.distance_to_range <= report.limit_error
    assert report.row_space_error < 1e-7
    assert report.limit_error**2 == pytest.approx(report.row_space_error**2 + report.null_space_error**2)
    assert report.rank == torch.linalg.matrix_rank(spectrum.modes * spectrum.eigenvalues, rtol=1e-12)


def test_a_kernel_of_low_rank_recovers_all_that_it_can_show(operator, linear_network, generator):
    network, z = linear_network(operator, n_weights=10)
    spectrum = dense_spectrum(TangentModel(network, z, operator))
    d = network.mixing @ torch.randn(10, dtype=torch.float64, generator=generator)
    report = exact_recovery(spectrum, start_of(spectrum) + spectrum.model.stacked.image(d))
    assert report.rank == 10
    assert report.limit_error < 1e-8


def test_an_endless_fit_ends_at_the_limit(operator, spectrum, double):
    truth = double(operator.domain)
    report = exact_recovery(spectrum, truth)
    path = predict_path(spectrum, operator(truth), rate=1e12 * spectrum.rate, flow=True)
    torch.testing.assert_close(path.image(1e6), report.limit, rtol=1e-5, atol=1e-5)


def test_a_kernel_that_links_no_pixels_predicts_nothing_unseen(operator, linear_network, double):
    network, z = linear_network(operator)
    network.mixing.copy_(torch.eye(*network.mixing.shape))
    report = exact_recovery(dense_spectrum(TangentModel(network, z, operator)), double(operator.domain))
    assert report.null_space_error == pytest.approx(report.null_space_share)
    assert report.null_space_predicted == pytest.approx(0, abs=1e-6)


def test_limits_of_few_modes_are_refused(operator, spectrum, double, generator):
    few = leading_spectrum(spectrum.model, 3, generator=generator)
    with pytest.raises(DipmedError, match="use dense_spectrum"):
        exact_recovery(few, double(operator.domain))


def test_nothing_to_recover_is_said(spectrum):
    with pytest.raises(DipmedError, match="nothing to recover"):
        exact_recovery(spectrum, start_of(spectrum))
