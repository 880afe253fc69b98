"""The same application under Ray Serve: replicas that each hold a model and share the requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST_ONGOING = 1024  # requests that a replica is sent; its own limits refuse with an answer


def serve_replicas(
    make_app: Callable[[], Any], num_replicas: int, gpus: float, host: str, port: int
) -> None:
    """Serve until Ctrl-C, on the cluster at the variable RAY_ADDRESS or else on this machine.

    Args:
        make_app: gives the application; called in each replica.
        gpus: of each replica.

    Raises:
        ValueError: Ray Serve is not installed.
    """
    try:
        import ray
        from ray import serve
    except ImportError:
        raise ValueError("--replicas needs Ray Serve: pip install 'dlmdecode[ray]'") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    serve.start(http_options={"host": host, "port": port})
    replica: Any = serve.deployment(
        serve.ingress(make_app)(),
        name="dlmdecode",
        num_replicas=num_replicas,
        max_ongoing_requests=MOST_ONGOING,
        ray_actor_options={"num_gpus": gpus},
    )
    serve.run(replica.bind(), name="dlmdecode", blocking=True)
