"""Adaptive pre-training by masked-language modelling: the base model's head, DAPT and TAPT.

Sources: BERT (Devlin et al. 2019, section 3.1) for the objective; Don't Stop Pretraining (Gururangan et al. 2020)
for DAPT and TAPT.
PET's auxiliary loss (auxiliary.py) and a run's TAPT (tapt.py) use what stands here.
A run lives in a folder: `tokens.npz` (the packed corpus), `checkpoint.safetensors` (all that is needed to go on),
`curve.jsonl` (one line per evaluation). Called again, it goes on where it stopped.
"""

import csv
import json
import math
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertForMaskedLM

from fewloop_trainer.adapt_settings import AdaptSettings
from fewloop_trainer.encoder import load_model, load_tokenizer
from fewloop_trainer.keys import split_group, twentieth
from fewloop_trainer.tensor_file import read_tensors, write_tensors
from fewloop_trainer.training import position_at, precision, require_finite

TEXT_FIELDS = ("text", "textPair", "sentence", "sentence1", "sentence2", "content", "abst", "review")
HELD_OUT_BUCKETS = (1,)
_CLOZE_MARKER = re.compile(r"#idiom\d*#")


def read_texts(paths: Iterable[Path], held_out_bucket: int | None = 0) -> Iterator[str]:
    """Texts of `.txt` (a line each), `.json`/`.jsonl` (JSON lines) and `.csv` files and of folders of them.

    Texts whose split group falls into `held_out_bucket` of twenty are left out, and so are repeated texts.
    """
    texts = distinct(text for path in _files(paths) for text in _texts_of(path))
    return (text for text in texts if twentieth(text) != held_out_bucket)


def distinct(texts: Iterable[str]) -> Iterator[str]:
    """Texts without markers of blanks, each once, however it is spaced; none of a single character."""
    seen: set[bytes] = set()
    for text in texts:
        text = _CLOZE_MARKER.sub("", text).strip()
        key = bytes.fromhex(split_group(text))[:8]
        if len(text) >= 2 and key not in seen:
            seen.add(key)
            yield text


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".json", ".jsonl", ".csv"))
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(f"no text file or folder at {path}")


def _texts_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if path.suffix == ".csv":
            rows: Iterable[dict[str, object]] = csv.DictReader(file)
        elif path.suffix == ".txt":
            yield from (line.strip() for line in file.read().split("\n"))
            return
        else:
            # Split on \n alone: texts hold U+2028, at which a general line splitter would cut.
            rows = (json.loads(line) for line in file.read().split("\n") if line.strip())
        for row in rows:
            yield from (value for field in TEXT_FIELDS if isinstance(value := row.get(field), str) and value)


def pack(texts: Iterable[str], tokenizer, chunk_tokens: int) -> np.ndarray:
    """Packed chunks `[chunks, chunk_tokens]` of int32: [CLS] text [SEP] text [SEP] …, texts running over chunks."""
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    stream: list[np.ndarray] = []
    block: list[str] = []

    def encode() -> None:
        for encoding in tokenizer.encode_batch_fast(block, add_special_tokens=False):
            stream.append(np.array([*encoding.ids[:512], sep], dtype=np.int32))
        block.clear()

    for text in texts:
        block.append(text)
        if len(block) == 4096:
            encode()
    encode()
    if not stream:
        return np.zeros((0, chunk_tokens), dtype=np.int32)
    flat = np.concatenate(stream)
    body = chunk_tokens - 1
    chunks = flat[: len(flat) // body * body].reshape(-1, body)
    return np.concatenate([np.full((len(chunks), 1), cls, dtype=np.int32), chunks], axis=1)


def mask_tokens(
    ids: torch.Tensor, mask_rate: float, tokenizer, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """BERT's masking: of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay.

    ids `[n, length]`, on the CPU; returns the input `[n, length]` and the chosen positions as a boolean `[n, length]`.
    Special tokens ([PAD], [CLS], [SEP], and the [MASK] of a template) are never chosen.
    """
    drawn = {"generator": generator, "device": "cpu"}
    special = torch.tensor([tokenizer.token_to_id(t) for t in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")], device="cpu")
    eligible = ~torch.isin(ids, special)
    chosen = (torch.rand(ids.shape, **drawn) < mask_rate) & eligible
    kind = torch.rand(ids.shape, **drawn)
    inputs = ids.clone()
    inputs[chosen & (kind < 0.8)] = tokenizer.token_to_id("[MASK]")
    randomised = chosen & (kind >= 0.9)
    inputs[randomised] = torch.randint(0, tokenizer.get_vocab_size(), (int(randomised.sum()),), **drawn)
    return inputs, chosen


def masked_logits(
    model: BertForMaskedLM, inputs: torch.Tensor, chosen: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Vocabulary logits `[chosen, vocabulary]` at the chosen positions only: the head costs as much as the encoder."""
    attention_mask = None if attention_mask is None else attention_mask.to(model.device)
    hidden = model.bert(input_ids=inputs.to(model.device), attention_mask=attention_mask).last_hidden_state
    return model.cls(hidden[chosen.to(model.device)])


def pretrain(
    base: Path,
    texts: Callable[[], Iterable[str]],
    folder: Path,
    settings: AdaptSettings,
    report: Callable[[dict[str, object]], None],
    should_stop: Callable[[], bool] = lambda: False,
    seconds_limit: float = math.inf,
    held_out_buckets: Collection[int] = HELD_OUT_BUCKETS,
) -> BertForMaskedLM | None:
    """Trains the head alone for `head_tokens`, then every weight for `tokens`. None when it was asked to stop.

    Where steps take longer than `seconds_limit`, all attempts together, there are fewer: the rate falls with the time.
    `report` gets {"stage", "tokens", "progress", "tokensPerSecond", "loss", "heldOutLoss"?, "heldOutAccuracy"?}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(base)
    train_chunks, held_out = corpus(texts, tokenizer, folder, settings, held_out_buckets)
    torch.manual_seed(settings.seed)
    model = load_model(base)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # one pass over the data cannot be overfitted, and dropout costs a tenth of the time
    step_tokens = settings.batch_chunks * settings.chunk_tokens
    head_steps = math.ceil(settings.head_tokens / step_tokens)
    total_steps = head_steps + math.ceil(settings.tokens / step_tokens)
    step, optimizer, seconds = 0, None, 0.0
    checkpoint = folder / "checkpoint.safetensors"
    state = read_tensors(checkpoint) if checkpoint.exists() else None
    if state is not None and state["settings"] != asdict(settings):
        raise ValueError(f"{folder} belongs to a run with other settings; choose another folder or delete it")
    if state is not None:
        model.load_state_dict(state["model"])
        step, seconds = state["step"], state["seconds"]
    saved_at = started = time.monotonic()
    next_evaluation = step * step_tokens // settings.evaluate_every_tokens + 1
    loss_sum, loss_steps = 0.0, 0
    while step < total_steps and seconds < seconds_limit:
        position = position_at(step, total_steps * (seconds + time.monotonic() - saved_at) / seconds_limit)
        head_only = step < head_steps
        if optimizer is None or step == head_steps:
            optimizer = _optimizer(model, settings, head_only)
            if state is not None and step != head_steps:
                optimizer.load_state_dict(state["optimizer"])
            state = None
        phase_step, phase_steps = (step, head_steps) if head_only else (step - head_steps, total_steps - head_steps)
        late = min(position - step + phase_step, phase_steps - 1)
        factor = _schedule(max(phase_step, late), phase_steps, settings.warmup)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        ids = _batch(train_chunks, step, settings)
        inputs, chosen = mask_tokens(ids, settings.mask_rate, tokenizer, generator)
        loss = _step(model, inputs, chosen, ids[chosen], head_only, optimizer)
        require_finite(step + 1, loss, 0.0)  # the last checkpoint stays
        loss_sum, loss_steps, step = loss_sum + loss, loss_steps + 1, step + 1
        now = time.monotonic()
        last = step == total_steps or seconds + now - saved_at >= seconds_limit
        evaluate_now = step * step_tokens >= next_evaluation * settings.evaluate_every_tokens or last
        if evaluate_now or step % 25 == 0:
            line: dict[str, object] = {
                "at": datetime.now(UTC).isoformat(),
                "stage": "head" if head_only else "all-weights",
                "tokens": step * step_tokens,
                "progress": step / total_steps,
                "tokensPerSecond": round(loss_steps * step_tokens / max(1e-9, now - started)),
                "loss": loss_sum / loss_steps,
            }
            if evaluate_now:
                next_evaluation = step * step_tokens // settings.evaluate_every_tokens + 1
                line |= held_out_metrics(model, held_out, tokenizer)
                with (folder / "curve.jsonl").open("a") as curve:
                    curve.write(json.dumps(line) + "\n")
            report(line)
            loss_sum, loss_steps, started = 0.0, 0, time.monotonic()
        stopping = should_stop()
        if stopping or last or now - saved_at > settings.checkpoint_every_seconds:
            seconds += time.monotonic() - saved_at
            _save(checkpoint, model, optimizer, step, seconds, settings)
            saved_at = time.monotonic()
            if stopping:
                return None
    return model.eval()


def held_out_metrics(
    model: BertForMaskedLM, chunks: np.ndarray, tokenizer, mask_rate: float = 0.15
) -> dict[str, float]:
    """Loss (nats) and accuracy over the masked tokens of the held-out chunks, with masks that never change."""
    model.eval()
    generator = torch.Generator().manual_seed(20_261_101)
    losses, hits, count = 0.0, 0, 0
    with torch.inference_mode():
        for start in range(0, len(chunks), 32):
            ids = torch.from_numpy(chunks[start : start + 32].astype(np.int64))
            inputs, chosen = mask_tokens(ids, mask_rate, tokenizer, generator)
            logits, wanted = masked_logits(model, inputs, chosen), ids[chosen].to(model.device)
            losses += F.cross_entropy(logits, wanted, reduction="sum").item()
            hits += int((logits.argmax(-1) == wanted).sum())
            count += len(wanted)
    model.train()
    return {"heldOutLoss": losses / max(1, count), "heldOutAccuracy": hits / max(1, count), "heldOutTokens": count}


def corpus(
    texts: Callable[[], Iterable[str]],
    tokenizer,
    folder: Path,
    settings: AdaptSettings,
    held_out_buckets: Collection[int] = HELD_OUT_BUCKETS,
) -> tuple[np.ndarray, np.ndarray]:
    """Packed chunks to train on and held out, kept in `folder`. Texts are held out whose split group falls into
    `held_out_buckets` of twenty. ValueError where either part is not a chunk long."""
    cache = folder / "tokens.npz"
    if not cache.exists():
        rng = np.random.default_rng(settings.seed)
        training, held_out = [], []
        for text in texts():
            (held_out if twentieth(text) in held_out_buckets else training).append(text)
        for part in (training, held_out):
            rng.shuffle(part)
        arrays = {
            "training": pack(training, tokenizer, settings.chunk_tokens),
            "held_out": pack(held_out[:4000], tokenizer, settings.chunk_tokens)[:256],
        }
        if not len(arrays["training"]) or not len(arrays["held_out"]):
            raise ValueError(f"too little text: {len(training)} texts to train on, {len(held_out)} held out")
        partial = folder / "tokens.partial.npz"
        np.savez(partial, **arrays)
        partial.replace(cache)
    stored = np.load(cache)
    return stored["training"], stored["held_out"]


def _batch(chunks: np.ndarray, step: int, settings: AdaptSettings) -> torch.Tensor:
    """The step's chunks, drawn without replacement within a pass, by seed and step alone (so a run can resume)."""
    first = step * settings.batch_chunks
    rows = []
    for index in range(first, first + settings.batch_chunks):
        order = _order(settings.seed, index // len(chunks), len(chunks))
        rows.append(order[index % len(chunks)])
    return torch.from_numpy(chunks[rows].astype(np.int64))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, chunks: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(chunks)


def _optimizer(model: BertForMaskedLM, settings: AdaptSettings, head_only: bool) -> torch.optim.Optimizer:
    head = [*model.cls.predictions.transform.parameters(), model.cls.predictions.bias]
    for parameter in model.parameters():
        parameter.requires_grad_(not head_only)
    for parameter in head:
        parameter.requires_grad_(True)
    if head_only:
        groups = [{"params": head, "peak": settings.head_rate}]
        return torch.optim.AdamW(groups, lr=settings.head_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    groups = [{"params": list(model.parameters()), "peak": settings.encoder_rate}]
    return torch.optim.AdamW(groups, lr=settings.encoder_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def _schedule(step: float, steps: int, warmup: float) -> float:
    rising = max(1, int(steps * warmup))
    return min((step + 1) / rising, max(0.0, (steps - step) / max(1, steps - rising)))


def _step(model, inputs, chosen, wanted, head_only, optimizer) -> float:
    model.train()
    with precision(fast=True):
        if head_only:
            with torch.no_grad():
                hidden = model.bert(input_ids=inputs.to(model.device)).last_hidden_state[chosen.to(model.device)]
            logits = model.cls(hidden)
        else:
            logits = masked_logits(model, inputs, chosen)
        loss = F.cross_entropy(logits, wanted.to(model.device))
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _save(path: Path, model, optimizer, step: int, seconds: float, settings: AdaptSettings) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
        "settings": asdict(settings),
    }
    write_tensors(path, state)
