"""A training step beside the peers': our fine-tuning beside Hugging Face Trainer's, contrastive beside SetFit's.

All in one process, step by step in turn (ours, theirs, ours, ...), so that whatever else the machine does meets all of
them alike; what is compared are ratios within a turn. Same encoder, same rows, as many texts a step, every text of as
many tokens. A step is all from the end of one to the end of the next: drawing and padding the batch, both passes,
clipping, the optimizer, and what a peer's loop does besides.

    .bench/peers/bin/python bench/trainer-speed/steps.py [--tokens 64] [--turns 40] [--threads 2]

Prints a line of JSON a contestant, and the ratios.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "trainer"))

from fewloop_trainer import classifier, embedding  # noqa: E402
from fewloop_trainer.classifier import Encoded, classifier_of  # noqa: E402
from fewloop_trainer.encoder import load_model, load_tokenizer  # noqa: E402
from fewloop_trainer.training import TrainSettings  # noqa: E402

BASE = ROOT / "models/base-zh"
WARM_UP = 3
FINE_TUNE_ROWS, CONTRASTIVE_TEXTS = 8, 16
"""Texts a step: our own defaults of both methods. SetFit's batch is half as many pairs."""


class Baton:
    """Lets one contestant after the other take a step, and keeps how long each took: seconds of the wall clock, and of
    the process's processor time, which nobody else has a part in."""

    def __init__(self, names: list[str]):
        self.names, self.turn, self.condition = names, 0, threading.Condition()
        self.began: tuple[float, float] = 0.0, 0.0
        self.seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def wait(self, name: str) -> None:
        with self.condition:
            self.condition.wait_for(lambda: self.names[self.turn % len(self.names)] == name)
        self.began = time.perf_counter(), time.process_time()

    def step_done(self, name: str) -> None:
        wall, processor = self.began
        self.seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
        with self.condition:
            self.turn += 1
            self.condition.notify_all()
        self.wait(name)

    def leave(self, name: str) -> None:
        with self.condition:
            at = self.names.index(name)
            self.names.remove(name)
            self.turn = at
            self.condition.notify_all()


class Rows:
    """32 rows of two labels, each of exactly `tokens` tokens."""

    def __init__(self, source: Path, tokens: int):
        lines = [json.loads(line) for line in source.read_text().split("\n") if line.strip()]
        tokenizer = load_tokenizer(BASE)
        self.labels = [int(line["label"] == "Positive") for line in lines]
        cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
        ids = [tokenizer.encode(line["sentence"] * tokens, add_special_tokens=False).ids for line in lines]
        self.ids = [[cls, *one[: tokens - 2], sep] for one in ids]
        self.texts = [line["sentence"] * tokens for line in lines]
        """What SetFit, which tokenizes by itself, cuts at `tokens`."""


def ours_fine_tune(rows: Rows, steps: int, on_step: Callable[[], None]) -> None:
    encoded = [Encoded(ids, [0] * len(ids)) for ids in rows.ids]
    wanted = np.eye(2)[rows.labels]
    settings = TrainSettings(steps=steps, batch_rows=FINE_TUNE_ROWS)
    model = classifier_of(load_model(BASE).eval(), 2)
    classifier.train(model, encoded, wanted, "plain", settings, lambda *_: on_step(), np.array(rows.labels))


def trainers_fine_tune(rows: Rows, steps: int, on_step: Callable[[], None], frozen: bool) -> None:
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    model = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2, dtype=torch.float32)
    model.bert.embeddings.requires_grad_(not frozen)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(BASE / "tokenizer.json"), pad_token="[PAD]")
    data = Dataset.from_dict({"input_ids": rows.ids, "labels": rows.labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=FINE_TUNE_ROWS,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), data, callbacks=[_callback(on_step)])
        trainer.train()


def ours_contrastive(rows: Rows, steps: int, on_step: Callable[[], None]) -> None:
    encoded = [Encoded(ids, [0] * len(ids)) for ids in rows.ids]
    settings = TrainSettings(steps=steps, batch_rows=CONTRASTIVE_TEXTS, encoder_rate=embedding.ENCODER_RATE)
    model = classifier_of(load_model(BASE).eval(), 2, normalised=True)
    embedding.tune(model, encoded, np.eye(2)[rows.labels], settings, lambda *_: on_step(), np.array(rows.labels))


def setfits_contrastive(rows: Rows, steps: int, on_step: Callable[[], None], frozen: bool) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    encoder = Transformer(str(BASE), max_seq_length=len(rows.ids[0]))
    body = SentenceTransformer(modules=[encoder, Pooling(encoder.get_word_embedding_dimension(), "cls")], device="cpu")
    body.float()  # the weights lie in fp16, in which a processor trains a hundred times slower
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(not (frozen and ".embeddings." in name))
    model = SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000), labels=[0, 1])
    data = Dataset.from_dict({"text": rows.texts, "label": rows.labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            batch_size=CONTRASTIVE_TEXTS // 2,
            max_steps=steps,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            show_progress_bar=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data, callbacks=[_callback(on_step)])
        trainer.train_embeddings(rows.texts, rows.labels, args=arguments)


def _callback(on_step: Callable[[], None]):
    from transformers import TrainerCallback

    class OnStep(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            on_step()

    return OnStep()


CONTESTANTS = {
    "fine-tune: ours": (ours_fine_tune, FINE_TUNE_ROWS),
    "fine-tune: Trainer": (lambda *given: trainers_fine_tune(*given, frozen=False), FINE_TUNE_ROWS),
    "fine-tune: Trainer, embeddings frozen": (lambda *given: trainers_fine_tune(*given, frozen=True), FINE_TUNE_ROWS),
    "contrastive: ours": (ours_contrastive, CONTRASTIVE_TEXTS),
    "contrastive: SetFit": (lambda *given: setfits_contrastive(*given, frozen=False), CONTRASTIVE_TEXTS),
    "contrastive: SetFit, embeddings frozen": (
        lambda *given: setfits_contrastive(*given, frozen=True),
        CONTRASTIVE_TEXTS,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("shared/data/fewclue"), help="FewCLUE's folder")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, names = Rows(options.data / "eprstmt/train_0.json", options.tokens), list(CONTESTANTS)
    baton, failed = Baton(list(names)), []

    def contest(name: str) -> None:
        torch.set_num_threads(options.threads)
        try:
            baton.wait(name)
            CONTESTANTS[name][0](rows, WARM_UP + options.turns, lambda: baton.step_done(name))
        except BaseException as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
        baton.leave(name)

    load = os.getloadavg()[0]
    threads = [threading.Thread(target=contest, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        sys.exit("\n".join(failed))
    # The first has the making of the model in it.
    seconds = {name: np.array(baton.seconds[name][WARM_UP:]) for name in names}
    print(json.dumps({"tokens": options.tokens, "threads": options.threads, "load": [load, os.getloadavg()[0]]}))
    for name in names:
        line: dict[str, object] = {"contestant": name, "steps": len(seconds[name])}
        for clock, own in zip(("wall", "cpu"), seconds[name].T, strict=True):
            low, middle, high = (round(float(value) * 1000) for value in np.quantile(own, [0.25, 0.5, 0.75]))
            line |= {f"{clock}MsAStep": middle, f"{clock}Quartiles": [low, high]}
            line[f"textsA{clock.capitalize()}Second"] = round(CONTESTANTS[name][1] * 1000 / middle, 1)
        print(json.dumps(line))
    for name in names:
        ours = name.split(":")[0] + ": ours"
        if name != ours:
            wall, cpu = (_median(ratios) for ratios in (seconds[name] / seconds[ours]).T)
            print(json.dumps({"ratio": f"{name} / {ours}", "wall": wall, "cpu": cpu}))


def _median(ratios: np.ndarray) -> list[float]:
    """Over turns, and its 95 % interval by the bootstrap."""
    drawn = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    return [round(float(value), 2) for value in (np.median(ratios), *np.quantile(drawn, [0.025, 0.975]))]


if __name__ == "__main__":
    main()
