"""Labels in doubt: confident learning (Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 2021, section 3.1), on out-of-fold predictions.

Of each label the threshold is its mean probability over the rows that have it. A row counts towards the most probable
of the labels whose thresholds it reaches (the confident joint); where that is not the one it has, its label is in
doubt.
"""

import json

import numpy as np

from fewloop_trainer.run_report import answer_of
from fewloop_trainer.run_state import Run
from fewloop_trainer.teachers import OutOfFoldFit

FEWEST_ROWS = 50
"""Out-of-fold predictions of fewer say more of the models than of the labels."""


def likelier_labels(probabilities: np.ndarray, given: np.ndarray, shared: bool = False) -> np.ndarray:
    """[N]: the label each row counts towards, or the one it has where it counts towards none.

    `probabilities` [N, C], `given` [N]. `shared`: one threshold for all, where the columns are no labels of their own
    (choices). A label that no row has is none's.
    """
    own = probabilities[np.arange(len(given)), given]
    if shared:
        thresholds = np.full(probabilities.shape[1], own.mean())
    else:
        members = np.eye(probabilities.shape[1])[given]
        counts = members.sum(0)
        thresholds = np.where(counts > 0, (members * probabilities).sum(0) / np.maximum(counts, 1), np.inf)
    reached = probabilities >= thresholds
    counted = np.where(reached, probabilities, -1.0).argmax(1)
    return np.where(reached.any(1), counted, given)


def label_issues(run: Run, fit: OutOfFoldFit) -> list[dict[str, object]]:
    """Of the labelled train rows those in doubt, the most doubtful first: `itemKey`, the label or labels as given,
    `likelier` label set, `doubt` in [0, 1], the out-of-fold `distribution`."""
    if len(run.wanted) < FEWEST_ROWS:
        return []
    probabilities = fit.ensemble
    flat, given = run.observe.flat(probabilities), run.observe.flat_wanted(run.wanted)
    if run.observe.sets:
        # Each label is a question of its own, answered yes or no.
        columns = [likelier_labels(flat[c :: run.classes], given[c :: run.classes]) for c in range(run.classes)]
        likelier = np.stack(columns, axis=1).ravel()
    else:
        likelier = likelier_labels(flat, given, shared=run.task.kind == "multiple-choice")
    rows = np.arange(len(given))
    # Half where both are as probable.
    doubts = (1 + flat[rows, likelier] - flat[rows, given]) / 2
    lines = []
    for i in np.flatnonzero((likelier != given).reshape(len(run.data.train), -1).any(1)):
        row = run.data.train[i]
        if run.observe.sets:
            span = slice(i * run.classes, (i + 1) * run.classes)
            doubtful = likelier[span] != given[span]
            doubt = doubts[span][doubtful].max()
            names = [name for name, yes in zip(run.task.label_names, likelier[span], strict=True) if yes]
        else:
            doubt, names = doubts[i], [run.task.labels_of(row)[likelier[i]]]
        lines.append(
            {
                "itemKey": row.get("itemKey"),
                **answer_of(row),
                "likelier": names,
                "doubt": float(doubt),
                "distribution": [float(p) for p in probabilities[i]],
            }
        )
    return sorted(lines, key=lambda line: -line["doubt"])


def write_label_issues(run: Run, fit: OutOfFoldFit) -> int:
    """`label-issues.jsonl` of the run's folder; how many."""
    lines = label_issues(run, fit)
    (run.folder / "label-issues.jsonl").write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    )
    return len(lines)
