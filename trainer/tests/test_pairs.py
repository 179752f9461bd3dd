"""Pairs by the embedding member: what the graph makes of a row of two segments, what tuning ranks, what is exported."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from fewloop_trainer import classifier, embedding, pairs
from fewloop_trainer.bundle import session_options
from fewloop_trainer.export import CLASSIFIER_INPUTS, CLASSIFIER_OUTPUTS, export_classifier, round_to_half
from fewloop_trainer.learners import learner_of
from fewloop_trainer.precision import Recorder, load_plain, to_int8
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import load_task
from fewloop_trainer.training import TrainSettings
from folders import definition_of, review

ITEMS = [
    {"text": "手机很好", "textPair": "酒店太差，不要购买"},
    {"text": "物流很慢，味道也难吃，非常失望", "textPair": "好"},
    {"text": "电脑很好", "textPair": "\u0001"},  # no token at all
    {"text": "水果" * 40, "textPair": "衣服" * 40},
]


@pytest.fixture
def renderer(tiny_tokenizer) -> Renderer:
    return Renderer(tiny_tokenizer, load_task(definition_of(kind="sentence-pair", method=["embedding"])))


def encode(renderer: Renderer, items: list[dict]) -> list[classifier.Encoded]:
    return classifier.encode(renderer, renderer.input, items)


def pairs_of(many: int) -> tuple[list[dict], np.ndarray]:
    """Twice as many pairs of reviews, by turns of the same label and of two."""
    items = [
        {"text": review(n, "positive"), "textPair": review(n + 20, label)}
        for n in range(many)
        for label in ("negative", "positive")
    ]
    return items, np.arange(2 * many) % 2


class TestStates:
    def test_are_those_of_each_segment_alone(self, tiny_model, renderer):
        model = pairs.pair_classifier_of(tiny_model, 2)
        rows = encode(renderer, ITEMS)
        with torch.inference_mode():
            together = model.states(*classifier.collate(rows))
            for number, row in enumerate(rows):
                cut = row.type_ids.index(1)
                for segment, state in zip((row.ids[:cut], [row.ids[0], *row.ids[cut:]]), together, strict=True):
                    ids = torch.tensor([segment])
                    own = model.bert(ids, torch.ones_like(ids), torch.zeros_like(ids)).last_hidden_state[:, 0]
                    np.testing.assert_allclose(state[number], F.normalize(own, dim=-1)[0], atol=1e-5)

    def test_features_do_not_depend_on_which_is_first(self, tiny_model, renderer):
        model = pairs.pair_classifier_of(tiny_model, 2)
        uncut = ITEMS[:3]
        turned = [{"text": item["textPair"], "textPair": item["text"]} for item in uncut]
        found, again = (pairs.features_of(model, encode(renderer, items)) for items in (uncut, turned))
        np.testing.assert_allclose(found, again, atol=1e-5)
        same = pairs.features_of(model, encode(renderer, [{"text": "很好", "textPair": "很好"}]))[0]
        hidden = model.bert.config.hidden_size
        assert same[0] == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(same[1 : hidden + 1], 0, atol=1e-5)
        assert same[hidden + 1 :].sum() == pytest.approx(1, abs=1e-5)


class TestRanks:
    def test_are_by_the_mean_cosine_of_a_label(self):
        cosines = np.array([0.2, 0.9, 0.5, 0.1])
        np.testing.assert_allclose(pairs.ranks_of(cosines, np.eye(3)[[0, 1, 2, 0]]), [0, 1, 0.5])
        np.testing.assert_allclose(
            pairs.ranks_of(cosines, np.eye(3)[[2, 0, 0, 2]]), [1, 0.5, 0], err_msg="one lacks rows"
        )
        soft = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [1.0, 0.0]])
        np.testing.assert_allclose(pairs.ranks_of(cosines, soft), [0, 1])

    def test_the_loss_is_nought_where_all_is_in_order(self):
        in_order = pairs.ranking_loss(torch.tensor([0.9, 0.1, -0.9]), torch.tensor([1.0, 0.5, 0.0])).item()
        assert in_order == pytest.approx(0, abs=1e-3)
        assert pairs.ranking_loss(torch.tensor([0.3, 0.8]), torch.tensor([1.0, 1.0])).item() == 0

    def test_the_loss_by_hand(self):
        cosines, goals = torch.tensor([0.5, 0.6, 0.4], requires_grad=True), torch.tensor([1.0, 0.0, 0.25])
        loss = pairs.ranking_loss(cosines, goals)
        by_hand = 1 + np.exp(20 * 0.1) + 0.75 * np.exp(20 * -0.1) + 0.25 * np.exp(20 * 0.2)
        assert loss.item() == pytest.approx(np.log(by_hand), abs=1e-5)
        loss.backward()
        assert cosines.grad[0] < 0 < cosines.grad[1]
        assert torch.isfinite(cosines.grad).all()


class TestMember:
    def test_learns_which_pairs_are_alike(self, tiny_model, renderer):
        items, same = pairs_of(8)
        rows, model = encode(renderer, items), pairs.pair_classifier_of(tiny_model, 2)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        losses = []
        settings = TrainSettings(steps=30, encoder_rate=1e-3, batch_rows=16)
        embedding.tune(model, rows, np.eye(2)[same], settings, lambda _, loss: losses.append(loss), same)
        embedding.fit_head(model, rows, np.eye(2)[same])
        assert np.mean(losses[-5:]) < np.mean(losses[:5])
        assert (classifier.predict(model, rows).argmax(-1) == same).all()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert not [name for name in moved if "embeddings" in name]
        assert {"head.weight", "head.bias"} <= moved

    def test_is_exported_as_a_classifier_with_its_states(self, tiny_model, tiny_tokenizer, renderer, tmp_path):
        task = load_task(definition_of(kind="sentence-pair", method=["embedding"]))
        learner = learner_of(tiny_model, renderer, task, 2, "embedding", 0, "plain")
        model = learner.start()
        torch.nn.init.normal_(model.head.weight)
        round_to_half(model)
        rows = learner.encode(ITEMS)
        export_classifier(model, tmp_path / "pair.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "pair.onnx")
        assert [given.name for given in session.get_inputs()] == list(CLASSIFIER_INPUTS)
        assert [given.name for given in session.get_outputs()] == list(CLASSIFIER_OUTPUTS)
        for batch in (rows, rows[:1]):
            inputs = classifier.collate(batch)
            feeds = {name: value.numpy() for name, value in zip(CLASSIFIER_INPUTS, inputs, strict=True)}
            logits, pooled = session.run(None, feeds)
            with torch.inference_mode():
                expected, state = model(*inputs)
            np.testing.assert_allclose(logits, expected, atol=1e-4)
            np.testing.assert_allclose(pooled, state, atol=1e-4)
            np.testing.assert_allclose(np.linalg.norm(pooled, axis=-1), 1, atol=1e-5)
        one = {name: np.ones((1, 8), np.int64) for name in CLASSIFIER_INPUTS[:2]} | {
            "token_type_ids": np.zeros((1, 8), np.int64)
        }
        assert np.isfinite(session.run(None, one)[0]).all(), "a host warms up on a row without a second segment"

    def test_multiplies_all_of_its_encoder_in_bytes(self, tiny_model, renderer, tmp_path):
        model = pairs.pair_classifier_of(tiny_model, 2)
        torch.nn.init.normal_(model.head.weight, std=0.1)
        export_classifier(model, tmp_path / "pair.onnx")
        inputs = classifier.collate(encode(renderer, ITEMS))
        feeds = {name: value.numpy() for name, value in zip(CLASSIFIER_INPUTS, inputs, strict=True)}
        recorder = Recorder(load_plain(tmp_path / "pair.onnx"), session_options(1))
        (expected,) = recorder.run(["logits"], feeds)
        proto = to_int8(load_plain(tmp_path / "pair.onnx"), recorder.largest)
        layers = tiny_model.config.num_hidden_layers
        assert sum(node.op_type == "MatMulIntegerToFloat" for node in proto.graph.node) == 6 * layers
        session = onnxruntime.InferenceSession(proto.SerializeToString(), session_options(1))
        np.testing.assert_allclose(session.run(["logits"], feeds)[0], expected, atol=5e-2)

    def test_is_restored_as_it_was(self, tiny_model, renderer):
        task = load_task(definition_of(kind="sentence-pair", method=["embedding"]))
        learner = learner_of(tiny_model, renderer, task, 2, "embedding", 0, "plain")
        items, same = pairs_of(4)
        rows, model = learner.encode(items), learner.start()
        settings = TrainSettings(steps=2, **learner.rates(student=False))
        learner.train(model, rows, np.eye(2)[same], same, settings, lambda step, loss: None)
        again = learner.restore(learner.state(model))
        np.testing.assert_allclose(learner.predict(again, rows), learner.predict(model, rows), atol=0.05)
