"""Loading a BERT-type masked language model and its tokenizer, and what a base model's folder has to hold.

What cannot be used is refused by name, with what would mend it: transformers itself fills whatever weights are missing
with random ones and says so in a log that nobody reads.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AlbertForMaskedLM, BertConfig, BertForMaskedLM, ErnieForMaskedLM

from fewloop_trainer.albert import shared_bert_of
from fewloop_trainer.data import RunError

SPECIAL_TOKENS = ("[CLS]", "[SEP]", "[MASK]", "[UNK]", "[PAD]")
KINDS = {
    "bert": (BertForMaskedLM, "cls.predictions."),
    "ernie": (ErnieForMaskedLM, "cls.predictions."),
    "albert": (AlbertForMaskedLM, "predictions."),
}
"""By config.json's model_type: transformers' class, and what names of the head's weights begin with."""


def load_model(folder: Path, needs_head: bool = False) -> BertForMaskedLM:
    """The masked language model of a folder in transformers' format, in fp32, on the default device; ERNIE's as the
    BERT that it equals, ALBERT's as one whose layers share weights (albert.py).

    Without `needs_head` a head that the folder lacks is a random one. Raises RunError (BAD_INPUT) where the folder
    holds no such model.
    """
    # transformers takes a default device for a `device_map`, which wants a package that nothing else here does.
    with torch.device("cpu"):
        model = _read_model(folder, needs_head)
    return model.to(torch.get_default_device())


def _read_model(folder: Path, needs_head: bool) -> BertForMaskedLM:
    kind = _config_of(folder).get("model_type")
    if kind not in KINDS:
        raise RunError(
            "BAD_INPUT",
            f"baseModel: {folder} holds a model of type {kind!r} (config.json, model_type); only bert, ernie and "
            "albert can be trained and exported: take a BERT-type masked language model, as "
            "hfl/chinese-roberta-wwm-ext is one",
        )
    of_kind, head = KINDS[kind]
    try:
        model, found = of_kind.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise RunError("BAD_INPUT", f"baseModel: cannot load the model in {folder}: {error}") from error
    missing = sorted(set(found["missing_keys"]) - {f"{head}decoder.weight", f"{head}decoder.bias"})  # tied
    encoder = [name for name in missing if not name.startswith(head)]
    if encoder:
        raise RunError(
            "BAD_INPUT",
            f"baseModel: {folder}/model.safetensors lacks {len(encoder)} weights of the encoder that config.json "
            f"describes, {encoder[0]} among them: both files have to be of one model",
        )
    if missing and needs_head:
        raise RunError(
            "BAD_INPUT",
            f"baseModel: {folder} has no masked-language-model head ({missing[0]} is missing), which method pet scores "
            "label words with: take a base model that has one, train one with `adapt`, or take pet out of the task's "
            "method",
        )
    return {"bert": lambda bert: bert, "ernie": bert_of, "albert": shared_bert_of}[kind](model)


def bert_of(ernie: ErnieForMaskedLM) -> BertForMaskedLM:
    """The BERT that says the same: ERNIE adds the embedding of task 0 to every token, which positions can carry."""
    known = BertConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    model = BertForMaskedLM(BertConfig(**{k: v for k, v in ernie.config.to_dict().items() if k in known}))
    state = {name.replace("ernie.", "bert.", 1): tensor for name, tensor in ernie.state_dict().items()}
    of_task = state.pop("bert.embeddings.task_type_embeddings.weight", None)
    if of_task is not None:
        positions = "bert.embeddings.position_embeddings.weight"
        state[positions] = state[positions] + of_task[0]
    model.load_state_dict(state)
    model.tie_weights()
    return model


def copy_of(model: BertForMaskedLM) -> BertForMaskedLM:
    """A model of its own, in evaluation mode, with equal weights."""
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    return copy.eval()


def has_bfloat16(kind: str = "cpu") -> bool:
    """Whether this processor, or this GPU, multiplies bf16 in hardware. Where a processor does, training takes three
    quarters of fp32's time and scoring two thirds; elsewhere bf16 is no faster."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The `tokenizer.json` of a base model's or a bundle's folder, without padding and truncation: the renderer does
    both. Raises RunError (BAD_INPUT) where it is missing or has no masks."""
    path = present(folder, "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more special
        raise RunError("BAD_INPUT", f"baseModel: cannot read {path}: {error}") from error
    lacking = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if lacking:
        raise RunError("BAD_INPUT", f"baseModel: {path} has no {lacking[0]}: it is not a BERT-type tokenizer")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def require_own_tokenizer(folder: Path, model: BertForMaskedLM, tokenizer: Tokenizer) -> None:
    """Raises RunError (BAD_INPUT) where the folder's tokenizer is not that of its model."""
    words, pad = model.config.vocab_size, model.config.pad_token_id
    # Models pad their vocabulary, by a few dozen rows; a tokenizer never has more than its model.
    own, own_pad = tokenizer.get_vocab_size(), tokenizer.token_to_id("[PAD]")
    if not 0.95 * words <= own <= words or own_pad != pad:
        raise RunError(
            "BAD_INPUT",
            f"baseModel: {folder}/tokenizer.json is another model's tokenizer: it has {own} tokens with [PAD] as "
            f"{own_pad}, the model {words} with {pad}; copy the file from where the model is from",
        )
    _require_golden_ids(folder, tokenizer)


def _require_golden_ids(folder: Path, tokenizer: Tokenizer) -> None:
    """A vocabulary of the same size in another order: only what `export-base` wrote down of the model tells it."""
    golden = folder / "golden.json"
    if not golden.is_file():
        return
    for row in json.loads(golden.read_text())["rows"]:
        special = {0, *row["maskPositions"], len(row["ids"]) - 1}
        expected = [token for at, token in enumerate(row["ids"]) if at not in special]
        if tokenizer.encode(row["text"], add_special_tokens=False).ids[: len(expected)] != expected:
            raise RunError(
                "BAD_INPUT",
                f"baseModel: {folder}/tokenizer.json is another model's tokenizer: it gives {row['text'][:20]!r} other "
                "ids than golden.json has; copy the file from where the model is from",
            )


def _config_of(folder: Path) -> dict:
    try:
        return json.loads(present(folder, "config.json").read_text())
    except json.JSONDecodeError as error:
        raise RunError("BAD_INPUT", f"baseModel: {folder}/config.json is no JSON: {error}") from error


def present(folder: Path, name: str) -> Path:
    """A file of a base model's folder. Raises RunError (BAD_INPUT) where it is not there."""
    path = folder / name
    if not folder.exists():
        raise RunError(
            "BAD_INPUT",
            f"baseModel: {folder}: no such folder; of a model on a hub `{sys.executable} -m fewloop_trainer "
            "fetch-base OWNER/NAME FOLDER` makes one",
        )
    if not path.is_file():
        raise RunError(
            "BAD_INPUT",
            f"baseModel: {folder} has no {name}; a base model's folder is what transformers' save_pretrained writes, "
            "with model.safetensors, config.json and tokenizer.json",
        )
    return path
