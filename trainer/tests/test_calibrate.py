from types import SimpleNamespace

import numpy as np
import pytest

from fewloop_trainer import calibrate
from fewloop_trainer.observe import Observations
from fewloop_trainer.scores import apply_temperature
from fewloop_trainer.teachers import ServingTemperatures, serving_temperatures


def overconfident(true_temperature: float, rows: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Distributions of three labels, and labels drawn from what they are at the true temperature."""
    rng = np.random.default_rng(7)
    said = apply_temperature(rng.dirichlet(np.ones(3), rows), 1.0)
    true = apply_temperature(said, true_temperature)
    drawn = (rng.random((rows, 1)) > true.cumsum(1)).sum(1)
    return said, np.minimum(drawn, 2)


SURE = np.array([[0.9, 0.1]] * 3)


class TestFittedTemperature:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_recovers_the_one_that_labels_were_drawn_with(self, temperature):
        assert calibrate.fit_temperature(*overconfident(temperature)) == pytest.approx(temperature, rel=0.05)

    def test_stays_within_its_bounds(self):
        low, high = np.exp(calibrate.LOG_BOUNDS)
        many = np.repeat(SURE, 2000, axis=0)
        assert calibrate.fit_temperature(many, np.ones(6000, int)) == pytest.approx(high, rel=1e-3)
        assert calibrate.fit_temperature(many, np.zeros(6000, int)) == pytest.approx(low, rel=1e-3)

    def test_hardly_moves_for_a_few_rows_and_more_for_many(self):
        few, some, many = (calibrate.fit_temperature(np.repeat(SURE, n, 0), np.zeros(3 * n, int)) for n in (1, 10, 100))
        assert 1 > few > some > many
        assert few > 0.75
        assert calibrate.fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1.0


class TestMatchedConfidence:
    @pytest.mark.parametrize("confidence", [0.55, 0.7, 0.85])
    def test_is_reached(self, confidence):
        distribution, _ = overconfident(1.0, rows=300)
        tempered = apply_temperature(distribution, calibrate.match_confidence(distribution, confidence))
        assert tempered.max(-1).mean() == pytest.approx(confidence, abs=1e-4)

    def test_stops_at_the_bounds_where_it_cannot_be_reached(self):
        low, high = np.exp(calibrate.LOG_BOUNDS)
        assert calibrate.match_confidence(SURE, 0.5) == pytest.approx(high)
        assert calibrate.match_confidence(SURE, 1.0) == pytest.approx(low)
        assert calibrate.match_confidence(np.zeros((0, 2)), 0.7) == 1.0


@pytest.mark.parametrize(("rows", "used"), [(60, 260), (150, 150)])
def test_the_teachers_are_served_with_temperatures_of_dev_rows_too_where_train_rows_are_few(rows, used):
    task = SimpleNamespace(kind="single-label", labels_of=lambda row: ["0", "1", "2"])
    train, wanted = overconfident(2.0)
    dev, dev_wanted = overconfident(0.5)
    dev, dev_wanted = dev[:200], dev_wanted[:200]
    run = SimpleNamespace(
        task=task,
        observe=Observations(task),
        wanted=wanted[:rows],
        data=SimpleNamespace(dev=[{"label": str(label)} for label in dev_wanted]),
    )
    # The second member knows nothing and weighs least: where the first is sure it is not asked.
    weights, ignorant = np.array([0.6, 0.4]), np.full((500, 3), 1 / 3)
    fit = SimpleNamespace(rows=np.stack([train[:rows], ignorant[:rows]]), weights=weights, temperature=1.7)
    served = serving_temperatures(run, fit, np.stack([dev, ignorant[:200]]))
    assert served.rows == used
    seen = np.concatenate([train[:rows], dev[: used - rows]])
    labels = np.concatenate([wanted[:rows], dev_wanted[: used - rows]])
    everyone = 0.6 * seen + 0.4 * ignorant[:used]
    assert served.ensemble == pytest.approx(calibrate.fit_temperature(everyone, labels))
    first, second = np.sort(0.6 * seen)[:, :-3:-1].T
    alone = first - second > 0.4
    assert 0 < alone.sum() < used
    in_turn = np.where(alone[:, None], seen, everyone)
    assert served.cascade == pytest.approx(calibrate.fit_temperature(in_turn, labels))
    sets = Observations(SimpleNamespace(kind="multi-label"))
    of_sets = serving_temperatures(SimpleNamespace(**vars(run) | {"observe": sets}), fit, dev)
    assert of_sets == ServingTemperatures(fit.temperature, None, rows)
