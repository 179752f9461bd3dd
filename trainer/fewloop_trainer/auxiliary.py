"""PET's auxiliary loss: masked-language modelling on unlabelled texts beside the labels' loss (Schick & Schütze 2021,
section 3.2), with masks drawn anew at every step.

    L = (1 - α) · L_CE + α · L_MLM,    α = 1e-4 in the paper, since L_MLM is so much larger

Texts stand in the template, as labelled ones do, and nothing is asked about the template's own mask. Each step has as
many texts as labelled rows. It goes with every training strategy: their gradients are there when it adds its own.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import BertForMaskedLM

from fewloop_trainer.adapt import mask_tokens, masked_logits
from fewloop_trainer.training import Row, TrainSettings, endless, placed, precision

PAPER_WEIGHT = 1e-4
MASK_RATE = 0.15
PASSES = 1.5
"""What a step of it costs, in passes over the labelled rows: the vocabulary's layer makes it dearer than they are."""


class Auxiliary:
    """Of a model in training; `rows` are unlabelled texts, rendered."""

    def __init__(
        self, model: BertForMaskedLM, rows: Sequence[Row], tokenizer: Tokenizer, weight: float, settings: TrainSettings
    ):
        self.model, self.rows, self.tokenizer, self.weight = model, rows, tokenizer, weight
        self.batch_rows = min(settings.batch_rows, len(rows))
        self.order = endless(np.arange(len(rows)), np.random.default_rng(settings.seed + 3))
        self.generator = torch.Generator().manual_seed(settings.seed + 3)

    def add(self, loss: float, parameters: Iterable[torch.nn.Parameter]) -> float:
        """The loss L of a step whose labels' `loss` has left its gradients in `parameters`: they become those of L."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(1 - self.weight)
        own = self.loss()
        (self.weight * own).backward()
        return (1 - self.weight) * loss + self.weight * own.item()

    def loss(self) -> torch.Tensor:
        """Mean cross-entropy (nats) of the masked tokens of the next texts; 0 where none of theirs was chosen."""
        ids, mask = self._next()
        inputs, chosen = mask_tokens(ids, MASK_RATE, self.tokenizer, self.generator)
        with precision(fast=True):
            logits = masked_logits(self.model, inputs, chosen, mask)
        (wanted,) = placed(ids[chosen])
        return F.cross_entropy(logits.float(), wanted, reduction="sum") / max(1, int(chosen.sum()))

    def _next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and attention mask [batch_rows, length], padded."""
        rows = [self.rows[next(self.order)] for _ in range(self.batch_rows)]
        length = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), length), self.tokenizer.token_to_id("[PAD]"), device="cpu")
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids, device="cpu")
            mask[index, : len(row.ids)] = 1
        return ids, mask
