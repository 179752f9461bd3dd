"""What every peer serves, here and in bench/stream: the base model's PET graph on one template, with the tokenizer
library that Fewloop has too.

Settings come by environment, so that the driver can tune them: BENCH_MODEL (folder with model.onnx and tokenizer.json),
BENCH_PORT, BENCH_WORKERS, BENCH_THREADS (of a worker's session), BENCH_BATCH (requests that the framework batches),
BENCH_WAIT_MS (how long it waits for them), BENCH_ROWS (texts of one run of the graph).
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

TASK = json.loads((Path(__file__).parent.parent / "task.json").read_text())
LABELS = [label["name"] for label in TASK["labels"]]


def setting(name, default):
    return int(os.environ.get(f"BENCH_{name}", default))


WORKERS, THREADS = setting("WORKERS", 2), setting("THREADS", 1)
BATCH, WAIT_MS, ROWS, PORT = setting("BATCH", 32), setting("WAIT_MS", 5), setting("ROWS", 8), setting("PORT", 8000)


def session(folder, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # a pattern is kept for each shape, and nearly every batch has its own
    return ort.InferenceSession(str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"])


class Graph:
    """Texts to label probabilities. A batch is sorted by length and run `ROWS` texts at a time: on a CPU padding and
    large batches cost more than they gain, so this is the peers' best."""

    def __init__(self):
        folder = Path(os.environ["BENCH_MODEL"])
        self.session = session(folder, THREADS)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        before, after = TASK["templates"][0].removesuffix("{text}").split("{mask}")
        special = self.tokenizer.token_to_id
        self.head = [special("[CLS]"), *self.ids(before), special("[MASK]"), *self.ids(after)]
        self.mask_position = 1 + len(self.ids(before))
        self.sep = special("[SEP]")
        self.words = np.array([[special(label["words"][0])] for label in TASK["labels"]], dtype=np.int64)

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode(self, texts):
        room = TASK["maxLength"] - len(self.head) - 1
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [[*self.head, *one.ids[:room], self.sep] for one in encoded]

    def run(self, rows):
        """[rows of ids] → probabilities [rows, labels] float32."""
        length = max(len(row) for row in rows)
        ids = np.zeros((len(rows), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "mask_positions": np.full((len(rows), 1), self.mask_position, dtype=np.int64),
            "label_tokens": np.broadcast_to(self.words, (len(rows), *self.words.shape)),
        }
        logits = self.session.run(["word_logits"], feeds)[0]
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def probabilities(self, texts):
        rows = self.encode(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.empty((len(rows), len(LABELS)), dtype=np.float32)
        for start in range(0, len(order), ROWS):
            part = order[start : start + ROWS]
            found[part] = self.run([rows[i] for i in part])
        return found

    def classify(self, texts):
        return [answer(row) for row in self.probabilities(texts).tolist()]

    def classify_all(self, requests):
        """Several requests of several texts each, as one batch."""
        answers = iter(self.classify([text for texts in requests for text in texts]))
        return [[next(answers) for _ in texts] for texts in requests]


def answer(probabilities):
    best = max(range(len(LABELS)), key=lambda i: probabilities[i])
    return {"label": LABELS[best], "distribution": probabilities}
