"""What the recipe's authors and FewCLUE's say that its parts are worth, beside what the finished cells here come to."""

import numpy as np

from fewloop_trainer.comparison import Cells, difference_in_words, hits_of, row_differences
from fewloop_trainer.fewclue import TASKS
from fewloop_trainer.methods import STRATEGIES

DELTAS: tuple[tuple[str, str, str, str], ...] = (
    ("prompts over fine-tuning", "pet", "fine-tune", "2 to 28"),
    *((f"augmentation, {strategy}", f"pet+{strategy}", "pet", "0.8 to 9") for strategy in STRATEGIES),
    ("ensemble over one template", "pet-ensemble", "pet", "0.4 to 4"),
    ("fitted over uniform weights", "full", "full-uniform", ""),
    ("members of other methods beside PET's", "full", "full-pet", ""),
    ("self-training, the most confident", "full@top_confidence", "full", "under 1"),
    ("self-training, confident and contested", "full@confident_contested", "full", "0 to 3"),
    ("self-training, fused", "full@fused", "full", "0.4 to 4"),
    ("adaptation, of PET", "pet<tapt", "pet", "0.1 to 9"),
    ("adaptation, of the whole recipe", "full<tapt", "full<base", "0.1 to 9"),
)
"""Part, method, what it is compared with, and the recipe's own gain in points."""

PUBLISHED_MEANS = {
    "fine-tune": 44.1,
    "PET": 57.4,
    "EFL": 55.9,
    "P-tuning": 59.9,
    "PET + R-Drop (PaddleNLP, ERNIE)": 57.3,
}
"""Accuracy over the nine tasks' public test rows, %; RoBERTa-wwm-ext base but where another is named."""
PUBLISHED_PET = {
    "eprstmt": 86.7,
    "bustm": 56.0,
    "ocnli": 44.0,
    "csl": 59.4,
    "chid": 61.2,
    "cluewsc": 57.5,
    "tnews": 54.5,
    "csldcp": 51.7,
    "iflytek": 46.0,
}
BESIDE = ("fine-tune", "pet", "efl", "full")
"""Methods that are set beside the published ones."""


def delta_rows(cells: Cells) -> list[list[str]]:
    """Part, methods, the recipe's gain, ours with its interval, least and most of a task, how many tasks."""
    rows = []
    for part, method, reference, said in DELTAS:
        found = [row_differences(cells, task, method, reference) for task in TASKS]
        known = [differences for differences in found if differences is not None]
        ours = ["open", "", "0"]
        if known:
            means = [100 * float(np.mean(differences)) for differences in known]
            ours = [difference_in_words(known), f"{min(means):+.1f} to {max(means):+.1f}", str(len(known))]
        rows.append([part, f"`{method}` − `{reference}`", said, *ours])
    return rows


def published_rows(cells: Cells) -> list[list[str]]:
    """Method, accuracy on each of the nine tasks, their mean: published ones first, then those of the cells."""
    rows = []
    for name, mean in PUBLISHED_MEANS.items():
        by_task = [f"{PUBLISHED_PET[task]:.1f}" if name == "PET" else "" for task in TASKS]
        rows.append([f"{name}, published", *by_task, f"{mean:.1f}"])
    for method in BESIDE:
        means = {t: 100 * np.mean([hits_of(c).mean() for c in cells[t, method]]) for t in TASKS if (t, method) in cells}
        whole = f"{np.mean(list(means.values())):.1f}" if len(means) == len(TASKS) else ""
        rows.append([method, *(f"{means[task]:.1f}" if task in means else "open" for task in TASKS), whole])
    return rows
