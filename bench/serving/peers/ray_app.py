"""Ray Serve: @serve.batch of BENCH_BATCH requests within BENCH_WAIT_MS; BENCH_WORKERS replicas."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from graph import BATCH, PORT, WAIT_MS, WORKERS, Graph
from ray import serve


@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.5})
class Classifier:
    def __init__(self):
        self.graph = Graph()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_MS / 1000)
    async def score(self, requests: list[list[str]]) -> list[list[dict]]:
        return self.graph.classify_all(requests)

    async def __call__(self, request):
        return await self.score((await request.json())["texts"])


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    os.environ["PYTHONPATH"] = here  # the replicas' too
    # The object store holds nothing here; its usual size is a share of the machine's memory.
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config={"enable_access_log": False})
    serve.run(Classifier.bind(), route_prefix="/predict", blocking=True)
