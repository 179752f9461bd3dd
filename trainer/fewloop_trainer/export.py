"""Export to ONNX: graphs that take label words at run time and compute the MLM head only where it is asked for.

A PET graph's inputs (all int64): `input_ids`, `attention_mask`, `token_type_ids` `[batch, length]`,
`mask_positions` `[batch, masks]`, `label_tokens` `[batch, words, masks]`. Outputs (fp32): `word_logits`
`[batch, words]`, the sum over the masks of the MLM logit of the word's token there, and `pooled_embedding`
`[batch, hidden]`, the L2-normalised [CLS] state. The vocabulary's normaliser is left out: it is the same for all
words of a row, so that a softmax over labels cancels it.
Weights are stored in fp16 where asked and cast at load: onnxruntime folds the casts, so compute is in fp32.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM, PreTrainedModel

PET_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "mask_positions", "label_tokens")
PET_OUTPUTS = ("word_logits", "pooled_embedding")
CLASSIFIER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
CLASSIFIER_OUTPUTS = ("logits", "pooled_embedding")


class PetGraph(nn.Module):
    """What `export_pet` writes, in PyTorch: the reference of every parity check."""

    def __init__(self, model: BertForMaskedLM):
        super().__init__()
        self.bert = model.bert
        self.transform = model.cls.predictions.transform
        self.decoder = model.cls.predictions.decoder

    def forward(self, input_ids, attention_mask, token_type_ids, mask_positions, label_tokens):
        at_masks, hidden = self.hidden_at_masks(input_ids, attention_mask, token_type_ids, mask_positions)
        return self.word_logits(at_masks, label_tokens), F.normalize(hidden[:, 0], dim=-1)

    def hidden_at_masks(self, input_ids, attention_mask, token_type_ids, mask_positions):
        """The encoder's output at the masks [batch, masks, hidden], and everywhere [batch, length, hidden]."""
        hidden = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        index = mask_positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        return hidden.gather(1, index), hidden

    def word_logits(self, at_masks, label_tokens):
        """[batch, words]: logits of words `label_tokens` [batch, words, masks], summed over their masks."""
        transformed = self.transform(at_masks)  # [batch, masks, hidden]
        vectors = F.embedding(label_tokens, self.decoder.weight)  # [batch, words, masks, hidden]
        logits = (vectors * transformed.unsqueeze(1)).sum(-1) + self.decoder.bias[label_tokens]
        return logits.sum(-1)


def export_pet(model: BertForMaskedLM, path: Path, half: bool = True) -> None:
    """Writes the PET graph of `model` to `path`; `half` stores weights in fp16 (halves the file, parity 1e-3)."""
    masks, words = (torch.export.Dim(n) for n in ("masks", "words"))
    positions, tokens = torch.tensor([[3, 4], [4, 5]]), torch.randint(100, 1000, (2, 3, 2))
    _plain_attention(model)
    _trace(
        PetGraph(model), [(positions, {1: masks}), (tokens, {1: words, 2: masks})], PET_INPUTS, PET_OUTPUTS, path, half
    )


def export_classifier(model: nn.Module, path: Path, half: bool = True) -> None:
    """Writes the graph of a `Classifier`: its inputs are `CLASSIFIER_INPUTS` [batch, length] (int64), its outputs
    `logits` [batch, outputs] and `pooled_embedding` [batch, hidden] (fp32)."""
    _plain_attention(model.bert)
    _trace(model, [], CLASSIFIER_INPUTS, CLASSIFIER_OUTPUTS, path, half)


def _plain_attention(model: PreTrainedModel) -> None:
    if model.config._attn_implementation != "eager":
        # The fused kernels' exported mask arithmetic depends on the trace; the plain one is the same at any shape.
        model.set_attn_implementation("eager")


def _trace(
    module: nn.Module,
    further: list[tuple[torch.Tensor, dict]],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    path: Path,
    half: bool,
) -> None:
    """Writes the graph of a module that takes ids, mask and types, and `further` inputs with their dynamic axes."""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    row = {0: batch, 1: length}
    example = torch.randint(100, 1000, (2, 7)), torch.ones(2, 7, dtype=torch.long), torch.zeros(2, 7, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (*example, *(value for value, _ in further)),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(row, row, row, *({0: batch} | axes for _, axes in further)),
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    proto = program.model_proto
    for value in (*proto.graph.node, *proto.graph.initializer):
        value.ClearField("doc_string")
        if isinstance(value, onnx.NodeProto):
            del value.metadata_props[:]  # stack traces name the paths of this machine
    del proto.graph.value_info[:]
    store_once(proto)
    if half:
        _store_in_half(proto)
    onnx.checker.check_model(proto)
    partial = path.with_suffix(".partial")
    onnx.save(proto, partial)
    partial.replace(path)


def round_to_half(model: nn.Module) -> None:
    """Gives the weights the values that a graph with half storage will have, so that parity is with what is served."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())


def export_from(template: Path, base: BertForMaskedLM, model: BertForMaskedLM, path: Path) -> None:
    """Writes `model`'s graph by putting its weights into the base's graph: a second instead of a trace's ten.

    Weights are found by name or, where the exporter renamed or transposed them, by value. Raises ValueError where one
    is not found, as when `template` is not `base`'s graph, or where weights that have become others are one in it,
    having been equal.
    """
    proto = onnx.load(template)
    old, new = base.state_dict(), model.state_dict()
    by_value = {}
    for name, tensor in old.items():
        array = tensor.numpy()
        by_value[_digest(array)] = (name, False)
        if array.ndim == 2:
            by_value.setdefault(_digest(array.T), (name, True))
    replaced = set()
    for initializer in proto.graph.initializer:
        if initializer.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or np.prod(initializer.dims) < 2:
            continue
        array = numpy_helper.to_array(initializer)
        name = initializer.name.removesuffix(".half")
        name = name if name.startswith("bert.") else f"cls.predictions.{name}"
        name, transposed = (name, False) if name in old else by_value.get(_digest(array), ("", False))
        weights = old[name].numpy() if name else array
        if not name or not np.array_equal(
            (weights.T if transposed else weights).astype(np.float16), array.astype(np.float16)
        ):
            raise ValueError(f"{template} holds weights {initializer.name!r} that are not the base model's")
        replaced.add(old[name].data_ptr())  # tied weights have several names
        fresh = new[name].numpy()
        fresh = np.ascontiguousarray((fresh.T if transposed else fresh).astype(array.dtype))
        initializer.CopyFrom(numpy_helper.from_array(fresh, initializer.name))
    for name in old:
        if old[name].data_ptr() not in replaced and not torch.equal(old[name], new[name]):
            raise ValueError(f"{template} has no place of its own for the weights {name!r}")
    partial = path.with_suffix(".partial")
    onnx.save(proto, partial)
    partial.replace(path)


def _digest(array: np.ndarray) -> bytes:
    half = np.ascontiguousarray(array.astype(np.float16))
    return hashlib.sha256(f"{half.shape}".encode() + half.tobytes()).digest()


def store_once(proto: onnx.ModelProto) -> None:
    """Equal matrices become one: the exporter transposes one that layers share (ALBERT's) for each of them anew."""
    known: dict[tuple, str] = {}
    instead: dict[str, str] = {}
    for initializer in proto.graph.initializer:
        if len(initializer.dims) == 2:
            content = (
                *initializer.dims,
                initializer.data_type,
                hashlib.sha256(numpy_helper.to_array(initializer).tobytes()).digest(),
            )
            instead[initializer.name] = known.setdefault(content, initializer.name)
    for node in proto.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
    for index in reversed(range(len(proto.graph.initializer))):
        name = proto.graph.initializer[index].name
        if instead.get(name, name) != name:
            del proto.graph.initializer[index]


def _store_in_half(proto: onnx.ModelProto) -> None:
    """Large fp32 initializers become fp16 ones behind a Cast to fp32."""
    casts = []
    for initializer in proto.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < 4096:
            continue
        name = initializer.name
        half = numpy_helper.from_array(numpy_helper.to_array(initializer).astype(np.float16), name + ".half")
        initializer.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [name + ".half"], [name], name=name + ".cast", to=TensorProto.FLOAT))
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*casts, *nodes])
