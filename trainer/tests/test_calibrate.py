from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from fewloop_trainer import calibrate
from fewloop_trainer.observe import Observations
from fewloop_trainer.scores import NOT_LISTED, apply_temperature, independent_of
from fewloop_trainer.teachers import ServingTemperatures, offsets_like_teachers, serving_temperatures


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


class TestOffsetsOfLabelSets:
    SETS = Observations(SimpleNamespace(kind="multi-label"))

    def drawn_evenly(self, rows: int, sharpness: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels of shares from a half to 2 %, and scores of a learner that saw each in half of its batches and is
        `sharpness` times too sure; [rows, 3] each. What has to be taken from the scores, [3]."""
        rng = np.random.default_rng(4)
        log_odds = rng.normal(0, 2, (rows, 3)) + np.array([0.0, -3.0, -5.5])
        wanted = rng.random((rows, 3)) < expit(log_odds)
        share = wanted.mean(0)
        added = np.log((1 - share) / share)
        return sharpness * (log_odds + added), wanted, sharpness * added

    def test_take_out_what_balanced_batches_added(self):
        scores, wanted, added = self.drawn_evenly(4000, 1.5)
        offsets = calibrate.fit_offsets(scores, wanted, lambda p: self.SETS.fit_temperature(p, wanted))
        np.testing.assert_allclose(offsets, -added, atol=0.3)
        p = independent_of(scores, offsets)
        tempered = self.SETS.temper(p, self.SETS.fit_temperature(p, wanted))
        np.testing.assert_allclose(tempered.mean(0), wanted.mean(0), rtol=0.05)
        assert self.SETS.calibration_error(tempered, wanted) < 0.02
        before = independent_of(scores)
        before = self.SETS.temper(before, self.SETS.fit_temperature(before, wanted))
        assert before[:, 2].mean() > 3 * wanted[:, 2].mean()

    def test_move_less_for_a_few_rows_than_for_many(self):
        scores, wanted = np.full((3, 1), 2.0), np.array([[True], [False], [False]])
        few, some, many = (
            calibrate.fit_offsets(np.repeat(scores, n, 0), np.repeat(wanted, n, 0), lambda p: 1.0).item()
            for n in (1, 10, 1000)
        )
        assert 0 > few > some > many
        assert many == pytest.approx(np.log(1 / 2) - 2, abs=0.01)

    @pytest.mark.parametrize("always", [False, True])
    def test_are_finite_where_all_rows_have_a_label_or_none(self, always):
        offsets = calibrate.fit_offsets(np.linspace(-3, 3, 20)[:, None], np.full((20, 1), always), lambda p: 1.0)
        assert 1 < abs(offsets[0]) < 10
        assert (offsets[0] > 0) == always

    def test_know_nothing_of_rows_that_do_not_list_the_label(self):
        scores, wanted, _ = self.drawn_evenly(600, 1.0)
        half = np.arange(600) < 300
        listed = np.where(half[:, None], scores, NOT_LISTED)
        listed[:, 2] = NOT_LISTED
        offsets, of_half = (
            calibrate.fit_offsets(s, w, lambda p: 1.0) for s, w in ((listed, wanted), (scores[half], wanted[half]))
        )
        np.testing.assert_allclose(offsets, [*of_half[:2], 0], atol=1e-9)

    def test_without_rows_are_none(self):
        assert calibrate.fit_offsets(np.zeros((0, 3)), np.zeros((0, 3)), lambda p: 1.0).tolist() == [0, 0, 0]

    @pytest.mark.parametrize("texts", [40, 600])
    def test_of_a_student_make_it_say_what_the_teachers_do_or_are_theirs(self, texts):
        scores, _, _ = self.drawn_evenly(texts, 1.0)
        teachers = np.stack([expit(scores - 2.0), expit(scores - 3.0)])
        own = [np.array([0.0, -1.0, -2.0]), np.array([0.0, -3.0, -2.0]), np.full(3, 9.0)]
        methods = ("fine-tune", "fine-tune", "efl")
        run = SimpleNamespace(
            observe=self.SETS, teachers=[SimpleNamespace(method=m) for m in methods], served_offsets=own
        )
        fit = SimpleNamespace(texts=teachers, weights=np.array([0.5, 0.5]), temperature=1.2)
        offsets = offsets_like_teachers(run, fit, "fine-tune", scores)
        if texts < 50:
            assert offsets.tolist() == [0, -2, -2]
        else:
            said = self.SETS.temper(teachers.mean(0), 1.2)
            own = independent_of(scores, offsets)
            confidence = self.SETS.flat(said).max(-1).mean()
            served = self.SETS.temper(own, calibrate.match_confidence(self.SETS.flat(own), confidence))
            np.testing.assert_allclose(served.mean(0), said.mean(0), rtol=0.05)
