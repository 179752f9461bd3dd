"""Label-efficiency curves: how accurate a committee is after so many answers, by which texts were asked about.

    PYTHONPATH=trainer .venv/bin/python bench/label-efficiency/run.py DATA OUT [--seeds 0,1,2] [--tasks ...]

DATA: the folder with `fewclue/` and `reviews/`. OUT: a folder for `label-efficiency.json`, which is gone on from, and
the table beside it. FEWLOOP_BENCH_PYTHON names a Python with bench/requirements.txt, for small-text.

The learner is the trainer's first stage and the same for all: PET, a member a template, heads tuned on what the frozen
encoder says at the masks, probabilities averaged. It starts zero-shot. The service's strategies are the service's own
code (order.ts); small-text's (peer.py) get the committee's probabilities and the encoder's embeddings, and begin with
random rows. A seed draws the pool, what chance decides, and the heads' dropout. Rows: the train rows of all five splits
are the pool and the dev rows the scored ones for FewCLUE (never a test row); of shop reviews 2,000 random ones each.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fewloop_trainer import head, pet
from fewloop_trainer.encoder import load_model
from fewloop_trainer.export import PetGraph
from fewloop_trainer.fewclue import SPLITS, all_train_rows, labelled
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import combine_members, disagreement_of, distribution_of, entropy, match_priors
from fewloop_trainer.task import Task, load_task
from fewloop_trainer.task_file import read_definition
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEPS = {
    "eprstmt": [8, 8, 16, 16, 16],
    "tnews": [15, 15, 30, 30, 30, 30],
    "shop-categories": [10, 10, 20, 20, 20, 20],
}
"""Answers of each round."""
REVIEWS = 2000
POOL_SHARE = 0.8
"""Of the pool's rows, which each seed draws."""
OURS = ("LEAST_CONFIDENCE", "BREAKING_TIES", "ENTROPY", "VOTE_ENTROPY", "BALD", "DIVERSE")
MIXED = "DIVERSE, then BREAKING_TIES"
"""The first round by diversity, for there is no label yet."""
SMALL_TEXT = ("BreakingTies", "EmbeddingKMeans", "GreedyCoreset", "ContrastiveActiveLearning")
ALL = ("random", *OURS, MIXED, *(f"small-text {name}" for name in SMALL_TEXT))


class Learner:
    """A committee over fixed rows. `probabilities` [N, C] of all of them, after `learn`."""

    def __init__(self, task: Task, rows: list[dict], base: Path, prior_from: np.ndarray):
        self.task, self.classes = task, len(task.label_names)
        self.model = load_model(base)
        self.began = {k: v.clone() for k, v in self.model.cls.predictions.transform.state_dict().items()}
        renderer = Renderer(Tokenizer.from_file(str(base / "tokenizer.json")), task)
        self.encoded = [pet.encode(task, renderer, template, rows) for template in task.templates]
        self.hidden = [head.hidden_at_masks(self.model, encoded) for encoded in self.encoded]
        self.embeddings = self._embeddings(self.encoded[0])
        prior = np.full(self.classes, 1 / self.classes)
        self.offsets = [match_priors(self._scores(t)[prior_from], prior) for t in range(len(self.encoded))]

    def learn(self, labelled: list[int], wanted: np.ndarray, seed: int) -> np.ndarray:
        """Members' distributions [T, N, C] after learning the labels `wanted` of rows `labelled`."""
        members = []
        for t, encoded in enumerate(self.encoded):
            self.model.cls.predictions.transform.load_state_dict(self.began)
            if labelled:
                rows, hidden = [encoded[i] for i in labelled], [self.hidden[t][i] for i in labelled]
                head.tune(self.model, rows, hidden, wanted, self.offsets[t], wanted, seed + 101 * t)
            members.append(distribution_of(self._scores(t), self.offsets[t]))
        return np.stack(members)

    def _scores(self, t: int) -> np.ndarray:
        graph, encoded = PetGraph(self.model).eval(), self.encoded[t]
        tokens, labels = torch.tensor(encoded[0].word_tokens), torch.tensor(encoded[0].word_labels)
        found = []
        with torch.inference_mode():
            for at in torch.stack(self.hidden[t]).split(256):
                words = graph.word_logits(at, tokens.expand(len(at), -1, -1))
                found.append(pet.label_logits(words, labels.expand(len(at), -1), self.classes).double().numpy())
        return np.concatenate(found)

    def _embeddings(self, encoded: list[pet.Encoded]) -> np.ndarray:
        graph, found = PetGraph(self.model).eval(), []
        with torch.inference_mode():
            for row in encoded:
                found.append(graph(*pet.collate([row]).inputs)[1][0].numpy())
        return np.stack(found)


class Asked:
    """Query strategies in a process of their own, to be asked by a JSON document a line."""

    def __init__(self, command: list[str], embeddings: np.ndarray):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._tell({"embeddings": embeddings.tolist()})

    def order(self, question: dict) -> list[int]:
        self._tell(question)
        return json.loads(self.process.stdout.readline())

    def _tell(self, document: dict) -> None:
        self.process.stdin.write(json.dumps(document) + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def columns_of(members: np.ndarray) -> dict[str, list[float]]:
    """What the service stores of each text."""
    weights = [1.0] * len(members)
    probabilities = combine_members(members, weights)
    two = np.sort(probabilities, -1)[:, -2:]
    told = [disagreement_of(members[:, i], weights) for i in range(members.shape[1])]
    return {
        "confidence": two[:, 1].tolist(),
        "margin": (two[:, 1] - two[:, 0]).tolist(),
        "entropy": [entropy(row) for row in probabilities],
        "voteEntropy": [one["voteEntropy"] for one in told],
        "jensenShannon": [one["jensenShannon"] for one in told],
    }


@dataclass(frozen=True)
class Round:
    """What is known when the next texts are chosen: distributions [T, N, C], rows without and with an answer."""

    members: np.ndarray
    left: list[int]
    done: list[int]
    seed: int

    @property
    def mean(self) -> np.ndarray:
        return combine_members(self.members, [1.0] * len(self.members))


def ask(strategy: str, now: Round, n: int, service: Asked, peer: Asked, names: list[str]) -> list[int]:
    # small-text begins with random rows, and its strategies ask for labels.
    if strategy == "random" or (strategy.startswith("small-text ") and not now.done):
        return now.left[:n]
    if strategy.startswith("small-text "):
        named = strategy.removeprefix("small-text ")
        question = {"strategy": named, "left": now.left, "done": now.done, "n": n, "seed": now.seed}
        return peer.order(question | {"probabilities": now.mean.tolist()})
    cold = not now.done
    named = strategy if strategy != MIXED else ("DIVERSE" if cold else "BREAKING_TIES")
    question = {"strategy": named, "cold": cold, "left": now.left, "columns": columns_of(now.members)}
    return service.order(question | {"labels": [names[k] for k in now.mean.argmax(-1)]})[:n]


def curve(
    strategy: str, learner: Learner, asked: tuple[Asked, Asked], pool: list[int], scored: np.ndarray,
    labels: np.ndarray, steps: list[int], seed: int,
) -> list[float]:  # fmt: skip
    """Accuracy on `scored` rows without any answer, and after each of the `steps`."""
    done: list[int] = []
    draw, reached = random.Random(seed), []
    for n in [*steps, 0]:
        left = [i for i in pool if i not in set(done)]
        draw.shuffle(left)
        now = Round(learner.learn(done, labels[done], seed), left, list(done), seed)
        reached.append(float((now.mean[scored].argmax(-1) == labels[scored]).mean()))
        if n > 0:
            done += ask(strategy, now, n, *asked, learner.task.label_names)
    return reached


def rows_of(task: str, data: Path) -> tuple[list[dict], list[dict]]:
    """Pool and scored rows, no text in both."""
    if task == "shop-categories":
        with (data / "reviews/online_shopping_10_cats.csv").open(encoding="utf-8") as file:
            rows = [
                {"text": row["review"], "label": row["cat"]} for row in csv.DictReader(file) if row["review"].strip()
            ]
        rows = list({row["text"]: row for row in rows}.values())
        random.Random(7).shuffle(rows)
        return rows[:REVIEWS], rows[REVIEWS : 2 * REVIEWS]
    home = data / "fewclue"
    scored = {row["text"]: row for split in SPLITS for row in labelled(home / task, split, "dev")}
    pool = {row["text"]: row for row in all_train_rows(home, task) if row["text"] not in scored}
    return list(pool.values()), list(scored.values())


def area(steps: list[int], accuracies: list[float]) -> float:
    """Under the curve, by trapezoids, of 1 for an accuracy of 1 throughout."""
    at = np.cumsum([0, *steps])
    return float(np.trapezoid(accuracies, at) / at[-1])


def report(cells: dict[str, list[float]], seeds: list[int], out: Path) -> str:
    """Areas under the curves; the last column is the mean over tasks minus that of random questions, paired by seed,
    with the 95 % interval of a bootstrap over seeds."""
    tasks = [task for task in STEPS if f"{task}|random|{seeds[0]}" in cells]
    areas = {key: 100 * area(STEPS[key.split("|")[0]], accuracies) for key, accuracies in cells.items()}
    lines = [f"| strategy | {' | '.join(tasks)} | mean | minus random |", "|---|" + "---|" * (len(tasks) + 2)]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(seeds), (2000, len(seeds)))
    for strategy in ALL:
        found = [[areas.get(f"{task}|{strategy}|{seed}") for seed in seeds] for task in tasks]
        if any(value is None for row in found for value in row):
            continue
        chance = [[areas[f"{task}|random|{seed}"] for seed in seeds] for task in tasks]
        paired = (np.array(found) - np.array(chance)).mean(0)
        low, high = np.percentile(paired[drawn].mean(1), [2.5, 97.5])
        row = " | ".join(f"{np.mean(one):.1f} ± {np.std(one, ddof=1):.1f}" for one in found)
        minus = "" if strategy == "random" else f"{paired.mean():+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(f"| {strategy} | {row} | {np.mean(found):.2f} | {minus} |")
    (out / "label-efficiency.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tasks", default=",".join(STEPS))
    parser.add_argument("--strategies", default=";".join(ALL))
    given = parser.parse_args()
    seeds, base = [int(seed) for seed in given.seeds.split(",")], ROOT / "models/base-zh"
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "label-efficiency.json"
    cells: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {}
    strategies = given.strategies.split(";")
    for name in given.tasks.split(","):
        if all(f"{name}|{strategy}|{seed}" in cells for strategy in strategies for seed in seeds):
            continue
        pool, scored = rows_of(name, given.data)
        file_of_task = "shop-categories/task.yaml" if name == "shop-categories" else f"fewclue/{name}.yaml"
        task = load_task(read_definition(ROOT / "examples" / file_of_task))
        rows = [*pool, *scored]
        labels = np.array([task.label_names.index(row["label"]) for row in rows])
        print(f"{name}: {len(pool)} rows to ask about, {len(scored)} scored", flush=True)
        learner = Learner(task, rows, base, np.arange(len(pool)))
        python = os.environ.get("FEWLOOP_BENCH_PYTHON", sys.executable)
        commands = ["node", str(HERE / "order.ts")], [python, str(HERE / "peer.py")]
        asked = tuple(Asked(command, learner.embeddings) for command in commands)
        for seed in seeds:
            drawn = sorted(random.Random(seed).sample(range(len(pool)), round(POOL_SHARE * len(pool))))
            for strategy in strategies:
                key = f"{name}|{strategy}|{seed}"
                if key in cells:
                    continue
                of_scored = np.arange(len(pool), len(rows))
                cells[key] = curve(strategy, learner, asked, drawn, of_scored, labels, STEPS[name], seed)
                file.write_text(json.dumps(cells, indent=1) + "\n")
                print(f"{key}: {' '.join(f'{100 * a:.1f}' for a in cells[key])}", flush=True)
        for one in asked:
            one.close()
    print(report(cells, seeds, given.out))


main()
