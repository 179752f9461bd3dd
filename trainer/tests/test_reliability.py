import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fewloop_trainer.reliability import FEWEST_ROWS, conformal_sets, risk_coverage


class TestRiskCoverage:
    @pytest.mark.parametrize("digits", [1, 9], ids=["with ties", "without"])
    def test_augrc_is_what_the_paper_gives_in_closed_form(self, digits):
        rng = np.random.default_rng(3)
        confidence = np.round(rng.random(300), digits)
        hit = rng.random(300) < confidence
        right, ranked = hit.mean(), roc_auc_score(hit, confidence)
        expected = (1 - ranked) * right * (1 - right) + 0.5 * (1 - right) ** 2
        assert risk_coverage(confidence, hit)["augrc"] == pytest.approx(expected)

    def test_of_no_error_is_nothing_and_of_confidence_that_says_nothing_half_the_error_rate(self):
        ones = np.ones(10)
        assert risk_coverage(ones, np.ones(10, bool))["augrc"] == 0
        assert risk_coverage(ones, np.arange(10) < 6)["augrc"] == pytest.approx(0.2)

    def test_error_rate_of_the_surest(self):
        found = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, True, False]))
        assert found["errorAtCoverage"] == {"0.25": 0, "0.5": 0, "0.75": 0, "0.9": 0.25, "1": 0.25}


class TestConformalSets:
    def drawn(self, rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        probabilities = rng.dirichlet(np.ones(classes), rows)
        return probabilities, np.array([rng.choice(classes, p=p) for p in probabilities])

    def test_hold_the_right_label_as_often_as_they_promise(self):
        found = conformal_sets(*self.drawn(2000, 4), None, 0)
        assert found["coverage"] == pytest.approx(0.9, abs=0.03)
        assert 1 < found["meanSize"] < 4

    def test_cover_rows_whose_probabilities_are_sure_and_wrong_too(self):
        probabilities, wanted = self.drawn(2000, 3)
        sure = probabilities**8 / (probabilities**8).sum(1, keepdims=True)
        assert conformal_sets(sure, wanted, None, 0)["coverage"] == pytest.approx(0.9, abs=0.03)

    def test_say_of_which_label_they_can_promise_nothing(self):
        probabilities, wanted = self.drawn(60, 3)
        wanted[wanted == 2] = 0
        wanted[:4] = 2
        found = conformal_sets(probabilities, wanted, ["a", "b", "c"], 0)
        assert found["statements"] == ["c: 4 rows, under the 9 that a guarantee of 90% for this label alone needs"]
        assert set(found["coverageByLabel"]) == {"a", "b", "c"}

    def test_of_too_few_rows_there_are_none(self):
        assert FEWEST_ROWS == 9
        found = conformal_sets(*self.drawn(19, 2), None, 0)
        assert found["coverage"] is None
        assert found["statements"] == ["no guarantee at all: half of 19 rows calibrates the other, and 10 are needed"]
        assert conformal_sets(*self.drawn(20, 2), None, 0)["coverage"] is not None
