"""The tiny model of the tests: a BERT small enough to commit, on a cut of the base model's vocabulary.

Its word embeddings are the base model's, projected on their principal axes, so that it can learn a little from few
labels; masked-language modelling on the texts given does the rest.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from fewloop_trainer.adapt import pretrain, read_texts
from fewloop_trainer.adapt_settings import AdaptSettings
from fewloop_trainer.base_model import save_model
from fewloop_trainer.encoder import load_model
from fewloop_trainer.export import export_pet

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = 2048
HIDDEN = 32


def make_tiny_model(base: Path, out: Path, texts: list[Path], report: Callable[[dict[str, object]], None]) -> None:
    """Writes config.json, model.safetensors, model.onnx and tokenizer.json (each under 400 kB) to `out`.

    `texts` (files or folders) choose the characters by frequency and train the model; without any the characters are
    GB 2312's and the model is untrained.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = _choose(vocabulary, list(read_texts(texts)) if texts else [])
    ids = torch.tensor([vocabulary[token] for token in tokens])
    _write_tokenizer(tokenizer, tokens, out / "tokenizer.json")
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokens),
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=4 * HIDDEN,
            max_position_embeddings=512,
            pad_token_id=0,
        )
    )
    with torch.no_grad():
        embeddings = load_model(base).bert.embeddings.word_embeddings.weight[ids]
        centred = embeddings - embeddings.mean(0)
        axes = torch.linalg.svd(centred, full_matrices=False).Vh[:HIDDEN]
        projected = centred @ axes.T
        model.bert.embeddings.word_embeddings.weight.copy_(0.1 * projected / projected.std())
    save_model(model, out)
    if texts:
        settings = AdaptSettings(
            tokens=12_000_000, encoder_rate=4e-3, chunk_tokens=64, batch_chunks=64, evaluate_every_tokens=2_000_000
        )
        with tempfile.TemporaryDirectory() as work:
            trained = pretrain(out, lambda: read_texts(texts), Path(work), settings, report)
        assert trained is not None, "nothing asks it to stop"
        save_model(trained, out)
    # Exported from the stored fp16 weights, so that the graph and the file agree.
    export_pet(load_model(out), out / "model.onnx")


def _choose(vocabulary: dict[str, int], texts: list[str]) -> list[str]:
    """The special tokens, all of ASCII and its continuations, then characters of the base vocabulary by use."""
    ascii_tokens = [t for t in vocabulary if len(t.removeprefix("##")) == 1 and t.isascii() and t.isprintable()]
    if texts:
        ranked = [character for character, _ in Counter("".join(texts)).most_common()]
    else:
        # GB 2312's first level: the 3,755 characters in common use.
        ranked = [bytes((a, b)).decode("gb2312", "ignore") for a in range(0xB0, 0xD8) for b in range(0xA1, 0xFF)]
    ranked = [*"，。！？、；：“”（）《》", *ranked]
    chosen = dict.fromkeys([*SPECIAL, *ascii_tokens, *(c for c in ranked if c in vocabulary)])
    return list(chosen)[:VOCABULARY]


def _write_tokenizer(tokenizer: dict, tokens: list[str], path: Path) -> None:
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer["model"]["vocab"] = ids
    for added in tokenizer["added_tokens"]:
        added["id"] = ids[added["content"]]
    for name, special in tokenizer["post_processor"]["special_tokens"].items():
        special["ids"] = [ids[name]]
    path.write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")
