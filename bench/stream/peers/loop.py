"""A plain loop: confluent-kafka, batches, manual commits after the outputs are acknowledged (at least once).

python loop.py BROKERS INPUT OUTPUT GROUP; one process a core, members of one group. Ends on SIGTERM.
"""

import json
import signal
import sys
from pathlib import Path

from confluent_kafka import Consumer, Producer

# Behind this folder, which has a module of the same name as one there.
sys.path.append(str(Path(__file__).parents[2] / "serving/peers"))

from graph import LABELS, Graph  # noqa: E402

BATCH = 512
WAIT_SECONDS = 0.2


def main(brokers, source, target, group):
    graph = Graph()
    producer = Producer({"bootstrap.servers": brokers, "compression.type": "gzip", "linger.ms": 5})
    settings = {"group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": brokers, **settings})
    consumer.subscribe([source])
    running = True

    def stop(*_):
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    while running:
        messages = [one for one in consumer.consume(BATCH, WAIT_SECONDS) if one.error() is None]
        if not messages:
            continue
        records = [json.loads(one.value()) for one in messages]
        found = graph.probabilities([record["text"] for record in records]).tolist()
        for message, record, row in zip(messages, records, found, strict=True):
            best = max(range(len(LABELS)), key=row.__getitem__)
            value = {"id": record["id"], "label": LABELS[best], "confidence": row[best], "distribution": row}
            producer.produce(target, key=message.key(), value=json.dumps(value, ensure_ascii=False))
        if producer.flush() > 0:
            raise SystemExit("outputs were not acknowledged")
        consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
