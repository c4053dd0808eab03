"""The composition root: settings in, a service out. Nothing else in the package puts its parts together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry

from stillframe.api.app import build_observation, build_wsgi
from stillframe.domain.errors import InvalidInput
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers import registry
from stillframe.drivers.flashcopy import FlashCopy
from stillframe.drivers.leftovers import DriverLeftovers, together
from stillframe.drivers.platform import Drivers
from stillframe.drivers.preparation import Preparation
from stillframe.drivers.problems import Problems
from stillframe.drivers.visibility import Visibility
from stillframe.drivers.wrappers import (
    CheckPolicy,
    ComputeUnder,
    FlashCopyUnder,
    LimitPolicy,
    RetryPolicy,
    StorageUnder,
    VisibilityUnder,
)
from stillframe.engine.board import Board, NoBoard
from stillframe.engine.engine import Engine, Limits
from stillframe.engine.execution import Execution, Tries
from stillframe.engine.persistence import FlowBooks
from stillframe.engine.reading import ProgressReader
from stillframe.flows.plans import planner
from stillframe.flows.records import Records
from stillframe.flows.step import Ports
from stillframe.service.acceptance import Acceptance
from stillframe.service.background import Background
from stillframe.service.held_guests import HeldGuests, Releaser
from stillframe.service.instance_snapshots import SnapshotService
from stillframe.service.instances import InstanceService
from stillframe.service.janitor import Janitor
from stillframe.service.leftovers import Leftovers
from stillframe.service.metrics import Metrics, Sources
from stillframe.service.policy import Policy
from stillframe.service.power import PowerActions, PowerLocks
from stillframe.service.preparing import Preparing
from stillframe.service.readiness import Readiness
from stillframe.service.room import free_part
from stillframe.service.sightings import Sightings
from stillframe.service.sweeper import Sweeper
from stillframe.service.witness import Witness
from stillframe.service.workers import WorkerService
from stillframe.settings import Settings
from stillframe.store import schema
from stillframe.store.database import Database, connect
from stillframe.store.epochs import EpochStore
from stillframe.store.jobs import JobStore
from stillframe.store.leftovers import LeftoverStore
from stillframe.store.operations import OperationStore
from stillframe.store.presence import Presence
from stillframe.store.queue import OperationQueue
from stillframe.store.snapshots import SnapshotStore
from stillframe.store.timekeeping import DatabaseClock

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A service put together: `wsgi` answers once `engine` has been started.

    Where the API is not served, `wsgi` shows the metrics and whether the process is well, and nothing else.
    """

    settings: Settings
    database: Database
    drivers: Drivers
    engine: Engine
    snapshots: SnapshotService
    instances: InstanceService
    policy: Policy
    background: Background
    power: PowerActions
    preparing: Preparing
    readiness: Readiness
    wsgi: Any

    def start(self) -> None:
        """Take up what an earlier process left unfinished, and work from then on."""
        ways = self.drivers.all(Problems)
        if ways:
            # A platform that is down when the service starts is none the worse for it: it is only told.
            threading.Thread(target=_tell, args=(ways,), name="problems", daemon=True).start()
        self.preparing.start()

    def stop(self, seconds: float = 10.0) -> bool:
        """Stop working; False if something still ran after `seconds`, which the next start resumes."""
        self.preparing.stop()
        self.background.stop()
        switched = self.power.stop(seconds=2.0)
        ended = self.engine.stop(seconds)
        # A copy that a job is deleting is no operation; whoever does the job next deletes it again.
        ended = self.preparing.ended(seconds=1.0) and self.background.ended(seconds=1.0) and ended and switched
        self.database.close()
        return ended


def open_database(settings: Settings) -> Database:
    """Connect to the database of the settings."""
    return connect(
        settings.database.url,
        sqlite_synchronous=settings.database.sqlite_synchronous,
        pool_size=settings.database.pool_size,
    )


def upgrade_database(database: Database) -> None:
    """Bring our tables and TaskFlow's to this release; repeating it does nothing, and a later one's schema is left."""
    with schema.alone(database):
        if not schema.fits(database):
            schema.upgrade(database)
        FlowBooks(database.books).upgrade()


def build(
    settings: Settings,
    *,
    drivers: Drivers | None = None,
    database: Database | None = None,
    now: Callable[[], datetime] | None = None,
    serve: bool = True,
) -> Service:
    """Put the service together: API, engine and store.

    An engine that is not started leaves what is accepted to the workers of other processes. Without `serve` there is
    no API, see `Service`. An SQLite database is brought to this release by itself; a server's is left to
    `stillframe db upgrade`. Raises `InvalidInput` for settings that cannot be used.
    """
    database = database or open_database(settings)
    _require_schema(database)
    # What one process notes others compare, and their machines' clocks need not agree.
    clock = DatabaseClock(database)
    now = now or clock.now
    platforms = _Platforms(settings, drivers or registry.open_drivers(settings))
    policy = Policy(settings.conf)
    policy.load()
    stores = _Stores(settings, database)
    work = _work(settings, stores, platforms, now)
    leftovers = build_leftovers(settings, database, platforms.plain, now, Sightings())
    held = HeldGuests(lambda: [one.id for one in leftovers.look(LeftoverKind.QUIESCE)])
    readiness = Readiness(database.require_answer)
    metrics = Metrics(CollectorRegistry(), _sources(settings, stores, work, now, clock, held, readiness))
    work.execution.on_finished = metrics.operation_finished
    power = PowerActions(
        platforms.asked.compute, PowerLocks(settings.state_dir / "power"), settings.drivers.graceful_stop_seconds
    )
    instances = _instances(settings, stores, platforms, policy, power)
    snapshots = _snapshots(settings, stores, work, instances, now, held)
    background = _background(settings, stores, work.engine, leftovers, metrics)
    preparing = Preparing(
        platforms.asked.all(Preparation),
        None if database.is_file else stores.queue.quiet,
        [work.engine.start, background.start],
    )
    if serve:
        metrics.watch_file("policy", policy.usable)
        workers = WorkerService(stores.presence, policy, settings.engine.claim_seconds)
        wsgi: Any = build_wsgi(settings, snapshots, instances, workers, metrics, readiness)
    else:
        wsgi = build_observation(settings, metrics, readiness)
    return Service(
        *(settings, database, platforms.asked, work.engine, snapshots, instances),
        *(policy, background, power, preparing, readiness, wsgi),
    )


def build_leftovers(
    settings: Settings,
    database: Database,
    drivers: Drivers,
    now: Callable[[], datetime] | None = None,
    sightings: Sightings | None = None,
) -> Leftovers:
    """What finds and removes leftovers behind these drivers, as the registry opens them; see `Leftovers`."""
    retries = _retries(settings, settings.drivers.attempts)
    storage = _with_retries(drivers, retries).storage
    # How old something is, is asked of the clock that its times are from.
    now = now or DatabaseClock(database).now
    return Leftovers(
        LeftoverStore(database),
        drivers.compute,
        storage,
        together(drivers.all(DriverLeftovers)),
        now,
        settings.engine.janitor_grace,
        sightings,
    )


def build_acceptance(settings: Settings, database: Database, drivers: Drivers) -> Acceptance:
    """What accepts an older state of the database that was put back, behind these drivers."""
    retries = _retries(settings, settings.drivers.attempts)
    storage = _with_retries(drivers, retries).storage
    epochs = EpochStore(database)
    witness = Witness(settings.state_dir, epochs)
    stores = SnapshotStore(database), OperationStore(database)
    return Acceptance(epochs, *stores, drivers.compute, storage, together(drivers.all(DriverLeftovers)), witness)


class _Platforms:
    """The drivers as they are (`plain`), as requests ask them, and as operations have them work."""

    def __init__(self, settings: Settings, plain: Drivers) -> None:
        limited = replace(plain, storage=StorageUnder(plain.storage, LimitPolicy(settings.drivers.concurrent_calls)))
        self.request_retries = _retries(settings, settings.drivers.attempts)
        self.operation_retries = _retries(settings, settings.drivers.operation_attempts)
        self.plain = plain
        self.asked = _with_retries(limited, self.request_retries)
        self.working = _with_retries(limited, self.operation_retries)


class _Stores:
    """What is on record, by what it is about; `books` are TaskFlow's."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.operations = OperationStore(database)
        self.snapshots = SnapshotStore(database)
        self.leftovers = LeftoverStore(database)
        self.jobs = JobStore(database)
        self.presence = Presence(database)
        self.witness = Witness(settings.state_dir, EpochStore(database))
        self.queue = OperationQueue(database, settings.limits, self.witness.memory)
        self.books = FlowBooks(database.books)
        self.alone = database.is_file


@dataclass(frozen=True, slots=True)
class _Work:
    """What carries operations out, and tells how far they are."""

    engine: Engine
    execution: Execution
    board: Board
    progress: ProgressReader


def _work(settings: Settings, stores: _Stores, platforms: _Platforms, now: Callable[[], datetime]) -> _Work:
    ports = Ports(
        Records(stores.snapshots, stores.operations, platforms.operation_retries),
        platforms.working.compute,
        platforms.working.storage,
        platforms.request_retries,
        platforms.operation_retries,
        now,
        settings.drivers.graceful_stop_seconds,
    )
    plan = planner(ports)
    tries = Tries(settings.engine.max_attempts, settings.engine.volume_workers)
    execution = Execution(stores.operations, stores.queue, stores.books, plan, tries, now)
    board = _board(settings, stores.queue)
    limits = _limits(settings, alone=stores.alone)
    engine = Engine(stores.operations, stores.queue, stores.presence, stores.witness, board, execution, limits)
    return _Work(engine, execution, board, ProgressReader(stores.operations, stores.queue, stores.books, plan, now))


def _sources(
    settings: Settings,
    stores: _Stores,
    work: _Work,
    now: Callable[[], datetime],
    clock: DatabaseClock,
    held: HeldGuests,
    readiness: Readiness,
) -> Sources:
    return Sources(
        operations=stores.operations,
        queued=stores.queue.waiting,
        now=now,
        held=held,
        ready=readiness.answers,
        workers=lambda: stores.presence.alive(settings.engine.claim_seconds),
        hung=work.engine.hung,
        board=lambda: work.board.answers,
        fenced=stores.leftovers.fenced_for_good,
        ahead=clock.machine_ahead,
        room=lambda: free_part(settings.state_dir),
        older=stores.witness.doubts,
        jobs=stores.jobs.look,
    )


def _instances(
    settings: Settings, stores: _Stores, platforms: _Platforms, policy: Policy, power: PowerActions
) -> InstanceService:
    flashcopy, visibility = platforms.plain.ability(FlashCopy), platforms.plain.ability(Visibility)
    return InstanceService(
        compute=platforms.asked.compute,
        storage=platforms.asked.storage,
        operations=stores.operations,
        policy=policy,
        power=power,
        flashcopy=flashcopy and FlashCopyUnder(flashcopy, platforms.request_retries),
        visibility=visibility and VisibilityUnder(visibility, platforms.request_retries),
        count_hosts=settings.limits.host > 0,
        count_backends=settings.limits.backend > 0,
    )


def _snapshots(
    settings: Settings,
    stores: _Stores,
    work: _Work,
    instances: InstanceService,
    now: Callable[[], datetime],
    held: HeldGuests,
) -> SnapshotService:
    return SnapshotService(
        snapshots=stores.snapshots,
        operations=stores.operations,
        storage=instances.storage,
        instances=instances,
        policy=instances.policy,
        submit=work.engine.submit,
        measure=work.progress.read,
        now=now,
        deadlines=settings.engine.deadlines,
        held=held,
    )


def _background(
    settings: Settings, stores: _Stores, engine: Engine, leftovers: Leftovers, metrics: Metrics
) -> Background:
    jobs = [
        Sweeper(engine.sweep, settings.engine.hang_seconds),
        Janitor(leftovers, metrics, settings.engine.janitor_interval.total_seconds()),
    ]
    claims = stores.jobs, metrics, engine.worker, settings.engine.claim_seconds
    return Background(*claims, jobs, [Releaser(leftovers)], alone=stores.alone)


def _require_schema(database: Database) -> None:
    if database.is_file:
        upgrade_database(database)
    elif not schema.fits(database):
        raise InvalidInput("The database is not at this release's schema; run 'stillframe db upgrade' first.")


def _board(settings: Settings, queue: OperationQueue) -> Board:
    if settings.job_board is None:
        return NoBoard()
    from stillframe.engine.job_board import JobBoard

    return JobBoard(settings.job_board, settings.engine.claim_seconds, queue.open_among)


def _tell(ways: Iterable[Problems]) -> None:
    try:
        for problem in (problem for way in ways for problem in way.problems()):
            LOG.log(logging.ERROR if problem.grave else logging.WARNING, "%s -- %s", problem.what, problem.mend)
    except Exception:
        LOG.exception("nobody knows whether the platform behind can be used")


def _with_retries(drivers: Drivers, retries: RetryPolicy) -> Drivers:
    """Retries outside, so that each try is checked; the limit inside, so that a waiting try holds no place."""
    return replace(
        drivers,
        compute=ComputeUnder(ComputeUnder(drivers.compute, CheckPolicy()), retries),
        storage=StorageUnder(StorageUnder(drivers.storage, CheckPolicy()), retries),
    )


def _retries(settings: Settings, attempts: int) -> RetryPolicy:
    return RetryPolicy(attempts, settings.drivers.first_wait, settings.drivers.longest_wait)


def _limits(settings: Settings, *, alone: bool) -> Limits:
    engine, board = settings.engine, settings.job_board
    return Limits(
        workers=engine.workers,
        claim_seconds=engine.claim_seconds,
        hang_seconds=engine.hang_seconds,
        look_seconds=board.look_seconds if board else 1.0,
        keep_records=engine.keep_records,
        alone=alone,
    )
