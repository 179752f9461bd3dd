"""BentoML: adaptive batching up to BENCH_BATCH texts, whose wait it learns by itself; BENCH_WORKERS processes."""

import os
import sys

import bentoml
from graph import BATCH, PORT, WORKERS, Graph


@bentoml.service(workers=WORKERS, traffic={"timeout": 60}, http={"host": "127.0.0.1", "port": PORT})
class Classifier:
    def __init__(self):
        self.graph = Graph()

    # A batch must hold the largest request.
    @bentoml.api(batchable=True, max_batch_size=max(BATCH, 64), max_latency_ms=60_000)
    def predict(self, texts: list[str]) -> list[dict]:
        return self.graph.classify(texts)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_app:Classifier", "--working-dir", here]
    os.execv(sys.executable, command)
