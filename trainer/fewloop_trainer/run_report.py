"""What a run reports of itself: `report.json` of its bundle, and the summary in `result.json`."""

from collections import Counter
from dataclasses import asdict

import numpy as np
from scipy.stats import binomtest

from fewloop_trainer.data import labelled_digest, targets
from fewloop_trainer.ensemble import weights_of_rows
from fewloop_trainer.evaluate import FEWEST_ROWS, figure_of
from fewloop_trainer.pseudo import PseudoLabels, label_of
from fewloop_trainer.reliability import conformal_sets, risk_coverage
from fewloop_trainer.run_state import Run
from fewloop_trainer.scores import ask_in_turn, combine_members
from fewloop_trainer.student import Student
from fewloop_trainer.teachers import OutOfFoldFit, ServingTemperatures

SUMMARY = ("labelled", "onDev", "weights", "temperature", "pseudoLabels", "student", "notes")


def report_of(
    run: Run,
    zero_shot: tuple[np.ndarray, np.ndarray],
    fit: OutOfFoldFit,
    dev: np.ndarray,
    temperatures: ServingTemperatures,
    pseudo: PseudoLabels,
    student: Student,
) -> dict[str, object]:
    """`zero_shot`: the base model's offsets and scores (offsets.py); `dev` [T, dev rows, C]: what the teachers say."""
    offsets, base_scores = zero_shot
    dev_wanted, untempered = targets(run.task, run.data.dev), combine_members(fit.rows, fit.weights)
    untempered_dev = combine_members(dev, fit.weights)
    ensemble_dev = run.observe.temper(untempered_dev, temperatures.ensemble)
    student_dev = run.observe.temper(student.dev, student.temperature)
    out_of_fold = _evaluate(run, fit.ensemble, run.wanted)
    on_dev = {"ensemble": _evaluate(run, ensemble_dev, dev_wanted), "student": _evaluate(run, student_dev, dev_wanted)}
    return {
        "kind": "run",
        **figures_of_version(run, out_of_fold, on_dev),
        "labelled": len(run.wanted),
        "dev": len(run.data.dev),
        "unlabelled": len(run.data.unlabelled),
        "unlabelledDropped": run.data.dropped,
        "outOfFold": {
            "folds": int(fit.fold.max()) + 1,
            "zeroShot": _zero_shot(run, base_scores, offsets, fit.weights),
            "shrinkage": asdict(run.shrinkage),
            "combination": _combination(run, fit),
            "seeds": _spread_over_seeds(run, fit),
            "reliability": _reliability(run, untempered, fit.ensemble, run.wanted),
            "members": {t.id: _evaluate(run, p, run.wanted) for t, p in zip(run.teachers, fit.rows, strict=True)},
            "ensemble": out_of_fold,
            "inTurn": _in_turn(run, fit, temperatures.cascade),
            "shortlistRecall": _shortlist_recall(run, fit.rows),
            "rows": [
                {"itemKey": row.get("itemKey"), **answer_of(row), "distribution": [float(x) for x in p]}
                for row, p in zip(run.data.train, fit.ensemble, strict=True)
            ],
        },
        "onDev": {
            **on_dev,
            "reliability": {
                "ensemble": _reliability(run, untempered_dev, ensemble_dev, dev_wanted),
                "student": _reliability(run, student.dev, student_dev, dev_wanted),
            },
        },
        "student": {
            "method": student.member.method,
            "template": student.member.template if student.member.method == "pet" else None,
            "strategy": student.member.strategy,
            "trials": student.trials,
        },
        "weights": fit.weighing | {t.id: float(w) for t, w in zip(run.teachers, fit.weights, strict=True)},
        "temperature": {
            "ensemble": temperatures.ensemble,
            "cascade": temperatures.cascade,
            "outOfFold": fit.temperature,
            "student": student.temperature,
            "studentFrom": student.temperature_source,
        },
        "pseudoLabels": {
            "candidates": len(run.candidates),
            "selected": len(pseudo.chosen),
            "byLabel": dict(Counter(label_of(run, p) for p in pseudo.chosen)) if run.data.prior is not None else None,
            "byRule": dict(Counter(p.rule for p in pseudo.chosen)),
            "rounds": pseudo.rounds,
            "stopped": pseudo.stopped,
        },
        "notes": _notes(run, fit),
    }


def figures_of_version(run: Run, out_of_fold: dict, on_dev: dict[str, dict]) -> dict[str, object]:
    """The contract's figures, of the policy that the task file has (for a cascade the ensemble) on dev rows; the
    ensemble's out of fold where those are too few for an interval."""
    policy = "student" if run.task.serving.policy == "student" else "ensemble"
    where, rows, found = "dev", run.data.dev, on_dev[policy]
    if len(rows) < FEWEST_ROWS and policy == "ensemble":
        where, rows, found = "outOfFold", run.data.train, out_of_fold
    digest = labelled_digest(run.task, rows) if rows else None
    of_rows = {"policy": policy, "from": where, "rows": len(rows)}
    names = ("accuracy", "macroF1", "ece", "augrc")
    return {"figures": of_rows} | {name: figure_of(found.get(name, {}), len(rows), digest) for name in names}


def summary_of(report: dict) -> dict[str, object]:
    """What of it a caller is told at once."""
    summary = {key: report[key] for key in SUMMARY}
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


def _in_turn(run: Run, fit: OutOfFoldFit, temperature: float | None) -> dict[str, object] | None:
    """Of teachers who are asked in turn, at the `temperature` of that; None for label sets, which ask all."""
    if temperature is None:
        return None
    combined, asked = ask_in_turn(fit.rows, fit.weights)
    said = _evaluate(run, run.observe.temper(combined, temperature), run.wanted)
    return {"teachers": len(run.teachers), "asked": float(asked.mean())} | said


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


def _combination(run: Run, fit: OutOfFoldFit) -> dict[str, dict[str, float]]:
    """Uniform weights beside fitted ones, each row by weights fitted to the other folds; before any temperature.

    Of label sets, the figures are of single decisions, a label taken or left.
    """
    rows, wanted = run.observe.flat(fit.rows), run.observe.flat_wanted(run.wanted)
    fitted = weights_of_rows(rows, wanted, run.observe.per_row(fit.fold, run.classes))
    return {
        "uniform": _figures(rows.mean(0), wanted),
        "fitted": _figures((fitted[..., None] * rows).sum(0), wanted),
    }


def _spread_over_seeds(run: Run, fit: OutOfFoldFit) -> dict[str, object] | None:
    """What each seed's teachers come to together, weighing equally; None where there is one."""
    if run.task.seeds == 1:
        return None
    rows, wanted = run.observe.flat(fit.rows), run.observe.flat_wanted(run.wanted)
    seed_of = np.array([t.seed for t in run.teachers])
    each = [_figures(rows[seed_of == seed].mean(0), wanted) for seed in range(run.task.seeds)]
    spread = {
        name: {"mean": float(np.mean(values)), "standardDeviation": float(np.std(values, ddof=1))}
        for name in each[0]
        for values in [[figures[name] for figures in each]]
    }
    return {"each": each} | spread


def _figures(distribution: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    right = distribution[np.arange(len(wanted)), wanted]
    return {
        "accuracy": float((distribution.argmax(-1) == wanted).mean()),
        "logLoss": float(-np.log(right + 1e-12).mean()),
    }


def _reliability(
    run: Run, untempered: np.ndarray, tempered: np.ndarray, wanted: np.ndarray
) -> dict[str, object] | None:
    """Calibration error before and after the temperature, risk against coverage, conformal sets; None without rows."""
    if not len(wanted):
        return None
    names = run.task.label_names if run.task.kind != "multiple-choice" else None
    return {
        "ece": {
            "before": run.observe.calibration_error(untempered, wanted),
            "after": run.observe.calibration_error(tempered, wanted),
        },
        "riskCoverage": risk_coverage(*run.observe.decisions(tempered, wanted, run.thresholds)),
        "conformal": None if run.observe.sets else conformal_sets(tempered, wanted, names, run.seed),
    }


ROWS_TO_JUDGE = 40
"""Of fewer, chance would hide what a good ensemble knows."""


def _notes(run: Run, fit: OutOfFoldFit) -> list[str]:
    """What a person should know before believing the figures."""
    if run.task.kind == "multiple-choice":
        return []
    counts = run.goal.sum(0)
    notes = [f"{name}: no labelled row" for name, n in zip(run.task.label_names, counts, strict=True) if n == 0]
    notes += [f"{name}: one labelled row" for name, n in zip(run.task.label_names, counts, strict=True) if n == 1]
    _, hit = run.observe.decisions(fit.ensemble, run.wanted, run.thresholds)
    most = Counter(str(np.atleast_1d(row).tolist()) for row in run.wanted).most_common(1)[0][1] / len(run.wanted)
    if hit.mean() <= most:
        notes.append(
            f"out of fold the ensemble is right on {hit.mean():.0%} of the labelled rows, no more than the commonest "
            f"answer ({most:.0%}): the labels agree with nothing that it sees in the texts"
        )
    elif len(hit) >= ROWS_TO_JUDGE and binomtest(int(hit.sum()), len(hit)).proportion_ci(method="wilson").low <= most:
        notes.append(
            f"out of fold the ensemble is right on {hit.mean():.0%} of {len(hit)} labelled rows, which chance alone "
            f"would not tell from the commonest answer ({most:.0%}): the labels agree with little or nothing that it "
            "sees in the texts"
        )
    return notes
