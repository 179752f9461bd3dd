"""A trained bundle's graphs in each precision, onnxruntime alone: texts a second and agreement with fp32.

    python bench/serving/precision.py BUNDLE online_shopping_10_cats.csv [--texts 5000] [--others 1000] [--ensemble]

By the trainer's Python. Every batch is given to all graphs by turns, so that what else the machine does hits all alike:
read the ratios. Batches have 8 texts of like length, as is best on a CPU. The texts are drawn at random, no label is
used; int8 is calibrated on 128 other ones. First the student in fp32 and int8, then its other graphs on `--others` texts, then, where asked
for, the ensemble of all teachers.
"""

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

sys.path.insert(0, str(Path(__file__).parents[2] / "trainer"))

from fewloop_trainer import pet
from fewloop_trainer.admission import agreement
from fewloop_trainer.bundle import session_options
from fewloop_trainer.encoder import load_tokenizer
from fewloop_trainer.export import PET_INPUTS
from fewloop_trainer.precision import Recorder, fuse, load_plain, to_half, to_int8
from fewloop_trainer.render import Renderer
from fewloop_trainer.scores import combine_members, distribution_of
from fewloop_trainer.task import load_task

ROWS = 8
CALIBRATION = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--others", type=int, default=1000)
    parser.add_argument("--ensemble", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", type=Path, default=Path(__file__).parents[2] / "models/base-zh")
    options = parser.parse_args()
    manifest = json.loads((options.bundle / "manifest.json").read_text())
    bench = Bench(options, manifest)
    print(f"onnxruntime {onnxruntime.__version__}, {options.threads} thread(s)\n", flush=True)
    student = next(m for m in manifest["members"] if m["role"] == "student")
    rows, probabilities = bench.ask(student, ("fp32", "int8"))
    lengths = [len(row.ids) for row in rows]
    print(f"student, {len(rows)} texts of {np.mean(lengths):.0f} tokens on average, {max(lengths)} at most\n")
    bench.table(probabilities)
    if options.ensemble:
        bench.seconds = {}
        teachers = [m for m in manifest["members"] if m["role"] == "teacher"]
        said = [bench.ask(m, ("fp32", "int8"))[1] for m in teachers]
        weights = [m["weight"] for m in teachers]
        print(f"\nensemble of {len(teachers)}, the same texts\n")
        bench.table({p: combine_members(np.stack([s[p] for s in said]), weights) for p in ("fp32", "int8")})
    bench.seconds, bench.texts = {}, bench.texts[: options.others]
    print(f"\nstudent, {len(bench.texts)} of the texts\n")
    bench.table(bench.ask(student, ("fp32", "fp32 fused", "int8", "int8, onnxruntime's own", "fp16 fused"))[1])


class Bench:
    def __init__(self, options: argparse.Namespace, manifest: dict):
        self.options, self.manifest = options, manifest
        self.task = load_task(manifest["definition"])
        self.renderer = Renderer(load_tokenizer(options.bundle), self.task)
        self.config = json.loads((options.base / "config.json").read_text())
        with options.data.open(encoding="utf-8-sig") as file:
            texts = list(dict.fromkeys(row["review"].strip() for row in csv.DictReader(file)))
        random.Random(0).shuffle(texts)
        texts = [text for text in texts if len(text) >= 4][: options.texts + CALIBRATION]
        self.texts, self.calibration = texts[: options.texts], texts[options.texts :]
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}

    def ask(self, member: dict, variants: tuple[str, ...]) -> tuple[list, dict[str, np.ndarray]]:
        """The member's rows, and its probabilities [N, C] by each variant of its graph."""
        graph = next(g for g in self.manifest["graphs"] if g["id"] == member["graph"])
        sessions = self._sessions(self.options.bundle / graph["file"], member, variants)
        rows = pet.encode(self.task, self.renderer, member["template"], [{"text": t} for t in self.texts])
        labels = self.task.label_names
        scores = {variant: np.zeros((len(rows), len(labels))) for variant in variants}
        batches = list(self._batches(rows))
        random.Random(1).shuffle(batches)
        for number, (index, feeds, word_labels) in enumerate(batches):
            turn = number % len(variants)
            for variant in (*variants[turn:], *variants[:turn]):
                started = time.perf_counter()
                (words,) = sessions[variant].run(["word_logits"], feeds)
                self.seconds[variant] = self.seconds.get(variant, 0.0) + time.perf_counter() - started
                scores[variant][index] = pet.label_logits(pet.torch.from_numpy(words), word_labels, len(labels)).numpy()
        offsets = np.array([member["offsets"].get(name, 0.0) for name in labels])
        return rows, {variant: distribution_of(found, offsets) for variant, found in scores.items()}

    def _batches(self, rows: list):
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
        for start in range(0, len(order), ROWS):
            index = order[start : start + ROWS]
            batch = pet.collate([rows[i] for i in index])
            yield index, {n: v.numpy() for n, v in zip(PET_INPUTS, batch.inputs, strict=True)}, batch.word_labels

    def _sessions(self, graph: Path, member: dict, variants: tuple[str, ...]) -> dict:
        options, shape = session_options(self.options.threads), self.config
        sizes = shape["num_hidden_layers"], shape["num_attention_heads"], shape["hidden_size"]
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.onnx"
            onnx.save(load_plain(graph), plain)
            own = Path(folder) / "own.onnx"

            def written(variant: str) -> bytes:
                if variant == "fp32":
                    return graph.read_bytes()
                if variant == "int8":
                    recorder = Recorder(load_plain(graph), options)
                    texts = [{"text": text} for text in self.calibration]
                    rows = pet.encode(self.task, self.renderer, member["template"], texts)
                    for _, feeds, _ in self._batches(rows):
                        recorder.run(["word_logits"], feeds)
                    return to_int8(load_plain(graph), recorder.largest).SerializeToString()
                if variant == "int8, onnxruntime's own":
                    quantize_dynamic(
                        plain, own, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
                    )
                    return own.read_bytes()
                fused = fuse(load_plain(graph), *sizes)[0]
                return (to_half(fused) if variant == "fp16 fused" else fused).SerializeToString()

            sessions = {}
            for variant in variants:
                content = written(variant)
                self.bytes[variant] = len(content)
                sessions[variant] = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return sessions

    def table(self, probabilities: dict[str, np.ndarray]) -> None:
        names = self.task.label_names
        print("| graph | MB | texts/s | of fp32 | agrees | " + " | ".join(names) + " | mean difference | largest |")
        print("|---|---|---|---|---|" + "---|" * (len(names) + 2))
        for variant, found in probabilities.items():
            same = agreement(probabilities["fp32"], found, names, None)
            rate = len(self.texts) / self.seconds[variant]
            faster = self.seconds["fp32"] / self.seconds[variant]
            of_labels = " | ".join(f"{same['labels'][n]['share']:.2%} of {same['labels'][n]['texts']}" for n in names)
            largest = np.abs(found - probabilities["fp32"]).max()
            print(
                f"| {variant} | {self.bytes[variant] / 1e6:.0f} | {rate:.0f} | {faster:.2f} | {same['share']:.2%} "
                f"| {of_labels} | {same['probability']:.4f} | {largest:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
