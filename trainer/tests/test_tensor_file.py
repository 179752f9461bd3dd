import pickle

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from fewloop_trainer.tensor_file import read_tensors, write_tensors


def test_comes_back_as_it_was(tmp_path):
    weight = torch.randn(3, 4)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(weight).sum().backward()
    optimizer.step()
    rng = np.random.default_rng(5)
    state = {
        "step": 7,
        "weights": [weight, weight.T, torch.zeros(0), torch.tensor(1.5, dtype=torch.float16)],
        "pair": (1, None, 0.1),
        "optimizer": optimizer.state_dict(),
        "torch": torch.get_rng_state(),
        "numpy": rng.bit_generator.state,
    }
    write_tensors(tmp_path / "a.safetensors", state)
    found = read_tensors(tmp_path / "a.safetensors")
    assert found["step"] == 7 and found["pair"] == (1, None, 0.1) and found["numpy"] == state["numpy"]
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found["weights"], state["weights"], strict=True)
    )
    assert torch.equal(found["torch"], state["torch"])
    again = torch.optim.AdamW(torch.nn.Linear(4, 3).parameters())
    again.load_state_dict(found["optimizer"])
    assert again.param_groups[0]["lr"] == 0.1 and again.state_dict()["state"][0]["step"] == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "a.safetensors"]


def test_keeps_what_is_shared_once(tmp_path):
    tied = torch.randn(1000)
    write_tensors(tmp_path / "a.safetensors", {"one": tied, "other": tied.view(1000)})
    assert (tmp_path / "a.safetensors").stat().st_size < 2 * 4000
    found = read_tensors(tmp_path / "a.safetensors")
    assert torch.equal(found["one"], tied) and torch.equal(found["other"], tied)


def test_runs_nothing_of_a_pickle(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for content in (pickle.dumps(Attack()), b""):
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(SafetensorError):
            read_tensors(tmp_path / "a.safetensors")
    assert not (tmp_path / "ran").exists()
