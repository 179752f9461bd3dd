"""Pseudo-labels: candidates that the teachers' ensemble labels and the selection strategy lets in."""

import json
from dataclasses import dataclass

import numpy as np

from fewloop_trainer.budget import affordable_candidates
from fewloop_trainer.run_state import PSEUDO_CANDIDATES, Run
from fewloop_trainer.scores import combine_members, match_priors
from fewloop_trainer.select import PseudoLabel, select

PSEUDO_LABELS = 600


@dataclass(frozen=True)
class PseudoLabels:
    """Selected candidates, and their soft labels [selected, C]."""

    chosen: list[PseudoLabel]
    soft: np.ndarray


def pseudo_labels(run: Run, weights: np.ndarray, temperature: float) -> PseudoLabels:
    """Selects among the run's candidates and says which in `pseudo-labels.jsonl`.

    Thresholds are of calibrated confidence: untempered, teachers fitted to few rows are sure of nearly all.
    """
    if not run.candidates:
        return PseudoLabels([], np.zeros((0, run.classes)))

    def compute() -> dict[str, np.ndarray]:
        run.candidates = affordable_candidates(run)  # the machine may have turned slow
        scores = np.zeros((len(run.teachers), len(run.candidates), run.classes))
        for number, teacher in enumerate(run.teachers):
            learner, model = run.trained(teacher)
            scores[number] = run.predict(learner, model, learner.encode(run.candidates), fast=True)
            run.report(0.7 + 0.08 * (number + 1) / len(run.teachers))
        return {"logits": scores}

    (scores,) = run.workspace.cached("pseudo", compute)
    # An earlier attempt on another machine's speed may have scored another number of candidates.
    run.candidates = _all_candidates(run)[: scores.shape[1]]
    if run.shrinkage.matched and run.data.prior is not None:
        run.served_offsets = [match_priors(x, run.data.prior) for x in scores]
    members = np.stack([run.observe.probabilities(x, o) for x, o in zip(scores, run.served_offsets, strict=True)])
    tempered = np.stack([run.observe.temper(p, temperature) for p in members])
    combined = run.observe.temper(combine_members(members, weights), temperature)
    chosen = select(tempered, combined, run.task.selection, run.data.prior, PSEUDO_LABELS, run.thresholds)
    lines = [
        {
            "itemKey": run.candidates[p.row].get("itemKey"),
            **_answer(run, p, combined),
            "confidence": p.confidence,
            "contested": p.contested,
            "rule": p.rule,
            "teachers": [t.id for t in run.teachers],
        }
        for p in chosen
    ]
    (run.folder / "pseudo-labels.jsonl").write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    )
    return PseudoLabels(chosen, combined[[p.row for p in chosen]])


def _answer(run: Run, pseudo: PseudoLabel, combined: np.ndarray) -> dict[str, object]:
    if not run.observe.sets:
        return {"label": label_of(run, pseudo)}
    chosen = np.flatnonzero(combined[pseudo.row] >= run.thresholds)
    return {"labels": [run.task.label_names[label] for label in chosen]}


def _all_candidates(run: Run) -> list[dict]:
    order = np.random.default_rng(run.seed).permutation(len(run.data.unlabelled))
    return [run.data.unlabelled[i] for i in order[len(run.calibration) :]][:PSEUDO_CANDIDATES]


def label_of(run: Run, pseudo: PseudoLabel) -> str:
    return run.task.labels_of(run.candidates[pseudo.row])[pseudo.label]
