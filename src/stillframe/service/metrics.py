"""What the service counts and measures about itself; no ids are labels, for each would be a time series of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stillframe.domain.operation import Action
from stillframe.store.operations import OperationStore

_DURATIONS: Final = (1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400)
_AGES: Final = (60, 300, 900, 3600, 14400, 43200, 86400)
_REQUESTS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._operations = Counter(
            "stillframe_operations", "Operations that ended.", ["action", "outcome"], registry=registry
        )
        self._durations = Histogram(
            "stillframe_operation_duration_seconds",
            "Time from acceptance to end.",
            ["action"],
            buckets=_DURATIONS,
            registry=registry,
        )
        self._requests = Counter(
            "stillframe_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._request_durations = Histogram(
            "stillframe_http_request_duration_seconds",
            "Time to answer a request.",
            ["method", "route"],
            buckets=_REQUESTS,
            registry=registry,
        )

    def operation_finished(self, action: str, outcome: str, seconds: float) -> None:
        """An operation ended; `outcome` is its final state, `seconds` counts from its acceptance."""
        self._operations.labels(action, outcome).inc()
        self._durations.labels(action).observe(seconds)

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is a template, never a path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_durations.labels(method, route).observe(seconds)

    def watch(
        self, operations: OperationStore, now: Callable[[], datetime], queue_depth: Callable[[], int] | None = None
    ) -> None:
        """Show the open operations of the store, and how many of them wait for a worker; to be called once."""
        self._registry.register(_OpenOperations(operations, now, queue_depth))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _OpenOperations(Collector):
    """Reads the store whenever somebody looks, so that a restart forgets nothing."""

    def __init__(
        self, operations: OperationStore, now: Callable[[], datetime], queue_depth: Callable[[], int] | None
    ) -> None:
        self._operations = operations
        self._now = now
        self._queue_depth = queue_depth

    def collect(self) -> Iterable[Metric]:
        ages: dict[str, list[float]] = defaultdict(list)
        now = self._now()
        for action, accepted_at in self._operations.open_by_action():
            ages[action].append(max(0.0, (now - accepted_at).total_seconds()))
        counts = GaugeMetricFamily("stillframe_open_operations", "Operations not yet ended.", labels=["action"])
        oldest = GaugeMetricFamily(
            "stillframe_oldest_open_operation_age_seconds", "Age of the oldest of them.", labels=["action"]
        )
        spread = GaugeHistogramMetricFamily(
            "stillframe_open_operation_age_seconds", "Ages of them.", labels=["action"]
        )
        for action in Action:
            of_action = ages[action.value]
            counts.add_metric([action.value], len(of_action))
            oldest.add_metric([action.value], max(of_action, default=0.0))
            spread.add_metric([action.value], _buckets(of_action), sum(of_action))
        yield from (counts, oldest, spread)
        if self._queue_depth is not None:
            depth = self._queue_depth()
            yield GaugeMetricFamily("stillframe_queue_depth", "Operations that wait for a worker.", value=depth)


def _buckets(ages: list[float]) -> list[tuple[str, float]]:
    counted = [0] * (len(_AGES) + 1)
    for age in ages:
        counted[bisect_left(_AGES, age)] += 1
    bounds = [*(str(float(bound)) for bound in _AGES), "+Inf"]
    return [(bound, float(sum(counted[: position + 1]))) for position, bound in enumerate(bounds)]
