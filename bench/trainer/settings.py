"""How teachers are best trained on few labels: steps, rates, strategies, interpolation, on the shop reviews' sentiment.

    python bench/trainer/settings.py REVIEWS.csv TASK.json --labels 16,116 --seeds 0,1 > docs/results/trainer-settings.jsonl

TASK.json is the canonical definition (`fewloop task show --json`). Judged on rows of bucket 1 of twenty, which neither
the base model nor any proof has seen or will; the proofs' bucket 0 is never read. One line a trained ensemble: accuracy
of its members and of their mean, with offsets from the base and with offsets matched anew after training (`matched`).
"""

import argparse
import csv
import json
import random
import time
from pathlib import Path

import numpy as np
from fewloop_trainer import pet
from fewloop_trainer.encoder import copy_of, load_model, load_tokenizer
from fewloop_trainer.keys import split_group, split_of, twentieth
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import distribution_of, match_priors
from fewloop_trainer.task import load_task

GRID = [
    {"steps": 40, "rate": 6e-5, "strategies": ["plain", "r-drop"], "interpolations": [0.5, 1.0]},
    {"steps": 40, "rate": 1.2e-4, "strategies": ["plain", "r-drop"], "interpolations": [0.5, 1.0]},
    {"steps": 25, "rate": 2.4e-4, "strategies": ["plain"], "interpolations": [0.5]},
]
START = 16
MATCHING = 300


def read_rows(file):
    """Judged rows (bucket 1) and train rows (other buckets but 0), a row a split group."""
    judged, train, seen = [], [], set()
    for column in csv.DictReader(file.open(encoding="utf-8-sig")):
        text = (column["review"] or "").strip()
        group, bucket = split_group(text), twentieth(text)
        if len(text) < 4 or group in seen or bucket == 0:
            continue
        seen.add(group)
        row = {"text": text, "label": "positive" if column["label"] == "1" else "negative"}
        if bucket == 1:
            judged.append(row)
        elif split_of(group) == "train":
            train.append(row)
    return judged, train


def draw(rows, count, seed):
    """`START` rows balanced over the labels, then random ones."""
    rows = random.Random(seed).sample(rows, len(rows))
    labels = sorted({row["label"] for row in rows})
    start = [row for label in labels for row in [r for r in rows if r["label"] == label][: START // len(labels)]]
    chosen = {row["text"] for row in start}
    return start + [row for row in rows if row["text"] not in chosen][: count - START]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("task", type=Path)
    parser.add_argument("--base", type=Path, default=Path("models/base-zh"))
    parser.add_argument("--labels", default="16,116")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--judged", type=int, default=1000)
    options = parser.parse_args()
    judged, train = read_rows(options.reviews)
    judged, matching, train = judged[: options.judged], train[:MATCHING], train[MATCHING:]
    task, base = load_task(json.loads(options.task.read_text())), load_model(options.base).eval()
    renderer, names = Renderer(load_tokenizer(options.base), task), task.label_names
    classes, uniform = len(names), np.full(len(names), 1 / len(names))
    wanted = np.array([names.index(row["label"]) for row in judged])

    def encode(template, rows):
        return pet.encode(task, renderer, template, rows)

    def offsets_of(model, template):
        return match_priors(pet.predict(model, encode(template, matching), classes, fast=True), uniform)

    def accuracy(distribution):
        return round(100 * float((distribution.argmax(-1) == wanted).mean()), 1)

    def tell(members, **what):
        mean = np.mean(members, 0)
        loss = round(float(-np.log(mean[np.arange(len(wanted)), wanted]).mean()), 3)
        print(json.dumps(what | {"members": [accuracy(p) for p in members], "mean": accuracy(mean), "loss": loss}), flush=True)

    texts = [encode(template, judged) for template in task.templates]
    offsets = [offsets_of(base, template) for template in task.templates]
    zero_shot = [distribution_of(pet.predict(base, t, classes, fast=True), o) for t, o in zip(texts, offsets, strict=True)]
    tell(zero_shot, labels=0)
    for seed in map(int, options.seeds.split(",")):
        for count in map(int, options.labels.split(",")):
            labelled = draw(train, count, seed)
            balance = np.array([names.index(row["label"]) for row in labelled])
            for setting in GRID:
                started = time.monotonic()
                found = {(i, matched): [] for i in setting["interpolations"] for matched in (False, True)}
                for number, template in enumerate(task.templates):
                    for interpolation in setting["interpolations"]:
                        model = copy_of(base)
                        strategy = setting["strategies"][number % len(setting["strategies"])]
                        settings = pet.TrainSettings(
                            steps=setting["steps"],
                            encoder_rate=setting["rate"],
                            head_rate=setting["rate"],
                            interpolation=interpolation,
                            seed=10 * seed + number,
                        )
                        hard = np.eye(classes)[balance]
                        pet.train(model, encode(template, labelled), hard, strategy, settings, offsets[number], balance=balance)
                        logits = pet.predict(model, texts[number], classes, fast=True)
                        found[interpolation, False].append(distribution_of(logits, offsets[number]))
                        found[interpolation, True].append(distribution_of(logits, offsets_of(model, template)))
                what = {k: setting[k] for k in ("steps", "rate", "strategies")}
                seconds = round(time.monotonic() - started)
                for (interpolation, matched), members in found.items():
                    tell(members, labels=count, seed=seed, **what, interpolation=interpolation, matched=matched, seconds=seconds)


if __name__ == "__main__":
    main()
