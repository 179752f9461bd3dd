"""Hugging Face `pipeline` on the same encoder, in one process, without a server: texts sorted by length.

    python bench/serving/pipeline.py MODEL_FOLDER TEXTS_FILE --kind fill-mask --batch 8 --seconds 10

`fill-mask` gives the same answer as the graph, from the whole vocabulary's logits at every token; `text-classification`
has an untrained head of two outputs on the same encoder: what the pipeline costs at its best. Needs the trainer's
environment (transformers, PyTorch). Prints what limit.py prints.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from figures import cpu_seconds, tell
from transformers import AutoTokenizer, BertForSequenceClassification, logging, pipeline

TASK = json.loads((Path(__file__).parent / "task.json").read_text())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("--kind", choices=["fill-mask", "text-classification"], default="fill-mask")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    cut = {"truncation": True, "max_length": TASK["maxLength"]}
    if args.kind == "fill-mask":
        targets = [label["words"][0] for label in TASK["labels"]]
        pipe = pipeline(
            "fill-mask", model=args.model, tokenizer=tokenizer, targets=targets, tokenizer_kwargs=cut, dtype="float32"
        )
        cut = {}
    else:
        model = BertForSequenceClassification.from_pretrained(
            args.model, num_labels=len(TASK["labels"]), dtype="float32"
        )
        pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    template = TASK["templates"][0].replace("{mask}", tokenizer.mask_token)
    texts = sorted((template.replace("{text}", text) for text in json.loads(Path(args.texts).read_text())), key=len)
    pipe(texts[:: max(1, len(texts) // 32)], batch_size=args.batch, **cut)  # warm
    began, cpu, scored = time.perf_counter(), cpu_seconds(), 0
    while scored == 0 or time.perf_counter() - began < args.seconds:
        pipe(texts, batch_size=args.batch, **cut)
        scored += len(texts)
    seconds = time.perf_counter() - began
    tell(scored, seconds, cpu)


if __name__ == "__main__":
    main()
