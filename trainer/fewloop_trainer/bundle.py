"""Writing a bundle: graphs, tokenizer, golden rows with PyTorch's own distributions, report, manifest.

Nothing is a bundle before the folder gets its name: all is written to `bundle.partial` first. ONNX Runtime must agree
with PyTorch on every golden row, or there is no bundle. Graphs in further precisions are for admission.py.
"""

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial as lazily
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from fewloop_trainer.admission import Served, further_precisions
from fewloop_trainer.data import RunData, RunError, file_digest, labelled_digest
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.evaluate import figure_of, with_intervals
from fewloop_trainer.export import PET_INPUTS, PetGraph, export_pet
from fewloop_trainer.files import write_json
from fewloop_trainer.learners import Learner
from fewloop_trainer.observe import Observations
from fewloop_trainer.pet import Encoded, collate
from fewloop_trainer.render import RENDERING
from fewloop_trainer.task import Field, Task, parse_template
from fewloop_trainer.training import AtWork, nobody_waits

PARITY_TOLERANCE = 1e-4
BASE_TOLERANCE = 1e-3
BASE_WORDS = ("好", "差", "是", "不")

# Written for this purpose: a golden row outlives the erasure of any user's text.
GOLDEN_TEXTS = (
    "质量很好，物流也快，下次还会再来。",
    "太差了！客服不理人，东西用了两天就坏。",
    "iPhone 8 ABC，价格¥199.00……😀 还行吧\u3000（一般）",
)
TIMED_TEXTS = 20
GOLDEN_SPAN = "客服"
GOLDEN_CHOICES = ("好", "大")
OVER_LONG = "房间不大，但是很干净，早餐也不错。" * 60


@dataclass(frozen=True)
class TrainedMember:
    id: str
    role: str
    learner: Learner
    weight: float
    offsets: np.ndarray | None
    load: Callable[[], Any]


def write_bundle(
    folder: Path,
    data: RunData,
    members: list[TrainedMember],
    policies: dict[str, dict[str, object]],
    thresholds: np.ndarray | None,
    report: dict[str, object],
    pseudo_labelled: int,
    threads: int,
    seconds: float,
    at_work: AtWork = nobody_waits,
) -> float:
    """Writes `folder`; returns the largest difference of a golden probability between PyTorch and ONNX Runtime.

    `thresholds` [C] are those of label sets; `seconds`: what comparing precisions may take. Raises RunError (INTERNAL)
    where the difference exceeds `PARITY_TOLERANCE`.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    settings, task = data.settings, data.task
    base_folder = Path(settings["baseModel"]["folder"])
    items = golden_items(task)
    rows = [{"item": item, "members": []} for item in items]
    graphs, entries, largest = [], [], 0.0
    teachers = [member.id for member in members if member.role == "teacher"]
    timed = _timed_rows(data)
    milliseconds = {role: np.zeros(len(timed)) for role in ("teacher", "student")}
    for index, member in enumerate(members):
        at_work()
        model = member.load()
        path = partial / f"g{index}.onnx"
        member.learner.export(model, base_folder, path)
        offsets = np.zeros(data.classes) if member.offsets is None else member.offsets
        runtime = session(path, threads)
        largest = max(largest, _golden(rows, items, task, member, model, offsets, runtime))
        milliseconds[member.role] += _milliseconds(member.learner, model, runtime, timed)
        graph = {"id": f"g{index}", "kind": member.learner.graph, "precision": "fp32", "base": False}
        graphs.append(graph | file_entry(path))
        taught_by = {"teachers": teachers} if member.role == "student" else {}
        entries.append(_member_entry(task, member, model, f"g{index}", partial) | taught_by)
    if largest > PARITY_TOLERANCE:
        raise RunError("INTERNAL", f"ONNX Runtime differs from PyTorch by {largest:.1e} on a golden row")
    served = [
        lazily(_served, rows, items, member, data.classes, partial / g["file"])
        for member, g in zip(members, graphs, strict=True)
    ]
    precisions, variants = further_precisions(
        data, served, policies, thresholds, session_options(threads), seconds, at_work
    )
    for precision, paths in variants.items():
        for graph, path in zip(graphs, paths, strict=True):
            if path is not None:
                graph.setdefault("variants", []).append({"precision": precision} | file_entry(path))
    shutil.copyfile(base_folder / "tokenizer.json", partial / "tokenizer.json")
    write_json(partial / "golden.json", {"rows": rows})
    latency = _latency(data, timed, milliseconds, threads)
    write_json(partial / "report.json", report | {"latency": latency, "parity": largest, "precisions": precisions})
    manifest = {
        "formatVersion": 1,
        "task": settings["task"],
        "version": settings["version"],
        "taskRevision": settings["taskRevision"],
        "definitionDigest": settings["definitionDigest"],
        "definition": settings["definition"],
        "rendering": RENDERING,
        "origin": f"run:{settings['runId']}",
        "createdAt": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "graphs": graphs,
        "precisions": precisions,
        "members": entries,
        "policies": policies,
        **({} if thresholds is None else {"thresholds": _by_label(task, thresholds)}),
        "tokenizer": file_entry(partial / "tokenizer.json"),
        "golden": file_entry(partial / "golden.json"),
        "report": file_entry(partial / "report.json"),
        "baseModel": {"name": settings["baseModel"]["name"], "digest": settings["baseModel"]["digest"]},
        "trainingData": {
            "labelledDigest": data.labelled_digest,
            "labelled": len(data.train),
            "unlabelledDigest": data.unlabelled_digest,
            "pseudoLabelled": pseudo_labelled,
        },
        "libraries": library_versions(),
    }
    write_json(partial / "manifest.json", manifest)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return largest


def golden_items(task: Task) -> list[dict]:
    """Texts of our own in every field that a template names; over-long ones last, of a pair each side in turn, and one
    that holds what is in its further fields, where there are any, at its end."""
    pairs = [(text, GOLDEN_TEXTS[0]) for text in (*GOLDEN_TEXTS, GOLDEN_TEXTS[0] + OVER_LONG)]
    if task.kind == "sentence-pair":
        pairs.append((GOLDEN_TEXTS[1], OVER_LONG))
    items = [_made_item(task, text, pair, text) for text, pair in pairs]
    if "fields" in items[0]:
        items.append(_made_item(task, OVER_LONG + GOLDEN_TEXTS[1], GOLDEN_TEXTS[0], GOLDEN_SPAN))
    return items


def _made_item(task: Task, text: str, pair: str, further: str) -> dict:
    item: dict = {"text": text}
    if task.kind == "sentence-pair":
        item["textPair"] = pair
    if task.kind == "multiple-choice":
        item["choices"] = list(GOLDEN_CHOICES)
    for piece in (p for template in task.rendered_by for p in parse_template(template)):
        if not isinstance(piece, Field):
            continue
        own = piece.name in ("text", "textPair")
        place = item if own else item.setdefault("fields", {})
        value = place.get(piece.name, text if own else further)
        if piece.blank is not None and piece.blank not in value:
            middle = len(value) // 2
            value = value[:middle] + piece.blank + value[middle:]
        place[piece.name] = value
    return item


def file_entry(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": file_digest(path)}


def library_versions() -> dict[str, str]:
    names = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])


def _member_entry(task: Task, member: TrainedMember, model: Any, graph: str, folder: Path) -> dict[str, object]:
    def write(name: str, content: object) -> dict[str, str]:
        path = folder / f"{graph}-{name}.json"
        write_json(path, content)
        return file_entry(path)

    return {
        "id": member.id,
        "role": member.role,
        "method": member.learner.method,
        "graph": graph,
        "template": member.learner.template,
        **member.learner.member(model, write),
        "strategy": member.learner.strategy,
        "weight": float(member.weight),
        "offsets": {} if member.offsets is None else _by_label(task, member.offsets),
    }


def _timed_rows(data: RunData) -> list[dict]:
    """A sample of the labelled ones."""
    rows = [*data.dev, *data.train]
    order = np.random.default_rng(int(data.settings["seed"]) + 3).permutation(len(rows))
    return [rows[i] for i in order[:TIMED_TEXTS]]


def _milliseconds(learner: Learner, model: Any, runtime: onnxruntime.InferenceSession, items: list[dict]) -> np.ndarray:
    """That the exported graph takes for each item, asked alone."""
    found = []
    for row in learner.encode(items):
        started = time.perf_counter()
        learner.served(runtime, model, [row])
        found.append(1000 * (time.perf_counter() - started))
    return np.array(found)


def _latency(data: RunData, timed: list[dict], by_role: dict[str, np.ndarray], threads: int) -> dict[str, object]:
    """Mean milliseconds a text: of the policy that the task file has, as run_report.py's figures, and of each."""
    policies = {
        policy: with_intervals({"mean": lambda i, each=by_role[role]: float(each[i].mean())}, len(timed), 0)["mean"]
        for policy, role in (("ensemble", "teacher"), ("student", "student"))
    }
    own = policies["student" if data.task.serving.policy == "student" else "ensemble"]
    figure = figure_of(own, len(timed), labelled_digest(data.task, timed))
    return figure | {"unit": "ms", "texts": len(timed), "threads": threads, "byPolicy": policies}


def _by_label(task: Task, values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(task.label_names, values, strict=True)}


def _golden(rows, items, task, member, model, offsets, runtime) -> float:
    """Adds the member's golden entries to `rows`; the largest difference to the exported graph's probabilities."""
    largest, learner, observe = 0.0, member.learner, Observations(task)
    for row, item in zip(rows, items, strict=True):
        encoded, labels = learner.encode([item]), len(task.labels_of(item))
        expected, got = (
            observe.probabilities(scores[:, :labels], offsets[:labels])[0]
            for scores in (learner.predict(model, encoded), learner.served(runtime, model, encoded))
        )
        largest = max(largest, float(np.abs(expected - got).max()))
        entry = {"member": member.id, **learner.golden(encoded[0]), "distribution": [float(p) for p in expected]}
        row["members"].append(entry)
    return largest


def _served(rows: list[dict], items: list[dict], member: TrainedMember, classes: int, graph: Path) -> Served:
    golden = []
    for row, encoded in zip(rows, member.learner.encode(items), strict=True):
        (entry,) = (e for e in row["members"] if e["member"] == member.id)
        golden.append((encoded, np.array(entry["distribution"])))
    offsets = np.zeros(classes) if member.offsets is None else member.offsets
    return Served(member.role, float(member.weight), offsets, member.learner, member.load(), graph, golden)


def export_base(folder: Path) -> float:
    """Writes `model.onnx` and `golden.json` of a base model folder; the largest difference of a word's logit.

    Golden rows give the graph's inputs and PyTorch's `word_logits` of a few words, one row a text. Raises RunError
    (BAD_INPUT) where the tokenizer lacks such a word, (INTERNAL) where the graph computes something else.
    """
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    export_pet(model, folder / "model.onnx")
    words = [[tokenizer.token_to_id(word)] for word in BASE_WORDS]
    if [None] in words:
        unknown = BASE_WORDS[words.index([None])]
        raise RunError(
            "BAD_INPUT", f"baseModel: {folder} is of no Chinese model: its tokenizer does not know {unknown}"
        )
    room = min(128, model.config.max_position_embeddings) - 3
    cls, sep, mask = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    graph, runtime, rows, largest = PetGraph(model).eval(), session(folder / "model.onnx", 1), [], 0.0
    for text in (*GOLDEN_TEXTS, OVER_LONG):
        ids = [cls, mask, *tokenizer.encode(text, add_special_tokens=False).ids[:room], sep]
        batch = collate([Encoded(ids, [1], words, list(range(len(words))))])
        with torch.inference_mode():
            expected = graph(*batch.inputs)[0][0].numpy()
        feeds = {name: value.numpy() for name, value in zip(PET_INPUTS, batch.inputs, strict=True)}
        largest = max(largest, float(np.abs(runtime.run(["word_logits"], feeds)[0][0] - expected).max()))
        row = {"text": text, "ids": ids, "maskPositions": [1], "labelTokens": words}
        rows.append(row | {"wordLogits": [float(x) for x in expected]})
    if largest > BASE_TOLERANCE:
        raise RunError("INTERNAL", f"ONNX Runtime differs from PyTorch by {largest:.1e} in a word's logit")
    write_json(folder / "golden.json", {"rows": rows})
    return largest
