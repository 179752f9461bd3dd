"""From measured rates to machines: what 100, 10,000 and 1,000,000 texts a second take. Nothing here is measured; what
it reckons with is, and is read from docs/results. Prices are the caller's.

    python bench/scale/plan.py docs/results [--price-core-hour 0.04] [--price-gb-month 0.10] [--candidates 0.11]

Linear: replicas share nothing but the database and the topics. Where that ends, docs/scale.md says.
"""

import argparse
import json
import math
from pathlib import Path

RATES = (100, 10_000, 1_000_000)
HOURS_A_MONTH = 730
TEXT_BYTES = 150  # 50 Chinese characters
RECORDS_KEPT = 10_000_000  # FEWLOOP_HISTORY_RECORDS, of each input partition
DAYS_KEPT = 30  # FEWLOOP_HISTORY_DAYS
POOL = 200_000  # pool.capacity, of each task
CORES = 2  # of a replica, as measured


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--price-core-hour", type=float, default=0.04)
    parser.add_argument("--price-gb-month", type=float, default=0.10)
    parser.add_argument("--candidates", type=float, default=0.11, help="share of the texts that the pool takes")
    parser.add_argument("--busy", type=float, default=0.7, help="share of the processors that is used")
    args = parser.parse_args()

    lines = (args.results / "serving.jsonl").read_text().splitlines()
    serving = {entry["key"]: entry["value"] for line in lines if line.strip() for entry in [json.loads(line)]}
    single = serving["1 | mixed | 32 connections | fewloop"]["cpuSecondsPer1000"] / 1000
    rounds = json.loads((args.results / "stream-model.json").read_text())["rounds"]
    stream = next(one for one in rounds if one["system"] == "fewloop")
    micros = stream["cpuMicrosecondsPerRecord"]
    worker = (micros["worker"] + micros["hosts"]) / 1e6
    broker = micros["broker"] / 1e6
    database = json.loads((args.results / "scale-database.json").read_text())["measured"]
    history = max((m for m in database if m["rows"] == "history"), key=lambda m: m["writers"])
    candidate = max((m for m in database if m["rows"] == "candidates"), key=lambda m: (m["tasks"], m["writers"]))
    a_text = history["postgresMicros"] / 1e6 + args.candidates * candidate["postgresMicros"] / 1e6

    print(
        f"Processor time of a text: by GraphQL {single * 1e3:.2f} ms, by the stream {worker * 1e3:.2f} ms (worker and "
        f"hosts) and {a_text * 1e6:.0f} µs of PostgreSQL, {args.candidates:.0%} of the texts being candidates. "
        f"Processors {args.busy:.0%} busy. {args.price_core_hour} a core and hour, {args.price_gb_month} a GB and month.\n"
    )
    columns = ["texts/s", *(f"{rate:,}" for rate in RATES)]
    rows: list[list[str]] = []

    def row(name: str, value) -> None:
        rows.append([name, *(value(rate) for rate in RATES)])

    def cores(seconds: float):
        return lambda rate: rate * seconds / args.busy

    def count(of):
        return lambda rate: f"{max(1, math.ceil(of(rate))):,}"

    def replicas(seconds: float):
        return lambda rate: max(2, math.ceil(cores(seconds)(rate) / CORES))

    def partitions(rate: float) -> int:
        """As many as workers, with half as many again to grow."""
        return max(6, math.ceil(1.5 * replicas(worker)(rate)))

    def kept(rate: float) -> float:
        return min(partitions(rate) * RECORDS_KEPT, rate * 86_400 * DAYS_KEPT)

    def gb(size: float) -> str:
        if size < 1e9:
            return f"{size / 1e6:,.0f} MB"
        return f"{size / 1e9:,.0f} GB" if size < 1e13 else f"{size / 1e12:,.0f} TB"

    row("GraphQL: replicas of 2 cores", lambda rate: f"{replicas(single)(rate):,}")
    row("stream: workers of 2 cores", lambda rate: f"{replicas(worker)(rate):,}")
    row("partitions of the input", lambda rate: f"{partitions(rate):,}")
    row("Kafka's brokers: cores", count(cores(broker)))
    row("history: rows/s", lambda rate: f"{rate:,}")
    row("candidates: rows/s", lambda rate: f"{rate * args.candidates:,.0f}")
    row("PostgreSQL: cores", lambda rate: f"{max(0.1, cores(a_text)(rate)):,.1f}")
    row("history that is kept", lambda rate: gb(kept(rate) * history["bytesPerRow"]))
    row("history that 30 days would be", lambda rate: gb(rate * 86_400 * DAYS_KEPT * history["bytesPerRow"]))
    row("texts a day in the input topic, before compression and copies", lambda rate: gb(rate * 86_400 * TEXT_BYTES))
    row("a task's pool, at most", lambda rate: gb(POOL * candidate["bytesPerRow"]))

    def cost(seconds: float):
        return lambda rate: f"{replicas(seconds)(rate) * CORES * HOURS_A_MONTH * args.price_core_hour:,.0f}"

    row("a month: GraphQL's replicas", cost(single))
    row("a month: the stream's workers", cost(worker))

    def database_cost(rate: float) -> str:
        processors = math.ceil(cores(a_text)(rate)) * HOURS_A_MONTH * args.price_core_hour
        return f"{processors + kept(rate) * history['bytesPerRow'] / 1e9 * args.price_gb_month:,.0f}"

    row("a month: PostgreSQL's cores and the history that is kept", database_cost)
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for cells in rows:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
