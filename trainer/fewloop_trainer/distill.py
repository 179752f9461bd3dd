"""The student: one model, from the base anew, on human labels and the teachers' soft pseudo-labels."""

import numpy as np

LABELLED_SHARE = 0.25
"""At most: a handful of labels would be learnt by heart long before the pseudo-labels are."""


def student_targets(
    balance: np.ndarray, hard: np.ndarray, soft: np.ndarray, labelled_share: float = LABELLED_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Targets [labelled + pseudo, classes] and the groups that batches draw from equally often.

    Human labels `hard` [labelled, classes] are balanced by class, and about `labelled_share` of what is drawn;
    pseudo-labels keep the teachers' distribution and are the rest, in as many groups as that takes.
    """
    if not len(soft):
        return hard, balance
    groups = min(len(soft), _pseudo_groups(len(np.unique(balance)), labelled_share))
    pseudo = int(balance.max()) + 1 + np.arange(len(soft)) % groups
    return np.concatenate([hard, soft]), np.concatenate([balance, pseudo])


def _pseudo_groups(label_groups: int, labelled_share: float) -> int:
    """How many equal groups the pseudo-labels form beside one group a label, for labels to be that share."""
    return max(1, round(label_groups * (1 - labelled_share) / labelled_share))
