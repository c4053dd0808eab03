"""The composition root: settings in, a service out. Nothing else in the package puts its parts together."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry

from stillframe.api.app import build_observation, build_wsgi
from stillframe.domain.errors import InvalidInput
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.compute import ComputeDriver
from stillframe.drivers.preparation import Preparation
from stillframe.drivers.problem import Problem
from stillframe.drivers.remains import Remains
from stillframe.drivers.sight import Sight
from stillframe.drivers.storage import FlashCopy, StorageDriver
from stillframe.drivers.wrappers import RetryPolicy, with_checks, with_limit, with_retries
from stillframe.engine.board import Board, NoBoard
from stillframe.engine.engine import Engine, Limits
from stillframe.engine.execution import Execution, Tries
from stillframe.engine.persistence import FlowBooks
from stillframe.engine.reading import ProgressReader
from stillframe.flows.plans import planner
from stillframe.flows.step import Ports
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
from stillframe.service.workers import WorkerService
from stillframe.settings import Settings
from stillframe.store import schema
from stillframe.store.database import Database, connect
from stillframe.store.leftovers import LeftoverStore
from stillframe.store.operations import OperationStore
from stillframe.store.presence import Presence
from stillframe.store.queue import OperationQueue
from stillframe.store.snapshots import SnapshotStore
from stillframe.store.timekeeping import DatabaseClock

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drivers:
    """The platforms behind the service; `problems` looks at the way to them, where there is something to look at.

    `preparation` brings what the release before had left to this one's form.
    """

    compute: ComputeDriver
    storage: StorageDriver
    flashcopy: FlashCopy | None = None
    sight: Sight | None = None
    remains: Remains | None = None
    problems: Callable[[], Iterable[Problem]] | None = None
    preparation: Preparation | None = None


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
    janitor: Janitor
    releaser: Releaser
    power: PowerActions
    preparing: Preparing
    readiness: Readiness
    wsgi: Any

    def start(self) -> None:
        """Take up what an earlier process left unfinished, and work from then on."""
        if self.drivers.problems is not None:
            # A platform that is down when the service starts is none the worse for it: it is only told.
            threading.Thread(target=_tell, args=(self.drivers.problems,), name="problems", daemon=True).start()
        self.preparing.start()

    def stop(self, seconds: float = 10.0) -> bool:
        """Stop working; False if something still ran after `seconds`, which the next start resumes."""
        self.preparing.stop()
        self.janitor.stop()
        self.releaser.stop()
        switched = self.power.stop(seconds=2.0)
        ended = self.engine.stop(seconds)
        # A copy that is being deleted is no operation; whoever sweeps next deletes it again.
        ended = self.preparing.ended(seconds=1.0) and self.janitor.ended(seconds=1.0) and ended and switched
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
    if database.is_file:
        upgrade_database(database)
    elif not schema.fits(database):
        raise InvalidInput("the database is not at this release's schema; run 'stillframe db upgrade' first")
    # What one process notes others compare, and their machines' clocks need not agree.
    clock = DatabaseClock(database)
    now = now or clock.now
    plain = drivers or build_drivers(settings)
    limited = replace(plain, storage=with_limit(plain.storage, concurrent=settings.drivers.concurrent_calls))
    hasty = _retries(settings, settings.drivers.attempts)
    drivers = _with_retries(limited, hasty)
    patience = _retries(settings, settings.drivers.operation_attempts)
    patient = _with_retries(limited, patience)
    policy = Policy(settings.conf)
    policy.load()
    operations, snapshots = OperationStore(database), SnapshotStore(database)
    graceful = settings.drivers.graceful_stop_seconds
    # A store that is away for a moment is no reason for an operation to fail.
    rows = with_retries(snapshots, patience), with_retries(operations, patience)
    ports = Ports(*rows, patient.compute, patient.storage, hasty, patience, now, graceful)
    books, queue = FlowBooks(database.books), OperationQueue(database, settings.limits)
    tries = Tries(settings.engine.max_attempts, settings.engine.volume_workers)
    execution = Execution(operations, queue, books, planner(ports), tries, now)
    board = _board(settings, queue)
    presence = Presence(database)
    engine = Engine(operations, queue, presence, board, execution, _limits(settings, alone=database.is_file))
    leftovers = build_leftovers(settings, database, plain, now)
    held = HeldGuests(lambda: [one.id for one in leftovers.look(LeftoverKind.QUIESCE)])
    readiness, claim_seconds = Readiness(database.require_answer), settings.engine.claim_seconds
    sources = Sources(
        *(operations, queue.waiting, now, held, readiness.answers),
        *(lambda: presence.alive(claim_seconds), engine.hung, lambda: board.answers),
        *(LeftoverStore(database).fenced_for_good, clock.machine_ahead, lambda: free_part(settings.state_dir)),
    )
    metrics = Metrics(CollectorRegistry(), sources)
    execution.on_finished = metrics.operation_finished
    power = PowerActions(drivers.compute, PowerLocks(settings.state_dir / "power"), graceful)
    instances = InstanceService(
        compute=drivers.compute,
        storage=drivers.storage,
        operations=operations,
        policy=policy,
        power=power,
        flashcopy=drivers.flashcopy,
        sight=drivers.sight,
        count_hosts=settings.limits.host > 0,
        count_backends=settings.limits.backend > 0,
    )
    service = SnapshotService(
        snapshots=snapshots,
        operations=operations,
        storage=drivers.storage,
        instances=instances,
        policy=policy,
        submit=engine.submit,
        measure=ProgressReader(operations, queue, books, planner(ports), now).read,
        now=now,
        deadlines=settings.engine.deadlines,
        held=held,
    )
    janitor = Janitor(leftovers, metrics, settings.engine.janitor_interval.total_seconds())
    releaser = Releaser(leftovers)
    preparing = Preparing(
        drivers.preparation,
        None if database.is_file else queue.quiet,
        [engine.start, janitor.start, releaser.start],
    )
    if serve:
        metrics.watch_file("policy", policy.usable)
    wsgi = (
        build_wsgi(settings, service, instances, WorkerService(presence, policy, claim_seconds), metrics, readiness)
        if serve
        else build_observation(settings, metrics, readiness)
    )
    return Service(
        settings,
        database,
        drivers,
        engine,
        service,
        instances,
        policy,
        janitor,
        releaser,
        power,
        preparing,
        readiness,
        wsgi,
    )


def build_leftovers(
    settings: Settings, database: Database, drivers: Drivers, now: Callable[[], datetime] | None = None
) -> Leftovers:
    """What finds and removes leftovers behind these drivers, as `build_drivers` makes them."""
    storage = with_retries(with_checks(drivers.storage), _retries(settings, settings.drivers.attempts))
    # How old something is, is asked of the clock that its times are from.
    now = now or DatabaseClock(database).now
    return Leftovers(
        LeftoverStore(database), drivers.compute, storage, drivers.remains, now, settings.engine.janitor_grace
    )


def _board(settings: Settings, queue: OperationQueue) -> Board:
    if settings.job_board is None:
        return NoBoard()
    from stillframe.engine.job_board import JobBoard

    return JobBoard(settings.job_board, settings.engine.claim_seconds, queue.open_among)


def _unless_grave(problems: Iterable[Problem], others: Iterable[Problem]) -> Iterator[Problem]:
    """Problems, and others too where those leave a way to look at them."""
    passable = True
    for problem in problems:
        passable = passable and not problem.grave
        yield problem
    if passable:
        yield from others


def _tell(problems: Callable[[], Iterable[Problem]]) -> None:
    try:
        for problem in problems():
            LOG.log(logging.ERROR if problem.grave else logging.WARNING, "%s -- %s", problem.what, problem.mend)
    except Exception:
        LOG.exception("nobody knows whether the platform behind can be used")


def build_drivers(settings: Settings) -> Drivers:
    """The drivers that the settings name; raises `InvalidInput` for one that does not exist."""
    compute, storage = settings.drivers.compute, settings.drivers.storage
    for option, name in (("compute", compute), ("storage", storage)):
        known = sorted({*_DRIVERS, _ON_ARRAYS} if option == "storage" else _DRIVERS)
        if name not in known:
            raise InvalidInput(f"there is no driver '{name}'; there are: {', '.join(known)}", option)
    platform = _DRIVERS[compute](settings)
    if storage != _ON_ARRAYS and _DRIVERS[storage] is not _DRIVERS[compute]:
        platform = replace(platform, storage=_DRIVERS[storage](settings).storage)
    return on_arrays(settings, platform) if storage == _ON_ARRAYS or settings.storage_virtualize.arrays else platform


def _local(settings: Settings) -> Drivers:
    from stillframe.drivers.local.compute import LocalCompute
    from stillframe.drivers.local.files import Files
    from stillframe.drivers.local.guard import Guard
    from stillframe.drivers.local.images import Images
    from stillframe.drivers.local.qemu import Qemu
    from stillframe.drivers.local.remains import LocalRemains
    from stillframe.drivers.local.storage import LocalStorage
    from stillframe.drivers.local.takeover import TakeOver

    instances, state = settings.drivers.instances_dir, settings.state_dir / "local"
    files, images, qemu = Files(), Images(), Qemu()
    compute = LocalCompute(instances, state, files, images, qemu, guard=Guard())
    return Drivers(
        compute,
        LocalStorage(instances, state, files, images, qemu),
        remains=LocalRemains(instances, state, files, compute.holding),
        preparation=TakeOver(files, state),
    )


def _memory(_settings: Settings) -> Drivers:
    from stillframe.drivers.memory import MemoryDriver

    driver = MemoryDriver()
    return Drivers(driver.compute, driver.storage)


def _openstack(settings: Settings) -> Drivers:
    from stillframe.drivers.openstack import cloud, login
    from stillframe.drivers.openstack.backends import Backends
    from stillframe.drivers.openstack.cinder import CinderStorage
    from stillframe.drivers.openstack.nova import NovaCompute
    from stillframe.drivers.openstack.pausing import Pausing
    from stillframe.drivers.openstack.remains import CloudRemains, HelpingImages
    from stillframe.drivers.openstack.reverting import Reverter
    from stillframe.drivers.openstack.sight import CloudSight
    from stillframe.drivers.openstack.volumes import Looking
    from stillframe.drivers.openstack.waiting import Waiting

    if settings.api.auth_strategy != "keystone":
        # Callers without a token of the cloud's would see and do what the service's own user may: everything.
        raise InvalidInput("the drivers nova and cinder need auth_strategy = keystone", "auth_strategy")
    chosen, waiting = settings.openstack, Waiting()
    connected = cloud.connect(settings.conf, cloud.Endpoints(chosen.interface, chosen.region_name))
    looking, backends = Looking(connected), Backends(connected, chosen.reverting_backends)
    reverter = Reverter(connected, looking, waiting, backends, patience=chosen.revert_patience, reimage=chosen.reimage)
    storage = CinderStorage(connected, looking, waiting, reverter, patience=chosen.patience)
    pausing = Pausing(connected, waiting, seconds=chosen.pause_seconds)
    compute = NovaCompute(connected, waiting, pausing, pauses=chosen.quiesce == "pause")
    kinds = [kind for kind in cloud.MICROVERSIONS if chosen.reimage or kind != "image"]
    return Drivers(
        compute,
        storage,
        sight=CloudSight(connected),
        remains=CloudRemains(pausing, HelpingImages(connected) if chosen.reimage else None),
        problems=lambda: _unless_grave(login.problems(connected, kinds), reverter.problems()),
    )


def on_arrays(settings: Settings, platform: Drivers) -> Drivers:
    """The platform with the FlashCopy check, and with its volumes cut and restored by the arrays where that is wished.

    The local platform declares what is on arrays; any other one names its volumes there by a template.
    """
    from stillframe.drivers.local.declaration import Declarations
    from stillframe.drivers.storage_virtualize.array import Array
    from stillframe.drivers.storage_virtualize.arrays import Arrays
    from stillframe.drivers.storage_virtualize.client import Client
    from stillframe.drivers.storage_virtualize.mappings import FlashCopyCheck
    from stillframe.drivers.storage_virtualize.places import DeclaredVolumes, ManagedVolumes, Volumes
    from stillframe.drivers.storage_virtualize.storage import StorageVirtualize

    options = settings.storage_virtualize
    if not options.arrays:
        raise InvalidInput("the storage driver needs at least one array", "storage_virtualize.arrays")
    arrays = Arrays([Array(Client(one)) for one in options.arrays])
    volumes: Volumes
    if settings.drivers.compute == "local":
        volumes = DeclaredVolumes(Declarations(settings.drivers.instances_dir), arrays)
    else:
        volumes = ManagedVolumes(platform.storage, options.volume_name_template)
    check = FlashCopyCheck(arrays, volumes)
    if settings.drivers.storage != _ON_ARRAYS:
        return replace(platform, flashcopy=check)
    storage = StorageVirtualize(options, arrays, volumes)
    own = platform.problems or tuple
    return replace(
        platform, storage=storage, flashcopy=check, problems=lambda: itertools.chain(own(), storage.problems())
    )


_ON_ARRAYS: Final = "storage_virtualize"
_DRIVERS: Final[Mapping[str, Callable[[Settings], Drivers]]] = {
    "cinder": _openstack,
    "local": _local,
    "memory": _memory,
    "nova": _openstack,
}


def _with_retries(drivers: Drivers, retries: RetryPolicy) -> Drivers:
    """Retries outside, so that each try is checked; the limit inside, so that a waiting try holds no place."""
    return Drivers(
        compute=with_retries(with_checks(drivers.compute), retries),
        storage=with_retries(with_checks(drivers.storage), retries),
        flashcopy=drivers.flashcopy and with_retries(drivers.flashcopy, retries),
        sight=drivers.sight and with_retries(drivers.sight, retries),
        remains=drivers.remains,
        problems=drivers.problems,
        preparation=drivers.preparation,
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
