"""PET (Schick & Schütze 2021): a label's score is the MLM's score of its words at the template's masks.

Only the softmax over labels is trained: the vocabulary's normaliser cancels in it. A label of several words scores by
the log-mean-exp of their logits. Fixed offsets (log space) match zero-shot predictions to the prior, so that training
begins where zero-shot stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM

from fewloop_trainer import augment
from fewloop_trainer.export import PetGraph
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import Task
from fewloop_trainer.training import (
    AtWork,
    Gradients,
    TrainSettings,
    balanced,
    chunks_of,
    labels_alone,
    nobody_waits,
    optimise,
    placed,
    precision,
)

ABSENT = -1e9
"""Score of a label that an item does not have (fewer choices than others): probability 0, with finite gradients."""


@dataclass(frozen=True)
class Encoded:
    """One rendered item. `word_tokens` [W][M]; `word_labels` [W]: the label each word belongs to."""

    ids: list[int]
    mask_positions: list[int]
    word_tokens: list[list[int]]
    word_labels: list[int]

    @property
    def masks(self) -> int:
        return len(self.mask_positions)


@dataclass(frozen=True)
class Batch:
    """Inputs of a PET graph, padded, and `word_labels` [B, W] (-1 where padded)."""

    inputs: tuple[torch.Tensor, ...]
    word_labels: torch.Tensor


def encode(task: Task, renderer: Renderer, template: str, items: Sequence[dict]) -> list[Encoded]:
    fixed = None
    encoded = []
    for item in items:
        if fixed is None or task.kind == "multiple-choice":
            words = task.words_of(item)
            tokens = renderer.word_tokens([word for group in words for word in group])
            fixed = tokens, [label for label, group in enumerate(words) for _ in group]
        encoding = renderer.render(template, item)
        encoded.append(Encoded(encoding.ids, encoding.mask_positions, *fixed))
    return encoded


def collate(rows: Sequence[Encoded]) -> Batch:
    """Pads to the longest row; rows must have equal numbers of masks. Missing words repeat the first one."""
    length, words = max(len(row.ids) for row in rows), max(len(row.word_labels) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long, device="cpu")
    mask = torch.zeros_like(ids)
    labels = torch.full((len(rows), words), -1, device="cpu")
    tokens = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids, device="cpu")
        mask[index, : len(row.ids)] = 1
        labels[index, : len(row.word_labels)] = torch.tensor(row.word_labels, device="cpu")
        tokens.append([*row.word_tokens, *([row.word_tokens[0]] * (words - len(row.word_tokens)))])
    positions = torch.tensor([row.mask_positions for row in rows])
    inputs = placed(ids, mask, torch.zeros_like(ids), positions, torch.tensor(tokens))
    return Batch(inputs, *placed(labels))


def label_logits(word_logits: torch.Tensor, word_labels: torch.Tensor, classes: int) -> torch.Tensor:
    """[B, W] to [B, classes]: the log-mean-exp over each label's words, `ABSENT` for labels without any.

    By sums over groups: a table [B, words, classes] took ten times as long with 200 labels.
    """
    label, real = word_labels.clamp(min=0), (word_labels >= 0).to(word_logits.dtype)
    none = word_logits.new_zeros(len(word_logits), classes)
    logits = word_logits.masked_fill(word_labels < 0, ABSENT)
    most = (none + ABSENT).scatter_reduce(1, label, logits.detach(), "amax")
    sums = none.scatter_add(1, label, (logits - most.gather(1, label)).exp() * real)
    count = none.scatter_add(1, label, real)
    scores = most + (sums + (count == 0)).log() - count.clamp(min=1).log()
    return torch.where(count > 0, scores, torch.full_like(scores, ABSENT))


def predict(
    model: BertForMaskedLM,
    rows: Sequence[Encoded],
    classes: int,
    batch_tokens: int = 2048,
    fast: bool = False,
    at_work: AtWork = nobody_waits,
) -> np.ndarray:
    """Label logits [N, classes] before offsets, fp64; batches of like length within a token budget.

    `fast` allows bf16 (errors near 1 %): for texts whose own predictions nobody keeps.
    """
    graph = PetGraph(model).eval()
    logits = np.zeros((len(rows), classes))
    with torch.inference_mode():
        for chunk in chunks_of(rows, batch_tokens, at_work):
            batch = collate([rows[i] for i in chunk])
            with precision(fast):
                words = graph(*batch.inputs)[0]
            logits[chunk] = label_logits(words.float(), batch.word_labels, classes).double().cpu().numpy()
    return logits


def train(
    model: BertForMaskedLM,
    rows: Sequence[Encoded],
    wanted: np.ndarray,
    strategy: str,
    settings: TrainSettings,
    offsets: np.ndarray,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    balance: np.ndarray | None = None,
    further: Gradients = labels_alone,
) -> None:
    """Trains `model` in place on `wanted` [N, classes] (distributions) for `settings.steps` batches at most.

    Batches draw `balance` classes [N] equally often (None: rows equally often). Word embeddings stay as they are: with
    few labels most words are never seen, and moving the seen ones alone breaks their relation to the others.
    """
    graph, shift = PetGraph(model), torch.tensor(offsets, dtype=torch.float32)

    def forward_of(chosen: list[Encoded], mix: augment.Mix | None) -> tuple[augment.Forward, tuple[int, ...]]:
        batch = collate(chosen)
        return partial(log_probabilities, graph, batch, shift, mix), (*batch.inputs[0].shape, model.config.hidden_size)

    draws = balanced(rows, wanted, balance if balance is not None else np.zeros(len(rows), int), settings)
    groups = tuned(model, settings)
    graph.train()
    optimise(groups, draws, forward_of, len(model.bert.encoder.layer), strategy, settings, on_step, further)
    model.eval()
    model.requires_grad_(True)


def log_probabilities(
    graph: PetGraph, batch: Batch, shift: torch.Tensor, mix: augment.Mix | None, move: torch.Tensor | None
) -> torch.Tensor:
    """[B, classes], of rows that are mixed and moved (augment.py)."""
    ids, mask, types, positions, tokens = batch.inputs
    with precision(fast=True):
        hidden = augment.encode(graph.bert, ids, mask, types, mix, move)
        words = graph.word_logits(augment.at_masks(hidden, positions, mix), tokens)
    return F.log_softmax(label_logits(words.float(), batch.word_labels, len(shift)) + shift, -1)


def tuned(model: BertForMaskedLM, settings: TrainSettings) -> list[dict]:
    """The parameters that training moves, with their rates."""
    model.requires_grad_(True)
    model.bert.embeddings.requires_grad_(False)
    model.cls.predictions.bias.requires_grad_(False)
    model.cls.predictions.decoder.requires_grad_(False)
    head = list(model.cls.predictions.transform.parameters())
    encoder = list(model.bert.encoder.parameters())
    return [
        {"params": encoder, "peak": settings.encoder_rate},
        {"params": head, "peak": settings.head_rate},
    ]
