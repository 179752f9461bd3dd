import numpy as np
import pytest

from fewloop_trainer.scores import (
    NOT_LISTED,
    apply_temperature,
    combine_members,
    distribution_of,
    match_priors,
    temper_independent,
)


@pytest.mark.parametrize("prior", [[0.25] * 4, [0.7, 0.2, 0.08, 0.02]])
@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_matching_reaches_the_wanted_marginal(prior, spread):
    logits = np.random.default_rng(0).normal([3, 0, -2, 1], spread, (300, 4))
    before = distribution_of(logits).mean(0)
    assert np.abs(before - prior).max() > 0.05
    offsets = match_priors(logits, np.array(prior))
    np.testing.assert_allclose(distribution_of(logits, offsets).mean(0), prior, atol=1e-4)
    assert offsets.mean() == pytest.approx(0)


def test_a_label_without_any_prior_is_not_predicted_and_nothing_overflows():
    logits = np.random.default_rng(2).normal(0, 1, (100, 3))
    offsets = match_priors(logits, np.array([0.6, 0.4, 0.0]))
    assert np.isfinite(offsets).all()
    assert distribution_of(logits, offsets).mean(0)[2] < 1e-5


class TestMatchingShortlists:
    """40 labels of which each text is asked about 8: the last ten in few texts, together, the very last in none."""

    PRIOR = np.full(40, 1 / 40)

    def texts(self, many: int) -> np.ndarray:
        rng = np.random.default_rng(7)
        likeness = rng.normal(size=(many, 40))
        likeness[:, 30:39] += np.where(np.arange(many) % 50 == 0, 9.0, -9.0)[:, None]
        likeness[:, 39] = -99.0
        listed = likeness >= np.sort(likeness, axis=-1)[:, [-8]]
        return np.where(listed, rng.normal(0, 2, likeness.shape), NOT_LISTED)

    @pytest.mark.parametrize("many", [50, 300])
    def test_aims_at_what_can_be_reached(self, many):
        scores = self.texts(many)
        offsets = match_priors(scores, self.PRIOR)
        assert np.abs(offsets).max() < 10
        assert offsets.mean() == pytest.approx(0)
        ever = (scores > NOT_LISTED).any(0)
        assert not ever[39] and (offsets[~ever] == 0).all()
        of_label, before = (distribution_of(scores, o).mean(0) for o in (offsets, 0.0))
        # Texts that list the others are a fiftieth, and half of them is split as the prior has it: evenly.
        assert (of_label[30:][ever[30:]] >= 0.01 / 8 - 1e-4).all()
        assert of_label[:30].std() < before[:30].std(), "labels that are often listed come nearer to the prior"

    def test_a_list_of_one_has_nothing_to_match(self):
        scores = np.where(np.arange(40) == np.arange(60)[:, None] % 20, 1.0, NOT_LISTED)
        np.testing.assert_allclose(match_priors(scores, self.PRIOR), 0, atol=1e-6)


def test_combining_is_the_weighted_mean():
    members = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.6, 0.4]]])
    np.testing.assert_allclose(combine_members(members, np.array([3.0, 1.0])), [[0.8, 0.2], [0.3, 0.7]])


def test_tempering_softens_or_sharpens_and_keeps_the_order():
    p = np.array([[0.6, 0.3, 0.1], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(apply_temperature(p, 1.0), p, atol=1e-9)
    np.testing.assert_allclose(apply_temperature(p[:1], 0.5), [[0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46]], atol=1e-9)
    soft = apply_temperature(p, 3.0)
    assert (soft.argsort() == p.argsort()).all()
    assert soft[0].max() < 0.6
    np.testing.assert_allclose(soft.sum(-1), 1)
    np.testing.assert_allclose(apply_temperature(p, 4.0)[1], [0, 1, 0], atol=1e-60)


def test_a_mean_that_rounding_takes_over_one_is_certain():
    np.testing.assert_array_equal(temper_independent(np.array([1 + 2**-52, 1, -(2**-60), 0]), 2), [1, 1, 0, 0])
