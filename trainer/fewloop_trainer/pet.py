"""PET (Schick & Schütze 2021): a label's score is the MLM's score of its words at the template's masks.

Only the softmax over labels is trained: the vocabulary's normaliser cancels in it. A label of several words scores by
the log-mean-exp of their logits. Fixed offsets (log space) match zero-shot predictions to the prior, so that training
begins where zero-shot stands.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM

from fewloop_trainer import augment
from fewloop_trainer.encoder import has_bfloat16
from fewloop_trainer.export import PetGraph
from fewloop_trainer.render import Renderer
from fewloop_trainer.task import Task

ABSENT = -1e9
"""Score of a label that an item does not have (fewer choices than others): probability 0, with finite gradients."""


@dataclass(frozen=True)
class Encoded:
    """One rendered item. `word_tokens` [W][M]; `word_labels` [W]: the label each word belongs to."""

    ids: list[int]
    mask_positions: list[int]
    word_tokens: list[list[int]]
    word_labels: list[int]


@dataclass(frozen=True)
class Batch:
    """Inputs of a PET graph, padded, and `word_labels` [B, W] (-1 where padded)."""

    inputs: tuple[torch.Tensor, ...]
    word_labels: torch.Tensor


@dataclass(frozen=True)
class TrainSettings:
    steps: int
    seconds: float = math.inf
    """Where steps take longer than that, there are fewer: the rate falls with the time that is left."""
    least_steps: int = 0
    """Taken however long they take."""
    batch_rows: int = 8
    encoder_rate: float = 6e-5
    head_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    interpolation: float = 1.0
    """How far from the weights it began with towards the tuned ones a model ends (WiSE-FT, Wortsman et al. 2022)."""
    seed: int = 0


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
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full((len(rows), words), -1)
    tokens = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        mask[index, : len(row.ids)] = 1
        labels[index, : len(row.word_labels)] = torch.tensor(row.word_labels)
        tokens.append([*row.word_tokens, *([row.word_tokens[0]] * (words - len(row.word_tokens)))])
    positions = torch.tensor([row.mask_positions for row in rows])
    return Batch((ids, mask, torch.zeros_like(ids), positions, torch.tensor(tokens)), labels)


def label_logits(word_logits: torch.Tensor, word_labels: torch.Tensor, classes: int) -> torch.Tensor:
    """[B, W] to [B, classes]: the log-mean-exp over each label's words, `ABSENT` for labels without any."""
    belongs = F.one_hot(word_labels + 1, classes + 1)[..., 1:].bool()  # [B, W, classes]
    spread = word_logits.unsqueeze(-1).masked_fill(~belongs, ABSENT)
    count = belongs.sum(1)
    scores = spread.logsumexp(1) - count.clamp(min=1).log()
    return torch.where(count > 0, scores, torch.full_like(scores, ABSENT))


def predict(
    model: BertForMaskedLM, rows: Sequence[Encoded], classes: int, batch_tokens: int = 2048, fast: bool = False
) -> np.ndarray:
    """Label logits [N, classes] before offsets, fp64; batches of like length within a token budget.

    `fast` allows bf16 (errors near 1 %): for texts whose own predictions nobody keeps.
    """
    graph = PetGraph(model).eval()
    logits = np.zeros((len(rows), classes))
    with torch.inference_mode():
        for chunk in chunks_of(rows, batch_tokens):
            batch = collate([rows[i] for i in chunk])
            with _precision(fast):
                words = graph(*batch.inputs)[0]
            logits[chunk] = label_logits(words.float(), batch.word_labels, classes).double().numpy()
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
) -> None:
    """Trains `model` in place on `wanted` [N, classes] (distributions) for `settings.steps` batches at most.

    Batches draw `balance` classes [N] equally often (None: rows equally often). Word embeddings stay as they are: with
    few labels most words are never seen, and moving the seen ones alone breaks their relation to the others.
    """
    parsed = augment.parse_strategy(strategy)
    rng = np.random.default_rng(settings.seed + 1)
    torch.manual_seed(settings.seed)
    sampler = batches(balance if balance is not None else np.zeros(len(rows), int), rows, settings)
    optimizer = _optimizer(model, settings)
    graph, goal, shift = PetGraph(model), torch.from_numpy(wanted).float(), torch.from_numpy(offsets).float()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    began = [parameter.detach().clone() for parameter in trained]
    graph.train()
    started = time.monotonic()
    for step in range(settings.steps):
        position = max(step, settings.steps * (time.monotonic() - started) / settings.seconds)
        if position >= settings.steps and step >= settings.least_steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(min(position, settings.steps - 1), settings.steps, settings.warmup)
        chosen = next(sampler)
        batch, target = collate([rows[i] for i in chosen]), goal[chosen]
        mix = augment.draw_mix(parsed, len(chosen), len(model.bert.encoder.layer), rng)
        forward = partial(_log_probabilities, graph, batch, shift, mix)
        shape = *batch.inputs[0].shape, model.config.hidden_size
        loss = augment.backward(parsed, forward, target if mix is None else mix.of(target), shape)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(step + 1, loss)
    with torch.no_grad():
        for parameter, start in zip(trained, began, strict=True):
            parameter.copy_(torch.lerp(start, parameter, settings.interpolation))
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def _log_probabilities(
    graph: PetGraph, batch: Batch, shift: torch.Tensor, mix: augment.Mix | None, move: torch.Tensor | None
) -> torch.Tensor:
    """[B, classes], of rows that are mixed and moved (augment.py)."""
    ids, mask, _, positions, tokens = batch.inputs
    with _precision(fast=True):
        hidden = augment.encode(graph.bert, ids, mask, mix, move)
        words = graph.word_logits(augment.at_masks(hidden, positions, mix), tokens)
    return F.log_softmax(label_logits(words.float(), batch.word_labels, len(shift)) + shift, -1)


def batches(classes: np.ndarray, rows: Sequence[Encoded], settings: TrainSettings):
    """Endless row indices, class-balanced; rows of like length together, the batches themselves in random order."""
    rng = np.random.default_rng(settings.seed)
    present = np.unique(classes)
    streams = {c: _endless(np.flatnonzero(classes == c), rng) for c in present}
    turn = 0
    while True:
        drawn = []
        for _ in range(4 * settings.batch_rows):
            if turn % len(present) == 0:
                order = rng.permutation(present)
            drawn.append(next(streams[order[turn % len(present)]]))
            turn += 1
        drawn.sort(key=lambda i: (len(rows[i].mask_positions), len(rows[i].ids)))
        groups = [drawn[i : i + settings.batch_rows] for i in range(0, len(drawn), settings.batch_rows)]
        for index in rng.permutation(len(groups)):
            for masks in {len(rows[i].mask_positions) for i in groups[index]}:
                yield [i for i in groups[index] if len(rows[i].mask_positions) == masks]


def schedule(step: float, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay to nearly zero."""
    rising = max(1, math.ceil(steps * warmup))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


def _endless(values: np.ndarray, rng: np.random.Generator):
    while True:
        yield from rng.permutation(values)


def chunks_of(rows: Sequence[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows of like length and equally many masks, at most `batch_tokens` padded tokens together."""
    chunk: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: (len(rows[i].mask_positions), len(rows[i].ids))):
        masks_differ = chunk and len(rows[chunk[0]].mask_positions) != len(rows[index].mask_positions)
        if chunk and (masks_differ or (len(chunk) + 1) * len(rows[index].ids) > batch_tokens):
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def _precision(fast: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=fast and has_bfloat16())


def _optimizer(model: BertForMaskedLM, settings: TrainSettings) -> torch.optim.Optimizer:
    model.requires_grad_(True)
    model.bert.embeddings.requires_grad_(False)
    model.cls.predictions.bias.requires_grad_(False)
    model.cls.predictions.decoder.requires_grad_(False)
    head = list(model.cls.predictions.transform.parameters())
    encoder = list(model.bert.encoder.parameters())
    groups = [
        {"params": encoder, "peak": settings.encoder_rate},
        {"params": head, "peak": settings.head_rate},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
