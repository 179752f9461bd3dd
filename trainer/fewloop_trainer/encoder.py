"""Loading a BERT-type masked language model and its tokenizer, and the encoder's embeddings."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertForMaskedLM


def load_model(folder: Path) -> BertForMaskedLM:
    """The masked language model of a folder in transformers' format, in fp32."""
    return BertForMaskedLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def copy_of(model: BertForMaskedLM) -> BertForMaskedLM:
    """A model of its own, in evaluation mode, with equal weights."""
    copy = BertForMaskedLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    return copy.eval()


def has_bfloat16() -> bool:
    """Whether this processor multiplies bf16 in hardware. Where it does, training takes three quarters of fp32's
    time and scoring two thirds; elsewhere bf16 is no faster."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's `tokenizer.json`, without padding and truncation: the renderer does both."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
