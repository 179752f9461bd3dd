"""The student: one model, from the base anew, on human labels and the teachers' soft pseudo-labels."""

import numpy as np

LABELLED_SHARE = 0.25


def student_targets(labels: np.ndarray, soft: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets [labelled + pseudo, classes] and the group that batches are balanced by.

    Human labels are one-hot and balanced by class in `LABELLED_SHARE` of a batch; pseudo-labels keep the teachers'
    distribution and fill the rest. A group's number stands for a share: repeated rows are what the sampler balances.
    """
    hard = np.eye(classes)[labels]
    if not len(soft):
        return hard, labels
    present = np.unique(labels)
    groups = np.concatenate([labels, classes + np.arange(len(soft)) % _pseudo_groups(len(present))])
    return np.concatenate([hard, soft]), groups


def _pseudo_groups(label_groups: int) -> int:
    """How many equal groups the pseudo-labels form beside one group a label, for labels to be a quarter."""
    return max(1, round(label_groups * (1 - LABELLED_SHARE) / LABELLED_SHARE))
