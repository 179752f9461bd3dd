import numpy as np
import pytest

from fewloop_trainer import priors, scores
from fewloop_trainer.pet import distribution


@pytest.mark.parametrize("prior", [[0.25] * 4, [0.7, 0.2, 0.08, 0.02]])
@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_matching_reaches_the_wanted_marginal(prior, spread):
    logits = np.random.default_rng(0).normal([3, 0, -2, 1], spread, (300, 4))
    before = distribution(logits, np.zeros(4)).mean(0)
    assert np.abs(before - prior).max() > 0.05
    offsets = priors.match_priors(logits, np.array(prior))
    np.testing.assert_allclose(distribution(logits, offsets).mean(0), prior, atol=1e-4)
    assert offsets.mean() == pytest.approx(0)


def test_the_offsets_are_those_that_the_service_matches():
    logits = np.random.default_rng(1).normal(0, 2, (200, 3))
    prior = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(priors.match_priors(logits, prior), scores.match_priors(logits, prior), atol=1e-3)


def test_a_label_without_any_prior_is_not_predicted_and_nothing_overflows():
    logits = np.random.default_rng(2).normal(0, 1, (100, 3))
    offsets = priors.match_priors(logits, np.array([0.6, 0.4, 0.0]))
    assert np.isfinite(offsets).all()
    assert distribution(logits, offsets).mean(0)[2] < 1e-5
