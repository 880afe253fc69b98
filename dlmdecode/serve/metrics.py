"""What `/metrics` tells, in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dlmdecode.serve.pool import Pool

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self, pool: Pool):
        own = self.registry = CollectorRegistry()
        self.requests = Counter(
            "dlmdecode_requests", "Requests, by path and status", ["path", "status"], registry=own
        )
        self.tokens = Counter(
            "dlmdecode_tokens", "Tokens of prompts and of texts", ["kind"], registry=own
        )
        self.forwards = Counter(
            "dlmdecode_row_forwards", "Forwards that texts took part in", registry=own
        )
        self.left = Counter(
            "dlmdecode_clients_left", "Clients that left before the end", registry=own
        )
        self.seconds = Histogram(
            "dlmdecode_request_seconds", "From request to end", buckets=SECONDS, registry=own
        )
        waiting = Gauge("dlmdecode_waiting", "Texts that wait for a place", registry=own)
        waiting.set_function(pool.num_waiting)
        flight = Gauge("dlmdecode_in_flight", "Texts being decoded", registry=own)
        flight.set_function(pool.num_in_flight)

    def text(self) -> bytes:
        return generate_latest(self.registry)
