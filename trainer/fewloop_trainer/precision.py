"""A member's graph in further precisions. Inputs and outputs are those of the fp32 graph (export.py).

int8, for CPUs: products of token states with weights are of bytes. Weights have a scale each output channel. States
have a scale each token, found as it is computed (ZeroQuant, Yao et al. 2022, 2.2), so that what a text is answered
does not depend on the texts beside it in a batch, as with onnxruntime's own dynamic quantization, whose scale is
the batch's. Channels that are much larger than others are first evened out between states and weights (SmoothQuant,
Xiao et al. 2023, eq. 4). Embeddings, label words and what is computed at masks alone stay as they are: gathers and
few rows cost next to nothing.

fp16, for GPUs: weights and arithmetic in half, with the operators of BERT fused. On a CPU the fused graph was no
faster than the plain one (docs/results/precision.md), so that fp32 and int8 stay plain.
"""

import logging
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fewloop_trainer.export import store_once

PRECISIONS = ("fp32", "fp16", "int8")
MIGRATION = 0.75
"""SmoothQuant's alpha: how much of the unevenness of states goes to the weights (docs/results/precision.md)."""
FUSED = ("Attention", "SkipLayerNormalization", "BiasGelu", "FastGelu")
LARGE = 4096


class FusionError(Exception):
    """The graph lacks operators that it should have after fusion; the message says which."""


class Recorder:
    """A session that also keeps, of every token state that weights are multiplied with, each channel's largest size."""

    def __init__(self, proto: onnx.ModelProto, options: onnxruntime.SessionOptions):
        tapped = onnx.ModelProto()
        tapped.CopyFrom(proto)
        self._names = list(dict.fromkeys(node.input[0] for node in products(proto)))
        tapped.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in self._names)
        self._session = onnxruntime.InferenceSession(
            tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.largest: dict[str, np.ndarray] = {}
        """Name to [channels]; only of tensors [batch, length, channels]."""

    def run(self, outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        found = self._session.run([*outputs, *self._names], feeds)
        real = feeds["attention_mask"].astype(bool)
        # A graph that embeds the sides of a pair alone has a column more, the second's [CLS] (pairs.py).
        longer = np.pad(real, ((0, 0), (1, 0)), constant_values=True)
        tokens = {real.shape: real, longer.shape: longer}
        for name, value in zip(self._names, found[len(outputs) :], strict=True):
            if value.shape[:2] in tokens:
                sizes = np.abs(value[tokens[value.shape[:2]]]).max(0)
                self.largest[name] = np.maximum(self.largest.get(name, 0.0), sizes)
        return found[: len(outputs)]


def load_plain(path) -> onnx.ModelProto:
    """The graph with all weights in fp32, whatever they are stored in."""
    proto = onnx.load(path)
    casts = {n.input[0]: n for n in proto.graph.node if n.op_type == "Cast" and n.input[0].endswith(".half")}
    for initializer in proto.graph.initializer:
        if initializer.name in casts:
            full = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(full, casts[initializer.name].output[0]))
    for node in casts.values():
        proto.graph.node.remove(node)
    return proto


def products(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """MatMul nodes whose second input is a constant matrix."""
    matrices = {i.name for i in proto.graph.initializer if len(i.dims) == 2}
    return [n for n in proto.graph.node if n.op_type == "MatMul" and n.input[1] in matrices]


def to_int8(proto: onnx.ModelProto, largest: dict[str, np.ndarray]) -> onnx.ModelProto:
    """`proto` (as of `load_plain`; changed) in int8 where `largest` (of a `Recorder`) has the states' channels."""
    graph = proto.graph
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    chosen = [n for n in products(proto) if n.input[0] in largest]
    constants = {
        "int8.axis": np.array([-1], np.int64),
        "int8.scale": np.array(1 / 127, np.float32),
        "int8.zero": np.array(128, np.uint8),
        "int8.least": np.array(1e-9, np.float32),
    }
    nodes, quantized = [], set()
    for node in graph.node:
        if node not in chosen:
            nodes.append(node)
            continue
        state, name, output = node.input[0], node.input[1], node.output[0]
        users = [n.input[1] for n in chosen if n.input[0] == state]
        # Layers that share weights (ALBERT's) share the scales, too.
        sharing = {n.input[0] for n in chosen if n.input[1] in users}
        scale = _smoothing(np.max([largest[s] for s in sharing], axis=0), [weights[name] for name in users])
        if state not in quantized:
            quantized.add(state)
            constants[f"{state}.smoothing"] = 1 / scale
            nodes += _quantize_tokens(state)
        matrix = weights[name].astype(np.float32) * scale[:, None]
        channel = np.maximum(np.abs(matrix).max(0) / 127, 1e-10).astype(np.float32)
        constants[f"{name}.int8"] = np.clip(np.rint(matrix / channel), -127, 127).astype(np.int8)
        constants[f"{name}.scale"] = channel
        constants[f"{name}.zero"] = np.zeros(len(channel), np.int8)
        inputs = [f"{state}.int8", f"{name}.int8", "int8.scale", f"{name}.scale", "int8.zero", f"{name}.zero"]
        nodes += [
            helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}.relative"], domain="com.microsoft"),
            helper.make_node("Mul", [f"{output}.relative", f"{state}.size"], [output]),
        ]
    _replace(proto, nodes, constants)
    _embed_in_half(proto)
    return _checked(proto)


def _smoothing(largest: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """[channels] that states are divided by and weights multiplied with; their geometric mean is 1."""
    of_weights = np.max([np.abs(m).max(1) for m in matrices], axis=0)
    scale = np.maximum(largest, 1e-5) ** MIGRATION / np.maximum(of_weights, 1e-5) ** (1 - MIGRATION)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _quantize_tokens(state: str) -> list[onnx.NodeProto]:
    """From `state` to `state.int8`, bytes around 128, and `state.size` [batch, length, 1], what 127 stands for."""
    return [
        helper.make_node("Mul", [state, f"{state}.smoothing"], [f"{state}.smooth"]),
        helper.make_node("Abs", [f"{state}.smooth"], [f"{state}.absolute"]),
        helper.make_node("ReduceMax", [f"{state}.absolute", "int8.axis"], [f"{state}.largest"], keepdims=1),
        helper.make_node("Max", [f"{state}.largest", "int8.least"], [f"{state}.size"]),
        helper.make_node("Div", [f"{state}.smooth", f"{state}.size"], [f"{state}.unit"]),
        helper.make_node("QuantizeLinear", [f"{state}.unit", "int8.scale", "int8.zero"], [f"{state}.int8"]),
    ]


def _embed_in_half(proto: onnx.ModelProto) -> None:
    """Large tables that are only gathered from are stored in fp16 and cast behind the gather: casts of whole tables
    would be folded at load, and take twice the memory."""
    graph = proto.graph
    for initializer in graph.initializer:
        users = [n for n in graph.node if initializer.name in n.input]
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < LARGE:
            continue
        if any(n.op_type != "Gather" for n in users):
            continue
        half = numpy_helper.to_array(initializer).astype(np.float16)
        initializer.CopyFrom(numpy_helper.from_array(half, initializer.name))
        for node in users:
            output = node.output[0]
            node.output[0] = f"{output}.half"
            cast = helper.make_node("Cast", [f"{output}.half"], [output], to=TensorProto.FLOAT)
            graph.node.insert(list(graph.node).index(node) + 1, cast)


def fuse(proto: onnx.ModelProto, layers: int, heads: int, hidden: int) -> tuple[onnx.ModelProto, dict[str, int]]:
    """`proto` (as of `load_plain`; changed) with BERT's fused operators, and how many there are of each.

    Raises FusionError where attention or layer norms are not fused in every layer, or GELU is not.
    """
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    _as_the_optimizer_knows_it(proto)
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # its mask index is another input than attention's
    options.enable_shape_inference = False  # which fails at LpNormalization's parts, and is needed for nothing here
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    optimized = optimize_model(
        proto, "bert", num_heads=heads, hidden_size=hidden, opt_level=0, optimization_options=options
    )
    counts = {name: n for name, n in optimized.get_fused_operator_statistics().items() if name in FUSED and n > 0}
    gelu = "FastGelu" if "FastGelu" in counts else "BiasGelu"  # by tanh, as ALBERT's; or exact, as BERT's
    least = {"Attention": layers, "SkipLayerNormalization": 2 * layers, gelu: layers}
    lacking = [f"{counts.get(name, 0)} of {n} {name}" for name, n in least.items() if counts.get(name, 0) < n]
    if lacking:
        raise FusionError(f"ONNX Runtime's optimizer fused {', '.join(lacking)}")
    store_once(optimized.model)  # attention's matrices, put together for each layer
    return optimized.model, counts


def _as_the_optimizer_knows_it(proto: onnx.ModelProto) -> None:
    """The attention mask as (1 - mask) * lowest and the scores' factor as a divisor: the forms that the optimizer's
    fusion of attention looks for. The exporter's own mask, made of ranges, compares every two positions."""
    graph = proto.graph
    producers = {output: node for node in graph.node for output in node.output}
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    added = {
        "mask.axis1": np.array([1], np.int64),
        "mask.axis2": np.array([2], np.int64),
        "mask.one": np.array(1, np.float32),
        "mask.lowest": np.array(np.finfo(np.float32).min),
    }
    masks = set()
    for softmax in (n for n in graph.node if n.op_type == "Softmax"):
        add = producers.get(softmax.input[0])
        for name in add.input if add is not None and add.op_type == "Add" else ():
            node = producers[name]
            if node.op_type == "Where":
                masks.add(name)
            if node.op_type == "Mul" and node.input[1] in constants:
                added[f"{node.output[0]}.divisor"] = (1 / constants[node.input[1]]).astype(np.float32)
                node.op_type, node.input[1] = "Div", f"{node.output[0]}.divisor"
    nodes = [n for n in graph.node if not masks.intersection(n.output)]
    for number, name in enumerate(sorted(masks)):
        steps = [f"mask{number}.{step}" for step in ("rows", "all", "float", "absent")]
        nodes[:0] = [
            helper.make_node("Unsqueeze", ["attention_mask", "mask.axis1"], [steps[0]]),
            helper.make_node("Unsqueeze", [steps[0], "mask.axis2"], [steps[1]]),
            helper.make_node("Cast", [steps[1]], [steps[2]], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["mask.one", steps[2]], [steps[3]]),
            helper.make_node("Mul", [steps[3], "mask.lowest"], [name]),
        ]
    _replace(proto, nodes, added)


def to_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """`proto` (as of `fuse`) with weights and arithmetic in fp16; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)


def _replace(proto: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> None:
    """Gives the graph these nodes, less those that nothing needs, and further constants."""
    graph = proto.graph
    needed, kept = {o.name for o in graph.output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(kept)]
    del graph.node[:]
    graph.node.extend(copies)
    initializers = [onnx.TensorProto.FromString(i.SerializeToString()) for i in graph.initializer if i.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items() if n in needed)


def _checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    if not any(o.domain == "com.microsoft" for o in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.checker.check_model(proto)
    return proto
