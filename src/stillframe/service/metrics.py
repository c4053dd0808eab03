"""What the service counts and measures about itself; no ids are labels, for each would be a time series of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stillframe.domain.arguments import Action
from stillframe.domain.errors import StillframeError
from stillframe.domain.leftover import LeftoverKind
from stillframe.domain.operation import Operation, OperationState
from stillframe.service.background import RunOutcome
from stillframe.service.janitor import COPIES_LOST, UNSURE, Janitor
from stillframe.service.leftovers import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from stillframe.domain.job import JobRecord
    from stillframe.service.held_guests import HeldGuests
    from stillframe.store.operations import OperationStore

_DURATIONS: Final = (1, 5, 15, 60, 300, 900, 3600, 14400, 43200, 86400)
_AGES: Final = (60, 300, 900, 3600, 14400, 43200, 86400)
# What has failed lately: the rule for its alert looks no further back.
_LATELY: Final = timedelta(hours=1)
_REQUESTS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


@dataclass(frozen=True, slots=True)
class Sources:
    """What the gauges are read from whenever somebody looks.

    `queued`: how many operations wait for a worker. `ready`: whether the database answers. `workers`: how many workers
    are alive, here and elsewhere. `hung`: how many calls hang here. `board`: whether the job board answers. `fenced`:
    how many instances wait behind a fence for somebody to act. `ahead`: by how many seconds this machine's clock is
    ahead of the database's. `room`: the free part of the state folder. `older`:
    whether the database is an older state of itself, or another one than before. `jobs`: those on record, and when that
    was.
    """

    operations: OperationStore
    queued: Callable[[], int]
    now: Callable[[], datetime]
    held: HeldGuests
    ready: Callable[[], bool]
    workers: Callable[[], int]
    hung: Callable[[], int]
    board: Callable[[], bool]
    fenced: Callable[[], int]
    ahead: Callable[[], float]
    room: Callable[[], float]
    older: Callable[[], bool]
    jobs: Callable[[], tuple[Sequence[JobRecord], datetime]]


class Metrics:
    """The metrics of one service, in a registry of its own.

    What counts is there from the start: a series that began with its first event would show no increase at that. What
    nobody knows yet is absent: a 0 would say that all is well.
    """

    def __init__(self, registry: CollectorRegistry, sources: Sources) -> None:
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
        self._sweeps = Counter("stillframe_janitor_sweeps", "Rounds of the janitor.", ["outcome"], registry=registry)
        self._swept = Counter(
            "stillframe_leftovers_swept",
            "Leftovers that the janitor removed or tried to.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._runs = Counter(
            "stillframe_job_runs",
            "Runs of what one worker of all does by time, as far as they were this process'.",
            ["name", "outcome"],
            registry=registry,
        )
        self._files = Gauge(
            "stillframe_access_file_usable",
            "Whether a file that says who may do what can be used as it is now (1 or 0).",
            ["file"],
            registry=registry,
        )
        _watch_this_process(registry, sources)
        registry.register(_InTheDatabase(sources))
        registry.register(_Held(sources))
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        for action in Action:
            self._durations.labels(action.value)
            for state in OperationState:
                if state.final:
                    self._operations.labels(action.value, state.value)
        for outcome in ("complete", "incomplete", "failed"):
            self._sweeps.labels(outcome)
        for kind in LeftoverKind:
            for dealt in Outcome:
                self._swept.labels(kind.value, dealt.value)

    def expect_requests(self, method: str, route: str, status: int) -> None:
        """Requests of this kind may come, and be answered with this status, or fail."""
        self._request_durations.labels(method, route)
        for answered in (status, 500, 503):
            self._requests.labels(method, route, str(answered))

    def watch_file(self, file: str, usable: Callable[[], bool]) -> None:
        """Show whether a file can be used: `policy` or `users`."""
        self._files.labels(file).set_function(usable)

    def operation_finished(self, operation: Operation, seconds: float) -> None:
        """An operation is final; `seconds` counts from its acceptance."""
        self._operations.labels(operation.action.value, operation.state.value).inc()
        self._durations.labels(operation.action.value).observe(seconds)

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is a template, never a path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_durations.labels(method, route).observe(seconds)

    def sweep_finished(self, outcome: str) -> None:
        """The janitor has ended a round: `complete`, `incomplete` where something did not answer, or `failed`."""
        self._sweeps.labels(outcome).inc()

    def leftover_swept(self, kind: str, outcome: str) -> None:
        """The janitor has dealt with one leftover."""
        self._swept.labels(kind, outcome).inc()

    def expect_job(self, name: str) -> None:
        """This process may have runs of this job."""
        for outcome in RunOutcome:
            self._runs.labels(name, outcome.value)

    def job_ended(self, name: str, outcome: RunOutcome) -> None:
        """A run of a job has ended here, or hangs."""
        self._runs.labels(name, outcome.value).inc()

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


def _watch_this_process(registry: CollectorRegistry, sources: Sources) -> None:
    for name, meaning, source in (
        (
            "stillframe_hung_calls",
            "Calls to a platform that hang in this process past the deadline of their operation.",
            sources.hung,
        ),
        (
            "stillframe_job_board_up",
            "Whether the job board answered this process last (1 or 0); 1 where there is none.",
            sources.board,
        ),
        (
            "stillframe_clock_ahead_seconds",
            "By how much this machine's clock is ahead of the database's; negative where it is behind.",
            sources.ahead,
        ),
        (
            "stillframe_state_folder_free_ratio",
            "Free part of the file system of state_dir, from 0 to 1; of room or of files, whichever is less.",
            sources.room,
        ),
    ):
        Gauge(name, meaning, registry=registry).set_function(source)


class _Held(Collector):
    """Guests that may be held still, as they are when somebody looks; absent where nobody can tell."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        found = self._sources.held.ids() if self._sources.ready() else None
        if found is not None:
            yield GaugeMetricFamily(
                "stillframe_guests_held",
                "Guests that may be frozen or paused still by a snapshot that is over.",
                value=len(found),
            )


class _InTheDatabase(Collector):
    """Reads the store whenever somebody looks, so that a restart forgets nothing; of a silent one, only that it is."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("stillframe_database_up", "Whether the database answers this process (1 or 0).")
        found: list[Metric] = []
        if self._sources.ready():
            with suppress(StillframeError):
                found = [*self._operations(), self._failures(), *self._work(), *self._jobs()]
        up.add_metric([], 1.0 if found else 0.0)
        return [up, *found]

    def _work(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "stillframe_queue_depth", "Operations that wait for a worker.", value=self._sources.queued()
        )
        yield GaugeMetricFamily(
            "stillframe_older_database",
            "Whether an older state of the database was put back and is not accepted yet (1 or 0).",
            value=1.0 if self._sources.older() else 0.0,
        )
        yield GaugeMetricFamily(
            "stillframe_workers_alive",
            "Workers that the database has heard of lately, here and elsewhere.",
            value=self._sources.workers(),
        )
        yield GaugeMetricFamily(
            "stillframe_instances_fenced",
            "Instances that must not be started, for a restore of them failed and waits for somebody to act.",
            value=self._sources.fenced(),
        )

    def _jobs(self) -> Iterable[Metric]:
        """What jobs have counted is kept with them: the same in all processes, and absent until it is known."""
        overdue = GaugeMetricFamily(
            "stillframe_job_overdue_seconds",
            "By how much something that one worker of all does by time is late in ending well; 0 where it is not.",
            labels=["name"],
        )
        lost = GaugeMetricFamily(
            "stillframe_copies_lost",
            "Copies that cannot be restored from any more, as the janitor saw it in its last round.",
        )
        unsure = GaugeMetricFamily(
            "stillframe_leftovers_unsure",
            "Leftovers that the janitor left to an operator in its last round.",
            labels=["kind"],
        )
        records, now = self._sources.jobs()
        for record in records:
            if not record.interval:
                continue
            overdue.add_metric([record.name], record.overdue(now))
            counts = (record.counts or {}) if record.name == Janitor.name else {}
            if COPIES_LOST in counts:
                lost.add_metric([], counts[COPIES_LOST])
            for kind, count in UNSURE.items():
                if count in counts:
                    unsure.add_metric([kind.value], counts[count])
        return overdue, lost, unsure

    def _operations(self) -> Iterable[Metric]:
        ages: dict[str, list[float]] = defaultdict(list)
        now = self._sources.now()
        for action, accepted_at in self._sources.operations.open_by_action():
            ages[action].append(max(0.0, (now - accepted_at).total_seconds()))
        counts = GaugeMetricFamily("stillframe_open_operations", "Operations not yet ended.", labels=["action"])
        oldest = GaugeMetricFamily(
            "stillframe_oldest_open_operation_age_seconds", "Age of the oldest of them.", labels=["action"]
        )
        spread = GaugeHistogramMetricFamily("stillframe_open_operation_age_seconds", "Ages of them.", labels=["action"])
        for action in Action:
            of_action = ages[action.value]
            counts.add_metric([action.value], len(of_action))
            oldest.add_metric([action.value], max(of_action, default=0.0))
            spread.add_metric([action.value], _buckets(of_action), sum(of_action))
        return counts, oldest, spread

    def _failures(self) -> Metric:
        """In the database, for the process that counted the failure may have ended, or be watched by nobody."""
        now = self._sources.now()
        failed = self._sources.operations.last_failures(now - _LATELY)
        ages = GaugeMetricFamily(
            "stillframe_last_failed_operation_age_seconds",
            "Time since an operation failed last, here or elsewhere; +Inf if none did within the last hour.",
            labels=["action"],
        )
        for action in Action:
            at = failed.get(action.value)
            ages.add_metric([action.value], inf if at is None else max(0.0, (now - at).total_seconds()))
        return ages


def _buckets(ages: list[float]) -> list[tuple[str, float]]:
    counted = [0] * (len(_AGES) + 1)
    for age in ages:
        counted[bisect_left(_AGES, age)] += 1
    bounds = [*(str(float(bound)) for bound in _AGES), "+Inf"]
    return [(bound, float(sum(counted[: position + 1]))) for position, bound in enumerate(bounds)]
