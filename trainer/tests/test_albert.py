"""ALBERT in BERT's form: says the same, holds shared weights once wherever they go, and learns."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AlbertConfig, AlbertForMaskedLM

from bundles import broken_entries, largest_golden_difference
from fewloop_trainer import export, run
from fewloop_trainer.adapt import pretrain
from fewloop_trainer.adapt_settings import AdaptSettings
from fewloop_trainer.albert import SharedBert
from fewloop_trainer.base_model import copy_tokenizer, save_model
from fewloop_trainer.bundle import export_base, session_options
from fewloop_trainer.data import file_digest
from fewloop_trainer.encoder import copy_of, load_model
from fewloop_trainer.export import PET_INPUTS, PetGraph, export_pet
from fewloop_trainer.precision import Recorder, fuse, load_plain, to_half, to_int8
from folders import definition_of, read_json, review, reviews_of, write_run
from test_base_kinds import SMALL, made

PASSES, GROUPS = 4, 2


def albert(seed: int = 5, **changes) -> AlbertForMaskedLM:
    torch.manual_seed(seed)
    shape = SMALL | {"num_hidden_layers": PASSES, "num_hidden_groups": GROUPS, "embedding_size": 16}
    model = AlbertForMaskedLM(AlbertConfig(**shape | changes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("albert"), albert())


def some_rows() -> dict[str, torch.Tensor]:
    torch.manual_seed(6)
    ids = torch.randint(0, 2048, (3, 11))
    types, mask = torch.zeros_like(ids), torch.ones_like(ids)
    mask[0, 6:] = 0
    types[1, 5:] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def logits_of(model, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(**rows).logits[rows["attention_mask"] > 0]


@pytest.mark.parametrize(("groups", "inner"), [(1, 1), (2, 1), (1, 2), (3, 1)])
def test_says_the_same_in_berts_form_and_when_it_is_written_again(tmp_path, groups, inner):
    original, rows = albert(num_hidden_groups=groups, inner_group_num=inner), some_rows()
    taken = load_model(made(tmp_path / "base", original), needs_head=True)
    torch.testing.assert_close(logits_of(taken, rows), logits_of(original, rows), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in taken.parameters()) == sum(p.numel() for p in original.parameters())
    assert len(taken.bert.encoder.layer) == PASSES * inner
    save_model(copy_of(taken), tmp_path / "again", torch.float32)
    again, found = AlbertForMaskedLM.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not found["unexpected_keys"]
    torch.testing.assert_close(logits_of(again, rows), logits_of(original, rows), atol=1e-5, rtol=1e-5)


def test_drops_out_what_albert_drops_out(base):
    original = albert(hidden_dropout_prob=0.4, attention_probs_dropout_prob=0.3).train()
    taken = load_model(made(base.parent / "dropping", original)).train()
    said = []
    for model in (original, taken):
        torch.manual_seed(7)
        said.append(model(**some_rows()).logits)
    torch.testing.assert_close(*said, atol=1e-5, rtol=1e-5)


def matrices(proto: onnx.ModelProto) -> int:
    """Numbers in the graph's matrices."""
    return sum(int(np.prod(i.dims)) for i in proto.graph.initializer if len(i.dims) == 2)


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> tuple[SharedBert, Path]:
    """A model with a channel much larger than the others, as large models have it, and its graph."""
    original, folder = albert(), tmp_path_factory.mktemp("traced")
    with torch.no_grad():
        for module in original.albert.encoder.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(1.0)[3] = 20.0
    model = load_model(made(folder, original)).eval()
    export_pet(model, folder / "g.onnx", half=False)
    return model, folder / "g.onnx"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_graph_holds_shared_weights_once_and_answers_as_pytorch(traced, precision):
    model, graph = traced
    rows, proto = some_rows(), load_plain(graph)
    inputs = (*rows.values(), torch.tensor([[3], [1], [2]]), torch.randint(0, 2048, (3, 4, 1)))
    feeds = {name: value.numpy() for name, value in zip(PET_INPUTS, inputs, strict=True)}
    if precision == "fp16":
        proto, counts = fuse(proto, PASSES, SMALL["num_attention_heads"], SMALL["hidden_size"])
        assert counts == {"Attention": PASSES, "SkipLayerNormalization": 2 * PASSES, "FastGelu": PASSES + 1}
        proto = to_half(proto)
    if precision == "int8":
        recorder = Recorder(load_plain(graph), session_options(1))
        recorder.run(["word_logits"], feeds)
        proto = to_int8(proto, recorder.largest)
    own = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert matrices(proto) == own + SMALL["max_position_embeddings"], "but for the positions' numbers"
    session = onnxruntime.InferenceSession(proto.SerializeToString(), session_options(1))
    with torch.inference_mode():
        expected = PetGraph(model)(*inputs)[0].numpy()
    tolerance = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.15}[precision]
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(session.run(["word_logits"], feeds)[0], expected, atol=tolerance)


def test_methods_without_label_words_learn_from_it(tmp_path, base):
    labels = [
        {"name": "positive", "words": ["好"], "description": "很好。"},
        {"name": "negative", "words": ["差"], "description": "很差。"},
    ]
    definition = definition_of(
        method=["efl", "embedding"], labels=labels, templates=[], learning={"strategies": ["mixup"]}
    )
    model = {"name": "made up", "folder": str(base), "digest": file_digest(base / "model.safetensors")}
    rows = reviews_of("train", 20)
    folder = write_run(tmp_path / "run", rows[:12], rows[12:], definition, baseModel=model, budgetSeconds=0.1)
    assert run.run(folder) == 0, read_json(folder / "result.json")
    assert broken_entries(folder / "bundle") == []
    assert largest_golden_difference(folder / "bundle") < 1e-4


def test_a_base_model_of_it_is_adapted_exported_and_trained_from_its_own_graph(tmp_path, base):
    texts = [review(n, label) for n, label in product(range(150), ("positive", "negative"))]
    settings = AdaptSettings(head_tokens=0, tokens=3_000, chunk_tokens=32, batch_chunks=4)
    model = pretrain(base, lambda: texts, tmp_path / "work", settings, lambda line: None)
    before, after = load_model(base).state_dict(), model.state_dict()
    for name in ("bert.embeddings.mapping.weight", "bert.encoder.groups.1.0.output.dense.weight"):
        assert not torch.equal(before[name], after[name])
    adapted = tmp_path / "adapted"
    save_model(model, adapted)
    copy_tokenizer(base, adapted)
    assert export_base(adapted) < 1e-3
    rows = reviews_of("train", 20)
    definition = definition_of(templates=["很{mask}！{text}"], learning={"strategies": ["plain"]})
    described = {"name": "adapted", "folder": str(adapted), "digest": file_digest(adapted / "model.safetensors")}
    folder = write_run(tmp_path / "run", rows[:12], rows[12:], definition, baseModel=described, budgetSeconds=0.1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "export_pet", lambda *_: pytest.fail("was traced anew"))
        assert run.run(folder) == 0, read_json(folder / "result.json")
    assert largest_golden_difference(folder / "bundle") < 1e-4
