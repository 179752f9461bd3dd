"""The benchmark's peers on the same rows: TF-IDF with logistic regression; SetFit and small-text's classifier on the
same encoder.

Their packages (bench/requirements.txt) are not the trainer's, so that neither lock holds the other back. A peer runs in
a process of its own, by the Python that `FEWLOOP_BENCH_PYTHON` names, else by this one, and so do the plots:

    python -m fewloop_trainer.peers tf-idf|setfit|small-text INPUT.json OUTPUT.json
    python -m fewloop_trainer.peers versions

Texts of a pair, or of fields, are joined: none of them knows pairs.
"""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fewloop_trainer.cell import Cell

VERSION = 1
SETTINGS: dict[str, dict[str, object]] = {
    # Characters: of a few hundred short texts most words are seen once (dev rows: docs/results/fewclue.md).
    "tf-idf": {"analyzer": "char", "ngrams": [1, 2], "sublinear": True, "C": 10.0},
    # SetFit's own defaults, but for the number of pairs: its oversampling takes hours at hundreds of rows on two cores.
    "setfit": {"maxSteps": 150, "batchRows": 16, "maxLength": 128},
    # small-text's own are a rate of 2e-5, and rows kept back to choose one of ten epochs by, of 32 three: on 234 dev
    # rows of EPRSTMT 50.4 % without the latter, by this rate 65.0, with so many steps 67.5.
    "small-text": {"epochs": 10, "fewestSteps": 90, "rate": 1e-4, "batchRows": 12, "maxLength": 128},
}
PACKAGES = {
    "tf-idf": ("scikit-learn",),
    "setfit": ("setfit", "sentence-transformers", "scikit-learn"),
    "small-text": ("small-text", "transformers"),
}


def predict(cell: "Cell", name: str) -> np.ndarray:
    """Distributions [N test, C] of a peer. Raises RuntimeError, with the end of what it said, where it fails."""
    train = [{"text": joined(row), "label": row["label"]} for row in cell.train]
    given = {"train": train, "test": [joined(row) for row in cell.test], "base": str(cell.base), "seed": cell.seed}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.json"), Path(folder, "out.json")
        source.write_text(json.dumps(given, ensure_ascii=False), encoding="utf-8")
        threads = {name: str(cell.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        process = _start("peers", [name, str(source), str(target)], threads)
        if process.returncode != 0:
            raise RuntimeError(f"{name} failed: {process.stderr.strip()[-2000:]}")
        found = json.loads(target.read_text())
    probabilities = np.zeros((len(cell.test), cell.classes))
    columns = [cell.task.label_names.index(label) for label in found["labels"]]
    probabilities[:, columns] = found["probabilities"]
    return probabilities


def absent(name: str) -> str | None:
    """Why the peer cannot run here; None where it can."""
    missing = [package for package in PACKAGES[name] if package not in _versions()]
    if not missing:
        return None
    names = ", ".join(missing)
    return f"{names} not installed; FEWLOOP_BENCH_PYTHON names a Python with bench/requirements.txt"


def libraries(name: str) -> dict[str, str]:
    return {package: _versions()[package] for package in (*PACKAGES[name], "torch") if package in _versions()}


def plots(document: dict, out: Path) -> list[str]:
    """Plots beside the report `out`; the names of their files, none where matplotlib is not installed."""
    if "matplotlib" not in _versions():
        return []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.json")
        source.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        process = _start("plots", [str(source), str(out.resolve())], {})
    if process.returncode != 0:
        raise RuntimeError(f"the plots failed: {process.stderr.strip()[-2000:]}")
    return json.loads(process.stdout)


def joined(row: dict) -> str:
    """All that a row says, a line each: fields that are texts, text, pair. A long text is cut at its end."""
    fields = [value for _, value in sorted((row.get("fields") or {}).items()) if isinstance(value, str)]
    return "\n".join([*fields, row["text"], *([row["textPair"]] if "textPair" in row else [])])


@cache
def _versions() -> dict[str, str]:
    process = _start("peers", ["versions"], {})
    return json.loads(process.stdout) if process.returncode == 0 else {}


def _start(module: str, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    python = os.environ.get("FEWLOOP_BENCH_PYTHON") or sys.executable
    paths = {"PYTHONPATH": str(Path(__file__).parents[1]), "TOKENIZERS_PARALLELISM": "false"}
    try:
        return subprocess.run(
            [python, "-m", f"fewloop_trainer.{module}", *arguments],
            env=os.environ | paths | environment,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise RuntimeError(f"cannot start FEWLOOP_BENCH_PYTHON={python}: {error}") from error


# ---- in the peer's own process


def tf_idf(train: list[dict], test: list[str], given: dict) -> tuple[list[str], np.ndarray]:
    """Characters and pairs of them, TF-IDF, logistic regression: labels, probabilities [N, labels]."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    settings = SETTINGS["tf-idf"]
    model = make_pipeline(
        TfidfVectorizer(
            analyzer=settings["analyzer"],
            ngram_range=tuple(settings["ngrams"]),
            sublinear_tf=settings["sublinear"],
        ),
        LogisticRegression(C=settings["C"], max_iter=1000),
    )
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    return [str(label) for label in model.classes_], model.predict_proba(test)


def set_fit(train: list[dict], test: list[str], given: dict) -> tuple[list[str], np.ndarray]:
    """SetFit on the encoder's [CLS], logistic head: labels, probabilities [N, labels]."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    settings = SETTINGS["setfit"]
    encoder = Transformer(given["base"], max_seq_length=settings["maxLength"])
    body = SentenceTransformer(modules=[encoder, Pooling(encoder.get_word_embedding_dimension(), "cls")], device="cpu")
    body.float()  # the weights lie in fp16, in which a processor trains a hundred times slower
    labels = sorted({row["label"] for row in train})
    model = SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000), labels=labels)
    wanted = [labels.index(row["label"]) for row in train]
    data = Dataset.from_dict({"text": [row["text"] for row in train], "label": wanted})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=settings["batchRows"],
            num_epochs=1,
            max_steps=settings["maxSteps"],
            seed=given["seed"],
            report_to="none",
            save_strategy="no",
            show_progress_bar=False,
        )
        Trainer(model=model, args=arguments, train_dataset=data).train()
    probabilities = model.predict_proba(test, batch_size=64, as_numpy=True, show_progress_bar=False)
    # The head's classes are the indices of labels, in order.
    return labels, np.asarray(probabilities)


def small_text(train: list[dict], test: list[str], given: dict) -> tuple[list[str], np.ndarray]:
    """small-text's TransformerBasedClassification, a [CLS] classifier: labels, probabilities [N, labels]."""
    import torch
    from small_text import TransformerBasedClassification, TransformerModelArguments, TransformersDataset
    from transformers import AutoModel, AutoTokenizer

    settings = SETTINGS["small-text"]
    torch.manual_seed(given["seed"])
    np.random.seed(given["seed"])
    labels = sorted({row["label"] for row in train})
    tokenizer = AutoTokenizer.from_pretrained(given["base"])
    steps = math.ceil(len(train) / settings["batchRows"])  # of an epoch

    def encoded(texts: list[str], wanted: list[int]) -> TransformersDataset:
        # As its own `from_arrays` does, which calls what transformers has no more.
        shape = {"padding": "max_length", "truncation": True, "max_length": settings["maxLength"]}
        rows = [
            (tokenizer(text, return_tensors="pt", **shape), label) for text, label in zip(texts, wanted, strict=True)
        ]
        data = [(row["input_ids"], row["attention_mask"], label) for row, label in rows]
        return TransformersDataset(data, target_labels=np.arange(len(labels)))

    with tempfile.TemporaryDirectory() as folder:
        # It loads weights as they lie, which is in fp16.
        AutoModel.from_pretrained(given["base"], dtype=torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = TransformerBasedClassification(
            TransformerModelArguments(folder),
            len(labels),
            num_epochs=max(settings["epochs"], math.ceil(settings["fewestSteps"] / steps)),
            lr=settings["rate"],
            mini_batch_size=settings["batchRows"],
            device="cpu",
            verbosity=0,
            cache_dir=folder,
        )
        rows = encoded([row["text"] for row in train], [labels.index(row["label"]) for row in train])
        model.fit(rows, validation_set=rows, early_stopping="none", model_selection="none")
        probabilities = model.predict_proba(encoded(test, [0] * len(test)))
    return labels, np.asarray(probabilities)


def _main(arguments: list[str]) -> None:
    if arguments == ["versions"]:
        names = ("scikit-learn", "setfit", "sentence-transformers", "small-text", "torch", "transformers", "matplotlib")
        print(json.dumps({n: importlib.metadata.version(n) for n in names if _installed(n)}))
        return
    name, source, target = arguments
    given = json.loads(Path(source).read_text())
    peer = {"tf-idf": tf_idf, "setfit": set_fit, "small-text": small_text}[name]
    labels, probabilities = peer(given["train"], given["test"], given)
    Path(target).write_text(json.dumps({"labels": labels, "probabilities": probabilities.tolist()}))


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    _main(sys.argv[1:])
