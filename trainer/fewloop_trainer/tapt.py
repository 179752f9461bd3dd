"""TAPT (Gururangan et al. 2020): the base model goes on with masked-language modelling, on the task's own unlabelled
texts, before anything is trained on labels.

    texts ─▶ one in ten held out ─▶ masked-language modelling ─▶ held-out loss fell? ─▶ the adapted base
                                                                                    └▶ the base, as it was

In a run the texts are those of `unlabelled.jsonl`, of train groups alone; all that follows starts from the adapted
base, whose weights `work/` keeps. Killed, it goes on from its checkpoint (adapt.py).
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import BertForMaskedLM

from fewloop_trainer.adapt import corpus, distinct, held_out_metrics, pretrain
from fewloop_trainer.adapt_settings import AdaptSettings
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.files import write_json
from fewloop_trainer.keys import split_group, split_of
from fewloop_trainer.run_state import Run
from fewloop_trainer.training import Diverged
from fewloop_trainer.workspace import Workspace, wait_until

FEWEST_TEXTS = 300
"""Of fewer, the tenth that is held out cannot judge."""
HELD_OUT_BUCKETS = (1, 2)
CHUNK_TOKENS, BATCH_CHUNKS, RATE = 64, 16, 2e-4
CHECKPOINT_SECONDS = 20.0
NAME = "tapt"


@dataclass(frozen=True)
class Adapted:
    """`model`: None where the base is kept. `report`: texts, tokens, what the held-out loss (nats a masked token) was
    before and after, and whether the adapted weights are `used`."""

    model: BertForMaskedLM | None
    report: dict[str, object]


def adapt(
    base: Path,
    texts: list[str],
    passes: float,
    work: Path,
    seed: int,
    seconds: float = math.inf,
    report: Callable[[dict[str, object]], None] = lambda line: None,
) -> Adapted:
    """Adapts the base model to `texts`, in `passes` over them or as many as `seconds` allow; resumes in `work`."""
    if len(texts) < FEWEST_TEXTS:
        return Adapted(None, {"texts": len(texts), "used": False, "reason": f"fewer than {FEWEST_TEXTS} texts"})
    tokenizer = load_tokenizer(base)
    work.mkdir(parents=True, exist_ok=True)
    try:
        chunks, held_out = corpus(lambda: texts, tokenizer, work, _settings(0, seed), HELD_OUT_BUCKETS)
    except ValueError as error:
        return Adapted(None, {"texts": len(texts), "used": False, "reason": str(error)})
    settings = _settings(math.ceil(passes * chunks.size), seed)
    before = held_out_metrics(load_model(base), held_out, tokenizer)["heldOutLoss"]
    started = time.monotonic()
    try:
        model = pretrain(base, lambda: texts, work, settings, report, lambda: False, seconds, HELD_OUT_BUCKETS)
    except Diverged as error:
        return Adapted(None, {"texts": len(texts), "used": False, "reason": f"diverged at step {error.step}: {error}"})
    after = held_out_metrics(model, held_out, tokenizer)
    curve = [json.loads(line) for line in (work / "curve.jsonl").read_text().splitlines()]
    used = after["heldOutLoss"] < before
    return Adapted(
        model.eval() if used else None,
        {
            "texts": len(texts),
            "tokens": curve[-1]["tokens"],
            "passes": round(curve[-1]["tokens"] / chunks.size, 2),
            "heldOutTokens": after["heldOutTokens"],
            "heldOutLoss": {"before": round(before, 4), "after": round(after["heldOutLoss"], 4)},
            "seconds": round(time.monotonic() - started, 1),
            "used": used,
        },
    )


def _settings(tokens: int, seed: int) -> AdaptSettings:
    return AdaptSettings(
        tokens=tokens,
        encoder_rate=RATE,
        chunk_tokens=CHUNK_TOKENS,
        batch_chunks=BATCH_CHUNKS,
        warmup=0.1,
        seed=seed,
        evaluate_every_tokens=max(1, tokens),
        checkpoint_every_seconds=CHECKPOINT_SECONDS,
    )


def texts_of(rows: Iterable[dict]) -> list[str]:
    """Each text of the rows once: `text`, `textPair`, and what stands in their fields."""

    def all_of_them() -> Iterator[str]:
        for row in rows:
            for value in (row["text"], row.get("textPair"), *(row.get("fields") or {}).values()):
                if isinstance(value, str):
                    yield value

    return list(distinct(all_of_them()))


def adapt_base(run: Run) -> dict[str, object] | None:
    """Adapts the run's base model in place where the task file asks for it; what the report says of it."""
    wanted = run.task.adaptation
    if not wanted.tapt:
        return None
    finished, work = run.workspace.work / f"{NAME}.json", run.workspace.work / NAME
    if not run.place.first:
        wait_until(finished.exists)
    elif not finished.exists():
        run.enter("adapt", 0.0)
        adapted = adapt(
            run.base_folder,
            _texts_of_train_groups(run),
            wanted.passes,
            work,
            run.seed,
            wanted.budget_share * run.data.settings["budgetSeconds"],
            lambda line: run.report(0.02 * line["progress"], tokens=line["tokens"], loss=round(line["loss"], 4)),
        )
        if adapted.model is not None:
            run.workspace.save(NAME, whole_state(adapted.model))
        write_json(finished, adapted.report)
    if run.place.first:
        shutil.rmtree(work, ignore_errors=True)  # checkpoints are six times a model
    load_adapted(run.base, run.workspace)
    return json.loads(finished.read_text())


def _texts_of_train_groups(run: Run) -> list[str]:
    """A row is of its text's group; its second sentence may be another row's text, of dev or of test."""
    dev = {split_group(text) for text in texts_of(run.data.dev)}
    groups = ((text, split_group(text)) for text in texts_of(run.data.unlabelled))
    return [text for text, group in groups if split_of(group) == "train" and group not in dev]


def load_adapted(base: BertForMaskedLM, workspace: Workspace) -> None:
    """Gives `base` the weights that a run adapted, where it has adapted any."""
    if workspace.finished(NAME):
        base.load_state_dict(workspace.load(NAME), strict=False)


def whole_state(model: BertForMaskedLM) -> dict:
    """All weights, tied ones once."""
    return {name: t for name, t in model.state_dict().items() if not name.startswith("cls.predictions.decoder.")}
