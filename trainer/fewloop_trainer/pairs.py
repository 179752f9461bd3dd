"""Pairs by the embedding member (as Sentence-BERT, Reimers and Gurevych 2019): each sentence through the encoder alone.

A row is rendered as for the other methods, `[CLS] text [SEP] textPair [SEP]`; the graph itself takes it apart, so that
it has a classifier's inputs. The second segment gets a [CLS] of its own, positions begin anew with it, and tokens see
those of their own segment alone: one pass, and the very states that two passes over the sentences would give. With
their L2-normalised [CLS] states u and v, the features are their cosine, |u - v| and u * v, element by element.

Tuning ranks pairs: those of a label whose cosines are high are to have higher ones than those of the others. Which
labels these are, the encoder says before it is tuned.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM, BertModel

from fewloop_trainer.classifier import Encoded, collate
from fewloop_trainer.encoder import copy_of
from fewloop_trainer.training import Drawn, chunks_of, precision

SCALE = 20.0
"""Of cosines, before their differences are exponents."""
COSINE_WEIGHT, INVERSE_REGULARISATION = 3.0, 100.0
"""Of the cosine among the features; scikit-learn's C. Mean cosines of two labels differ by 0.1: with less, 32 pairs do
not move the head off the prior."""
STEPS, ENCODER_RATE = 30, 1e-5
"""By dev rows of BUSTM (docs/decisions)."""
UNSEEN = -1e9
"""Added to the attention scores of tokens that are not to be seen."""


class PairClassifier(nn.Module):
    """A `Classifier` (classifier.py) whose head sees pair features [batch, 2 * hidden + 1]."""

    def __init__(self, bert: BertModel, outputs: int):
        super().__init__()
        self.bert = bert
        self.head = nn.Linear(2 * bert.config.hidden_size + 1, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids, attention_mask, token_type_ids):
        """Logits [batch, outputs] and the L2-normalised sum of the two states [batch, hidden]."""
        first, second = self.states(input_ids, attention_mask, token_type_ids)
        return self.head(features(first, second)), F.normalize(first + second, dim=-1)

    def states(self, input_ids, attention_mask, token_type_ids) -> tuple[torch.Tensor, torch.Tensor]:
        """The L2-normalised [CLS] states of the two segments, [batch, hidden] each."""
        # Where the second segment begins, and with it its own [CLS]: a column more than there was.
        start = (attention_mask * (1 - token_type_ids)).sum(1, keepdim=True)
        column = torch.arange(input_ids.shape[1] + 1, device=input_ids.device).unsqueeze(0)
        second = (column >= start).long()
        ids = torch.where(column == start, input_ids[:, :1], input_ids.gather(1, column - second))
        real = column <= attention_mask.sum(1, keepdim=True)
        sees = (second.unsqueeze(1) == second.unsqueeze(2)) & real.unsqueeze(1)
        hidden = self.bert.embeddings(
            input_ids=ids, token_type_ids=torch.zeros_like(ids), position_ids=column - start * second
        )
        attention = torch.where(sees, 0.0, UNSEEN).unsqueeze(1)
        for layer in self.bert.encoder.layer:
            hidden = layer(hidden, attention)
        of_second = hidden.gather(1, start.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))[:, 0]
        return F.normalize(hidden[:, 0].float(), dim=-1), F.normalize(of_second.float(), dim=-1)


def pair_classifier_of(base: BertForMaskedLM, outputs: int) -> PairClassifier:
    """With an encoder of its own, equal to the base's."""
    return PairClassifier(copy_of(base).bert, outputs).eval()


def features(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """What the head sees of states [B, hidden] each: [B, 2 * hidden + 1], the weighted cosine first."""
    product = first * second
    return torch.cat([COSINE_WEIGHT * product.sum(-1, keepdim=True), (first - second).abs(), product], dim=-1)


def features_of(model: PairClassifier, rows: Sequence[Encoded], batch_tokens: int = 2048) -> np.ndarray:
    """Pair features [N, 2 * hidden + 1], fp64."""
    found = np.zeros((len(rows), model.head.in_features))
    model.eval()
    with torch.inference_mode():
        for chunk in chunks_of(rows, batch_tokens):
            found[chunk] = features(*model.states(*collate([rows[i] for i in chunk]))).double().cpu().numpy()
    return found


def loss_of(model: PairClassifier, rows: Sequence[Encoded], wanted: np.ndarray) -> Callable[[Drawn], torch.Tensor]:
    """The loss of a batch; `wanted` [N, C] are the distributions of `rows`, by which the labels are ranked now."""
    cosines = features_of(model, rows)[:, 0] / COSINE_WEIGHT
    rank = torch.tensor(ranks_of(cosines, wanted), dtype=torch.float32)

    def loss(drawn: Drawn) -> torch.Tensor:
        with precision(fast=True):
            first, second = model.states(*collate(drawn.rows))
        return ranking_loss((first * second).sum(-1), drawn.target @ rank)

    return loss


def ranks_of(cosines: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[C]: the labels' ranks by the mean of cosines [N] under distributions `wanted` [N, C], evenly from 0 to 1. A
    label that no row has stands where the mean of all rows does."""
    share = wanted.sum(0)
    means = np.where(share > 0, wanted.T @ cosines / np.maximum(share, 1e-12), cosines.mean())
    return means.argsort().argsort() / max(1, len(means) - 1)


def ranking_loss(cosines: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """CoSENT (Su 2022): log(1 + the sum over i, j with goal i over goal j of exp(SCALE * (cosine j - cosine i))), each
    term weighted by the difference of the goals; both [B]."""
    weight = (goals.unsqueeze(1) - goals.unsqueeze(0)).clamp(min=0)
    exponent = SCALE * (cosines.unsqueeze(0) - cosines.unsqueeze(1)) + weight.log()
    return torch.logsumexp(F.pad(exponent.flatten(), (1, 0)), dim=0)
