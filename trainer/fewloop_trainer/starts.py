"""Base models that a method of the benchmark starts from in place of the cell's own: adapted to the task's unlabelled
rows, or taught by the train rows of other tasks.

Each is made for one cell, kept by its digest until that cell is finished, and resumes after a kill (derived_base.py).
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import BertForMaskedLM

from fewloop_trainer import lessons, recipe, tapt
from fewloop_trainer.cell import Cell, digest_of
from fewloop_trainer.derived_base import derive
from fewloop_trainer.encoder import load_model
from fewloop_trainer.keys import split_group
from fewloop_trainer.lessons import teach
from fewloop_trainer.processes import settle

TAPT_PASSES = 3
TAPT = {
    "version": 2,
    "passes": TAPT_PASSES,
    "rows": recipe.UNLABELLED_ROWS,
    "rate": tapt.RATE,
    "batch": [tapt.BATCH_CHUNKS, tapt.CHUNK_TOKENS],
}
LESSONS = {"version": lessons.VERSION, "steps": lessons.STEPS}


def started_from(make: Callable[[Cell], Path], predict: Callable[[Cell], np.ndarray]) -> Callable[[Cell], np.ndarray]:
    """A method on another base model, which `make` trains for this cell out of the cell's own."""

    def predict_from(cell: Cell) -> np.ndarray:
        settle(cell.threads)
        folder = make(cell)
        said = predict(replace(cell, base=folder))
        shutil.rmtree(folder)  # tens of megabytes a cell
        return said

    return predict_from


def adapted_base(cell: Cell) -> Path:
    """TAPT on the unlabelled rows; where it does not help the held-out loss, the base as it was."""
    tested = {split_group(text) for text in tapt.texts_of(cell.test)}
    texts = [text for text in tapt.texts_of(recipe.unlabelled_of(cell)) if split_group(text) not in tested]

    def train(work: Path) -> BertForMaskedLM:
        return tapt.adapt(cell.base, texts, TAPT_PASSES, work, cell.seed).model or load_model(cell.base)

    return derive(cell.base, cell.work, [TAPT, digest_of(texts), cell.seed, cell.threads], train)


def taught_base(cell: Cell, method: str) -> Path:
    """The base model after the cell's lessons (lessons.py)."""
    return teach(cell.base, cell.work, method, cell.lessons, cell.seed, cell.threads)
