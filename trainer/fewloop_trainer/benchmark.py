"""`fewloop benchmark`: tasks × methods × splits × seeds on FewCLUE's files.

    rows, definitions ─▶ cells ─▶ (cached | computed, one after the other) ─▶ results ─▶ JSON, Markdown, plots

A finished cell is a file of its own, `<cell>-<key>.json`, written whole or not at all, whose key is the digest of all
that determines it: after Ctrl-C or a kill the same command goes on, and what changed is computed anew. It holds no data
but which rows were right, so that it can be kept where the data must not be.
The test rows are scored once per finished configuration, at the end of each cell; nothing is chosen by them.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from transformers.utils.logging import disable_progress_bar

from fewloop_trainer import fewclue
from fewloop_trainer.benchmark_report import write_report
from fewloop_trainer.board import Board
from fewloop_trainer.bundle import library_versions
from fewloop_trainer.cell import Cell, Lesson, base_digest, key_of, processor
from fewloop_trainer.data import RunError, refuse_shared_words
from fewloop_trainer.encoder import present
from fewloop_trainer.evaluate import macro_f1
from fewloop_trainer.files import write_json
from fewloop_trainer.keys import split_group
from fewloop_trainer.methods import METHODS
from fewloop_trainer.task import Task, load_task
from fewloop_trainer.task_file import read_definition


@dataclass(frozen=True)
class BenchmarkSettings:
    data: Path
    """FewCLUE's folder, a folder a task in it."""
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    splits: tuple[str, ...]
    seeds: tuple[int, ...]
    base: Path
    task_files: Path
    work: Path
    threads: int
    cells: Path | None = None
    """Folder of the finished ones; None: `cells` in `work`."""
    limit_test: int | None = None
    """The first so many test rows alone: to try whether all works."""
    finished: bool = False
    """Computes nothing: the report is of the cells that are finished."""


@dataclass(frozen=True)
class Place:
    """Where a cell stands in the table."""

    task: str
    method: str
    split: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.method}-{self.split}-{self.seed}"


def benchmark(settings: BenchmarkSettings, out: Path | None, as_json: bool) -> int:
    """Computes what is missing, writes the report; the exit status: 1 where a cell failed.

    Raises RunError (BAD_INPUT) where the data, a task file or a name is none.
    """
    check(settings)
    disable_progress_bar()  # of loading weights, which would run through the table
    places = list(places_of(settings))
    results: list[dict] = []
    with Board([place.name for place in places]) as board:
        for place in places:
            board.begin(place.name, place.method)
            result = compute(settings, place)
            results.append(result)
            board.end(place.name, result)
    document = {
        "formatVersion": 1,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": described(settings),
        "libraries": library_versions(),
        "cells": results,
    }
    markdown, summary = write_report(document, out or settings.work / "results.md")
    try:
        print(json.dumps(summary, ensure_ascii=False) if as_json else markdown, flush=True)
    except BrokenPipeError:
        # Who read it has seen enough (`| head`), and the files are written; else Python complains when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if any(result["state"] == "failed" for result in results) else 0


def check(settings: BenchmarkSettings) -> None:
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown:
        raise RunError("BAD_INPUT", f"unknown method {unknown[0]}: known are {', '.join(METHODS)}")
    if not settings.data.is_dir():
        raise RunError("BAD_INPUT", f"{settings.data} is no folder of FewCLUE's files")
    for name in settings.tasks:
        if name not in fewclue.TASKS:
            raise RunError("BAD_INPUT", f"unknown task {name}: known are {', '.join(fewclue.TASKS)}")
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        present(settings.base, file)


def places_of(settings: BenchmarkSettings) -> Iterator[Place]:
    """In the order in which they are computed: the table becomes wide before it becomes deep."""
    for seed in settings.seeds:
        for split in settings.splits:
            for method in settings.methods:
                for task in settings.tasks:
                    yield Place(task, method, split, seed)


def compute(settings: BenchmarkSettings, place: Place) -> dict:
    """A cell's result: from the cache, computed, or why there is none (`state`: done, n/a, skipped, open, failed)."""
    where = {"task": place.task, "method": place.method, "split": place.split, "seed": place.seed}
    method = METHODS[place.method]
    cell = cell_of(settings, place)
    reason = method.refuses(cell.task)
    if reason is None and method.lessons and not cell.lessons:
        reason = f"there are no train rows of {' or '.join(method.lessons)} beside {place.task}'s own"
    if reason is not None:
        return where | {"state": "n/a", "reason": reason}
    reason = method.absent()
    if reason is not None:
        return where | {"state": "skipped", "reason": reason}
    key = key_of(cell, place.method, method.settings_for(cell.task) | {"libraries": method.libraries()}, method.reads)
    file = (settings.cells or settings.work / "cells") / f"{place.name.replace('<', '-from-')}-{key[:16]}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    if settings.finished:
        return where | {"state": "open", "reason": "not computed yet"}
    started = time.monotonic()
    try:
        distribution = method.predict(cell)
        if not np.isfinite(distribution).all():
            raise RuntimeError("predictions that are no numbers")
    except Exception as error:
        return where | {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
    result = where | {"state": "done", "key": key} | said_of(cell, distribution)
    seconds = round(time.monotonic() - started, 2)
    result |= {"trainRows": len(cell.train), "seconds": seconds, "processor": processor()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, result)
    return result


def said_of(cell: Cell, distribution: np.ndarray) -> dict[str, object]:
    """Whether each test row was right (1, else 0) and how confident, in the file's order, and macro-F1."""
    gold = [row["label"] for row in cell.test]
    best = distribution.argmax(-1)
    predicted = [cell.task.labels_of(row)[i] for row, i in zip(cell.test, best, strict=True)]
    _, code = np.unique([*gold, *predicted], return_inverse=True)
    gold_code, predicted_code = np.split(code, 2)
    return {
        "hits": "".join("1" if a == b else "0" for a, b in zip(predicted, gold, strict=True)),
        "confidence": [round(float(p), 4) for p in distribution.max(-1)],
        "macroF1": macro_f1(predicted_code, gold_code),
    }


def cell_of(settings: BenchmarkSettings, place: Place) -> Cell:
    """Raises RunError (BAD_INPUT) where a row has a label that the task file lacks, or two labels have one word."""
    task = _task(settings.task_files, place.task)
    refuse_shared_words(task)
    rows = _rows(settings.data, place.task, place.split)
    for row in (*rows.train, *rows.test):
        if row["label"] not in task.labels_of(row):
            raise RunError("BAD_INPUT", f"{place.task}: the task file has no label {row['label']!r}")
    test, runs = rows.test[: settings.limit_test], settings.work / "runs"
    lessons = tuple(_lessons(settings, place, rows.test))
    return Cell(task, settings.base, rows.train, rows.unlabelled, test, place.seed, settings.threads, runs, lessons)


def _lessons(settings: BenchmarkSettings, place: Place, test: list[dict]) -> Iterator[Lesson]:
    """The train rows of other tasks that the method learns from first, of all splits; none whose text is tested."""
    tested = {split_group(row["text"]) for row in test}
    for name in METHODS[place.method].lessons:
        rows = [] if name == place.task else fewclue.all_train_rows(settings.data, name)
        rows = [row for row in rows if split_group(row["text"]) not in tested]
        if rows:
            yield Lesson(_task(settings.task_files, name), rows)


def described(settings: BenchmarkSettings) -> dict[str, object]:
    """What the report says of how its numbers came to be."""
    shared = {task: _rows(settings.data, task, settings.splits[0]).shared for task in settings.tasks}
    return {
        "tasks": list(settings.tasks),
        "methods": list(settings.methods),
        "splits": list(settings.splits),
        "seeds": list(settings.seeds),
        "base": settings.base.name,
        "baseDigest": base_digest(settings.base),
        "threads": settings.threads,
        "limitTest": settings.limit_test,
        "testRowsWithTrainTexts": {task: many for task, many in shared.items() if many},
    }


@cache
def _task(folder: Path, name: str) -> Task:
    return load_task(read_definition(folder / f"{name}.yaml"))


@cache
def _rows(data: Path, task: str, split: str) -> fewclue.TaskRows:
    return fewclue.load_rows(data, task, split)
