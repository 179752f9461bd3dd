"""The training loop that every method shares: batches drawn, a rate that rises and falls, a strategy's backward pass.

A method says what it draws and how a batch becomes log-probabilities; what is tuned is in the parameter groups that it
hands over.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from transformers import BertModel

from fewloop_trainer import augment
from fewloop_trainer.checkpoint import Checkpoint
from fewloop_trainer.encoder import has_bfloat16


class Row(Protocol):
    """An encoded item. Rows in one batch have equally many `masks`."""

    ids: list[int]

    @property
    def masks(self) -> int: ...


@dataclass(frozen=True)
class Saving:
    """What makes training need less memory and more time, for the same gradients (but for dropout, which is drawn for
    other rows)."""

    rows_at_once: int | None = None
    """Rows of a batch that go through the model together; the gradients of its parts are added up."""
    recompute: bool = False
    """Layers are computed anew on the way back in place of being remembered (gradient checkpointing)."""


NO_SAVING = Saving()


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
    checkpoint: Path | None = None
    """The file that a killed training goes on from."""
    saving: Saving = NO_SAVING


Gradients = Callable[[float, list[torch.nn.Parameter]], float]
"""Adds a further loss's gradients to those of the labels' loss, which it gets; the loss of both (auxiliary.py)."""


def labels_alone(loss: float, trained: list[torch.nn.Parameter]) -> float:
    return loss


@dataclass(frozen=True)
class Drawn:
    """A batch: rows, and the distributions [B, C] that they are to have."""

    rows: list
    target: torch.Tensor


class Diverged(Exception):
    """A loss or a gradient that is no number. Nothing was changed by that step, counted from 1."""

    def __init__(self, step: int, what: str, value: float):
        super().__init__(f"its {what} is {value}")
        self.step = step


def require_finite(step: int, loss: float, gradient: float) -> None:
    """Raises Diverged; `gradient` is the norm of all gradients together."""
    for what, value in (("loss", loss), ("gradient", gradient)):
        if not math.isfinite(value):
            raise Diverged(step, what, value)


def optimise(
    groups: list[dict],
    draws: Iterator[Drawn],
    forward_of: Callable[[list, augment.Mix | None], tuple[augment.Forward, tuple[int, ...]]],
    layers: int,
    strategy: str,
    settings: TrainSettings,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    further: Gradients = labels_alone,
) -> None:
    """Tunes the parameters of `groups` (each with its `peak` rate) in place, for `settings.steps` batches at most.

    `forward_of` gives a batch's log-probabilities as a function of a move of its embeddings, and the shape of such a
    move. ValueError where the strategy is unknown, Diverged where a loss is no number.
    """
    parsed = augment.parse_strategy(strategy)
    rng = np.random.default_rng(settings.seed + 1)
    torch.manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    began = [parameter.detach().clone() for parameter in trained]
    checkpoint = Checkpoint(settings.checkpoint, settings.steps) if settings.checkpoint is not None else None
    taken = checkpoint.resume(optimizer, trained, rng) if checkpoint is not None else 0
    draws = islice(draws, taken, None)
    started = time.monotonic()
    for step in range(taken, settings.steps):
        position = position_at(step, settings.steps * (time.monotonic() - started) / settings.seconds)
        if position >= settings.steps and step >= settings.least_steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(min(position, settings.steps - 1), settings.steps, settings.warmup)
        drawn = next(draws)
        loss = 0.0
        for part in parts_of(drawn, settings.saving.rows_at_once):
            mix = augment.draw_mix(parsed, len(part.rows), layers, rng)
            forward, shape = forward_of(part.rows, mix)
            target, share = part.target if mix is None else mix.of(part.target), len(part.rows) / len(drawn.rows)
            loss += augment.backward(parsed, forward, target, shape, share)
        loss = further(loss, trained)
        require_finite(step + 1, loss, float(torch.nn.utils.clip_grad_norm_(trained, 1.0)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if checkpoint is not None:
            checkpoint.keep(step + 1, optimizer, trained, rng)
        on_step(step + 1, loss)
    with torch.no_grad():
        for parameter, start in zip(trained, began, strict=True):
            parameter.copy_(torch.lerp(start, parameter, settings.interpolation))


def parts_of(drawn: Drawn, rows_at_once: int | None) -> Iterator[Drawn]:
    """The batch in parts of at most that many rows, as it is where there is no limit."""
    many = len(drawn.rows) if rows_at_once is None else rows_at_once
    for start in range(0, len(drawn.rows), many):
        yield Drawn(drawn.rows[start : start + many], drawn.target[start : start + many])


def recompute(bert: BertModel) -> None:
    """From now on what its layers put out in training is computed anew on the way back."""
    bert.activation_checkpointing_enable({"use_reentrant": False})


def balanced(rows: Sequence[Row], wanted: np.ndarray, balance: np.ndarray, settings: TrainSettings) -> Iterator[Drawn]:
    """Endless batches of rows with distributions `wanted` [N, C], the classes `balance` [N] equally often."""
    goal = torch.tensor(wanted, dtype=torch.float32)
    for chosen in batches(balance, rows, settings):
        yield Drawn([rows[i] for i in chosen], goal[chosen])


def batches(classes: np.ndarray, rows: Sequence[Row], settings: TrainSettings):
    """Endless row indices, class-balanced; rows of like length together, the batches themselves in random order."""
    rng = np.random.default_rng(settings.seed)
    present = np.unique(classes)
    streams = {c: endless(np.flatnonzero(classes == c), rng) for c in present}
    turn = 0
    while True:
        drawn = []
        for _ in range(4 * settings.batch_rows):
            if turn % len(present) == 0:
                order = rng.permutation(present)
            drawn.append(next(streams[order[turn % len(present)]]))
            turn += 1
        drawn.sort(key=lambda i: (rows[i].masks, len(rows[i].ids)))
        groups = [drawn[i : i + settings.batch_rows] for i in range(0, len(drawn), settings.batch_rows)]
        for index in rng.permutation(len(groups)):
            for masks in {rows[i].masks for i in groups[index]}:
                yield [i for i in groups[index] if rows[i].masks == masks]


def endless(values: np.ndarray, rng: np.random.Generator):
    """`values` again and again, in another order each time."""
    while True:
        yield from rng.permutation(values)


def position_at(step: int, due: float) -> float:
    """Where the schedule stands: at the step, or where it is a whole step late, at the one that is `due` by now. Any
    less would make the rate, and with it the numbers, hang on microseconds."""
    return due if due >= step + 1 else step


def schedule(step: float, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay to nearly zero."""
    rising = max(1, math.ceil(steps * warmup))
    return min((step + 1) / rising, (steps - step) / max(1, steps - rising))


AtWork = Callable[[], None]
"""Called now and then in what takes long, so that whoever waits hears that it goes on."""


def nobody_waits() -> None:
    pass


def chunks_of(rows: Sequence[Row], batch_tokens: int, at_work: AtWork = nobody_waits) -> Iterator[list[int]]:
    """Indices of rows of like length and equally many masks, at most `batch_tokens` padded tokens together; `at_work`
    is called before each chunk."""
    chunk: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: (rows[i].masks, len(rows[i].ids))):
        masks_differ = chunk and rows[chunk[0]].masks != rows[index].masks
        if chunk and (masks_differ or (len(chunk) + 1) * len(rows[index].ids) > batch_tokens):
            at_work()
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        at_work()
        yield chunk


def placed(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """On the device that models are on (processes.py)."""
    return tuple(tensor.to(torch.get_default_device()) for tensor in tensors)


def precision(fast: bool) -> torch.autocast:
    """bf16 where that is allowed and what computes here multiplies it in hardware."""
    kind = torch.get_default_device().type
    return torch.autocast(kind, torch.bfloat16, enabled=fast and has_bfloat16(kind))
