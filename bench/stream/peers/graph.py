"""What the peers score with: the base model's graph on the task's template, one onnxruntime session of one thread.

BENCH_MODEL: a folder with model.onnx and tokenizer.json.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

TASK = json.loads((Path(__file__).parent.parent / "task.json").read_text())
LABELS = [label["name"] for label in TASK["labels"]]
# Texts of one run of the graph, of like lengths: on a CPU padding and large batches cost more than they gain.
ROWS = 8


class Graph:
    def __init__(self):
        folder = Path(os.environ["BENCH_MODEL"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # a pattern is kept for each shape, and nearly every batch has its own
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        before, after = TASK["templates"][0].removesuffix("{text}").split("{mask}")
        special = self.tokenizer.token_to_id
        self.head = [special("[CLS]"), *self._ids(before), special("[MASK]"), *self._ids(after)]
        self.mask_position = 1 + len(self._ids(before))
        self.sep = special("[SEP]")
        self.words = np.array([[special(label["words"][0])] for label in TASK["labels"]], dtype=np.int64)

    def probabilities(self, texts):
        """Texts → [texts, labels] float32."""
        room = TASK["maxLength"] - len(self.head) - 1
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        rows = [[*self.head, *one.ids[:room], self.sep] for one in encoded]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.empty((len(rows), len(LABELS)), dtype=np.float32)
        for start in range(0, len(order), ROWS):
            part = order[start : start + ROWS]
            found[part] = self._run([rows[i] for i in part])
        return found

    def _ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _run(self, rows):
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
            "label_tokens": np.ascontiguousarray(np.broadcast_to(self.words, (len(rows), *self.words.shape))),
        }
        logits = self.session.run(["word_logits"], feeds)[0]
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)
