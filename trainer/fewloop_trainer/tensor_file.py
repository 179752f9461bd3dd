"""A nested state with tensors in it, as one safetensors file: what is loaded is data alone, never code.

Tensors stand in the file by number, and once where several places share one (tied weights); the rest, which says where
each belongs, is JSON in the file's metadata.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def write_tensors(path: Path, state: object) -> None:
    """`state`: dicts (any JSON scalars as keys), lists, tuples, tensors and JSON scalars. Whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    shape = json.dumps(_packed(state, tensors, {}))
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={"state": shape})
    partial.replace(path)


def read_tensors(path: Path) -> object:
    """The state, on the CPU. Raises SafetensorError or ValueError for a file of another kind."""
    with safe_open(path, framework="pt") as file:
        shape = (file.metadata() or {}).get("state")
        if shape is None:
            raise ValueError(f"{path} holds no state")
        return _unpacked(json.loads(shape), file)


def _packed(value: object, tensors: dict[str, torch.Tensor], known: dict[tuple, str]) -> list:
    if isinstance(value, torch.Tensor):
        value = value.detach()
        same = (
            (value.data_ptr(), value.dtype, tuple(value.shape), value.stride()) if value.numel() > 0 else (id(value),)
        )
        if same not in known:
            known[same] = str(len(tensors))
            # What shares memory with another tensor, or has gaps, needs memory of its own.
            tensors[known[same]] = value.contiguous().clone()
        return ["tensor", known[same]]
    if isinstance(value, dict):
        return ["dict", [[key, _packed(one, tensors, known)] for key, one in value.items()]]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_packed(one, tensors, known) for one in value]]
    return ["value", value]


def _unpacked(packed: list, file) -> object:
    kind, value = packed
    if kind == "tensor":
        return file.get_tensor(value)
    if kind == "dict":
        return {key: _unpacked(one, file) for key, one in value}
    if kind in ("list", "tuple"):
        found = [_unpacked(one, file) for one in value]
        return found if kind == "list" else tuple(found)
    return value
