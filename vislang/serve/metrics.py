"""What ``/metrics`` reports, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from vislang.serve.engine import Engine
from vislang.serve.reader import Reader

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counts of requests, tokens and times.

    Args:
        engine: whose queue is reported.
        readers: whose kept examples are reported.
    """

    def __init__(self, engine: Engine, readers: Sequence[Reader] = ()):
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "vislang_requests", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "vislang_request_seconds", "Time of a request", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self.first_token = Histogram(
            "vislang_first_token_seconds", "Time to the first token", buckets=_SECONDS, registry=self._registry
        )
        self.tokens = Counter("vislang_tokens", "Tokens by kind", ["kind"], registry=self._registry)
        waiting = Gauge("vislang_waiting_requests", "Requests that wait for the models", registry=self._registry)
        waiting.set_function(lambda: engine.waiting)
        running = Gauge("vislang_running_requests", "Requests that are being answered", registry=self._registry)
        running.set_function(lambda: engine.running)
        kept = Gauge("vislang_prefix_bytes", "Bytes of examples that are kept", registry=self._registry)
        kept.set_function(lambda: sum(reader.prefixes.nbytes for reader in readers))
        hits = Gauge("vislang_prefix_hits", "Prompts whose examples were kept", registry=self._registry)
        hits.set_function(lambda: sum(reader.prefixes.hits for reader in readers))
        misses = Gauge("vislang_prefix_misses", "Prompts with examples that were not kept", registry=self._registry)
        misses.set_function(lambda: sum(reader.prefixes.misses for reader in readers))

    def text(self) -> bytes:
        """The report."""
        return generate_latest(self._registry)
