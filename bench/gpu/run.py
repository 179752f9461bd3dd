"""The service's model host beside ONNX Runtime's Python binding with its options and PyTorch with SDPA, on one device:
BERT-shaped models with random weights, every batch of one length. One run, by turns: its ratios count (README.md here).

    python bench/gpu/run.py [--device cuda:0] [--models base,large] [--batches 1,8,32,128] [--length 128] [--layers N]

By the trainer's Python, after a build. Refuses a device that any of the three cannot compute on. Prints a table.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from transformers import BertConfig, BertForMaskedLM

sys.path.insert(0, str(Path(__file__).parents[2] / "trainer"))

from fewloop_trainer.export import PET_INPUTS, PetGraph, export_pet, round_to_half
from fewloop_trainer.precision import fuse, load_plain, to_half

ROOT = Path(__file__).parents[2]
# Layers, hidden size, heads.
SHAPES = {"base": (12, 768, 12), "large": (24, 1024, 16)}
VOCABULARY = 21_128
WORDS = 3
TURNS = 3
# By which share of the largest of them logits may differ between two that compute the same.
SAME = {"fp32": 1e-3, "fp16": 5e-2}


def refuse(reason):
    sys.exit(f"refused: {reason}")


def refuse_absent(device):
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        refuse(f"{device} is asked for, and PyTorch finds no GPU")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        refuse(f"{device} is asked for, and this Python's onnxruntime has no CUDA provider: install onnxruntime-gpu")


def feeds_of(rows, length):
    """What test/fixtures/graph-batch.ts makes, for the host."""

    def ids(count, step):
        return 110 + (np.arange(count, dtype=np.int64) * step) % 500

    return {
        "input_ids": ids(rows * length, 7).reshape(rows, length),
        "attention_mask": np.ones((rows, length), dtype=np.int64),
        "token_type_ids": np.zeros((rows, length), dtype=np.int64),
        "mask_positions": np.ones((rows, 1), dtype=np.int64),
        "label_tokens": ids(rows * WORDS, 13).reshape(rows, WORDS, 1),
    }


def make_model(name, layers, precision, folder):
    """The graph that a bundle of this precision would have, and the same model in PyTorch."""
    own_layers, hidden, heads = SHAPES[name]
    layers = layers or own_layers
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    model = BertForMaskedLM(config).eval()
    round_to_half(model)
    path = folder / f"{name}.onnx"
    export_pet(model, path)
    if precision == "fp16":
        onnx.save(to_half(fuse(load_plain(path), layers, heads, hidden)[0]), path)
    return path, model


class Host:
    """`in_flight` batches are with it at a time: the service gives a host its next while it computes."""

    def __init__(self, path, device, threads):
        program = [ROOT / "node_modules/.bin/node", ROOT / "bench/gpu/host.ts"]
        command = [str(part) for part in (*program, path, device, threads)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self):
        answer = json.loads(self.child.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            refuse(f"the service's host: {answer['error']}")
        return answer

    def measure(self, rows, length, seconds, in_flight):
        ask = {"rows": rows, "length": length, "seconds": seconds, "inFlight": in_flight}
        self.child.stdin.write(json.dumps(ask) + "\n")
        self.child.stdin.flush()
        answer = self._answer()
        return answer["ms"], np.array(answer["logits"]).reshape(rows, WORDS)

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def timed(run, seconds):
    """Milliseconds a run, and what the first one, which prepares the shape, returned."""
    logits = run()
    began, runs = time.perf_counter(), 0
    while runs == 0 or time.perf_counter() - began < seconds:
        run()
        runs += 1
    return 1000 * (time.perf_counter() - began) / runs, logits


def session_of(path, device, threads, memory_limit=None, graph=False):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    if device == "cpu":
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # As the service's hosts (src/runtime/host-environment.ts), and as PyTorch by default: fp32 is not TF32.
    own = {"device_id": int(device.split(":")[1]), "use_tf32": "0"}
    if memory_limit:
        own |= {"gpu_mem_limit": memory_limit, "arena_extend_strategy": "kSameAsRequested"}
    if graph:
        own["enable_cuda_graph"] = "1"
    session = ort.InferenceSession(str(path), options, providers=[("CUDAExecutionProvider", own)])
    if "CUDAExecutionProvider" not in session.get_providers():
        refuse(f"{device} is asked for, and this Python's onnxruntime fell back to {session.get_providers()}")
    return session


def plain(session, feeds):
    """As onnxruntime-node does it: from memory of the process to memory of the process."""
    return lambda: session.run(["word_logits"], feeds)[0]


def bound(session, feeds, device, hidden):
    """Inputs and outputs have their place on the device; ids are copied there and logits back, as a server would."""
    kind, number = ("cpu", 0) if device == "cpu" else ("cuda", int(device.split(":")[1]))
    rows = len(feeds["input_ids"])
    places = {name: ort.OrtValue.ortvalue_from_numpy(value, kind, number) for name, value in feeds.items()}
    sizes = {"word_logits": (rows, WORDS), "pooled_embedding": (rows, hidden)}
    outputs = {n: ort.OrtValue.ortvalue_from_shape_and_type(s, np.float32, kind, number) for n, s in sizes.items()}
    binding = session.io_binding()
    for name, value in places.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)

    def run():
        for name, value in feeds.items():
            places[name].update_inplace(value)
        session.run_with_iobinding(binding)
        return outputs["word_logits"].numpy().copy()

    return run


def sdpa(model, feeds, device):
    def run():
        inputs = [torch.from_numpy(feeds[name]).to(device, non_blocking=True) for name in PET_INPUTS]
        with torch.inference_mode():
            return model(*inputs)[0].float().cpu().numpy()

    return run


def contestants(path, model, feeds, args, host):
    """Name → seconds → (milliseconds a batch, logits)."""
    rows, length = feeds["input_ids"].shape
    hidden = model.decoder.weight.shape[1]
    limit = args.memory_limit_mb * 2**20
    found = {
        "host": lambda s: host.measure(rows, length, s, 2),
        "host, one at a time": lambda s: host.measure(rows, length, s, 1),
    }

    def add(name, run):
        found[name] = lambda seconds: timed(run, seconds)

    add("Python", plain(session_of(path, args.device, args.threads), feeds))
    limited = session_of(path, args.device, args.threads, limit)
    add("Python, bound", bound(limited, feeds, args.device, hidden))
    if args.device != "cpu":
        try:
            run = bound(session_of(path, args.device, args.threads, limit, graph=True), feeds, args.device, hidden)
            run()
            add("Python, bound, graph", run)
        except Exception as error:  # a graph that cannot be captured is a result too
            print(f"CUDA graph of {path.stem}, batch {rows}: {str(error).splitlines()[0]}", file=sys.stderr)
    add("PyTorch, SDPA", sdpa(model, feeds, args.device))
    return found


def measure(name, args, folder):
    path, trained = make_model(name, args.layers, args.precision, folder)
    trained.set_attn_implementation("sdpa")
    model = PetGraph(trained).eval().to(args.device, torch.float16 if args.precision == "fp16" else torch.float32)
    host = Host(path, args.device, args.threads)
    try:
        for rows in args.batches:
            asked = contestants(path, model, feeds_of(rows, args.length), args, host)
            times = {each: [] for each in asked}
            logits = {}
            for turn in range(TURNS):
                order = list(asked)[turn:] + list(asked)[:turn]
                for each in order:
                    ms, logits[each] = asked[each](args.seconds)
                    times[each].append(ms)
            ms = {each: statistics.median(all_turns) for each, all_turns in times.items()}
            expected = logits["PyTorch, SDPA"]
            off = max(np.abs(said - expected).max() for said in logits.values()) / np.abs(expected).max()
            if not off < SAME[args.precision]:
                refuse(f"BERT-{name}, batch {rows}: they do not compute the same, logits differ by {off:.1%}")
            yield rows, ms, off
    finally:
        host.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--models", default="base,large")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, help="fewer than the models have, to try the bench itself")
    parser.add_argument("--precision", choices=("fp16", "fp32"), help="default: fp16 on a GPU, fp32 on a CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contestant, batch and turn")
    parser.add_argument("--memory-limit-mb", type=int, default=16_384)
    args = parser.parse_args()
    args.batches = [int(rows) for rows in args.batches.split(",")]
    args.precision = args.precision or ("fp32" if args.device == "cpu" else "fp16")
    refuse_absent(args.device)
    torch.set_num_threads(args.threads)
    device = "CPU" if args.device == "cpu" else torch.cuda.get_device_name(args.device)
    node = json.loads((ROOT / "node_modules/onnxruntime-node/package.json").read_text())["version"]
    versions = f"onnxruntime-node {node}, onnxruntime {ort.__version__} in Python, torch {torch.__version__}"
    print(f"{device}, {args.precision}, sequence {args.length}; {versions}; ms a batch, median of {TURNS} turns\n")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models.split(","):
            table(name, args, Path(folder))


def table(name, args, folder):
    for i, (rows, ms, off) in enumerate(measure(name, args, folder)):
        if i == 0:
            print(f"BERT-{name}, {args.layers or SHAPES[name][0]} layers\n")
            print(
                f"| batch | {' | '.join(ms)} | texts/s of the host | best of Python ÷ host | PyTorch ÷ host | logits |"
            )
            print("|---" * (len(ms) + 5) + "|")
        host = ms["host"]
        best = min(value for each, value in ms.items() if each.startswith("Python"))
        figures = [f"{value:.2f}" for value in ms.values()]
        figures += [
            f"{1000 * rows / host:.0f}",
            f"{best / host:.2f}",
            f"{ms['PyTorch, SDPA'] / host:.2f}",
            f"{off:.0e}",
        ]
        print(f"| {rows} | {' | '.join(figures)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
