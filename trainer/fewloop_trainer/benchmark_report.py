"""The benchmark's report: Markdown, the same numbers as JSON, and plots where matplotlib is installed."""

from pathlib import Path

import numpy as np

from fewloop_trainer import peers
from fewloop_trainer.claims import delta_rows, published_rows
from fewloop_trainer.comparison import (
    Cells,
    augrc,
    by_size,
    difference_in_words,
    finished,
    hits_of,
    mean_and_spread,
    row_differences,
)
from fewloop_trainer.evaluate import calibration_error
from fewloop_trainer.fewclue import TASKS
from fewloop_trainer.files import write_json

REFERENCES = ("fine-tune", "pet", "setfit", "tf-idf")
"""What every other method is compared with, row by row."""


def write_report(document: dict, out: Path) -> tuple[str, dict]:
    """Writes `out` (Markdown), `.json` and `-*.png` beside it; answers the Markdown and what the JSON says."""
    markdown = markdown_of(document)
    out.parent.mkdir(parents=True, exist_ok=True)
    markdown = "\n\n".join([markdown, *(f"![{Path(plot).stem}]({plot})" for plot in peers.plots(document, out))])
    partial = out.with_name(out.name + ".partial")
    partial.write_text(markdown + "\n", encoding="utf-8")
    partial.replace(out)
    summary = document | {"cells": [summary_of(cell) for cell in document["cells"]]}
    write_json(out.with_suffix(".json"), summary)
    return markdown, summary


def summary_of(cell: dict) -> dict:
    """A cell's measures in place of its rows, which stay in its own file."""
    if cell["state"] != "done":
        return cell
    ece, area, _ = _measured(cell)
    measures = {"accuracy": float(hits_of(cell).mean()), "ece": ece, "augrc": area}
    kept = {key: value for key, value in cell.items() if key not in ("hits", "confidence")}
    return kept | {"testRows": len(cell["hits"])} | measures


def markdown_of(document: dict) -> str:
    cells, settings = finished(document), document["settings"]
    parts = ["# FewCLUE", _described(settings)]
    few, whole = by_size(cells)
    if few or not whole:
        parts += _measures(few, document, [split for split in settings["splits"] if split != "all"], "")
    if whole:
        parts += _measures(whole, document, ["all"], " with all five splits' train rows")
    parts += ["## Beside the recipe's own gains, points", DELTAS, _table(DELTA_HEADER, delta_rows(few or whole))]
    header = ["method", *TASKS, "mean"]
    parts += ["## Beside published accuracy, %", PUBLISHED, _table(header, published_rows(few or whole))]
    reasons = {
        f"{c['method']} on {c['task']}: {c['state']}, {c['reason']}" for c in document["cells"] if c["state"] != "done"
    }
    if reasons:
        parts += ["## Not measured", "\n".join(f"- {reason}" for reason in sorted(reasons))]
    return "\n\n".join(parts)


def _measures(cells: Cells, document: dict, splits: list[str], of: str) -> list[str]:
    """Accuracy, differences, confidence and time of cells that learn from about as many rows."""
    settings = document["settings"]
    spread = "Mean ± standard deviation over splits and seeds; in brackets how many, where they are not all."
    table = accuracy_table(cells, document, len(splits) * len(settings["seeds"]))
    parts = [f"## Accuracy, %{of and ','}{of}", spread, table]
    for reference in REFERENCES:
        differences = difference_table(cells, settings, reference)
        if differences:
            parts += [f"## Minus {reference}, points{of and ','}{of}", DIFFERENCES, differences]
    return [*parts, f"## Confidence and time{of and ','}{of}", CONFIDENCE, confidence_table(cells, settings)]


DIFFERENCES = (
    "Paired, of the same splits, seeds and test rows, with the 95 % interval of a bootstrap over rows "
    "(2,000 resamples); bold where it excludes 0. The last column draws rows within each task."
)
CONFIDENCE = (
    "ECE of ten bins of equal mass and AUGRC (the mean share of all rows that are covered and wrong), × 100, "
    "lower is better; seconds of a cell. Means over the tasks' means."
)
DELTA_HEADER = ["part", "methods", "the recipe's", "here", "least and most of a task", "tasks"]
DELTAS = (
    "Each part over what it is added to, beside the gain that the recipe's authors give (larger models); the mean over "
    "the tasks that have both, paired as above. Self-training is the student over the teachers that taught it."
)
PUBLISHED = (
    "For orientation: the published ones are of all public test rows and, but where another is named, of "
    "RoBERTa-wwm-ext base, 110 million parameters."
)


def accuracy_table(cells: Cells, document: dict, wished: int) -> str:
    """`wished`: cells of a method and task, if all are finished."""
    settings = document["settings"]
    states = {(c["task"], c["method"]): c["state"] for c in document["cells"] if c["state"] != "done"}
    rows = []
    for method in settings["methods"]:
        row = [method]
        for task in settings["tasks"]:
            found = cells.get((task, method))
            row.append(_accuracy(found, wished) if found else states.get((task, method), ""))
        means = [
            np.mean([hits_of(c).mean() for c in cells[t, method]]) for t in settings["tasks"] if (t, method) in cells
        ]
        row.append(f"{100 * np.mean(means):.1f}" if len(means) == len(settings["tasks"]) else "")
        rows.append(row)
    return _table(["method", *settings["tasks"], "mean"], rows)


def difference_table(cells: Cells, settings: dict, reference: str) -> str:
    """Empty where nothing can be compared with the reference."""
    rows = []
    for method in settings["methods"]:
        if method == reference:
            continue
        by_task = {task: row_differences(cells, task, method, reference) for task in settings["tasks"]}
        known = [rows_of for rows_of in by_task.values() if rows_of is not None]
        if known:
            told = [difference_in_words([d]) if d is not None else "" for d in by_task.values()]
            rows.append([method, *told, difference_in_words(known) if len(known) > 1 else ""])
    return _table(["method", *settings["tasks"], "over these"], rows) if rows else ""


def confidence_table(cells: Cells, settings: dict) -> str:
    rows = []
    for method in settings["methods"]:
        by_task = [[_measured(c) for c in cells[t, method]] for t in settings["tasks"] if (t, method) in cells]
        if by_task:
            ece, area, seconds = np.mean([np.mean(measured, axis=0) for measured in by_task], axis=0)
            rows.append([method, f"{100 * ece:.1f}", f"{100 * area:.1f}", f"{seconds:.0f}", str(len(by_task))])
    return _table(["method", "ECE", "AUGRC", "seconds", "tasks"], rows)


def _accuracy(found: list[dict], wished: int) -> str:
    mean, spread = mean_and_spread([100 * hits_of(cell).mean() for cell in found])
    text = f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"
    return text if len(found) == wished else f"{text} [{len(found)}]"


def _measured(cell: dict) -> tuple[float, float, float]:
    confidence, hit = np.array(cell["confidence"]), hits_of(cell)
    return calibration_error(confidence, hit), augrc(confidence, hit), cell["seconds"]


def _described(settings: dict) -> str:
    splits, seeds = ", ".join(settings["splits"]), ", ".join(str(seed) for seed in settings["seeds"])
    text = f"Base model {settings['base']} ({settings['baseDigest'][:12]}); splits {splits}; seeds {seeds}; "
    text += f"threads: {settings['threads']}."
    if settings["limitTest"]:
        text += f" Only the first {settings['limitTest']} test rows."
    shared = settings["testRowsWithTrainTexts"]
    if shared:
        told = ", ".join(f"{many} of {task}" for task, many in shared.items())
        text += f" Test rows whose text (not item) is in the first split's train file too: {told}."
    return text


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
