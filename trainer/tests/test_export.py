"""The exported graph against PyTorch, on what the service sends it: padded batches, pairs, cut texts, long words."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fewloop_trainer import pet
from fewloop_trainer.bundle import OVER_LONG, export_base
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.export import PET_INPUTS, PetGraph, export_from, export_pet, round_to_half
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import load_task
from folders import TINY_MODEL, definition_of, read_json, reviews

PAIR = definition_of(
    kind="sentence-pair",
    labels=[{"name": "same", "words": ["对"]}, {"name": "other", "words": ["错", "不"]}],
    templates=["{text}？{mask}，{textPair}"],
)
LONG_WORDS = definition_of(
    labels=[{"name": "positive", "words": ["很好", "不错"]}, {"name": "negative", "words": ["太差"]}],
    templates=["{mask}！{text}"],
)
TEXTS = [row["text"] for row in reviews(3)]
CASES = {
    "uneven words": (definition_of(), [{"text": text} for text in TEXTS]),
    "cut texts": (definition_of(), [{"text": text + OVER_LONG} for text in TEXTS]),
    "lengths far apart": (definition_of(maxLength=256), [{"text": "好"}, {"text": OVER_LONG}]),
    "pairs": (PAIR, [{"text": t, "textPair": p} for t, p in zip(TEXTS, reversed(TEXTS), strict=True)]),
    "cut pairs": (PAIR, [{"text": TEXTS[0], "textPair": OVER_LONG}, {"text": OVER_LONG, "textPair": OVER_LONG}]),
    "words of several tokens": (LONG_WORDS, [{"text": text} for text in TEXTS]),
}


def moved(seed: int):
    """The tiny model after a training that moved all that training moves, rounded as it will be stored."""
    model = load_model(TINY_MODEL).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("bert.encoder.", "cls.predictions.transform.")):
                parameter.add_(0.05 * torch.randn_like(parameter))
    round_to_half(model)
    return model


def batch_of(definition: dict, items: list[dict]) -> tuple[pet.Batch, int]:
    task = load_task(definition)
    rows = pet.encode(task, Renderer(load_tokenizer(TINY_MODEL), task), task.templates[0], items)
    return pet.collate(rows), len(task.labels)


def distributions(word_logits: torch.Tensor, batch: pet.Batch, labels: int) -> np.ndarray:
    return pet.label_logits(word_logits, batch.word_labels, labels).softmax(-1).numpy()


def run_graph(path: Path, batch: pet.Batch) -> list[np.ndarray]:
    feeds = {name: value.numpy() for name, value in zip(PET_INPUTS, batch.inputs, strict=True)}
    return onnxruntime.InferenceSession(path).run(None, feeds)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> dict[str, Path]:
    """The same trained model, traced, and written into the base's graph."""
    folder = tmp_path_factory.mktemp("graphs")
    export_pet(moved(1), folder / "traced.onnx")
    export_from(TINY_MODEL / "model.onnx", load_model(TINY_MODEL), moved(1), folder / "from base.onnx")
    return {path.stem: path for path in folder.glob("*.onnx")}


@pytest.mark.parametrize("how", ["traced", "from base"])
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_pytorch(graphs, case, how):
    batch, labels = batch_of(*CASES[case])
    with torch.inference_mode():
        words, pooled = PetGraph(moved(1)).eval()(*batch.inputs)
    got_words, got_pooled = run_graph(graphs[how], batch)
    expected = distributions(words, batch, labels)
    np.testing.assert_allclose(distributions(torch.from_numpy(got_words), batch, labels), expected, atol=1e-4)
    np.testing.assert_allclose(got_pooled, pooled, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got_pooled, axis=-1), 1, atol=1e-5)
    other, _ = run_graph(TINY_MODEL / "model.onnx", batch)
    assert np.abs(distributions(torch.from_numpy(other), batch, labels) - expected).max() > 1e-3, (
        "another model does not"
    )


def test_a_word_of_several_tokens_scores_the_sum_over_its_masks(tiny_model):
    batch, _ = batch_of(*CASES["words of several tokens"])
    ids, mask, _, positions, words = batch.inputs
    assert positions.shape[1] == words.shape[2] == 2
    with torch.inference_mode():
        vocabulary = tiny_model(input_ids=ids, attention_mask=mask).logits
        scored, _ = PetGraph(tiny_model)(*batch.inputs)
    for row in range(len(ids)):
        for word in range(words.shape[1]):
            by_hand = sum(vocabulary[row, positions[row, m], words[row, word, m]] for m in range(2))
            assert scored[row, word].item() == pytest.approx(by_hand.item(), abs=1e-4)


def test_padding_changes_nothing(graphs):
    definition, items = CASES["lengths far apart"]
    together = run_graph(graphs["traced"], batch_of(definition, items)[0])[0]
    alone = [run_graph(graphs["traced"], batch_of(definition, [item])[0])[0][0] for item in items]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_names_no_path_of_the_machine_that_made_it(graphs):
    content = graphs["traced"].read_bytes()
    assert b"/fewloop_trainer/" not in content
    assert b"site-packages" not in content


def test_large_weights_are_stored_in_fp16(graphs):
    for path in graphs.values():
        large = [t for t in onnx.load(path).graph.initializer if np.prod(t.dims) >= 4096]
        assert large
        assert {t.data_type for t in large} == {onnx.TensorProto.FLOAT16}


def test_a_graph_that_is_not_the_bases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not the base model's"):
        export_from(TINY_MODEL / "model.onnx", moved(2), moved(1), tmp_path / "g.onnx")
    assert not (tmp_path / "g.onnx").exists()


def test_a_graph_in_which_equal_weights_became_one_is_refused_once_they_differ(tmp_path):
    base, model = load_model(TINY_MODEL).eval(), load_model(TINY_MODEL).eval()
    names = [f"bert.encoder.layer.{i}.attention.output.dense.weight" for i in range(2)]
    base.load_state_dict(base.state_dict() | {names[1]: base.state_dict()[names[0]].clone()})
    template, path = tmp_path / "base.onnx", tmp_path / "g.onnx"
    export_pet(base, template)
    model.load_state_dict(base.state_dict() | {"cls.predictions.transform.dense.bias": torch.ones(32)})
    export_from(template, base, model, path)
    with pytest.raises(ValueError, match="no place of its own"):
        export_from(template, base, moved(1), path)


def test_a_base_model_is_exported_with_golden_rows(tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((TINY_MODEL / name).read_bytes())
    assert export_base(tmp_path) < 1e-3
    rows = read_json(tmp_path / "golden.json")["rows"]
    assert max(len(row["ids"]) for row in rows) == 128
    for row in rows:
        words = [row["labelTokens"]]
        inputs = ([row["ids"]], [[1] * len(row["ids"])], [[0] * len(row["ids"])], [row["maskPositions"]], words)
        feeds = {name: np.array(value) for name, value in zip(PET_INPUTS, inputs, strict=True)}
        (logits,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["word_logits"], feeds)
        np.testing.assert_allclose(logits[0], row["wordLogits"], atol=1e-3)
