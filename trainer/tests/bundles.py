"""A reader of bundles that shares nothing with the writer but the manifest: what the service would answer."""

import hashlib
from pathlib import Path

import numpy as np
import onnxruntime
from scipy.special import expit

from fewloop_trainer.encoder import load_tokenizer
from fewloop_trainer.scores import NOT_LISTED, distribution_of, label_scores, shortlist_of
from folders import read_json


def broken_entries(folder: Path) -> list[str]:
    """Files of the manifest whose digest is not what it says."""
    manifest = read_json(folder / "manifest.json")
    variants = [v for graph in manifest["graphs"] for v in graph.get("variants", [])]
    entries = [*manifest["graphs"], *variants, manifest["tokenizer"], manifest["golden"], manifest["report"]]
    return [e["file"] for e in entries if hashlib.sha256((folder / e["file"]).read_bytes()).hexdigest() != e["sha256"]]


def largest_golden_difference(folder: Path) -> float:
    """Between the golden distributions and those of the bundle's graphs, over all rows and members."""
    manifest, tokenizer = read_json(folder / "manifest.json"), load_tokenizer(folder)
    graphs = {g["id"]: onnxruntime.InferenceSession(folder / g["file"]) for g in manifest["graphs"]}
    members = {member["id"]: member for member in manifest["members"]}
    differences = [0.0]
    for row in read_json(folder / "golden.json")["rows"]:
        assert {entry["member"] for entry in row["members"]} == set(members)
        for entry in row["members"]:
            member = members[entry["member"]]
            scored = _scores(folder, graphs[member["graph"]], member, entry, row["item"], tokenizer)
            offsets = np.array(list(member["offsets"].values()) or 0.0)
            label_sets = manifest["definition"]["kind"] == "multi-label"
            got = expit(scored + offsets) if label_sets else distribution_of(scored, offsets)
            differences.append(float(np.abs(got - entry["distribution"]).max()))
    return max(differences)


def _scores(folder: Path, graph, member: dict, entry: dict, item: dict, tokenizer) -> np.ndarray:
    """[labels] of one golden entry, by the member's method."""
    if member["method"] != "pet":
        logits = np.concatenate([_run(graph, row, "logits", {}) for row in entry.get("rows", [entry])])
        if "hypotheses" not in member:
            return logits[0]
        scores = logits[:, 1] - logits[:, 0]
        if "shortlist" in member:
            ids = tokenizer.encode(item["text"], add_special_tokens=False).ids[:30]
            ids = [tokenizer.token_to_id("[CLS]"), *ids, tokenizer.token_to_id("[SEP]")]
            state = _run(graph, {"ids": ids, "typeIds": [0] * len(ids)}, "pooled_embedding", {})
            vectors = np.array(list(read_json(folder / member["shortlist"]["embeddings"]["file"]).values()))
            scores[~shortlist_of(state, vectors, member["shortlist"]["size"])[0]] = NOT_LISTED
        return scores
    words = list(member["labelWords"].values()) or [[choice] for choice in item["choices"]]
    tokens = [tokenizer.encode(word, add_special_tokens=False).ids for group in words for word in group]
    logits = _run(graph, entry, "word_logits", {"mask_positions": [entry["maskPositions"]], "label_tokens": [tokens]})
    return label_scores(logits[0], [len(group) for group in words])


def _run(graph, entry: dict, output: str, further: dict) -> np.ndarray:
    inputs = {
        "input_ids": [entry["ids"]],
        "attention_mask": [[1] * len(entry["ids"])],
        "token_type_ids": [entry["typeIds"]],
    }
    feeds = {name: np.array(value, dtype=np.int64) for name, value in (inputs | further).items()}
    return graph.run([output], feeds)[0]
