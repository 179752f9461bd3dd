from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewloop_trainer import pet, scores, training
from fewloop_trainer.data import targets
from folders import reviews


def encoded(sentiment, rows, template=0):
    task, renderer = sentiment
    return pet.encode(task, renderer, task.templates[template], rows)


def sized(length: int, masks: int = 1) -> pet.Encoded:
    return pet.Encoded([2] + [4] * masks + [9] * (length - masks - 1), list(range(1, 1 + masks)), [[7] * masks], [0])


class TestLabelLogits:
    def test_more_words_do_not_favour_a_label(self):
        words = torch.full((1, 5), 2.0)
        scored = pet.label_logits(words, torch.tensor([[0, 0, 0, 0, 1]]), 2)
        np.testing.assert_allclose(scored, [[2.0, 2.0]], atol=1e-6)

    def test_are_the_log_mean_exp_that_serving_computes(self):
        logits = np.random.default_rng(0).normal(0, 5, (6, 6))
        scored = pet.label_logits(torch.from_numpy(logits), torch.tensor([[0, 0, 0, 1, 2, 2]] * 6), 3)
        by_hand = [np.log(np.exp(part).mean(1)) for part in (logits[:, :3], logits[:, 3:4], logits[:, 4:])]
        np.testing.assert_allclose(scored, np.stack(by_hand, 1), atol=1e-9)
        np.testing.assert_allclose(scored, scores.label_scores(logits, [3, 1, 2]), atol=1e-9)

    def test_padding_counts_for_nothing_and_an_absent_label_has_probability_0(self):
        logits = torch.tensor([[1.0, 2.0, 50.0]], requires_grad=True)
        scored = pet.label_logits(logits, torch.tensor([[0, 1, -1]]), 3)
        np.testing.assert_allclose(scored.detach()[0, :2], [1.0, 2.0])
        p = scored.softmax(-1)
        assert p[0, 2] == 0
        p[0, 0].log().backward()
        assert torch.isfinite(logits.grad).all()
        assert logits.grad[0, 2] == 0


class TestTraining:
    def test_r_drop_trains_as_plain_does_where_nothing_is_dropped(self, sentiment, tiny_model, tiny_model_folder):
        rows = reviews(4)
        goal = np.eye(2)[targets(sentiment[0], rows)]
        losses: dict[tuple[str, float], list[float]] = {}
        for strategy, dropout in (("plain", 0.0), ("r-drop", 0.0), ("r-drop", 0.1)):
            model = pet.BertForMaskedLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = dropout
            seen = losses[strategy, dropout] = []
            pet.train(
                model,
                encoded(sentiment, rows),
                goal,
                strategy,
                pet.TrainSettings(steps=8),
                np.zeros(2),
                lambda step, loss, seen=seen: seen.append(loss),
            )
        np.testing.assert_allclose(losses["r-drop", 0.0], losses["plain", 0.0], atol=1e-4)
        assert np.abs(np.subtract(losses["r-drop", 0.1], losses["plain", 0.0])).max() > 1e-3

    def test_takes_fewer_steps_where_they_take_too_long(self, monkeypatch, sentiment, tiny_model):
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock.now))
        rows = encoded(sentiment, reviews(4))

        def taken(seconds: float, least: int = 0) -> int:
            steps = []

            def on_step(step: int, loss: float) -> None:
                clock.now += 1
                steps.append(step)

            settings = pet.TrainSettings(steps=20, seconds=seconds, least_steps=least)
            pet.train(tiny_model, rows, np.eye(2)[[0, 1] * 4], "plain", settings, np.zeros(2), on_step)
            return len(steps)

        assert (taken(30), taken(20), taken(7), taken(0.1, least=3)) == (20, 20, 7, 3)

    def test_learns_its_rows_and_leaves_all_embeddings_as_they_were(self, sentiment, tiny_model):
        rows = reviews(8)
        wanted = targets(sentiment[0], rows)
        before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
        settings = pet.TrainSettings(steps=60, encoder_rate=3e-3, head_rate=3e-3)
        pet.train(tiny_model, encoded(sentiment, rows), np.eye(2)[wanted], "plain", settings, np.zeros(2))
        predicted = pet.predict(tiny_model, encoded(sentiment, rows), 2).argmax(-1)
        assert (predicted == wanted).all()
        moved = {name for name, tensor in tiny_model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert not [name for name in moved if "embeddings" in name or "decoder" in name or "predictions.bias" in name]
        assert {name for name in before if name.endswith("query.weight")} <= moved
        assert "cls.predictions.transform.dense.weight" in moved
        assert not tiny_model.training

    def test_learns_soft_targets_as_they_are(self, sentiment, tiny_model):
        rows = reviews(4)
        settings = pet.TrainSettings(steps=80, encoder_rate=3e-3, head_rate=3e-3)
        pet.train(tiny_model, encoded(sentiment, rows), np.tile([0.8, 0.2], (8, 1)), "plain", settings, np.zeros(2))
        p = scores.distribution_of(pet.predict(tiny_model, encoded(sentiment, rows), 2), np.zeros(2))
        np.testing.assert_allclose(p[:, 0], 0.8, atol=0.08)

    def test_the_same_seed_gives_the_same_model(self, sentiment, tiny_model_folder):
        rows = reviews(4)
        logits = []
        for seed in (1, 1, 2):
            model = pet.BertForMaskedLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
            settings = pet.TrainSettings(steps=6, seed=seed)
            goal = np.eye(2)[targets(sentiment[0], rows)]
            pet.train(model, encoded(sentiment, rows), goal, "r-drop", settings, np.zeros(2))
            logits.append(pet.predict(model, encoded(sentiment, rows), 2))
        np.testing.assert_array_equal(logits[0], logits[1])
        assert np.abs(logits[0] - logits[2]).max() > 1e-4

    def test_an_unknown_strategy_is_an_error(self, tiny_model):
        with pytest.raises(ValueError, match="r-dorp"):
            pet.train(tiny_model, [sized(4)], np.eye(2)[:1], "r-dorp", pet.TrainSettings(steps=1), np.zeros(2))

    @pytest.mark.parametrize("steps", [1, 2, 7, 100])
    def test_the_rate_rises_to_its_peak_and_falls_without_reaching_0(self, steps):
        rates = [training.schedule(step, steps, 0.1) for step in range(steps)]
        peak = int(np.argmax(rates))
        assert max(rates) == 1.0
        assert min(rates) > 0
        assert (np.diff(rates[: peak + 1]) > 0).all()
        assert (np.diff(rates[peak:]) <= 0).all()
        if steps == 100:
            assert rates[0] == pytest.approx(0.1)
            assert rates[-1] < 0.02


class TestBatches:
    def test_draw_classes_equally_often_however_rare(self):
        classes = np.array([0] * 20 + [1] * 4 + [2])
        settings = pet.TrainSettings(steps=0)
        sampler = training.batches(classes, [sized(5)] * len(classes), settings)
        drawn = np.concatenate([next(sampler) for _ in range(4 * 3 * 5)])
        counts = np.bincount(classes[drawn])
        assert counts.max() - counts.min() <= 1
        of_first = np.bincount(drawn, minlength=len(classes))[:20]
        assert of_first.max() - of_first.min() <= 1

    def test_put_rows_of_like_length_together_and_never_mix_numbers_of_masks(self):
        rows = [sized(5 + i, 1 + i % 2) for i in range(40)]
        sampler = training.batches(np.zeros(40, int), rows, pet.TrainSettings(steps=0))
        spans = []
        for _ in range(60):
            batch = next(sampler)
            assert len({len(rows[i].mask_positions) for i in batch}) == 1
            spans.append(max(batch) - min(batch))
        assert np.mean(spans) < 25


class TestPredict:
    def test_answers_in_the_order_of_the_rows_whatever_the_batches(self, sentiment, tiny_model):
        rows = [row | {"text": row["text"] * (1 + i % 3)} for i, row in enumerate(reviews(6))]
        together = pet.predict(tiny_model, encoded(sentiment, rows), 2)
        alone = [pet.predict(tiny_model, encoded(sentiment, [row]), 2)[0] for row in rows]
        np.testing.assert_allclose(together, alone, atol=1e-4)
        np.testing.assert_allclose(together, pet.predict(tiny_model, encoded(sentiment, rows), 2, 60), atol=1e-4)

    def test_of_nothing_is_nothing(self, tiny_model):
        assert pet.predict(tiny_model, [], 3).shape == (0, 3)
