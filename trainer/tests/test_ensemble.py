import numpy as np
import pytest

from fewloop_trainer import ensemble


def members_of(likelihoods: np.ndarray) -> np.ndarray:
    """Two-label distributions [T, N, 2] that give label 0 the likelihoods [T, N]."""
    return np.stack([likelihoods, 1 - likelihoods], -1)


def noisy_members(seed: int, rows: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three members of one quality; distributions, labels and folds."""
    rng = np.random.default_rng(seed)
    return members_of(rng.uniform(0.3, 0.95, (3, rows))), np.zeros(rows, int), np.arange(rows) % 3


class TestFolds:
    def test_hold_every_class_evenly(self):
        classes = np.random.default_rng(3).permutation([0] * 31 + [1] * 7 + [2] * 3 + [3])
        fold = ensemble.folds_of(classes, np.arange(42), 3, seed=1)
        assert set(fold) == {0, 1, 2}
        for c in range(4):
            counts = np.bincount(fold[classes == c], minlength=3)
            assert counts.max() - counts.min() <= 1
        counts = np.bincount(fold)
        assert counts.max() - counts.min() <= 1, "what is left over of the classes does not pile up in one fold"

    def test_keep_the_rows_of_a_text_together(self):
        groups = np.repeat([f"text{n}" for n in range(20)], 3)
        fold = ensemble.folds_of(np.tile([0, 1, 1], 20), groups, 2, seed=0)
        assert all(len(set(fold[groups == group])) == 1 for group in groups)
        assert list(np.bincount(fold)) == [30, 30]

    def test_depend_on_the_seed_alone(self):
        classes = np.arange(60) % 2
        first, again, other = (ensemble.folds_of(classes, np.arange(60), 3, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


class TestFittedWeights:
    @pytest.mark.parametrize("of_first", [3, 5, 7])
    def test_are_the_optimum_that_algebra_gives(self, of_first):
        # `of_first` of ten rows are (0.9, 0.1) likely by the two members, the others (0.1, 0.9). The likelihood's
        # derivative is zero where the mixture gives the first kind of_first / 10 of 0.9 + 0.1.
        first = np.array([0.9] * of_first + [0.1] * (10 - of_first))
        weights = ensemble.fit_weights(members_of(np.stack([first, 1 - first])), np.zeros(10, int))
        optimum = (of_first / 10 - 0.1) / 0.8
        np.testing.assert_allclose(weights, [optimum, 1 - optimum], atol=1e-3)

    def test_leave_nothing_to_a_member_that_another_beats_everywhere(self):
        rng = np.random.default_rng(0)
        good = rng.uniform(0.6, 0.9, 40)
        weights = ensemble.fit_weights(members_of(np.stack([good, good - 0.2])), np.zeros(40, int))
        np.testing.assert_allclose(weights, [1, 0], atol=1e-6)

    def test_are_at_least_as_likely_as_any_others(self):
        distributions, wanted, _ = noisy_members(5, rows=30)
        likelihood = distributions[:, :, 0]
        fitted = np.log(ensemble.fit_weights(distributions, wanted) @ likelihood).sum()
        others = np.random.default_rng(1).dirichlet(np.ones(3), 2000)
        assert fitted >= np.log(others @ likelihood).sum(1).max() - 1e-4

    def test_survive_a_row_that_every_member_calls_impossible(self):
        weights = ensemble.fit_weights(members_of(np.array([[0.0, 0.9], [0.0, 0.2]])), np.zeros(2, int))
        assert np.isfinite(weights).all()
        assert weights.sum() == pytest.approx(1)


class TestChosenWeights:
    @pytest.mark.parametrize(("rows", "least", "most"), [(15, 0.65, 0.85), (30, 0.75, 0.95), (1000, 0.95, 1.0)])
    def test_go_to_the_better_member_as_rows_speak_for_it(self, rows, least, most):
        rng = np.random.default_rng(0)
        members = members_of(np.stack([rng.uniform(0.85, 0.95, rows), rng.uniform(0.3, 0.5, rows)]))
        weights, details = ensemble.choose_weights(members, np.zeros(rows, int), np.arange(rows) % 3)
        assert details["fitted"]
        assert details["gain"] > details["standardError"] > 0
        assert least < weights[0] < most

    def test_do_not_depend_on_how_many_worthless_members_there_are(self):
        rng = np.random.default_rng(0)
        good, bad = rng.uniform(0.85, 0.95, 32), [rng.uniform(0.3, 0.5, 32) for _ in range(6)]
        of = [
            ensemble.choose_weights(members_of(np.stack([good, *bad[:n]])), np.zeros(32, int), np.arange(32) % 2)[0]
            for n in (2, 6)
        ]
        assert of[0][0] - of[1][0] < 0.1
        assert of[1][0] > 0.6

    def test_are_uniform_unless_the_gain_exceeds_a_standard_error(self):
        kinds = {"fitted": 0, "gained, but within the error": 0, "lost": 0}
        for seed in range(60):
            distributions, wanted, fold = noisy_members(seed)
            weights, details = ensemble.choose_weights(distributions, wanted, fold)
            gain, error = details["gain"], details["standardError"]
            assert details["fitted"] == (gain > error)
            if gain > error:
                kinds["fitted"] += 1
                np.testing.assert_allclose(weights, ensemble.fit_weights(distributions, wanted, ensemble.PRIOR_ROWS))
            else:
                kinds["gained, but within the error" if gain > 0 else "lost"] += 1
                np.testing.assert_allclose(weights, 1 / 3)
        # Weights fitted on the rows they are judged on would never lose.
        assert all(kinds.values()), kinds

    def test_are_uniform_where_nothing_can_be_fitted(self):
        distributions, wanted, _ = noisy_members(0)
        one_fold, _ = ensemble.choose_weights(distributions, wanted, np.zeros(12, int))
        np.testing.assert_allclose(one_fold, 1 / 3)
        few, _ = ensemble.choose_weights(distributions[:, :3], wanted[:3], np.arange(3))
        np.testing.assert_allclose(few, 1 / 3)
        alone, _ = ensemble.choose_weights(distributions[:1], wanted, np.arange(12) % 3)
        np.testing.assert_allclose(alone, [1])
