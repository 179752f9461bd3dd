"""Further precisions of a member's graph: what they compute, what is fused, and when they are refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from bundles import broken_entries
from fewloop_trainer import admission
from fewloop_trainer.admission import agreement, objections
from fewloop_trainer.bundle import session_options
from fewloop_trainer.classifier import classifier_of
from fewloop_trainer.export import CLASSIFIER_INPUTS, PET_INPUTS, export_classifier, export_pet
from fewloop_trainer.precision import FusionError, Recorder, fuse, load_plain, to_half, to_int8
from fewloop_trainer.run import run
from fewloop_trainer.task import Serving
from folders import definition_of, ordinary_run, read_json
from test_export import CASES, batch_of, distributions, moved

LAYERS, HEADS, HIDDEN = 2, 2, 32


@pytest.fixture(scope="module")
def pet_graph(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "g.onnx"
    export_pet(moved(1), path)
    return path


def feeds_of(case: str) -> tuple[dict[str, np.ndarray], object, int]:
    batch, labels = batch_of(*CASES[case])
    return {n: v.numpy() for n, v in zip(PET_INPUTS, batch.inputs, strict=True)}, batch, labels


def answer(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], output: str = "word_logits") -> np.ndarray:
    return onnxruntime.InferenceSession(proto.SerializeToString(), session_options(1)).run([output], feeds)[0]


def int8_of(path: Path, feeds: dict[str, np.ndarray], output: str = "word_logits") -> onnx.ModelProto:
    recorder = Recorder(load_plain(path), session_options(1))
    recorder.run([output], feeds)
    return to_int8(load_plain(path), recorder.largest)


def count(proto: onnx.ModelProto, kind: str) -> int:
    return sum(node.op_type == kind for node in proto.graph.node)


def bytes_saturate() -> bool:
    """Whether this CPU, as those without VNNI, adds two products of bytes in 16 bits (vpmaddubsw), which cuts them off.

    int8 graphs are then further from fp32, and a run's admission refuses them where they are too far.
    """
    made = onnx.helper
    constants = {
        "w": np.full((64, 8), 127, np.int8),
        "one": np.array(1, np.float32),
        "ones": np.ones(8, np.float32),
        "zero": np.array(128, np.uint8),
        "zeros": np.zeros(8, np.int8),
    }
    inputs = ["x", "w", "one", "ones", "zero", "zeros"]
    graph = made.make_graph(
        [made.make_node("MatMulIntegerToFloat", inputs, ["y"], domain="com.microsoft")],
        "bytes",
        [made.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 64])],
        [made.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [made.make_opsetid("", 17), made.make_opsetid("com.microsoft", 1)]
    proto = made.make_model(graph, opset_imports=opsets, ir_version=8)
    found = answer(proto, {"x": np.full((1, 64), 255, np.uint8)}, "y")
    return not np.array_equal(found, np.full((1, 8), (255 - 128) * 127 * 64, np.float32))


exact_bytes = pytest.mark.skipif("bytes_saturate()", reason="products of bytes saturate on this CPU")


@exact_bytes
@pytest.mark.parametrize("case", CASES)
def test_int8_answers_nearly_as_fp32(pet_graph, case):
    feeds, batch, labels = feeds_of(case)
    proto = int8_of(pet_graph, feeds_of("uneven words")[0])
    expected = distributions(torch.from_numpy(answer(load_plain(pet_graph), feeds)), batch, labels)
    got = distributions(torch.from_numpy(answer(proto, feeds)), batch, labels)
    assert 0 < np.abs(got - expected).max() < 5e-2


def test_int8_multiplies_all_of_the_encoder_in_bytes_and_nothing_else(pet_graph):
    feeds, _, _ = feeds_of("uneven words")
    proto = int8_of(pet_graph, feeds)
    assert count(proto, "MatMulIntegerToFloat") == 6 * LAYERS
    assert count(load_plain(pet_graph), "MatMul") - count(proto, "MatMul") == 6 * LAYERS
    weights = {i.name: i for i in proto.graph.initializer}
    table = next(i for i in weights.values() if list(i.dims) == [2048, HIDDEN])
    assert table.data_type == onnx.TensorProto.FLOAT16, "label words and embeddings keep their values"


def test_int8_answers_a_text_the_same_whatever_is_beside_it(pet_graph):
    feeds, _, _ = feeds_of("lengths far apart")
    proto = int8_of(pet_graph, feeds)
    together = answer(proto, feeds)
    for row in range(len(together)):
        length = int(feeds["attention_mask"][row].sum())
        alone = {
            n: v[row : row + 1, :length] if v.ndim == 2 and n != "mask_positions" else v[row : row + 1]
            for n, v in feeds.items()
        }
        np.testing.assert_allclose(answer(proto, alone)[0], together[row], atol=1e-3)


def test_fp16_is_fused_in_every_layer_and_answers_as_fp32(pet_graph):
    feeds, batch, labels = feeds_of("lengths far apart")
    fused, counts = fuse(load_plain(pet_graph), LAYERS, HEADS, HIDDEN)
    assert counts == {"Attention": LAYERS, "SkipLayerNormalization": 2 * LAYERS, "BiasGelu": LAYERS + 1}
    expected = answer(load_plain(pet_graph), feeds)
    np.testing.assert_allclose(answer(fused, feeds), expected, atol=1e-4)
    half = to_half(fused)
    assert onnx.TensorProto.FLOAT not in {i.data_type for i in half.graph.initializer if len(i.dims) == 2}
    got, wanted = (distributions(torch.from_numpy(x), batch, labels) for x in (answer(half, feeds), expected))
    np.testing.assert_allclose(got, wanted, atol=5e-3)


def test_a_graph_without_attention_to_fuse_is_refused(pet_graph):
    with pytest.raises(FusionError, match=f"{LAYERS} of {LAYERS + 1} Attention"):
        fuse(load_plain(pet_graph), LAYERS + 1, HEADS, HIDDEN)


def test_classifiers_have_them_too(tmp_path, tiny_model):
    path = tmp_path / "c.onnx"
    torch.manual_seed(3)
    export_classifier(classifier_of(tiny_model, 3, False, False).eval(), path)
    feeds = {n: v for n, v in feeds_of("uneven words")[0].items() if n in CLASSIFIER_INPUTS}
    expected = answer(load_plain(path), feeds, "logits")
    proto = int8_of(path, feeds, "logits")
    assert count(proto, "MatMulIntegerToFloat") == 6 * LAYERS
    np.testing.assert_allclose(answer(proto, feeds, "logits"), expected, atol=5e-2)
    half = to_half(fuse(load_plain(path), LAYERS, HEADS, HIDDEN)[0])
    np.testing.assert_allclose(answer(half, feeds, "logits"), expected, atol=5e-3)


@pytest.fixture
def few_texts(monkeypatch):
    """So that a run of a few rows is compared, too."""
    monkeypatch.setattr(admission, "FEWEST_TEXTS", 30)
    monkeypatch.setattr(admission, "FEWEST_OF_A_LABEL", 5)


def run_with(folder: Path, **serving) -> tuple[dict, Path]:
    definition = definition_of(serving={"policy": "ensemble", "precisions": ["fp32", "fp16", "int8"]} | serving)
    definition["learning"]["strategies"] = ["plain"]
    assert run(ordinary_run(folder, definition=definition)) == 0
    return read_json(folder / "bundle/manifest.json"), folder / "bundle"


@exact_bytes
def test_a_run_admits_what_agrees(tmp_path, few_texts):
    manifest, folder = run_with(tmp_path / "r", minAgreement=0.8, minLabelAgreement=0.5)
    assert [(p["precision"], p["admitted"], p["roles"], p["reason"]) for p in manifest["precisions"]] == [
        ("fp16", True, ["teacher", "student"], None),
        ("int8", True, ["teacher", "student"], None),
    ]
    for entry in manifest["precisions"]:
        assert entry["texts"] == 30
        assert set(entry["agreement"]) == {"ensemble", "student"}
        assert entry["agreement"]["ensemble"]["share"] >= 0.8
        assert entry["parity"] <= admission.PARITY[entry["precision"]]
        assert set(entry["difference"]["student"]) == {"accuracy", "ece"}
        assert entry["difference"]["from"] == "dev"
    assert manifest["precisions"][0]["fused"][0]["Attention"] == LAYERS
    assert read_json(folder / "report.json")["precisions"] == manifest["precisions"]
    for graph in manifest["graphs"]:
        assert [v["precision"] for v in graph["variants"]] == ["fp16", "int8"]
    assert broken_entries(folder) == []


def test_a_run_refuses_what_says_no_numbers(tmp_path, few_texts, monkeypatch):
    convert = admission.to_half

    def overflown(proto):
        proto = convert(proto)
        for weight in proto.graph.initializer:
            if "LayerNorm" in weight.name or "layer_norm" in weight.name:
                values = onnx.numpy_helper.to_array(weight)
                weight.CopyFrom(onnx.numpy_helper.from_array(values * np.nan, weight.name))
        return proto

    monkeypatch.setattr(admission, "to_half", overflown)
    manifest, folder = run_with(tmp_path / "r", precisions=["fp32", "fp16"])
    (fp16,) = manifest["precisions"]
    assert (fp16["admitted"], fp16["roles"]) == (False, [])
    assert "texts are no numbers" in fp16["reason"]
    assert not list(folder.glob("*.fp16.onnx"))


def test_a_run_refuses_what_does_not_and_keeps_no_file_of_it(tmp_path, few_texts, monkeypatch):
    convert = admission.to_int8

    def spoil(proto, largest):
        """A quarter of every largest size: states are cut, as where a scale were computed wrongly."""
        proto = convert(proto, largest)
        for weight in proto.graph.initializer:
            if weight.name == "int8.scale":
                weight.CopyFrom(onnx.numpy_helper.from_array(np.array(1 / 500, np.float32), weight.name))
        return proto

    monkeypatch.setattr(admission, "to_int8", spoil)
    manifest, folder = run_with(tmp_path / "r", minAgreement=0.9999, minLabelAgreement=0.9999)
    fp16, int8 = manifest["precisions"]
    assert (int8["admitted"], int8["roles"]) == (False, [])
    assert "agrees with fp32 on" in int8["reason"] or "golden" in int8["reason"]
    kept = {v["precision"] for graph in manifest["graphs"] for v in graph.get("variants", [])}
    assert kept == ({"fp16"} if fp16["admitted"] else set())
    assert not list(folder.glob("*.int8.onnx"))


@exact_bytes
def test_a_student_may_be_admitted_whose_teachers_are_not(tmp_path, few_texts, monkeypatch):
    against = {"ensemble": ["ensemble: agrees with fp32 on too few texts"], "student": []}
    monkeypatch.setattr(admission, "objections", lambda policy, found, serving: against[policy])
    manifest, folder = run_with(tmp_path / "r", precisions=["fp32", "int8"])
    (int8,) = manifest["precisions"]
    assert (int8["admitted"], int8["roles"], int8["reason"]) == (True, ["student"], *against["ensemble"])
    role_of = {member["graph"]: member["role"] for member in manifest["members"]}
    assert {role_of[graph["id"]] for graph in manifest["graphs"] if graph.get("variants")} == {"student"}
    assert len(list(folder.glob("*.int8.onnx"))) == 1
    assert broken_entries(folder) == []


def test_a_rare_label_is_judged_by_itself(monkeypatch):
    ours = np.array([[0.9, 0.1]] * 990 + [[0.1, 0.9]] * 10)
    theirs = ours.copy()
    theirs[990:995] = [0.9, 0.1]
    found = agreement(ours, theirs, ["common", "rare"], None)
    assert found["share"] == 0.995
    assert found["labels"]["rare"] == {"texts": 10, "share": 0.5}
    serving = Serving("ensemble", ("fp32", "int8"), 0.99, 0.97)
    assert objections("student", found, serving) == [], "ten texts say nothing"
    monkeypatch.setattr(admission, "FEWEST_OF_A_LABEL", 10)
    assert objections("student", found, serving) == ["student: agrees with fp32 on 50.00% of texts of rare"]


def test_label_sets_agree_as_a_whole():
    ours, theirs = np.array([[0.9, 0.2], [0.9, 0.8]]), np.array([[0.9, 0.1], [0.9, 0.6]])
    found = agreement(ours, theirs, ["a", "b"], np.array([0.5, 0.7]))
    assert (found["share"], found["labels"]["b"]) == (0.5, {"texts": 1, "share": 0.0})


def test_too_few_texts_or_too_little_time_is_a_reason(finished_run, tmp_path, monkeypatch):
    assert read_json(finished_run.folder / "bundle/manifest.json")["precisions"] == [], "none was asked for"
    manifest, _ = run_with(tmp_path / "few")
    assert all("unlabelled texts" in entry["reason"] for entry in manifest["precisions"])
    monkeypatch.setattr(admission, "FEWEST_TEXTS", 30)
    monkeypatch.setattr(admission, "COST", dict.fromkeys(admission.COST, 1e9))
    manifest, folder = run_with(tmp_path / "slow")
    assert all("longer than the run may" in entry["reason"] for entry in manifest["precisions"])
    assert not list(folder.glob("*.int8.onnx"))
