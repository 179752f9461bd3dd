"""small-text's query strategies, asked by run.py: a JSON document a line, as order.ts; by a Python with
bench/requirements.txt. The classifier is the asker's: it tells its probabilities."""

import json
import sys

import numpy as np
from small_text.query_strategies import coresets, strategies

STRATEGIES = {
    "BreakingTies": strategies.BreakingTies,
    "EmbeddingKMeans": strategies.EmbeddingKMeans,
    "GreedyCoreset": coresets.GreedyCoreset,
    "ContrastiveActiveLearning": strategies.ContrastiveActiveLearning,
}


class Classifier:
    """What small-text asks of one; its data set is an array of row numbers."""

    def __init__(self, probabilities: np.ndarray, embeddings: np.ndarray):
        self.probabilities, self.embeddings = probabilities, embeddings

    def predict_proba(self, rows: np.ndarray) -> np.ndarray:
        return self.probabilities[rows]

    def embed(self, rows: np.ndarray, return_proba: bool, pbar: object):
        return self.embeddings[rows], self.probabilities[rows]


def answer(question: dict, embeddings: np.ndarray) -> list[int]:
    left, done = np.array(question["left"]), np.array(question["done"], dtype=int)
    np.random.seed(question["seed"])
    classifier = Classifier(np.array(question["probabilities"]), embeddings)
    rows, labels = np.arange(len(embeddings)), np.zeros(len(done), dtype=int)
    found = STRATEGIES[question["strategy"]]().query(classifier, rows, left, done, labels, n=question["n"])
    return [int(i) for i in found]


embeddings = np.array(json.loads(sys.stdin.readline())["embeddings"])
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line), embeddings)), flush=True)
