"""From word logits to distributions, their combination and disagreement; offsets that match a prior.

Twin of `src/inference/combine.ts`, `in-turn.ts`, `independent.ts` and `priors.ts`; `test/contract/scores.json` holds
both to the same numbers. For multi-label tasks a "distribution" holds a probability a label, each on its own: see the
second half. Arrays are float64, labels last; logarithms are natural.
"""

from collections.abc import Sequence

import numpy as np

NOT_LISTED = -1e9
"""Score of a label outside a shortlist: its probability is 0."""


def label_scores(word_logits: np.ndarray, word_counts: Sequence[int]) -> np.ndarray:
    """[..., words] to [..., labels]: log-mean-exp over each label's words, so that more words do not favour it."""
    logits = np.asarray(word_logits, dtype=np.float64)
    parts = np.split(logits, np.cumsum(word_counts)[:-1], axis=-1)
    return np.stack([_log_sum_exp(part) - np.log(part.shape[-1]) for part in parts], axis=-1)


def distribution_of(scores: np.ndarray, offsets: np.ndarray | float = 0.0) -> np.ndarray:
    """Softmax over the last axis of scores plus offsets."""
    shifted = np.asarray(scores, dtype=np.float64) + offsets
    return np.exp(shifted - _log_sum_exp(shifted)[..., None])


def combine_members(distributions: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """[members, ..., labels] to [..., labels]: the weighted mean; weights need not sum to one."""
    shares = np.asarray(weights, dtype=np.float64)
    return np.tensordot(shares / shares.sum(), np.asarray(distributions, dtype=np.float64), axes=1)


ROUNDING = 1e-12
"""Sums of the same numbers in another order may differ by so much."""


def ask_in_turn(distributions: np.ndarray, weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """[members, N, labels] to the weighted mean [N, labels] of those asked, and how many those are [N].

    Members are asked by falling weight, of equals the first, and no further one once those who are left cannot change
    the label: what the leading label is ahead by is more than their weight. Twin of `src/inference/in-turn.ts`.
    """
    members, shares = np.asarray(distributions, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = np.argsort(-shares, kind="stable")
    shares = shares[order] / shares.sum()
    sums, given = np.cumsum(shares[:, None, None] * members[order], axis=0), np.cumsum(shares)
    first, second = np.moveaxis(np.sort(sums, axis=-1)[..., -2:], -1, 0)[::-1]
    decided = first - second > (1 - given)[:, None] + ROUNDING
    decided[-1] = True
    last = decided.argmax(0)
    return sums[last, np.arange(members.shape[1])] / given[last][:, None], last + 1


def apply_temperature(distribution: np.ndarray, temperature: float) -> np.ndarray:
    """p^(1/T), normalised; T over 1 softens."""
    return distribution_of(np.log(np.maximum(distribution, 1e-300)) / temperature)


def disagreement_of(distributions: np.ndarray, weights: Sequence[float]) -> dict:
    """Of one item's [members, labels]: the fields of the contract's `Disagreement`, before temperature."""
    members = np.asarray(distributions, dtype=np.float64)
    combined = combine_members(members, weights)
    votes = members.argmax(-1)
    dissenting = int((votes != combined.argmax()).sum())
    voters, labels = members.shape
    most = np.log(min(voters, labels))
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    within = float(shares @ np.array([entropy(member) for member in members]))
    share_of_votes = np.bincount(votes, minlength=labels) / voters
    return {
        "voters": voters,
        "dissenting": dissenting,
        "unanimous": dissenting == 0,
        "voteEntropy": min(1.0, entropy(share_of_votes) / most) if most > 0 else 0.0,
        "jensenShannon": max(0.0, entropy(combined) - within),
    }


def entropy(distribution: np.ndarray) -> float:
    """Nats."""
    positive = distribution[distribution > 0]
    return float(-(positive * np.log(positive)).sum())


def independent_of(scores: np.ndarray, offsets: np.ndarray | float = 0.0) -> np.ndarray:
    """Multi-label: sigmoid of scores plus offsets, each label on its own."""
    return _sigmoid(np.asarray(scores, dtype=np.float64) + offsets)


def temper_independent(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Multi-label: log-odds over T; T over 1 moves probabilities towards a half."""
    values = np.asarray(probabilities, dtype=np.float64)
    if temperature == 1:
        return values
    values = np.clip(values, 0.0, 1.0)  # a weighted mean of ones may be a hair over one
    with np.errstate(divide="ignore"):  # 0 and 1 stay what they are
        return _sigmoid((np.log(values) - np.log1p(-values)) / temperature)


def chosen_of(probabilities: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Multi-label: which labels a text gets, those whose probability reaches its threshold; bool like the input."""
    return np.asarray(probabilities) >= np.asarray(thresholds)


def least_certain(probabilities: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """[..., labels] to [...]: probability of the least certain of the decisions, a label taken or left."""
    return np.where(chosen, probabilities, 1 - np.asarray(probabilities)).min(-1)


def mean_binary_entropy(probabilities: np.ndarray) -> np.ndarray:
    """[..., labels] to [...]: mean over labels of the binary entropy, nats."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -(_x_log_x(p) + _x_log_x(1 - p)).mean(-1)


def independent_disagreement(
    distributions: np.ndarray, weights: Sequence[float], thresholds: Sequence[float], temperature: float = 1.0
) -> dict:
    """Multi-label: of one item's [members, labels], the fields of the contract's `Disagreement`.

    A member dissents where it chooses another set of labels than the ensemble, both at the temperature and the
    thresholds that serve; `jensenShannon` is before temperature.
    """
    members = np.asarray(distributions, dtype=np.float64)
    combined = combine_members(members, weights)
    votes = chosen_of(temper_independent(members, temperature), thresholds)
    decided = chosen_of(temper_independent(combined, temperature), thresholds)
    dissenting = int((votes != decided).any(-1).sum())
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    within = float(shares @ mean_binary_entropy(members))
    return {
        "voters": len(members),
        "dissenting": dissenting,
        "unanimous": dissenting == 0,
        "voteEntropy": min(1.0, max(0.0, float(mean_binary_entropy(votes.mean(0)) / np.log(2)))),
        "jensenShannon": max(0.0, float(mean_binary_entropy(combined)) - within),
    }


def shortlist_of(embeddings: np.ndarray, vectors: np.ndarray, size: int) -> np.ndarray:
    """Tagging: which labels [N, labels] a text is asked about, bool: the `size` whose vectors [labels, hidden] are
    nearest to its embedding [N, hidden] by dot product, of equals the first. The others score `NOT_LISTED`."""
    likeness = np.asarray(embeddings, dtype=np.float64) @ np.asarray(vectors, dtype=np.float64).T
    nearest = np.argsort(-likeness, axis=-1, kind="stable")[:, :size]
    listed = np.zeros(likeness.shape, dtype=bool)
    np.put_along_axis(listed, nearest, True, axis=-1)
    return listed


def match_priors(scores: np.ndarray, prior: Sequence[float]) -> np.ndarray:
    """Offsets of mean zero under which the mean of softmax(scores [rows, labels] + offsets) is `prior`.

    Of shortlists, which the service's twin never sees, it is as near to that as can be reached; a label that no row
    lists gets 0.
    """
    aim = np.maximum(np.asarray(prior, dtype=np.float64), 1e-6)
    aim /= aim.sum()
    listed = np.asarray(scores) != NOT_LISTED
    if listed.all():
        return _matched(scores, aim)
    ever, offsets = listed.any(0), np.zeros(len(aim))
    offsets[ever] = _matched(np.asarray(scores)[:, ever], _within_reach(listed[:, ever], aim[ever] / aim[ever].sum()))
    return offsets


def _within_reach(listed: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Where labels are listed [rows, labels] too seldom for `aim`, no offsets reach it, and those sought grow without
    end. So half of each row is split among its labels as `aim` has them, half as brings the mean nearest to `aim`."""
    alike = np.where(listed, 0.0, NOT_LISTED)
    return (distribution_of(alike, np.log(aim)).mean(0) + distribution_of(alike, _matched(alike, aim)).mean(0)) / 2


def _matched(scores: np.ndarray, aim: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(aim))
    damping, last = 1.0, np.inf
    for _ in range(500 if len(scores) else 0):
        mean = distribution_of(scores, offsets).mean(0)
        difference = np.abs(mean - aim).max()
        if difference < 1e-6:
            break
        if difference > last:
            damping = max(0.1, damping / 2)
        last = difference
        offsets = offsets + damping * np.log(aim / np.maximum(mean, 1e-12))
        offsets -= offsets.mean()
    return offsets


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Never the exponential of a large number, which would overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _x_log_x(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1.0))


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    most = values.max(-1)
    return most + np.log(np.exp(values - most[..., None]).sum(-1))
