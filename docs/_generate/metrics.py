"""The metrics, from their registry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry, Metric

from _generate.tables import table
from stillframe.domain.job import JobRecord
from stillframe.service.held_guests import HeldGuests
from stillframe.service.janitor import COPIES_LOST, UNSURE, Janitor
from stillframe.service.metrics import Metrics, Sources

if TYPE_CHECKING:
    from collections.abc import Iterator


def page() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "`GET /metrics` answers in Prometheus' text format; it needs no credentials. A `stillframe worker` does so on"
    yield "the port of `[worker] metrics_bind_port`. Times are in seconds. Counters and histograms count from the start"
    yield "of the process, and a gauge `..._created` beside each says when that was, in seconds of the epoch by the"
    yield "machine's clock; other gauges say what is now. Counters are there from the start, at 0 where nothing has"
    yield "happened yet. What the janitor counts is there once it has gone round. While the database does not answer,"
    yield "what is read from it is absent."
    yield ""
    yield from table(("Name", "Type", "Labels", "Meaning"), sorted(map(_metric, _families())))


def _families() -> list[Metric]:
    class Nothing:
        def open_by_action(self) -> list[tuple[str, datetime]]:
            return []

        def last_failures(self, _after: datetime) -> dict[str, datetime]:
            return {}

    registry, now = CollectorRegistry(), datetime.now(UTC)
    held, nothing, yes = HeldGuests(tuple), lambda: 0, lambda: True
    counts = dict.fromkeys((COPIES_LOST, *UNSURE.values()), 0)
    janitor = JobRecord(Janitor.name, 1, now, counts=counts)
    sources = Sources(
        *(cast("Any", Nothing()), nothing, lambda: now, held, yes, nothing, nothing, yes, nothing, nothing, nothing),
        *(yes, lambda: ([janitor], now)),
    )
    metrics = Metrics(registry, sources)
    metrics.expect_requests("GET", "/", 200)
    metrics.watch_file("policy", yes)
    metrics.expect_job(Janitor.name)
    return list(registry.collect())


def _metric(family: Metric) -> tuple[str, str, str, str]:
    labels = dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le")
    name = f"{family.name}_total" if family.type == "counter" else family.name
    kind = {"gaugehistogram": "gauge histogram"}.get(family.type, family.type)
    return f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels) or "-", family.documentation
