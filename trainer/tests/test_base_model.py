"""Importing an encoder from an ONNX file, and pre-training that is ended and goes on."""

import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import BertConfig, BertModel

from fewloop_trainer import adapt, base_model
from fewloop_trainer.adapt_settings import AdaptSettings
from fewloop_trainer.data import RunError
from fewloop_trainer.encoder import load_model
from fewloop_trainer.keys import twentieth
from folders import TINY_MODEL, read_lines, review

END_YOURSELF = """
import os, signal, sys
from fewloop_trainer import adapt, cli
real_step, count = adapt._step, 0
def step(*arguments):
    global count
    count += 1
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return real_step(*arguments)
adapt._step = step
raise SystemExit(cli.main(["pretrain", *sys.argv[1:]]))
"""


class Encoder(BertModel):
    """With the inputs and the output of the published graph."""

    def forward(self, ids, mask, types):
        return super().forward(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder with an encoder's ONNX file as the exporter of the published one writes it: linear layers' weights are
    transposed and nameless."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=2048,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=96,
        max_position_embeddings=64,
    )
    model = Encoder(config, add_pooling_layer=False).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():  # the exporter shares what is equal, and untrained biases are
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ids = torch.ones(1, 6, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids, ids, 0 * ids),
            folder / "bge-small-zh.onnx",
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
            dynamo=False,
        )
    (folder / "bge-small-zh-tokenizer.json").write_bytes((TINY_MODEL / "tokenizer.json").read_bytes())
    return folder


def damaged(published: Path, folder: Path, damage) -> Path:
    """A copy whose graph `damage` has changed."""
    folder.mkdir()
    graph = onnx.load(published / "bge-small-zh.onnx")
    damage(graph.graph)
    onnx.save(graph, folder / "bge-small-zh.onnx")
    (folder / "bge-small-zh-tokenizer.json").write_bytes((TINY_MODEL / "tokenizer.json").read_bytes())
    return folder


class TestImportedEncoder:
    def test_is_the_published_one(self, published, tmp_path):
        assert base_model.import_encoder(published, tmp_path) < base_model.PARITY_TOLERANCE
        model = load_model(tmp_path)
        assert model.config.num_hidden_layers == 1
        assert model.config.intermediate_size == 96
        weights = base_model._encoder_weights(onnx.load(published / "bge-small-zh.onnx"))
        for name, tensor in weights.items():
            assert torch.equal(model.bert.state_dict()[name], tensor), name

    def test_may_come_in_a_jar(self, published, tmp_path):
        with zipfile.ZipFile(tmp_path / "artifact.jar", "w") as jar:
            for file in published.iterdir():
                jar.write(file, f"some/package/{file.name}")
        base_model.import_encoder(tmp_path / "artifact.jar", tmp_path / "out")
        assert (tmp_path / "out/model.safetensors").exists()
        assert (tmp_path / "out/tokenizer.json").exists()

    def test_is_refused_where_its_graph_computes_something_else(self, published, tmp_path):
        def swap_query_and_key(graph: onnx.GraphProto) -> None:
            nodes = {node.name: node for node in graph.node}
            layer = "/encoder/layer.0/attention/self"
            query, key = nodes[f"{layer}/query/MatMul"], nodes[f"{layer}/key/MatMul"]
            query.name, key.name = key.name, query.name

        with pytest.raises(ValueError, match="differs from its source"):
            base_model.import_encoder(damaged(published, tmp_path / "in", swap_query_and_key), tmp_path / "out")
        assert not (tmp_path / "out/model.safetensors").exists()

    def test_is_refused_where_a_weight_is_missing(self, published, tmp_path):
        def rename(graph: onnx.GraphProto) -> None:
            node = next(node for node in graph.node if node.name.endswith("intermediate/dense/MatMul"))
            node.name = "of another model"

        with pytest.raises(ValueError, match=r"not the encoder expected: missing .*intermediate"):
            base_model.import_encoder(damaged(published, tmp_path / "in", rename), tmp_path / "out")

    def test_is_refused_where_there_is_none(self, tmp_path):
        with pytest.raises(ValueError, match=r"no \.onnx file"):
            base_model.import_encoder(tmp_path, tmp_path / "out")


SETTINGS = AdaptSettings(
    head_tokens=640,
    tokens=1280,
    head_rate=3e-3,
    encoder_rate=1e-3,
    chunk_tokens=16,
    batch_chunks=4,
    evaluate_every_tokens=480,  # no multiple of a step's 64, as a run's settings may be
    checkpoint_every_seconds=0,
)
STEPS = 30


def corpus() -> list[str]:
    texts = (review(n, label) for n in range(160) for label in ("positive", "negative"))
    return [text for text in texts if twentieth(text) != 0]


def pretrain(work: Path, settings: AdaptSettings = SETTINGS, steps: int = STEPS):
    """The model, or None where it was asked to stop after `steps`; and the first step's number."""
    taken: list[float] = []

    def stop() -> bool:
        taken.append(1)
        return len(taken) == steps < STEPS

    return adapt.pretrain(TINY_MODEL, corpus, work, settings, lambda line: None, stop), len(taken)


def curve(work: Path) -> list[tuple[int, float, float]]:
    """Tokens, loss and accuracy of every evaluation (a kill may repeat one)."""
    lines = {line["tokens"]: line for line in read_lines(work / "curve.jsonl")}
    return [(tokens, line["heldOutLoss"], line["heldOutAccuracy"]) for tokens, line in lines.items()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The model, and its curve."""
    work = tmp_path_factory.mktemp("pretrain")
    model, steps = pretrain(work)
    assert steps == STEPS
    return model, curve(work)


class TestPretraining:
    def test_learns_first_the_head_alone_then_all(self, uninterrupted, tmp_path, tiny_model):
        model, evaluations = uninterrupted
        assert evaluations[-1][1] < evaluations[0][1]
        head_only, _ = pretrain(tmp_path, AdaptSettings(**asdict(SETTINGS) | {"tokens": 0}))
        before, head, after = (m.state_dict() for m in (tiny_model, head_only, model))
        encoder, transform = "bert.encoder.layer.0.output.dense.weight", "cls.predictions.transform.dense.weight"
        assert torch.equal(before[encoder], head[encoder])
        assert not torch.equal(before[encoder], after[encoder])
        assert not torch.equal(before[transform], head[transform])

    def test_goes_on_after_a_kill_and_a_stop_to_the_same_model(self, uninterrupted, tmp_path):
        (tmp_path / "texts.txt").write_text("\n".join(corpus()))
        arguments = [str(TINY_MODEL), str(tmp_path / "out"), str(tmp_path / "texts.txt"), "--work", str(tmp_path)]
        for name, value in asdict(SETTINGS).items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        command = [sys.executable, "-c", END_YOURSELF, *arguments]
        # As many threads as here: sums in another order are other sums.
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        killed = subprocess.run(command, env=one_thread, capture_output=True, timeout=300)
        assert killed.returncode == -9, killed.stderr
        assert not (tmp_path / "out").exists()

        stopped, steps = pretrain(tmp_path, steps=10)
        assert (stopped, steps) == (None, 10)
        model, steps = pretrain(tmp_path)
        assert steps == STEPS - 7 - 10, "it goes on behind the last step that was kept"
        expected, evaluations = uninterrupted
        for name, tensor in expected.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name
        assert curve(tmp_path) == evaluations

    def test_refuses_a_folder_of_other_settings_and_too_little_text(self, tmp_path):
        pretrain(tmp_path / "a", steps=1)
        with pytest.raises(ValueError, match="other settings"):
            pretrain(tmp_path / "a", AdaptSettings(**asdict(SETTINGS) | {"seed": 9}))
        with pytest.raises(ValueError, match="too little text"):
            adapt.pretrain(TINY_MODEL, lambda: ["很好"], tmp_path / "b", SETTINGS, lambda line: None)


class TestCorpus:
    def test_is_read_from_all_kinds_of_files_without_repetition_or_what_proofs_hold_out(self, tmp_path):
        texts = corpus()[:7]
        held_out = next(text for n in range(99) if twentieth(text := review(n, "positive")) == 0)
        (tmp_path / "a.txt").write_text(f"{texts[0]}\n{held_out}\n\n{texts[1]}\n")
        (tmp_path / "b.jsonl").write_text(
            f'{{"text": "{texts[2]}\u2028", "label": "好"}}\n{{"sentence1": "{texts[3]}"}}\n'
        )
        (tmp_path / "c.csv").write_text(f'\ufeffreview,label\n"{texts[4]}",1\n  {texts[0]} ,0\n')
        (tmp_path / "d.md").write_text(texts[5])
        assert list(adapt.read_texts([tmp_path])) == texts[:5]
        assert held_out in adapt.read_texts([tmp_path / "a.txt"], held_out_bucket=None)
        with pytest.raises(FileNotFoundError):
            list(adapt.read_texts([tmp_path / "none.txt"]))

    def test_is_packed_without_losing_a_token(self, tiny_tokenizer):
        texts = corpus()[:40]
        chunks = adapt.pack(texts, tiny_tokenizer, 16)
        cls, sep = (tiny_tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]"))
        assert chunks.shape[1] == 16
        assert (chunks[:, 0] == cls).all()
        whole = [id for text in texts for id in (*tiny_tokenizer.encode(text, add_special_tokens=False).ids, sep)]
        assert chunks[:, 1:].ravel().tolist() == whole[: chunks[:, 1:].size]
        assert len(whole) - chunks[:, 1:].size < 15

    def test_is_masked_as_bert_masks(self, tiny_tokenizer):
        mask, sep = tiny_tokenizer.token_to_id("[MASK]"), tiny_tokenizer.token_to_id("[SEP]")
        ids = torch.full((200, 100), 700)
        ids[:, ::10] = sep
        inputs, chosen = adapt.mask_tokens(ids, 0.15, tiny_tokenizer, torch.Generator().manual_seed(0))
        assert not chosen[:, ::10].any()
        assert torch.equal(inputs[~chosen], ids[~chosen])
        assert chosen.sum().item() / 18_000 == pytest.approx(0.15, abs=0.01)
        masked = (inputs[chosen] == mask).float().mean().item()
        same = (inputs[chosen] == 700).float().mean().item()
        assert (masked, same) == (pytest.approx(0.8, abs=0.03), pytest.approx(0.1, abs=0.03))
        assert len(np.unique(inputs[chosen])) > 100, "the rest are any tokens"


def test_a_base_that_is_a_pickle_is_not_loaded(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(TINY_MODEL, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(RunError, match="baseModel: cannot load the model"):
        load_model(folder)


def test_a_model_is_loaded_onto_the_default_device_whichever_that_is():
    # No GPU here: `meta` is another device than the CPU, to transformers too.
    torch.set_default_device("meta")
    try:
        model = load_model(TINY_MODEL, needs_head=True)
    finally:
        torch.set_default_device("cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
