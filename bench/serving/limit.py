"""The limit in one Python process: onnxruntime alone on ids that were tokenized before, sorted by length.

    python bench/serving/limit.py MODEL_FOLDER ROWS_FILE --batch 8 --sessions 2 --threads 1 --seconds 10

ROWS_FILE: {"rows": [ids], "maskPosition", "words": [ids]}. Whole passes over all rows until `seconds` have passed;
prints {"textsPerSecond", "cpuSecondsPer1000", "peakMib"}.
"""

import argparse
import json
import random
import threading
import time
from pathlib import Path

import numpy as np
from figures import cpu_seconds, tell
from peers.graph import session


def batches(file, size):
    """Feeds, shuffled: sessions that share them then end together."""
    data = json.loads(Path(file).read_text())
    rows = sorted(data["rows"], key=len)
    feeds = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        ids = np.zeros((len(part), len(part[-1])), dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(part):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        words = np.array([[word] for word in data["words"]], dtype=np.int64)
        feeds.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(ids),
                "mask_positions": np.full((len(part), 1), data["maskPosition"], dtype=np.int64),
                "label_tokens": np.ascontiguousarray(np.broadcast_to(words, (len(part), *words.shape))),
            }
        )
    random.Random(0).shuffle(feeds)
    return feeds, len(rows)


def one_pass(sessions, feeds):
    waiting = iter(feeds)
    lock = threading.Lock()

    def work(session):
        while True:
            with lock:
                feed = next(waiting, None)
            if feed is None:
                return
            session.run(["word_logits"], feed)

    threads = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    feeds, texts = batches(args.rows, args.batch)
    sessions = [session(args.model, args.threads) for _ in range(args.sessions)]
    one_pass(sessions, feeds[: max(8, len(feeds) // 10)])  # warm
    began, cpu, passes = time.perf_counter(), cpu_seconds(), 0
    while passes == 0 or time.perf_counter() - began < args.seconds:
        one_pass(sessions, feeds)
        passes += 1
    seconds, scored = time.perf_counter() - began, passes * texts
    tell(scored, seconds, cpu)


if __name__ == "__main__":
    main()
