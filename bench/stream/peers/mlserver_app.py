"""MLServer's own Kafka server: two inference processes, adaptive batching of at most 32 requests.

python mlserver_app.py BROKERS INPUT OUTPUT; a message is a request of the V2 protocol, with the header `mlserver-model`.
"""

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse

# Behind this folder, which has a module of the same name as one there.
sys.path.append(str(Path(__file__).parents[2] / "serving/peers"))

from graph import LABELS, Graph  # noqa: E402

BATCH, WAIT_SECONDS, WORKERS = 32, 0.01, 2


class Classifier(MLModel):
    async def load(self):
        self.graph = Graph()
        return True

    async def predict(self, payload):
        found = self.graph.probabilities(StringCodec.decode_input(payload.inputs[0]))
        labels = [LABELS[best] for best in found.argmax(axis=1)]
        outputs = [StringCodec.encode_output("label", labels), NumpyCodec.encode_output("distribution", found)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main(brokers, source, target):
    folder = Path(tempfile.mkdtemp(prefix="mlserver-", dir=os.environ.get("BENCH_FOLDER")))
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": WORKERS,
        "kafka_enabled": True,
        "kafka_servers": brokers,
        "kafka_topic_input": source,
        "kafka_topic_output": target,
        "debug": False,
    }
    model = {
        "name": "bench",
        "implementation": "mlserver_app.Classifier",
        "max_batch_size": BATCH,
        "max_batch_time": WAIT_SECONDS,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    command = str(Path(sys.executable).parent / "mlserver")
    os.execv(command, [command, "start", str(folder)])


if __name__ == "__main__":
    main(*sys.argv[1:])
