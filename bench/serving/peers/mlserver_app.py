"""MLServer: adaptive batching of BENCH_BATCH texts within BENCH_WAIT_MS; BENCH_WORKERS inference processes."""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from graph import BATCH, PORT, WAIT_MS, WORKERS, Graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Classifier(MLModel):
    async def load(self):
        self.graph = Graph()
        return True

    async def predict(self, payload):
        texts = StringCodec.decode_input(payload.inputs[0])
        # In a thread: the loop takes the next requests meanwhile.
        found = await asyncio.to_thread(self.graph.probabilities, texts)
        output = NumpyCodec.encode_output("probabilities", found)
        return InferenceResponse(model_name=self.name, outputs=[output])


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
    settings = {
        "host": "127.0.0.1",
        "http_port": PORT,
        "grpc_port": PORT + 1,
        "metrics_port": PORT + 2,
        "parallel_workers": WORKERS,
        "debug": False,
        "logging_settings": {"version": 1, "disable_existing_loggers": True},
    }
    model = {
        "name": "bench",
        "implementation": "mlserver_app.Classifier",
        "max_batch_size": BATCH,
        "max_batch_time": WAIT_MS / 1000,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    command = str(Path(sys.executable).parent / "mlserver")
    os.execv(command, [command, "start", str(folder)])
