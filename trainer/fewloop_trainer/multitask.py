"""Multi-task training: one encoder learns the templates of several tasks, and each task's members start from it.

PET's loss (pet.py) on a task drawn for each batch, every task equally often whatever its rows, under one of its
templates. A task's label words are its own, so nothing has to be added to the model. (Secondary training before the
few-shot tasks: NetEase EET's entry to FewCLUE; mixing tasks equally rather than by size: Raffel et al. 2020, section
3.5.2.)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import BertForMaskedLM

from fewloop_trainer import augment, pet
from fewloop_trainer.cell import Lesson
from fewloop_trainer.data import targets
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.export import PetGraph
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import match_priors
from fewloop_trainer.training import Drawn, TrainSettings, balanced, optimise

STEPS = 600
MATCHING_ROWS = 100
"""Rows on which a template's offsets are matched to a uniform prior."""


@dataclass(frozen=True)
class OfTask(pet.Encoded):
    """A row with its task's offsets [C] under its template."""

    shift: torch.Tensor


def train_on_tasks(
    base: Path,
    lessons: Sequence[Lesson],
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> BertForMaskedLM:
    """The base model, trained on the rows of all lessons for `settings.steps` batches."""
    model, tokenizer = load_model(base).eval(), load_tokenizer(base)
    streams = [_templates_of(model, Renderer(tokenizer, lesson.task), lesson, settings) for lesson in lessons]
    graph = PetGraph(model)

    def forward_of(rows: list[OfTask], mix: augment.Mix | None) -> tuple[augment.Forward, tuple[int, ...]]:
        batch = pet.collate(rows)
        forward = partial(pet.log_probabilities, graph, batch, rows[0].shift, mix)
        return forward, (*batch.inputs[0].shape, model.config.hidden_size)

    groups = pet.tuned(model, settings)
    graph.train()
    layers = len(model.bert.encoder.layer)
    optimise(groups, in_turn(streams, settings.seed), forward_of, layers, "plain", settings, on_step)
    model.requires_grad_(True)
    return model.eval()


def in_turn(streams: Sequence[Sequence[Iterator[Drawn]]], seed: int) -> Iterator[Drawn]:
    """Endless batches: all tasks in an order drawn anew each time, of each the next batch of one of its templates."""
    rng = np.random.default_rng(seed)
    while True:
        for task in rng.permutation(len(streams)):
            yield next(streams[task][rng.integers(len(streams[task]))])


def _templates_of(
    model: BertForMaskedLM, renderer: Renderer, lesson: Lesson, settings: TrainSettings
) -> list[Iterator[Drawn]]:
    """Batches of each template of a task, class-balanced."""
    task, wanted = lesson.task, targets(lesson.task, lesson.train)
    classes = max(len(task.labels_of(row)) for row in lesson.train)
    choices = task.kind == "multiple-choice"
    balance = np.zeros_like(wanted) if choices else wanted
    streams = []
    for number, template in enumerate(task.templates):
        rows = pet.encode(task, renderer, template, lesson.train)
        drawn = np.random.default_rng(settings.seed).permutation(len(rows))[:MATCHING_ROWS]
        shift = np.zeros(classes)
        if not choices:
            logits = pet.predict(model, [rows[i] for i in drawn], classes, fast=True)
            shift = match_priors(logits, np.full(classes, 1 / classes))
        own = torch.tensor(shift, dtype=torch.float32)
        of_task = [OfTask(*(getattr(row, field.name) for field in fields(pet.Encoded)), own) for row in rows]
        chances = replace(settings, seed=settings.seed + 101 * number)
        streams.append(balanced(of_task, np.eye(classes)[wanted], balance, chances))
    return streams
