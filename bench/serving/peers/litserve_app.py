"""LitServe: requests wait BENCH_WAIT_MS for a batch of BENCH_BATCH; BENCH_WORKERS processes score."""

import litserve
from graph import BATCH, PORT, WAIT_MS, WORKERS, Graph


class Api(litserve.LitAPI):
    def setup(self, device):
        self.graph = Graph()

    def decode_request(self, request):
        return request["texts"]

    def batch(self, requests):
        return requests

    def predict(self, requests):
        return self.graph.classify_all(requests)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS, timeout=60)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
