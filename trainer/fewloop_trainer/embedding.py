"""The embedding member (as SetFit, Tunstall et al. 2022): the encoder tuned contrastively, a logistic head on [CLS].

Two texts of one label are to point the same way, two of different labels are to be at right angles: the squared error
of the cosine, over all pairs of a batch. The head is a logistic regression on the tuned, L2-normalised states, by
scikit-learn; it is stored in a `Classifier`, so that it exports and serves like one. Sentence pairs have a loss and
features of their own (pairs.py).
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from torch.nn import functional as F

from fewloop_trainer import classifier, pairs
from fewloop_trainer.augment import encode
from fewloop_trainer.classifier import Classifier, Encoded, collate
from fewloop_trainer.pairs import PairClassifier
from fewloop_trainer.training import (
    Drawn,
    TrainSettings,
    balanced,
    position_at,
    precision,
    require_finite,
    schedule,
)

INVERSE_REGULARISATION = 10.0
"""scikit-learn's C for unit-length states: at 1, a head on 32 rows stays near the prior."""
MARGIN_OF_UNSEEN = 5.0
"""Nats by which a label that no row has stays behind the lowest score that any label has."""
BATCH_ROWS = 16
STEPS, ENCODER_RATE = 60, 3e-5


def tune(
    model: Classifier | PairClassifier,
    rows: Sequence[Encoded],
    wanted: np.ndarray,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    balance: np.ndarray | None = None,
) -> None:
    """Tunes the encoder of `model` in place: the cosine of two rows' states is to be that of their targets
    `wanted` [N, C], the cosine within a pair to have its label's rank. `settings.rows_at_once` does not hold here: the
    loss is of all pairs of a batch, and parts would have none across them."""
    loss_of = pairs.loss_of(model, rows, wanted) if isinstance(model, PairClassifier) else partial(_loss, model)
    torch.manual_seed(settings.seed)
    draws = balanced(rows, wanted, balance if balance is not None else np.zeros(len(rows), int), settings)
    model.requires_grad_(False)
    model.bert.encoder.requires_grad_(True)
    trained = list(model.bert.encoder.parameters())
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=settings.weight_decay, fused=True)
    model.train()
    started = time.monotonic()
    for step in range(settings.steps):
        position = position_at(step, settings.steps * (time.monotonic() - started) / settings.seconds)
        if position >= settings.steps and step >= settings.least_steps:
            break
        for group in optimizer.param_groups:
            rate = schedule(min(position, settings.steps - 1), settings.steps, settings.warmup)
            group["lr"] = settings.encoder_rate * rate
        loss = loss_of(next(draws))
        loss.backward()
        require_finite(step + 1, loss.item(), float(torch.nn.utils.clip_grad_norm_(trained, 1.0)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_step(step + 1, loss.item())
    model.eval()
    model.requires_grad_(True)


def _loss(model: Classifier, drawn: Drawn) -> torch.Tensor:
    ids, mask, types = collate(drawn.rows)
    with precision(fast=True):
        state = encode(model.bert, ids, mask, types)[:, 0]
    return cosine_loss(F.normalize(state.float(), dim=-1), F.normalize(drawn.target, dim=-1))


def cosine_loss(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of cosines, over the pairs of different rows; both [B, ...] of unit length."""
    pairs = torch.triu_indices(len(states), len(states), offset=1)
    got, goal = ((x @ x.T)[pairs[0], pairs[1]] for x in (states, targets))
    return ((got - goal) ** 2).mean() if len(got) else states.sum() * 0


def fit_head(
    model: Classifier | PairClassifier, rows: Sequence[Encoded], wanted: np.ndarray, multi_label: bool = False
) -> None:
    """Fits the head of `model` on what it sees of `rows` to `wanted` [N, C]: distributions or, `multi_label`, sets.

    A soft row counts as one of each label, weighted by its probability.
    """
    if isinstance(model, PairClassifier):
        weight, bias = _distributions(pairs.features_of(model, rows), wanted, pairs.INVERSE_REGULARISATION)
    else:
        fit = _label_sets if multi_label else _distributions
        weight, bias = fit(classifier.embeddings(model, rows), wanted, INVERSE_REGULARISATION)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))


def _distributions(
    states: np.ndarray, wanted: np.ndarray, inverse_regularisation: float
) -> tuple[np.ndarray, np.ndarray]:
    row, label = np.nonzero(wanted > 1e-3)
    counts = np.bincount(label, weights=wanted[row, label], minlength=wanted.shape[1])
    if np.count_nonzero(counts) == 1:  # nothing to tell apart, as in the fold that lacks a label's only row
        return np.zeros((wanted.shape[1], states.shape[1])), np.where(counts > 0, 0.0, -MARGIN_OF_UNSEEN)
    # Classes weigh equally, as in every method's batches.
    weights = wanted[row, label] * (len(states) / (np.count_nonzero(counts) * counts[label]))
    head = LogisticRegression(C=inverse_regularisation, max_iter=1000)
    head.fit(states[row], label, sample_weight=weights)
    weight = np.zeros((wanted.shape[1], states.shape[1]))
    # Of two classes the first one's score is 0, and the intercept the second's.
    bias = np.full(wanted.shape[1], min(0.0, head.intercept_.min()) - MARGIN_OF_UNSEEN)
    if len(head.classes_) == 2:
        weight[head.classes_[1]], bias[head.classes_] = head.coef_[0], [0.0, head.intercept_[0]]
    else:
        weight[head.classes_], bias[head.classes_] = head.coef_, head.intercept_
    return weight, bias


def _label_sets(states: np.ndarray, wanted: np.ndarray, inverse_regularisation: float) -> tuple[np.ndarray, np.ndarray]:
    sets = wanted > 0.5
    varied = sets.any(0) & ~sets.all(0)
    weight = np.zeros((wanted.shape[1], states.shape[1]))
    # A label that all rows have, or none, says no more than its share, smoothed by one row each way.
    share = (sets.sum(0) + 1) / (len(sets) + 2)
    bias = np.log(share / (1 - share))
    if varied.any():
        heads = MultiOutputClassifier(LogisticRegression(C=inverse_regularisation, max_iter=1000))
        heads.fit(states, sets[:, varied])
        for label, head in zip(np.flatnonzero(varied), heads.estimators_, strict=True):
            weight[label], bias[label] = head.coef_[0], head.intercept_[0]
    return weight, bias
