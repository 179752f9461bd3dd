"""Settings of adaptive pre-training, apart from it: the command line shows them without importing PyTorch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptSettings:
    """Token counts are of packed input tokens; rates are peaks of a linear warm-up and decay."""

    head_tokens: int = 0
    tokens: int = 1_000_000
    head_rate: float = 1e-3
    encoder_rate: float = 3e-4
    mask_rate: float = 0.15
    chunk_tokens: int = 128
    batch_chunks: int = 32
    warmup: float = 0.05
    seed: int = 0
    evaluate_every_tokens: int = 250_000
    checkpoint_every_seconds: float = 300.0
