"""How often a tagging member's shortlist holds the right label, where a task has many: EFL trained on the train rows of
CSLDCP (67 labels) and IFLYTEK (119), one split, as `fewloop benchmark --methods efl` trains it, then every dev row's
labels ranked by their vectors. Sizes are chosen by dev rows, so that no test row is read.

    PYTHONPATH=trainer python bench/shortlist/recall.py FEWCLUE_FOLDER BASE [--tasks csldcp,iflytek] [--split 0]
        [--steps N] [--asked 200]

By the trainer's Python, from the repository's root. `--asked`: dev rows of which all hypotheses are asked too, for what
a shortlist costs in accuracy beside its passes. Prints one line of JSON a task.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from fewloop_trainer import classifier, efl, fewclue
from fewloop_trainer.data import targets
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.learners import learner_of
from fewloop_trainer.methods import HEAD_STEPS, steps_for
from fewloop_trainer.processes import settle
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import shortlist_of
from fewloop_trainer.task import load_task
from fewloop_trainer.task_file import read_definition
from fewloop_trainer.training import TrainSettings

ROOT = Path(__file__).parents[2]
SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--tasks", default="csldcp,iflytek")
    parser.add_argument("--split", default="0")
    parser.add_argument("--steps", type=int, default=None, help="default: what the benchmark takes")
    parser.add_argument("--asked", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    settle(options.threads)
    for name in options.tasks.split(","):
        print(json.dumps(measured(name, options), ensure_ascii=False), flush=True)


def measured(name: str, options: argparse.Namespace) -> dict[str, object]:
    task = load_task(read_definition(ROOT / f"examples/fewclue/{name}.yaml"))
    train = fewclue.labelled(options.data / name, options.split, "train")
    dev = fewclue.labelled(options.data / name, options.split, "dev")
    wanted, right = targets(task, train), targets(task, dev)
    base = load_model(options.base).eval()
    renderer = Renderer(load_tokenizer(options.base), task)
    learner = learner_of(base, renderer, task, len(task.labels), "efl", 0, "plain")
    model, rows = learner.start(), learner.encode(train)
    texts = learner.encode(dev)
    found: dict[str, object] = {"task": name, "labels": len(task.labels), "train": len(train), "dev": len(dev)}
    of_labels = np.eye(len(task.labels))[wanted]
    found["untrained"] = recall(model, texts, right, efl.label_vectors(model, learner.hypotheses, rows, of_labels))
    steps = options.steps or HEAD_STEPS * learner.rows_a_text * steps_for(len(train))
    settings = TrainSettings(steps=steps, seed=0, **learner.rates(student=False))
    started = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        print(f"\r{name}: step {step} of {steps}, loss {loss:.3f} ", end="", file=sys.stderr)

    learner.train(model, rows, of_labels, wanted, settings, on_step)
    vectors = model.vectors.double().numpy()
    hypothesis_alone = classifier.embeddings(model, learner.hypotheses.alone())
    found |= {
        "steps": steps,
        "trainSeconds": round(time.monotonic() - started, 1),
        "trained": recall(model, texts, right, vectors),
        "trainedHypothesisAlone": recall(model, texts, right, hypothesis_alone),
    }
    return found | {"asked": asked(model, learner, texts, right, vectors, options.asked)}


def recall(model, texts, right: np.ndarray, vectors: np.ndarray) -> dict[str, float]:
    """Share of rows whose right label is among the nearest, by how many those are."""
    states = classifier.embeddings(model, texts, fast=True)
    at = {}
    for size in SIZES:
        listed = shortlist_of(states, vectors, size)
        at[str(size)] = round(float(listed[np.arange(len(right)), right].mean()), 4)
    return at


def asked(model, learner, texts, right: np.ndarray, vectors: np.ndarray, many: int) -> dict[str, object]:
    """Of `many` rows: accuracy by all hypotheses and by those of each size's shortlist, of the same answers."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(texts))[:many])
    rows, wanted = [texts[i] for i in drawn], right[drawn]
    started = time.monotonic()
    scores = efl.predict_tagging(model, learner.hypotheses, rows, None, fast=True)
    seconds = time.monotonic() - started
    states = classifier.embeddings(model, rows, fast=True)
    accuracy = {}
    for size in SIZES:
        within = np.where(shortlist_of(states, vectors, size), scores, -np.inf)
        accuracy[str(size)] = round(float((within.argmax(-1) == wanted).mean()), 4)
    everything = round(float((scores.argmax(-1) == wanted).mean()), 4)
    return {"rows": len(rows), "all": everything, "shortlist": accuracy, "secondsForAll": round(seconds, 1)}


if __name__ == "__main__":
    main()
