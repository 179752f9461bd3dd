"""The serving path as queues, on two processors, held against what was measured; then one replica at rising rates.

    python bench/scale/simulate.py docs/results/serving.jsonl [--seconds 60] [--seed 1]

    client ──▶ Node: parse, tokenize ──▶ pending rows ──▶ two model hosts of one thread ──▶ Node: answer ──▶ client
               one thread                batches by takeBatch of src/inference/batch.ts, one ahead at each host

All of them want the same processors, which go round in slices of a millisecond. What the simulation is given: how long
a batch takes (fitted to the limit's sweep, onnxruntime alone, at the speed that the limit had beside the loads), the
processor time of a request and of a text in Node and in the client (from processor seconds at 32 connections and at 64
texts a request), the lengths of the texts. What it is not given: any latency, and any throughput of the service.
"""

import argparse
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simpy

CORES = 2
HOSTS = 2
SLICE_MS = 1.0
BATCH_TOKENS = 512  # measured by the service on this machine (registry/batch-budget.ts)
PADDING_SHARE = 1 / 32
# Tokens of the mixed texts with the template, by twentieths: the sweep's 2,000 rows.
LENGTHS = [13, 20, 23, 25, 27, 29, 31, 32, 35, 36, 38, 40, 44, 49, 56, 65, 80, 101, 128, 128, 128]


@dataclass(frozen=True)
class Costs:
    """Processor milliseconds."""

    batch: float
    token: float
    request: float
    text: float
    client: float


@dataclass
class Row:
    length: int
    since: float
    done: simpy.Event


@dataclass
class Result:
    latencies: list[float] = field(default_factory=list)
    texts: int = 0
    batches: list[int] = field(default_factory=list)


def measured(file: Path) -> dict[str, dict]:
    entries = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    return {entry["key"]: entry["value"] for entry in entries}


def fit_costs(found: dict[str, dict]) -> Costs:
    """A batch's own time and a token's from the sweep; a text's and the client's from processor seconds."""
    mean = float(np.mean(np.interp(np.linspace(0, 1, 2001), np.linspace(0, 1, len(LENGTHS)), LENGTHS)))
    sizes = np.array([1, 4, 8, 16])
    rates = np.array([found[f"sweep | limit (Node) | 2×1 | {size}"]["textsPerSecond"] for size in sizes])
    # A shared machine is not as fast in the sweep's minutes as in those of the loads: the limit was measured in both.
    rates *= found["1 | mixed | 64 texts a request | limit (Node)"]["textsPerSecond"] / rates.max()
    per_text = HOSTS * 1000 / rates
    design = np.column_stack([1 / sizes, np.full(len(sizes), mean)]) / per_text[:, None]
    (batch, token), *_ = np.linalg.lstsq(design, np.ones(len(sizes)), rcond=None)
    many = found["1 | mixed | 64 texts a request | fewloop"]
    text = many["cpuSecondsPer1000"] - (batch * mean / BATCH_TOKENS + token * mean)
    one = found["1 | mixed | 32 connections | fewloop"]
    client = CORES * 1000 / one["textsPerSecond"] - one["cpuSecondsPer1000"]
    # Of single texts batches are smaller; how much, the simulation says itself (`calibrate`).
    return Costs(batch, token, 0.0, max(text, 0.0), max(client, 0.0))


def take_batch(pending: list[Row]) -> list[Row]:
    """As the service: around the oldest row, of like length, within the budget."""
    peers = sorted(pending, key=lambda row: row.length)
    oldest = min(pending, key=lambda row: row.since)
    start = peers.index(oldest)
    end = start + 1
    while True:
        longest = peers[end - 1].length
        rows = end - start + 1
        longer = peers[end] if end < len(peers) else None
        shorter = peers[start - 1] if start > 0 else None
        takes_longer = (
            longer is not None
            and rows * longer.length <= BATCH_TOKENS
            and (rows - 1) * (longer.length - longest) <= BATCH_TOKENS * PADDING_SHARE
        )
        takes_shorter = (
            shorter is not None
            and rows * longest <= BATCH_TOKENS
            and longest - shorter.length <= BATCH_TOKENS * PADDING_SHARE
        )
        prefers_longer = longer is not None and (shorter is None or longer.length - longest < longest - shorter.length)
        if takes_longer and (prefers_longer or not takes_shorter):
            end += 1
        elif takes_shorter:
            start -= 1
        else:
            break
    batch = peers[start:end]
    for row in batch:
        pending.remove(row)
    return batch


class Replica:
    def __init__(self, env: simpy.Environment, costs: Costs, seed: int) -> None:
        self.env = env
        self.costs = costs
        self.random = np.random.default_rng(seed)
        self.cores = simpy.Resource(env, CORES)
        self.node = simpy.Resource(env, 1)
        self.client = simpy.Resource(env, 1)
        self.pending: list[Row] = []
        self.waiting: list[simpy.Event] = []
        self.result = Result()
        self.used_ms = 0.0
        for _ in range(HOSTS):
            env.process(self.host())

    def compute(self, ms: float) -> Generator:
        while ms > 0:
            part = min(SLICE_MS, ms)
            with self.cores.request() as core:
                yield core
                yield self.env.timeout(part)
            self.used_ms += part
            ms -= part

    def on(self, thread: simpy.Resource, ms: float) -> Generator:
        with thread.request() as turn:
            yield turn
            yield from self.compute(ms)

    def host(self) -> Generator:
        """The next batch lies there when one is done: it is chosen when the one before begins."""
        ahead: list[Row] = []
        while True:
            while not ahead and not self.pending:
                wake = self.env.event()
                self.waiting.append(wake)
                yield wake
            batch = ahead or take_batch(self.pending)
            ahead = take_batch(self.pending) if self.pending else []
            self.result.batches.append(len(batch))
            tokens = len(batch) * max(row.length for row in batch)
            yield from self.compute(self.costs.batch + self.costs.token * tokens)
            for row in batch:
                row.done.succeed()

    def request(self, texts: int, since: float) -> Generator:
        """From when it was due, to its answer."""
        costs = self.costs
        yield from self.on(self.client, costs.client / 2)
        yield from self.on(self.node, (costs.request + costs.text * texts) / 2)
        lengths = np.interp(self.random.random(texts), np.linspace(0, 1, len(LENGTHS)), LENGTHS)
        rows = [Row(round(length), self.env.now, self.env.event()) for length in lengths]
        self.pending.extend(rows)
        for wake in self.waiting:
            wake.succeed()
        self.waiting.clear()
        yield simpy.AllOf(self.env, [row.done for row in rows])
        yield from self.on(self.node, (costs.request + costs.text * texts) / 2)
        yield from self.on(self.client, costs.client / 2)
        self.result.latencies.append(self.env.now - since)
        self.result.texts += texts

    def connection(self, texts: int) -> Generator:
        while True:
            yield from self.request(texts, self.env.now)

    def arrivals(self, rate: float) -> Generator:
        while True:
            yield self.env.timeout(self.random.exponential(1000 / rate))
            self.env.process(self.request(1, self.env.now))


@dataclass(frozen=True)
class Load:
    connections: int = 0
    texts: int = 1
    rate: float = 0


def run(costs: Costs, load: Load, seconds: float, seed: int) -> dict[str, float]:
    env = simpy.Environment()
    replica = Replica(env, costs, seed)
    if load.rate:
        env.process(replica.arrivals(load.rate))
    for _ in range(load.connections):
        env.process(replica.connection(load.texts))
    warm_ms = 5_000
    env.run(warm_ms)
    replica.result, replica.used_ms = Result(), 0.0
    env.run(warm_ms + seconds * 1000)
    found = replica.result
    return {
        "textsPerSecond": found.texts / seconds,
        "p50Ms": float(np.quantile(found.latencies, 0.5)),
        "p99Ms": float(np.quantile(found.latencies, 0.99)),
        "rowsPerBatch": float(np.mean(found.batches)),
        "busy": replica.used_ms / (CORES * seconds * 1000),
        "cpuSecondsPer1000": replica.used_ms / found.texts - costs.client / load.texts,
    }


def calibrate(costs: Costs, target: float, seconds: float, seed: int) -> Costs:
    """A request's own processor time, such that 32 connections take as much of it a text as they did."""
    low, high = 0.0, 5.0
    for _ in range(12):
        middle = (low + high) / 2
        tried = Costs(costs.batch, costs.token, middle, costs.text, costs.client)
        if run(tried, Load(connections=32), seconds, seed)["cpuSecondsPer1000"] < target:
            low = middle
        else:
            high = middle
    return Costs(costs.batch, costs.token, (low + high) / 2, costs.text, costs.client)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    found = measured(args.results)
    costs = fit_costs(found)
    target = found["1 | mixed | 32 connections | fewloop"]["cpuSecondsPer1000"]
    costs = calibrate(costs, target, args.seconds / 4, args.seed)
    print(
        f"A batch {costs.batch:.1f} ms and {costs.token:.3f} ms a padded token; Node {costs.request:.2f} ms a request "
        f"and {costs.text:.2f} ms a text; the client {costs.client:.2f} ms a request.\n"
    )
    columns = ["texts/s", "p50 ms", "p99 ms"]
    print(f"| load | {' | '.join(f'{name} measured | simulated' for name in columns)} | rows a batch |")
    print("|---" * (2 * len(columns) + 2) + "|")
    loads = [("8 connections", Load(8)), ("32 connections", Load(32)), ("64 texts a request", Load(4, 64))]
    for name, load in loads:
        real = found[f"1 | mixed | {name} | fewloop"]
        made = run(costs, load, args.seconds, args.seed)
        pairs = " | ".join(f"{real[key]:.0f} | {made[key]:.0f}" for key in ("textsPerSecond", "p50Ms", "p99Ms"))
        print(f"| {name} | {pairs} | {made['rowsPerBatch']:.1f} |")
    print("\n| arrivals/s (Poisson, the client elsewhere) | p50 ms | p99 ms | processors busy | rows a batch |")
    print("|---|---|---|---|---|")
    alone = Costs(costs.batch, costs.token, costs.request, costs.text, 0.0)
    most = found["1 | mixed | 32 connections | fewloop"]["textsPerSecond"]
    for rate in (round(most * tenths / 10) for tenths in range(2, 11)):
        made = run(alone, Load(rate=rate), args.seconds, args.seed)
        cells = f"{made['p50Ms']:.0f} | {made['p99Ms']:.0f} | {made['busy']:.0%} | {made['rowsPerBatch']:.1f}"
        print(f"| {rate} | {cells} |")


if __name__ == "__main__":
    main()
