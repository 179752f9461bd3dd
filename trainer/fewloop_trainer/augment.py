"""Augmentation in embedding space, as training strategies that combine: `mixup+r-drop+fgm` is all three at once.

- `mixup`: embeddings and targets of two rows, interpolated (Zhang et al. 2018; on text, Guo et al. 2019).
- `manifold-mixup`: the same after a random number of layers, drawn for each batch (Verma et al. 2019).
- `r-drop`: two passes that dropout makes different are kept alike (Liang et al. 2021).
- `fgm`: a second loss where each row's embeddings are moved by one step along its gradient (Miyato et al. 2017).
- `pgd`: the same by several smaller steps, kept within a ball (Madry et al. 2018).

Adversarial moves are added to what the embedding layer puts out: no weight is ever moved, so none has to be restored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BertModel
from transformers.masking_utils import create_bidirectional_mask

MIXUP_ALPHA = 0.5
"""Of Beta(alpha, alpha): mostly near one of the two rows."""
R_DROP_ALPHA = 1.0
EPSILON = 1.0
"""L2 norm of a row's adversarial move, all its tokens together."""
PGD_STEPS, PGD_RATE = 3, 0.5


Forward = Callable[[torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Strategy:
    """`mix` and `adversary` are empty where there is none."""

    mix: str
    r_drop: bool
    adversary: str

    @property
    def passes(self) -> float:
        """Passes forward and back through the model, for the budget."""
        clean = 2 if self.r_drop else 1
        return clean + {"": 0, "fgm": 1, "pgd": PGD_STEPS}[self.adversary]


def parse_strategy(name: str) -> Strategy:
    """`plain`, or parts joined by `+`; ValueError where they are unknown or exclude each other."""
    parts = [] if name == "plain" else name.split("+")
    mixes = [part for part in parts if part in ("mixup", "manifold-mixup")]
    adversaries = [part for part in parts if part in ("fgm", "pgd")]
    drops = parts.count("r-drop")
    if len(mixes) + len(adversaries) + drops != len(parts) or max(len(mixes), len(adversaries), drops) > 1:
        raise ValueError(f"unknown training strategy {name!r}")
    return Strategy("".join(mixes), drops == 1, "".join(adversaries))


@dataclass(frozen=True)
class Mix:
    """Row i becomes `share` of itself and the rest of row `partner[i]`, after `layer` layers (0: the embeddings)."""

    share: float
    partner: torch.Tensor
    layer: int

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        return self.share * rows + (1 - self.share) * rows[self.partner]


def draw_mix(strategy: Strategy, rows: int, layers: int, rng: np.random.Generator) -> Mix | None:
    """A batch's mix; None where the strategy has none."""
    if not strategy.mix:
        return None
    layer = int(rng.integers(layers + 1)) if strategy.mix == "manifold-mixup" else 0
    return Mix(float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA)), torch.from_numpy(rng.permutation(rows)), layer)


def encode(
    bert: BertModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    types: torch.Tensor,
    mix: Mix | None = None,
    move: torch.Tensor | None = None,
) -> torch.Tensor:
    """The encoder's last hidden state [batch, length, hidden], as `bert` itself computes it without `mix` and `move`.

    Until they are mixed, rows attend to their own tokens; after it, to those of both. `move` [batch, length, hidden] is
    added to the embeddings.
    """
    hidden = bert.embeddings(input_ids=ids, token_type_ids=types)
    if move is not None:
        hidden = hidden + move
    layers = list(bert.encoder.layer)
    before = 0 if mix is None else mix.layer
    for layer in layers[:before]:
        hidden = layer(hidden, _attention(bert, mask, hidden))
    if mix is not None:
        hidden = mix.of(hidden)
        mask = torch.maximum(mask, mask[mix.partner])
    for layer in layers[before:]:
        hidden = layer(hidden, _attention(bert, mask, hidden))
    return hidden


def at_masks(hidden: torch.Tensor, positions: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
    """[batch, masks, hidden]: what stands at each row's masks; of mixed rows, at the masks of both, in their shares."""

    def gather(where: torch.Tensor) -> torch.Tensor:
        return hidden.gather(1, where.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))

    own = gather(positions)
    return own if mix is None else mix.share * own + (1 - mix.share) * gather(positions[mix.partner])


def cross_entropy(log_p: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -(target * log_p).sum(-1).mean()


def r_drop_loss(first: torch.Tensor, second: torch.Tensor, target: torch.Tensor, alpha: float) -> torch.Tensor:
    """R-Drop (Liang et al. 2021, equations 2 to 4) on two passes' log-probabilities [B, C], halved.

    (NLL1 + NLL2) / 2 + alpha / 2 * (KL(p1 || p2) + KL(p2 || p1)) / 2, so that alpha 0 is the plain loss.
    """
    likelihood = (cross_entropy(first, target) + cross_entropy(second, target)) / 2
    divergence = ((first.exp() - second.exp()) * (first - second)).sum(-1).mean()  # the two KL terms together
    return likelihood + alpha / 2 * divergence / 2


def backward(
    strategy: Strategy,
    forward: Forward,
    target: torch.Tensor,
    shape: tuple[int, ...],
    share: float = 1.0,
) -> float:
    """Adds `share` of a batch's gradients to the weights; that share of the loss of its clean passes.

    `forward` maps a move of the embeddings (of `shape`, or None) to log-probabilities [B, C], with dropout drawn anew
    at each call; `target` [B, C] is mixed already, where rows are.
    """
    move = torch.zeros(shape, requires_grad=True) if strategy.adversary else None
    if strategy.r_drop:
        loss = r_drop_loss(forward(move), forward(move), target, R_DROP_ALPHA)
    else:
        loss = cross_entropy(forward(move), target)
    (share * loss).backward()
    if move is not None:
        attack = _attack(strategy, move.grad, forward, target)
        (share * cross_entropy(forward(attack), target)).backward()
    return share * loss.item()


def _attack(
    strategy: Strategy,
    gradient: torch.Tensor,
    forward: Forward,
    target: torch.Tensor,
) -> torch.Tensor:
    """The move that a row's loss grows by, given its gradient where nothing is moved."""
    if strategy.adversary == "fgm":
        return EPSILON * unit(gradient)
    move = torch.zeros_like(gradient)
    for step in range(PGD_STEPS):
        if step > 0:
            moved = move.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(cross_entropy(forward(moved), target), moved)
        move = within_ball(move + PGD_RATE * unit(gradient), EPSILON)
    return move


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Each row [B, ...] divided by its L2 norm; a row of zeros stays one."""
    return F.normalize(rows.flatten(1), dim=1).view_as(rows)


def within_ball(rows: torch.Tensor, radius: float) -> torch.Tensor:
    """Each row [B, ...] pulled back to L2 norm `radius` where it is longer."""
    norm = rows.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (rows.dim() - 1))
    return rows * (radius / norm).clamp(max=1.0)


def _attention(bert: BertModel, mask: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor | None:
    """The mask [batch, length] in the form that the model's attention takes."""
    return create_bidirectional_mask(config=bert.config, inputs_embeds=hidden, attention_mask=mask)
