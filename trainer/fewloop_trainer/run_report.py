"""What a run reports of itself: `report.json` of its bundle, and the summary in `result.json`."""

from collections import Counter
from dataclasses import asdict

import numpy as np

from fewloop_trainer.data import targets
from fewloop_trainer.pseudo import PseudoLabels, label_of
from fewloop_trainer.run_state import Run
from fewloop_trainer.scores import combine_members
from fewloop_trainer.student import Student
from fewloop_trainer.teachers import OutOfFoldFit


def report_of(
    run: Run,
    zero_shot: tuple[np.ndarray, np.ndarray],
    fit: OutOfFoldFit,
    dev: np.ndarray,
    pseudo: PseudoLabels,
    student: Student,
) -> dict[str, object]:
    """`zero_shot`: the base model's offsets and scores (offsets.py); `dev` [dev rows, C]: what the ensemble says."""
    offsets, base_scores = zero_shot
    dev_wanted = targets(run.task, run.data.dev)
    return {
        "kind": "run",
        "labelled": len(run.wanted),
        "dev": len(run.data.dev),
        "unlabelled": len(run.data.unlabelled),
        "unlabelledDropped": run.data.dropped,
        "outOfFold": {
            "folds": int(fit.fold.max()) + 1,
            "zeroShot": _zero_shot(run, base_scores, offsets, fit.weights),
            "shrinkage": asdict(run.shrinkage),
            "members": {t.id: _evaluate(run, p, run.wanted) for t, p in zip(run.teachers, fit.rows, strict=True)},
            "ensemble": _evaluate(run, fit.ensemble, run.wanted),
            "shortlistRecall": _shortlist_recall(run, fit.rows),
            "rows": [
                {"itemKey": row.get("itemKey"), **answer_of(row), "distribution": [float(x) for x in p]}
                for row, p in zip(run.data.train, fit.ensemble, strict=True)
            ],
        },
        "onDev": {
            "ensemble": _evaluate(run, run.observe.temper(dev, fit.temperature), dev_wanted),
            "student": _evaluate(run, run.observe.temper(student.dev, student.temperature), dev_wanted),
        },
        "weights": fit.weighing | {t.id: float(w) for t, w in zip(run.teachers, fit.weights, strict=True)},
        "temperature": {
            "ensemble": fit.temperature,
            "student": student.temperature,
            "studentFrom": student.temperature_source,
        },
        "pseudoLabels": {
            "candidates": len(run.candidates),
            "selected": len(pseudo.chosen),
            "byLabel": dict(Counter(label_of(run, p) for p in pseudo.chosen)) if run.data.prior is not None else None,
            "byRule": dict(Counter(p.rule for p in pseudo.chosen)),
        },
    }


def summary_of(report: dict) -> dict[str, object]:
    """What of it a caller is told at once."""
    summary = {key: report[key] for key in ("labelled", "onDev", "weights", "temperature", "pseudoLabels")}
    return summary | {"outOfFold": {key: value for key, value in report["outOfFold"].items() if key != "rows"}}


def _zero_shot(run: Run, scores: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> dict[str, object] | None:
    """Out of fold, since it has seen no row; None where no member knows anything before it is trained."""
    own = [(t, w) for t, w in zip(run.teachers, weights, strict=True) if t.method == "pet"]
    if not own:
        return None
    of_teachers = np.stack(
        [run.observe.probabilities(x, offsets[t.template]) for x, (t, _) in zip(scores, own, strict=True)]
    )
    shares = [w for _, w in own] if sum(w for _, w in own) > 0 else [1.0] * len(own)
    return _evaluate(run, combine_members(of_teachers, shares), run.wanted)


def _shortlist_recall(run: Run, oof: np.ndarray) -> dict[str, float]:
    """Of members that ask about a shortlist of labels: the share of right labels that are in it."""
    right = run.goal > 0
    return {
        t.id: float((p[right] > 0).mean())
        for t, p in zip(run.teachers, oof, strict=True)
        if getattr(run.learners[t.id], "lists", False) and right.any()
    }


def _evaluate(run: Run, probabilities: np.ndarray, wanted: np.ndarray) -> dict[str, object]:
    return run.observe.evaluate(probabilities, wanted, run.thresholds)


def answer_of(row: dict) -> dict[str, object]:
    """What a person said of it: `label`, or `labels` of a label set."""
    return {key: row[key] for key in ("label", "labels") if key in row}
