"""Tuning the head alone, on what the frozen encoder says at the masks: the first stage of every teacher.

Fine-tuning all weights on a few rows distorts what the encoder knows; a head tuned first, near where it began, does not
(linear probing, then fine-tuning: Kumar et al. 2022). The penalty is L2-SP (Li et al. 2018): squared distance to the
weights of the base, here the log-density of a Gaussian around them, so that few rows move the head little and many rows
far. The encoder runs once a row; a step then costs about a millisecond.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM

from fewloop_trainer.export import PetGraph
from fewloop_trainer.pet import Encoded, collate, label_logits
from fewloop_trainer.training import chunks_of, require_finite, schedule

STEPS = 60
RATE = 3e-4
DROPOUT = 0.1
BATCH_ROWS = 256
PENALTY = 100.0
"""Of the summed loss, for each unit of squared distance: measured between 16 and 116 rows (docs/results)."""


def hidden_at_masks(model: BertForMaskedLM, rows: Sequence[Encoded], batch_tokens: int = 2048) -> list[torch.Tensor]:
    """The encoder's output at each row's masks, [masks, hidden] a row, in fp32."""
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    graph = PetGraph(model).eval()
    with torch.inference_mode():
        for chunk in chunks_of(rows, batch_tokens):
            ids, mask, types, positions, _ = collate([rows[i] for i in chunk]).inputs
            for i, hidden in zip(chunk, graph.hidden_at_masks(ids, mask, types, positions)[0], strict=True):
                found[i] = hidden.clone()
    return found


def tune(
    model: BertForMaskedLM,
    rows: Sequence[Encoded],
    hidden: Sequence[torch.Tensor],
    wanted: np.ndarray,
    offsets: np.ndarray,
    balance: np.ndarray,
    seed: int,
) -> None:
    """Tunes the head of `model` in place on labels `wanted` [N], `hidden` being what its encoder says of `rows`.

    `offsets` [C] are added to label logits; rows weigh so that the classes of `balance` [N] weigh equally.
    """
    graph = PetGraph(model)
    head = list(model.cls.predictions.transform.parameters())
    model.requires_grad_(False)
    for parameter in head:
        parameter.requires_grad_(True)
    began = [parameter.detach().clone() for parameter in head]
    _, group, count = np.unique(balance, return_inverse=True, return_counts=True)
    weight = torch.tensor(len(rows) / (len(count) * count[group]), dtype=torch.float32)
    target, shift = torch.tensor(wanted), torch.tensor(offsets, dtype=torch.float32)
    optimizer = torch.optim.AdamW(head, lr=0.0, weight_decay=0.0)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for step in range(STEPS):
        for settings in optimizer.param_groups:
            settings["lr"] = RATE * schedule(step, STEPS, 0.1)
        drawn = rng.permutation(len(rows))[:BATCH_ROWS]
        loss = PENALTY / len(rows) * sum(((p - b) ** 2).sum() for p, b in zip(head, began, strict=True))
        for same in _by_masks(rows, drawn):
            batch = collate([rows[i] for i in same])
            at_masks = F.dropout(torch.stack([hidden[i] for i in same]), DROPOUT)
            words = graph.word_logits(at_masks, batch.inputs[4])
            log_p = F.log_softmax(label_logits(words, batch.word_labels, len(offsets)) + shift, -1)
            picked = log_p[torch.arange(len(same)), target[same]]
            loss = loss - (weight[same] * picked).sum() / len(drawn)
        loss.backward()
        require_finite(step + 1, loss.item(), 0.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.requires_grad_(True)


def _by_masks(rows: Sequence[Encoded], drawn: np.ndarray) -> list[list[int]]:
    """Rows with equally many masks share a tensor."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i in drawn:
        groups[len(rows[i].mask_positions)].append(int(i))
    return list(groups.values())
