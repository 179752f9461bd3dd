"""A classifier on [CLS]: plain fine-tuning (Devlin et al. 2019), the baseline of every table, and what EFL trains.

The head is a linear layer that starts at zero, so that training begins at equal probabilities. Word embeddings stay as
they are, as in pet.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM, BertModel

from fewloop_trainer import augment
from fewloop_trainer.encoder import copy_of
from fewloop_trainer.render import Renderer
from fewloop_trainer.training import (
    AtWork,
    Drawn,
    TrainSettings,
    balanced,
    chunks_of,
    nobody_waits,
    optimise,
    placed,
    precision,
)

ENCODER_RATE, HEAD_RATE = 6e-5, 1e-3
"""A head that starts at zero has far to go; the encoder has not."""
DROPOUT = 0.1


@dataclass(frozen=True)
class Encoded:
    """One rendered item; of a pair, `type_ids` are 1 in the second segment."""

    ids: list[int]
    type_ids: list[int]

    @property
    def masks(self) -> int:
        return 0


class Classifier(nn.Module):
    """`normalised`: the head sees the L2-normalised [CLS] state (embedding.py) in place of the state itself.
    `label_sets`: each output is a yes or no of its own, in training."""

    def __init__(self, bert: BertModel, outputs: int, normalised: bool = False, label_sets: bool = False):
        super().__init__()
        self.bert = bert
        self.head = nn.Linear(bert.config.hidden_size, outputs)
        self.normalised, self.label_sets = normalised, label_sets
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids, attention_mask, token_type_ids):
        """Logits [batch, outputs] and the L2-normalised [CLS] state [batch, hidden]."""
        hidden = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        state = hidden[:, 0]
        pooled = F.normalize(state, dim=-1)
        return self.head(pooled if self.normalised else state), pooled


def classifier_of(
    base: BertForMaskedLM, outputs: int, normalised: bool = False, label_sets: bool = False
) -> Classifier:
    """A classifier with an encoder of its own, equal to the base's."""
    return Classifier(copy_of(base).bert, outputs, normalised, label_sets).eval()


def encode(renderer: Renderer, template: str, items: Sequence[dict]) -> list[Encoded]:
    """Items rendered by a template without masks, as `{text}` or `{text}{sep}{textPair}`."""
    return [Encoded(e.ids, e.type_ids) for e in (renderer.render(template, item) for item in items)]


def collate(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and types [B, L], padded to the longest row."""
    length = max(len(row.ids) for row in rows)
    ids, mask, types = (torch.zeros(len(rows), length, dtype=torch.long, device="cpu") for _ in range(3))
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids, device="cpu")
        mask[index, : len(row.ids)] = 1
        types[index, : len(row.ids)] = torch.tensor(row.type_ids, device="cpu")
    return placed(ids, mask, types)


def predict(
    model: Classifier,
    rows: Sequence[Encoded],
    batch_tokens: int = 2048,
    fast: bool = False,
    at_work: AtWork = nobody_waits,
) -> np.ndarray:
    """Logits [N, outputs], fp64, by what has a classifier's inputs and outputs; batches of like length within a token
    budget. `fast` allows bf16, as in pet.py."""
    return _outputs(model, rows, batch_tokens, fast, at_work)[0]


def embeddings(
    model: Classifier,
    rows: Sequence[Encoded],
    batch_tokens: int = 2048,
    fast: bool = False,
    at_work: AtWork = nobody_waits,
) -> np.ndarray:
    """L2-normalised [CLS] states [N, hidden], fp64."""
    return _outputs(model, rows, batch_tokens, fast, at_work)[1]


def train(
    model: Classifier,
    rows: Sequence[Encoded],
    wanted: np.ndarray,
    strategy: str,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    balance: np.ndarray | None = None,
) -> None:
    """Trains `model` in place on `wanted` [N, outputs], as `pet.train` does: distributions, or for label sets the
    probability of each label."""
    if model.label_sets:
        wanted = np.concatenate([wanted, 1 - wanted], axis=1)
    draws = balanced(rows, wanted, balance if balance is not None else np.zeros(len(rows), int), settings)
    train_on(model, draws, strategy, settings, on_step)


def train_on(
    model: Classifier,
    draws: Iterator[Drawn],
    strategy: str,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Trains `model` in place on batches that the caller draws."""

    def forward_of(chosen: list[Encoded], mix: augment.Mix | None) -> tuple[augment.Forward, tuple[int, ...]]:
        inputs = collate(chosen)
        return partial(_log_probabilities, model, inputs, mix), (*inputs[0].shape, model.bert.config.hidden_size)

    model.requires_grad_(True)
    model.bert.embeddings.requires_grad_(False)
    groups = [
        {"params": list(model.bert.encoder.parameters()), "peak": settings.encoder_rate},
        {"params": list(model.head.parameters()), "peak": settings.head_rate},
    ]
    model.train()
    optimise(groups, draws, forward_of, len(model.bert.encoder.layer), strategy, settings, on_step)
    model.eval()
    model.requires_grad_(True)


def _log_probabilities(
    model: Classifier, inputs: tuple[torch.Tensor, ...], mix: augment.Mix | None, move: torch.Tensor | None
) -> torch.Tensor:
    ids, mask, types = inputs
    with precision(fast=True):
        state = augment.encode(model.bert, ids, mask, types, mix, move)[:, 0]
        if model.normalised:
            state = F.normalize(state, dim=-1)
        logits = model.head(F.dropout(state, DROPOUT)).float()
    if model.label_sets:
        # Of each label's yes, then of each one's no: their cross-entropy is the sum of the labels' binary ones.
        return torch.cat([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)
    return F.log_softmax(logits, -1)


def _outputs(
    model: Classifier, rows: Sequence[Encoded], batch_tokens: int, fast: bool, at_work: AtWork
) -> tuple[np.ndarray, ...]:
    logits = np.zeros((len(rows), model.head.out_features))
    pooled = np.zeros((len(rows), model.bert.config.hidden_size))
    model.eval()
    with torch.inference_mode():
        for chunk in chunks_of(rows, batch_tokens, at_work):
            with precision(fast):
                said, state = model(*collate([rows[i] for i in chunk]))
            logits[chunk], pooled[chunk] = said.double().cpu().numpy(), state.double().cpu().numpy()
    return logits, pooled
