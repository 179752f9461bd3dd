"""How teachers are best trained on few labels, on the shop reviews' sentiment: the head alone, all weights, or neither.

    python bench/trainer/settings.py REVIEWS.csv TASK.json --out docs/results/trainer-settings.jsonl

TASK.json is the canonical definition (`fewloop task show --json`). Judged on rows of bucket 1 of twenty, which neither
the base model nor any proof has seen or will; the proofs' bucket 0 is never read. Labels are drawn as the loop draws
them: 16 balanced ones, then random ones (`random`), those on which the zero-shot members' votes are most divided
(`vote`), or a fifth random and the rest such (`mix`). One line a trained ensemble: accuracy and loss of its mean, with
the base's offsets and with offsets matched anew (`matched`). What is in the file already is not computed again.
"""

import argparse
import csv
import json
import random
import time
from pathlib import Path

import numpy as np
from fewloop_trainer import head, pet
from fewloop_trainer.encoder import copy_of, load_model, load_tokenizer
from fewloop_trainer.keys import split_group, split_of, twentieth
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import distribution_of, match_priors
from fewloop_trainer.task import load_task

START, MATCHING, POOL = 16, 300, 3000
PENALTIES = (25.0, 100.0, 400.0)
STEPS, RATE, SHARES = 40, 1.2e-4, (0.25, 0.5, 1.0)


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


class Bench:
    def __init__(self, options):
        judged, train = read_rows(options.reviews)
        for rows in (judged, train):
            random.Random(5).shuffle(rows)
        self.judged = judged[: options.judged]
        self.matching, self.pool = train[:MATCHING], train[MATCHING : MATCHING + POOL]
        self.task, self.base = load_task(json.loads(options.task.read_text())), load_model(options.base).eval()
        self.renderer = Renderer(load_tokenizer(options.base), self.task)
        self.names = self.task.label_names
        self.classes = len(self.names)
        self.uniform = np.full(self.classes, 1 / self.classes)
        self.templates = range(len(self.task.templates))
        self.wanted = self.labels(self.judged)
        self.offsets = [match_priors(self.logits(self.base, t, self.matching), self.uniform) for t in self.templates]
        self.pooled = self.zero_shot(self.pool)

    def labels(self, rows):
        return np.array([self.names.index(row["label"]) for row in rows])

    def encode(self, template, rows):
        return pet.encode(self.task, self.renderer, self.task.templates[template], rows)

    def logits(self, model, template, rows):
        return pet.predict(model, self.encode(template, rows), self.classes, fast=True)

    def zero_shot(self, rows):
        """[templates, rows, labels]."""
        return np.stack([distribution_of(self.logits(self.base, t, rows), self.offsets[t]) for t in self.templates])

    def draw(self, strategy, count, seed):
        order = np.random.default_rng(seed).permutation(POOL)
        label = self.labels(self.pool)
        start = [i for c in range(self.classes) for i in order[label[order] == c][: START // self.classes]]
        rest = np.array([i for i in order if i not in set(start)])
        more = count - len(start)
        aside = {"random": more, "mix": more // 5, "vote": 0}[strategy]
        asked = rest[aside:]
        votes = self.pooled[:, asked].argmax(-1)
        divided = np.max([(votes == c).mean(0) for c in range(self.classes)], 0)
        mean = np.sort(self.pooled[:, asked].mean(0), -1)
        by_votes = np.lexsort((mean[:, -1] - mean[:, -2], divided))[: more - aside]
        return [self.pool[i] for i in [*start, *rest[:aside], *asked[by_votes]]]

    def head_tuned(self, template, rows, seed, penalty):
        model, encoded, wanted = copy_of(self.base), self.encode(template, rows), self.labels(rows)
        head.PENALTY = penalty
        hidden = head.hidden_at_masks(model, encoded)
        head.tune(model, encoded, hidden, wanted, self.offsets[template], wanted, seed)
        return model

    def wholly_tuned(self, template, rows, seed, share):
        """The head first, then all weights, `share` of the way."""
        model = self.head_tuned(template, rows, seed, PENALTIES[1])
        wanted, strategy, offsets = self.labels(rows), ("plain", "r-drop")[template % 2], self.offsets[template]
        rates = {"encoder_rate": RATE, "head_rate": RATE}
        settings = pet.TrainSettings(STEPS, interpolation=share, seed=seed + template, **rates)
        encoded, hard = self.encode(template, rows), np.eye(self.classes)[wanted]
        pet.train(model, encoded, hard, strategy, settings, offsets, balance=wanted)
        return model

    def judge(self, models):
        """Accuracy (%) and loss of the ensemble, and its accuracy with offsets matched anew."""
        logits = [self.logits(model, t, self.judged) for t, model in zip(self.templates, models, strict=True)]
        matched = [
            match_priors(self.logits(model, t, self.matching), self.uniform)
            for t, model in zip(self.templates, models, strict=True)
        ]
        found = {}
        for name, offsets in (("", self.offsets), ("Matched", matched)):
            mean = np.mean([distribution_of(x, o) for x, o in zip(logits, offsets, strict=True)], 0)
            found[f"accuracy{name}"] = round(100 * float((mean.argmax(-1) == self.wanted).mean()), 2)
            found[f"loss{name}"] = round(float(-np.log(mean[np.arange(len(mean)), self.wanted]).mean()), 3)
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reviews", type=Path)
    parser.add_argument("task", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=Path("models/base-zh"))
    parser.add_argument("--labels", default="16,36,116")
    parser.add_argument("--strategies", default="random,vote,mix")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--judged", type=int, default=2000)
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {json.dumps(line["what"]) for line in map(json.loads, lines)}
    bench = Bench(options)

    def measure(what, train, *arguments):
        if json.dumps(what) in done:
            return
        started = time.monotonic()
        models = [train(t, *arguments) for t in bench.templates]
        seconds = round(time.monotonic() - started, 1)
        line = json.dumps({"what": what, **bench.judge(models), "seconds": seconds})
        with options.out.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    measure({"labels": 0}, lambda t: bench.base)
    for count in map(int, options.labels.split(",")):
        for strategy in options.strategies.split(",") if count > START else ["random"]:
            for seed in map(int, options.seeds.split(",")):
                rows = bench.draw(strategy, count, seed)
                what = {"labels": count, "drawn": strategy, "seed": seed}
                for penalty in PENALTIES:
                    measure(what | {"head": penalty}, bench.head_tuned, rows, seed, penalty)
                for share in SHARES:
                    measure(what | {"head": PENALTIES[1], "all": share}, bench.wholly_tuned, rows, seed, share)


if __name__ == "__main__":
    main()
