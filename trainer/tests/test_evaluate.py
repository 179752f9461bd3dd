import numpy as np
import pytest
from sklearn.metrics import f1_score

from fewloop_trainer.evaluate import calibration_error, evaluate, figure_of, macro_f1


def predictions(hits: int, rows: int, confidence: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Rows that all say label 0; the first `hits` of them are."""
    return np.tile([confidence, 1 - confidence], (rows, 1)), (np.arange(rows) >= hits).astype(int)


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (90, 100, 0.8256, 0.9448)]
)
def test_accuracy_comes_with_wilsons_interval(hits, rows, low, high):
    accuracy = evaluate(*predictions(hits, rows))["accuracy"]
    assert accuracy["value"] == hits / rows
    assert accuracy["interval"] == pytest.approx([low, high], abs=1e-4)


def test_macro_f1_weighs_classes_equally():
    distribution, wanted = np.eye(2)[[0, 0, 0, 0, 1]], np.array([0, 0, 0, 1, 1])
    # Label 0: precision 3/4, recall 1; label 1: precision 1, recall 1/2.
    assert evaluate(distribution, wanted)["macroF1"]["value"] == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_macro_f1_is_the_librarys_whatever_labels_occur():
    rng = np.random.default_rng(0)
    for _ in range(30):
        predicted, wanted = rng.integers(0, 5, (2, rng.integers(1, 12)))
        expected = f1_score(wanted, predicted, average="macro", zero_division=0)
        assert macro_f1(predicted, wanted) == pytest.approx(expected)


def test_log_loss_is_in_nats_a_row():
    assert evaluate(*predictions(1, 2))["logLoss"] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)


def test_intervals_hold_the_value_and_shrink_with_rows():
    rng = np.random.default_rng(0)
    widths = []
    for rows in (20, 200):
        p = rng.beta(4, 2, rows)
        result = evaluate(np.stack([p, 1 - p], 1), (rng.random(rows) > p).astype(int))
        for name in ("macroF1", "ece"):
            low, high = result[name]["interval"]
            assert low <= high
            widths.append(high - low)
        low, high = result["augrc"]["interval"]
        assert low <= result["augrc"]["value"] <= high
        low, high = result["macroF1"]["interval"]
        assert low <= result["macroF1"]["value"] <= high
    assert widths[2] < widths[0]
    assert widths[3] < widths[1]


def test_few_rows_have_no_bootstrap_interval_and_none_no_measure():
    assert "interval" not in evaluate(*predictions(4, 9))["macroF1"]
    assert evaluate(np.zeros((0, 2)), np.zeros(0, int)) == {"rows": 0}


def test_a_figure_that_lacks_something_says_why():
    whole = {"value": 0.5, "interval": [0.0, 1.0]}
    assert figure_of(whole, 10, "d") == whole | {"digest": "d"}
    few = figure_of({"value": 0.5}, 9, "d")
    assert few == {"value": 0.5, "interval": None, "digest": "d", "reason": "9 rows, and an interval takes 10"}
    none = figure_of({}, 0, None)
    assert none.pop("reason") == "there is no labelled row that it was not trained on"
    assert none == {"value": None, "interval": None, "digest": None}


def test_calibration_error_of_known_cases():
    hit = np.tile([1.0, 0.0], 10)
    assert calibration_error(np.full(20, 0.75), hit) == pytest.approx(0.25)
    assert calibration_error(np.full(20, 0.5), hit) == pytest.approx(0)
    # Ten bins of one row each: the mean distance of confidence and hit.
    confidence = np.linspace(0.5, 0.95, 10)
    one_by_one = np.abs(confidence - hit[:10]).mean()
    assert calibration_error(confidence, hit[:10]) == pytest.approx(one_by_one)
    # Bins of equal mass: with one sure row among 30 it does not have a bin to itself.
    confidence, hit = np.array([0.6] * 29 + [1.0]), np.array([1.0] * 18 + [0.0] * 11 + [1.0])
    last = abs((0.6 * 2 + 1) / 3 - 1 / 3)
    bins = 6 * 0.4 + 3 * 0.6
    assert calibration_error(confidence, hit) == pytest.approx((3 * bins + 3 * last) / 30)
