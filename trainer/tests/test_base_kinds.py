"""Base models by folder: kinds that are trained on, made on the spot with random weights, and folders that are refused.

Whole runs, as the service starts them.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AlbertConfig, AlbertForMaskedLM, BertConfig, BertForMaskedLM, ErnieConfig, ErnieForMaskedLM

from bundles import broken_entries, largest_golden_difference
from fewloop_trainer import run
from fewloop_trainer.data import RunError, file_digest
from fewloop_trainer.encoder import load_model
from folders import TINY_MODEL, definition_of, read_json, reviews_of, write_run
from test_bad_input import base_like, on_base, refused

ROWS = reviews_of("train", 20)
SMALL = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def made(folder: Path, model) -> Path:
    """A base model's folder: the model of random weights, and the tiny model's tokenizer."""
    model.save_pretrained(folder)
    shutil.copyfile(TINY_MODEL / "tokenizer.json", folder / "tokenizer.json")
    return folder


def bert() -> BertForMaskedLM:
    torch.manual_seed(1)
    return BertForMaskedLM(BertConfig(**SMALL))


def roberta_wwm() -> BertForMaskedLM:
    """As hfl/chinese-roberta-wwm-ext: BERT with a configuration that names more than BERT reads."""
    torch.manual_seed(2)
    more = {"directionality": "bidi", "pooler_type": "first_token_transform", "bos_token_id": 0, "output_past": True}
    return BertForMaskedLM(BertConfig(**SMALL, **more))


def ernie() -> ErnieForMaskedLM:
    """As ERNIE 3.0: an embedding of the task, four segments, ReLU."""
    torch.manual_seed(3)
    more = {"task_type_vocab_size": 3, "use_task_id": True, "type_vocab_size": 4, "hidden_act": "relu"}
    return ErnieForMaskedLM(ErnieConfig(**SMALL, **more))


def albert() -> AlbertForMaskedLM:
    """As ALBERT base: embeddings narrower than the layers, of which there is one for all passes."""
    torch.manual_seed(5)
    return AlbertForMaskedLM(AlbertConfig(**SMALL, embedding_size=16))


@pytest.mark.parametrize("of_kind", [bert, roberta_wwm, ernie, albert])
def test_is_trained_and_exported(tmp_path, of_kind):
    base = made(tmp_path / "base", of_kind())
    definition = definition_of(templates=["很{mask}！{text}"], learning={"strategies": ["plain"]})
    model = {"name": "made up", "folder": str(base), "digest": file_digest(base / "model.safetensors")}
    folder = write_run(tmp_path / "run", ROWS[:12], ROWS[12:], definition, baseModel=model, budgetSeconds=0.1)
    assert run.run(folder) == 0, read_json(folder / "result.json")
    assert broken_entries(folder / "bundle") == []
    assert largest_golden_difference(folder / "bundle") < 1e-4
    digests = {graph["sha256"] for graph in read_json(folder / "bundle/manifest.json")["graphs"]}
    assert len(digests) == 2


@pytest.mark.parametrize("use_task_id", [True, False])
def test_ernie_says_the_same_as_the_bert_that_it_is_taken_for(tmp_path, use_task_id):
    torch.manual_seed(4)
    original = ErnieForMaskedLM(ErnieConfig(**SMALL, use_task_id=use_task_id)).eval()
    for parameter in original.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    taken = load_model(made(tmp_path, original)).eval()
    assert type(taken) is BertForMaskedLM
    ids = torch.randint(0, 2048, (3, 11))
    types, mask = torch.zeros_like(ids), torch.ones_like(ids)
    mask[0, 6:] = 0
    types[1, 5:] = 1
    with torch.inference_mode():
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        got, expected = taken(**inputs).logits, original(**inputs).logits
    torch.testing.assert_close(got[mask > 0], expected[mask > 0], atol=1e-4, rtol=1e-4)


class TestRefused:
    def of(self, tmp_path: Path, base: Path, **changes) -> str:
        result = refused(on_base(tmp_path, base, definition_of(**changes)))
        assert result["code"] == "BAD_INPUT"
        assert result["message"].startswith("baseModel: ")
        assert str(base) in result["message"]
        return result["message"]

    def test_of_an_architecture_that_fills_no_masks(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        (base / "config.json").write_text(json.dumps(read_json(base / "config.json") | {"model_type": "gpt2"}))
        message = self.of(tmp_path, base)
        assert "model of type 'gpt2'" in message
        assert "take a BERT-type masked language model" in message

    def test_without_a_masked_language_model_head(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: None if name.startswith("cls.") else tensor)
        message = self.of(tmp_path, base)
        assert "has no masked-language-model head (cls.predictions." in message
        assert "train one with `adapt`" in message

    def test_without_half_its_encoder(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: None if ".layer.1." in name else tensor)
        assert "weights of the encoder that config.json describes" in self.of(tmp_path, base)

    def test_with_weights_of_another_size_than_its_configuration(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        (base / "config.json").write_text(json.dumps(read_json(base / "config.json") | {"intermediate_size": 96}))
        assert "cannot load the model" in self.of(tmp_path, base)

    def test_with_another_models_tokenizer(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        tokenizer = read_json(base / "tokenizer.json")
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary |= {f"一{i}": len(vocabulary) + i for i in range(100)}
        (base / "tokenizer.json").write_text(json.dumps(tokenizer))
        message = self.of(tmp_path, base)
        assert "another model's tokenizer: it has 2148 tokens" in message
        assert "copy the file" in message

    def test_with_a_tokenizer_of_the_same_size_in_another_order(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        own = Tokenizer.from_file(str(base / "tokenizer.json")).encode("很好", add_special_tokens=False).ids
        row = {"text": "很好", "ids": [2, 4, *own, 3], "maskPositions": [1]}
        (base / "golden.json").write_text(json.dumps({"rows": [row]}))
        tokenizer = read_json(base / "tokenizer.json")
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["好"], vocabulary["差"] = vocabulary["差"], vocabulary["好"]
        (base / "tokenizer.json").write_text(json.dumps(tokenizer))
        assert "other ids than golden.json has" in self.of(tmp_path, base)

    def test_with_a_tokenizer_that_has_no_mask(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        text = (base / "tokenizer.json").read_text().replace("[MASK]", "<mask>")
        (base / "tokenizer.json").write_text(text)
        assert "has no [MASK]" in self.of(tmp_path, base)

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
    def test_without_a_file(self, tmp_path, name):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        (base / name).unlink()
        assert f"has no {name}" in self.of(tmp_path, base)

    def test_of_weights_that_are_no_safetensors(self, tmp_path):
        base = base_like(tmp_path / "base", lambda name, tensor: tensor)
        (base / "model.safetensors").write_bytes(b"no such thing")
        assert "cannot load the model" in self.of(tmp_path, base)


def test_methods_without_label_words_need_no_head(tmp_path):
    base = base_like(tmp_path / "base", lambda name, tensor: None if name.startswith("cls.") else tensor)
    assert load_model(base, needs_head=False).bert.config.hidden_size == 32
    with pytest.raises(RunError, match="no masked-language-model head"):
        load_model(base, needs_head=True)
