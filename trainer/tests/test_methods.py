"""The methods beside PET: what they draw, what they learn, what they make of label sets."""

from itertools import islice

import numpy as np
import pytest
import torch
from scipy.special import expit

from fewloop_trainer import calibrate, classifier, efl, embedding, evaluate, pet
from fewloop_trainer.classifier import Classifier
from fewloop_trainer.data import targets
from fewloop_trainer.learners import learner_of
from fewloop_trainer.observe import Observations
from fewloop_trainer.render import Renderer
from fewloop_trainer.run_state import balance_of
from fewloop_trainer.scores import NOT_LISTED
from fewloop_trainer.task import load_task
from fewloop_trainer.training import TrainSettings
from folders import definition_of, reviews

FAST = TrainSettings(steps=80, encoder_rate=3e-3, head_rate=3e-2)
LABELS = [
    {"name": "positive", "words": ["好"], "description": "很好。"},
    {"name": "negative", "words": ["差"], "description": "很差。"},
]


def task_of(tokenizer, **changes):
    task = load_task(definition_of(labels=LABELS, **changes))
    return task, Renderer(tokenizer, task)


def accuracy(scores: np.ndarray, wanted: np.ndarray) -> float:
    return float((scores.argmax(-1) == wanted).mean())


class TestClassifier:
    def test_begins_at_equal_probabilities_and_learns_its_rows(self, tiny_model, tiny_tokenizer):
        task, renderer = task_of(tiny_tokenizer)
        rows = reviews(8)
        encoded, wanted = classifier.encode(renderer, "{text}", rows), targets(task, rows)
        model = classifier.classifier_of(tiny_model, 2)
        np.testing.assert_array_equal(classifier.predict(model, encoded), 0)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        classifier.train(model, encoded, np.eye(2)[wanted], "plain", FAST, balance=wanted)
        assert accuracy(classifier.predict(model, encoded), wanted) == 1
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert not [name for name in moved if "embeddings" in name]
        assert {"head.weight", "head.bias"} <= moved
        assert not model.training

    def test_does_not_change_the_base(self, tiny_model, tiny_tokenizer):
        task, renderer = task_of(tiny_tokenizer)
        before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
        rows = reviews(2)
        model = classifier.classifier_of(tiny_model, 2)
        encoded = classifier.encode(renderer, "{text}", rows)
        classifier.train(model, encoded, np.eye(2)[targets(task, rows)], "plain", TrainSettings(steps=2))
        assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())

    def test_answers_in_the_order_of_the_rows(self, tiny_model, tiny_tokenizer):
        _, renderer = task_of(tiny_tokenizer)
        rows = [row | {"text": row["text"] * (1 + i % 3)} for i, row in enumerate(reviews(4))]
        model = classifier.classifier_of(tiny_model, 3)
        torch.nn.init.normal_(model.head.weight)
        encoded = classifier.encode(renderer, "{text}", rows)
        alone = [classifier.predict(model, [row])[0] for row in encoded]
        np.testing.assert_allclose(classifier.predict(model, encoded, 60), alone, atol=1e-4)

    @pytest.mark.parametrize("strategy", ["plain", "r-drop", "mixup+fgm"])
    def test_label_sets_are_learnt_label_by_label(self, tiny_model, tiny_tokenizer, strategy):
        _, renderer = task_of(tiny_tokenizer)
        rows = reviews(6)
        # The second label always holds, the third never does.
        wanted = np.array([[row["label"] == "positive", True, False] for row in rows])
        model = classifier.classifier_of(tiny_model, 3, label_sets=True)
        encoded = classifier.encode(renderer, "{text}", rows)
        classifier.train(model, encoded, wanted.astype(float), strategy, FAST)
        assert ((expit(classifier.predict(model, encoded)) > 0.5) == wanted).mean() > 0.9


@pytest.mark.parametrize("method", [classifier, pet])
def test_predicting_goes_by_length_and_pads_to_the_longest_of_a_batch(tiny_model, tiny_tokenizer, monkeypatch, method):
    task, renderer = task_of(tiny_tokenizer, maxLength=512)
    rows = [{"text": "好" * (1 + 37 * i % 60)} for i in range(60)]
    if method is pet:
        model, encoded = tiny_model, pet.encode(task, renderer, "很{mask}。{text}", rows)
    else:
        model, encoded = classifier.classifier_of(tiny_model, 2), classifier.encode(renderer, "{text}", rows)
    batches, collate = [], method.collate

    def watch(batch):
        collated = collate(batch)
        ids = collated.inputs[0] if method is pet else collated[0]
        batches.append(([len(row.ids) for row in batch], tuple(ids.shape)))
        return collated

    monkeypatch.setattr(method, "collate", watch)
    method.predict(model, encoded, *([2] if method is pet else []), batch_tokens=200)
    assert len(batches) > 5
    for lengths, shape in batches:
        assert shape == (len(lengths), max(lengths))
        assert shape[0] * shape[1] <= 200
    assert [n for lengths, _ in batches for n in lengths] == sorted(len(row.ids) for row in encoded)


@pytest.mark.parametrize(
    ("method", "efl"), [("pet", {}), ("fine-tune", {}), ("embedding", {}), ("efl", {}), ("efl", {"shortlist": 1})]
)
def test_predicting_says_that_it_goes_on_before_every_batch(tiny_model, tiny_tokenizer, monkeypatch, method, efl):
    task, renderer = task_of(tiny_tokenizer, efl=efl)
    learner = learner_of(tiny_model, renderer, task, 2, method, 0, "plain")
    model, said, passes = learner.start(), [], []
    rows = learner.encode(reviews(2))
    model.bert.register_forward_pre_hook(lambda *_: passes.append(len(said)))
    learner.predict(model, rows, at_work=lambda: said.append(None))
    assert passes == list(range(1, len(said) + 1))
    assert len(said) == (2 if efl else 1)


class TestPairs:
    def draws(self, tokenizer, negative, negatives, batch_rows=8):
        _, renderer = task_of(tokenizer, kind="sentence-pair")
        items = [{"text": f"手机{i}很好", "textPair": f"酒店{i % 3}很差"} for i in range(9)]
        rows = efl.encode_pairs(renderer, items)
        wanted = np.tile([1.0, 0.0], (9, 1))
        settings = TrainSettings(steps=0, batch_rows=batch_rows)
        return items, islice(
            efl._pair_draws(renderer, rows, wanted, np.zeros(9, int), negative, negatives, settings), 40
        )

    def test_random_negatives_have_their_label_and_their_share(self, tiny_tokenizer):
        items, draws = self.draws(tiny_tokenizer, 1, 3)
        given = {(item["text"], item["textPair"]) for item in items}
        drawn = [(row, target) for draw in draws for row, target in zip(draw.rows, draw.target.tolist(), strict=True)]
        own = [(row.item["text"], row.item["textPair"]) in given for row, _ in drawn]
        for (_, target), is_own in zip(drawn, own, strict=True):
            assert target == ([1, 0] if is_own else [0, 1])
        assert np.mean(own) == pytest.approx(1 / 4, abs=0.03)

    @pytest.mark.parametrize("negatives", [1, 3])
    def test_there_are_none_where_a_random_pair_has_no_label(self, tiny_tokenizer, negatives):
        items, draws = self.draws(tiny_tokenizer, None, negatives)
        given = {(item["text"], item["textPair"]) for item in items}
        for draw in draws:
            assert {(row.item["text"], row.item["textPair"]) for row in draw.rows} <= given
            assert (draw.target[:, 0] == 1).all()

    def test_rows_of_one_second_sentence_get_no_random_pair(self, tiny_tokenizer):
        _, renderer = task_of(tiny_tokenizer, kind="sentence-pair")
        rows = efl.encode_pairs(renderer, [{"text": f"{i}", "textPair": "同"} for i in range(4)])
        draws = efl._pair_draws(renderer, rows, np.eye(2)[[0, 1, 0, 1]], np.zeros(4, int), 1, 2, TrainSettings(steps=0))
        assert all(row.item["textPair"] == "同" and row in rows for draw in islice(draws, 10) for row in draw.rows)


class TestTagging:
    def test_a_right_hypothesis_and_as_many_others_as_asked(self):
        rng = np.random.default_rng(0)
        for _ in range(50):
            asked = efl._asked(np.array([0, 0, 1.0, 0, 0]), 2, rng)
            assert asked[0] == 2
            assert len(set(asked)) == 3
        assert len(efl._asked(np.array([0, 1.0]), 8, rng)) == 2, "there are no more labels"
        assert 1 not in [efl._asked(np.array([0.5, 0, 0.5]), 0, rng)[0] for _ in range(50)]
        assert len(efl._asked(np.zeros(4), 2, rng)) == 3, "a text without labels is a negative of each"

    def test_takes_more_steps_where_a_batch_is_of_few_texts(self, tiny_model, tiny_tokenizer):
        task, renderer = task_of(tiny_tokenizer, method=["efl", "fine-tune"], efl={"negatives": 3})
        tagging, classifying = (
            learner_of(tiny_model, renderer, task, 2, method, 0, "plain") for method in ("efl", "fine-tune")
        )
        assert tagging.wished_steps(100) == 4 * classifying.wished_steps(100)
        rows, wanted, balance = tagging.encode(reviews(8)), np.tile([0.0, 1.0], (16, 1)), np.zeros(16, int)
        drawn = next(efl._tagging_draws(tagging.hypotheses, rows, wanted, balance, 3, FAST))
        assert len(drawn.rows) == FAST.batch_rows / 4 * 2, "two texts, each beside both labels"

    def test_learns_which_hypothesis_holds(self, tiny_model, tiny_tokenizer):
        # Of every text the same one: two layers cannot compare a text with a hypothesis.
        task, renderer = task_of(tiny_tokenizer)
        hypotheses = efl.Hypotheses(renderer, [label.description for label in task.labels])
        tagging = hypotheses.encode(reviews(8))
        model = classifier.classifier_of(tiny_model, 2)
        efl.train_tagging(model, hypotheses, tagging, np.tile([0.0, 1.0], (16, 1)), np.zeros(16, int), 1, "plain", FAST)
        scores = efl.predict_tagging(model, hypotheses, tagging)
        assert (scores[:, 0] < 0).all()
        assert (scores[:, 1] > 0).all()
        np.testing.assert_allclose(efl.predict_tagging(model, hypotheses, tagging[:1]), scores[:1], atol=1e-4)

    def test_a_shortlist_asks_the_nearest_labels_alone(self, tiny_model, tiny_tokenizer):
        _, renderer = task_of(tiny_tokenizer)
        hypotheses = efl.Hypotheses(renderer, ["很好。", "很差。", "很慢。"])
        rows, wanted = hypotheses.encode(reviews(3)), np.tile([[1.0, 0, 0], [0, 1.0, 0]], (3, 1))
        model = classifier.classifier_of(tiny_model, 2)
        torch.nn.init.normal_(model.head.weight)
        vectors = efl.label_vectors(model, hypotheses, rows, wanted)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
        np.testing.assert_allclose(vectors[2], classifier.embeddings(model, hypotheses.alone())[2])
        everything = efl.predict_tagging(model, hypotheses, rows)
        for size in (1, 2, 3):
            scores = efl.predict_tagging(model, hypotheses, rows, (vectors, size))
            asked = scores > NOT_LISTED
            np.testing.assert_array_equal(asked.sum(1), size)
            np.testing.assert_allclose(scores[asked], everything[asked], atol=1e-4)
            nearest = (classifier.embeddings(model, rows) @ vectors.T).argmax(1)
            assert asked[np.arange(len(rows)), nearest].all()


class TestEmbedding:
    def test_the_loss_is_nought_where_cosines_are_those_of_the_targets(self):
        targets_ = torch.eye(3)[[0, 1, 0, 2]]
        assert embedding.cosine_loss(torch.eye(5)[[4, 1, 4, 0]], targets_).item() == 0
        wrong = embedding.cosine_loss(torch.eye(5)[[4, 4, 4, 4]], targets_).item()
        assert wrong == pytest.approx(5 / 6), "one of the six pairs is of one label"
        assert embedding.cosine_loss(torch.ones(1, 2, requires_grad=True), targets_[:1]).requires_grad

    def test_tuning_brings_rows_of_a_label_together(self, tiny_model, tiny_tokenizer):
        task, renderer = task_of(tiny_tokenizer)
        rows = reviews(8)
        encoded, wanted = classifier.encode(renderer, "{text}", rows), targets(task, rows)
        model = classifier.classifier_of(tiny_model, 2, normalised=True)
        losses = []
        settings = TrainSettings(steps=60, encoder_rate=3e-3, batch_rows=16)
        embedding.tune(model, encoded, np.eye(2)[wanted], settings, lambda _, loss: losses.append(loss), wanted)
        assert np.mean(losses[-5:]) < 0.3 * np.mean(losses[:5])
        embedding.fit_head(model, encoded, np.eye(2)[wanted])
        assert accuracy(classifier.predict(model, encoded), wanted) == 1

    def test_tuning_ends_with_its_time_after_its_least_steps(self, tiny_model, tiny_tokenizer):
        _, renderer = task_of(tiny_tokenizer)
        encoded = classifier.encode(renderer, "{text}", reviews(4))
        model, steps = classifier.classifier_of(tiny_model, 2, normalised=True), []
        settings = TrainSettings(steps=60, seconds=1e-9, least_steps=3)
        embedding.tune(model, encoded, np.tile(np.eye(2), (4, 1)), settings, lambda step, _: steps.append(step))
        assert steps == [1, 2, 3]

    def test_the_head_knows_labels_that_rows_lack(self, tiny_model, tiny_tokenizer):
        _, renderer = task_of(tiny_tokenizer)
        encoded = classifier.encode(renderer, "{text}", reviews(4))
        for present in ([0, 2], [0, 2, 3]):
            model = classifier.classifier_of(tiny_model, 5, normalised=True)
            wanted = np.array(present)[np.arange(8) % len(present)]
            embedding.fit_head(model, encoded, np.eye(5)[wanted])
            scores = classifier.predict(model, encoded)
            assert set(scores.argmax(-1)) <= set(present)
            assert np.isfinite(scores).all()

    def test_a_label_that_rows_lack_stays_behind_two_that_are_far_from_nought(self):
        states = np.array([[-3.1], [-3.0], [-2.1], [-2.0]])
        weight, bias = embedding._distributions(states, np.eye(3)[[0, 0, 2, 2]], 100.0)
        scores = states @ weight.T + bias
        assert bias[2] > embedding.MARGIN_OF_UNSEEN
        assert list(scores.argmax(-1)) == [0, 0, 2, 2]
        assert (scores.max(-1) - scores[:, 1] >= embedding.MARGIN_OF_UNSEEN).all()

    def test_label_sets_have_a_head_a_label(self, tiny_model, tiny_tokenizer):
        _, renderer = task_of(tiny_tokenizer)
        rows = reviews(8)
        wanted = np.array([[row["label"] == "positive", True, False] for row in rows])
        encoded = classifier.encode(renderer, "{text}", rows)
        model = Classifier(tiny_model.bert, 3, normalised=True)
        embedding.fit_head(model, encoded, wanted.astype(float), multi_label=True)
        p = expit(classifier.predict(model, encoded))
        np.testing.assert_allclose(p[:, 1], 17 / 18, atol=1e-3)
        np.testing.assert_allclose(p[:, 2], 1 / 18, atol=1e-3)
        assert ((p[:, 0] > 0.5) == wanted[:, 0]).mean() > 0.6, "nothing of the encoder is tuned"


class TestObservations:
    SETS = np.array([[[0.9, 0.2], [0.6, 0.1], [0.3, 0.7]]])
    HELD = np.array([[True, False], [True, True], [False, True]])

    def observe(self, kind="multi-label"):
        return Observations(load_task(definition_of(kind=kind)))

    def test_label_sets_are_one_a_label(self):
        observe = self.observe()
        flat = observe.flat(self.SETS)
        assert flat.shape == (1, 6, 2)
        wanted = observe.flat_wanted(self.HELD)
        np.testing.assert_allclose(flat[0, np.arange(6), wanted], [0.9, 0.8, 0.6, 0.1, 0.7, 0.7])
        np.testing.assert_array_equal(observe.whole(flat, 2), self.SETS)
        np.testing.assert_array_equal(observe.per_row(np.array([4, 5, 6]), 2), [4, 4, 5, 5, 6, 6])

    def test_scores_of_observations_are_those_of_their_probabilities(self):
        observe = self.observe()
        scores, offsets = np.array([[[1.5, -2.0], [0.0, 3.0]]]), np.array([0.5, -1.0])
        flat = observe.flat_scores(scores, offsets)
        np.testing.assert_allclose(expit(flat[..., 1] - flat[..., 0]), expit(scores + offsets).reshape(1, 4))

    def test_a_single_label_stays_as_it_is(self):
        observe = self.observe("single-label")
        assert observe.flat(self.SETS) is self.SETS
        assert observe.flat_scores(self.SETS, np.ones(2)) is self.SETS

    def test_a_label_set_is_balanced_by_its_rarest_label(self):
        task = load_task(definition_of(kind="multi-label"))
        wanted = np.array([[True, False], [True, True], [True, False], [False, False]])
        np.testing.assert_array_equal(balance_of(task, wanted), [0, 1, 0, 2])


class TestThresholds:
    def test_each_label_has_the_one_of_its_best_f1(self):
        rng = np.random.default_rng(1)
        wanted = np.stack([np.arange(200) < 100, np.arange(200) < 20, np.arange(200) < 3], axis=1)
        p = np.clip(np.where(wanted, 0.35, 0.15) + rng.normal(0, 0.03, wanted.shape), 0, 1)
        p[:, 1] += 0.4
        found = calibrate.fit_thresholds(p, wanted)
        assert 0.2 <= found[0] <= 0.3
        assert 0.6 <= found[1] <= 0.7
        rare_alone = calibrate.fit_thresholds(p[:, :2], wanted[:, :2])
        np.testing.assert_array_equal(found[:2], rare_alone)

    def test_ties_stay_near_a_half(self):
        wanted = np.arange(40)[:, None] < 20
        assert calibrate.fit_thresholds(np.where(wanted, 0.99, 0.01), wanted)[0] == pytest.approx(0.5)


def test_evaluation_of_label_sets_by_hand():
    p, held = TestObservations.SETS[0], TestObservations.HELD
    result = evaluate.evaluate_sets(p, held, np.array([0.5, 0.5]))
    assert result["accuracy"]["value"] == pytest.approx(2 / 3)
    assert result["macroF1"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["microF1"]["value"] == pytest.approx(6 / 7)
    assert evaluate.evaluate_sets(p[:0], held[:0], np.array([0.5, 0.5])) == {"rows": 0}
    assert evaluate.sets_f1(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == (1.0, 1.0)
