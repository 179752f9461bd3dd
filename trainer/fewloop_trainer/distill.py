"""The student: one model, from the base anew, on human labels and the teachers' soft pseudo-labels."""

import numpy as np

LABELLED_SHARE = 0.25


def student_targets(
    balance: np.ndarray, labels: np.ndarray, soft: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Targets [labelled + pseudo, classes] and the groups that batches draw from equally often.

    Human labels are one-hot, balanced by class, and about `LABELLED_SHARE` of what is drawn; pseudo-labels keep the
    teachers' distribution and are the rest, in as many groups as that takes.
    """
    hard = np.eye(classes)[labels]
    if not len(soft):
        return hard, balance
    groups = min(len(soft), _pseudo_groups(len(np.unique(balance))))
    pseudo = int(balance.max()) + 1 + np.arange(len(soft)) % groups
    return np.concatenate([hard, soft]), np.concatenate([balance, pseudo])


def _pseudo_groups(label_groups: int) -> int:
    """How many equal groups the pseudo-labels form beside one group a label, for labels to be a quarter."""
    return max(1, round(label_groups * (1 - LABELLED_SHARE) / LABELLED_SHARE))
