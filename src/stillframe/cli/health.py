"""What `stillframe doctor` looks at; nothing here changes anything."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from stillframe import main
from stillframe.api.auth.strategies import NOBODY_IS_ASKED, check_strategy
from stillframe.api.hosts import known_hosts
from stillframe.cli import leftovers
from stillframe.cli.checks import Checks
from stillframe.cli.db import reason
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.epoch import Standing
from stillframe.domain.errors import Damaged, InvalidInput, StillframeError
from stillframe.domain.operation import FlowRecord
from stillframe.domain.status import Status, meaning
from stillframe.drivers import registry
from stillframe.drivers.finding import Check, Finding, fail, ok, warn
from stillframe.drivers.problems import Problems
from stillframe.engine.job_board import probe
from stillframe.service.policy import Policy
from stillframe.service.witness import ACCEPT, Witness
from stillframe.store import schema
from stillframe.store.database import parsed
from stillframe.store.epochs import EpochStore
from stillframe.store.jobs import JobStore
from stillframe.store.leftovers import LeftoverStore
from stillframe.store.operations import OperationStore
from stillframe.store.presence import Presence
from stillframe.store.queue import OperationQueue
from stillframe.store.snapshots import ListQuery, SnapshotStore
from stillframe.store.timekeeping import DatabaseClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.domain.snapshot import InstanceSnapshot
    from stillframe.drivers.platform import Drivers
    from stillframe.settings import Settings
    from stillframe.store.database import Database

_START_WORKERS: Final = "start the service: 'stillframe serve', or 'stillframe worker' beside 'stillframe api'"
_PAGE: Final = 1000
# As the shipped alert has it.
_LATE: Final = 3600
_SEE_JOB: Final = "see that a worker runs; if one does, its log says why the job fails or that it hangs"
_BUSY: Final = (Status.CREATING, Status.RESTORING, Status.ROLLING_BACK, Status.DELETING)
_WAITING: Final = (Status.ERROR, Status.RESTORE_ERROR, Status.ROLLBACK_ERROR, Status.ERROR_DELETING)
_ACCEPT: Final = f"if that was meant to be: {ACCEPT}; else put the latest state back"
_STATE: Final = "database's state"
_SETTINGS: Final = "correct the settings file"
_POLICY: Final = "correct the policy file, or [oslo_policy] in the settings"
_FOLDER: Final = "see that its file system answers, or set another state_dir"
_BOARD: Final = "see that it runs and that [job_board] is right; until then workers look into the database"
_DATABASE: Final = "see that it runs and that [database] connection is right"
_DRIVERS: Final = "correct [drivers] in the settings file"
_PLATFORM: Final = "see that the platform answers"
_FIRST_START: Final = "nothing to do: the first 'stillframe serve' makes it"


def look(found: Settings, seconds: float) -> Iterator[Finding]:
    """Everything, from the settings to what was left behind; nothing that does not answer is waited for any longer."""
    checks = Checks(seconds)
    yield from checks.findings(
        [
            Check("settings", partial(settings, found), _SETTINGS),
            Check("policy", partial(policy, found), _POLICY),
            Check("state folder", partial(state_folder, found), _FOLDER),
            Check("job board", partial(job_board, found), _BOARD, grave=False),
        ]
    )
    database, findings = checks.opened("database", partial(open_database, found), _DATABASE)
    yield from findings
    drivers, findings = checks.opened("drivers", partial(open_drivers, found), _DRIVERS)
    yield from findings
    yield from checks.findings([*_behind(found, database, drivers)])
    if database is not None:
        checks.opened("database", partial(_close, database), _DATABASE)


def _behind(found: Settings, database: Database | None, drivers: Drivers | None) -> Iterator[Check]:
    """What is looked at by the ways that were opened."""
    for platform in registry.used(found):
        name = "/".join([*platform.compute, *platform.storage])
        yield Check(f"platform {name}", partial(platform.findings, found, drivers), _PLATFORM)
    yield Check("storage drivers", partial(absent, found), _PLATFORM)
    if drivers is not None:
        yield Check("login", partial(logins, drivers), _PLATFORM)
    if database is not None:
        yield Check(_STATE, partial(state, found, database), _DATABASE)
        yield Check("workers", partial(workers, found, database), _DATABASE)
        yield Check("jobs", partial(jobs, database), _DATABASE)
        yield Check("operations", partial(operations, database), _DATABASE)
    if database is not None and drivers is not None:
        yield from leftovers.checks(found, database, drivers)
    if drivers is not None:
        yield leftovers.losses(found, database, drivers)


def _close(database: Database) -> tuple[None, Sequence[Finding]]:
    database.close()
    return None, ()


def settings(found: Settings) -> Iterator[Finding]:
    """How the API would be served, and to whom."""
    api = found.api
    try:
        check_strategy(found)
        known_hosts(api.bind_host, api.public_endpoint, api.allowed_hosts)
    except StillframeError as error:
        yield fail("settings", error.message, _SETTINGS)
        return
    detail = f"{api.bind_host}:{api.bind_port}, authentication {api.auth_strategy}"
    if api.auth_strategy == "noauth":
        yield warn("settings", f"{detail}: {NOBODY_IS_ASKED}", "leave auth_strategy out of the settings file")
    else:
        yield ok("settings", detail)


def policy(found: Settings) -> Iterator[Finding]:
    """The policy file, if there is one."""
    try:
        Policy(found.conf).load()
    except InvalidInput as error:
        yield fail("policy", error.message, _POLICY)
    else:
        yield ok("policy", "the rules can be used")


def job_board(found: Settings) -> Iterator[Finding]:
    """The job board, if there is one."""
    if found.job_board is None:
        return
    try:
        probe(found.job_board)
    except Exception as error:  # noqa: BLE001  # the libraries of the boards raise many kinds
        yield warn("job board", f"{found.job_board.backend}: {type(error).__name__}: {error}", _BOARD)
    else:
        yield ok("job board", f"{found.job_board.backend} answers")


def state_folder(found: Settings) -> Iterator[Finding]:
    """The folder that everything else lies in."""
    folder = found.state_dir
    if not folder.is_dir():
        yield warn("state folder", f"{folder} is not there", _FIRST_START)
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield fail("state folder", f"{folder} cannot be written to by this user", "chown it, or set another state_dir")
    else:
        yield ok("state folder", str(folder))


def open_database(found: Settings) -> tuple[Database | None, list[Finding]]:
    """The database if it can be worked with, and what was found."""
    try:
        url = parsed(found.database.url)
        # Looking at an SQLite file that is not there would make it.
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
            return None, [warn("database", f"{url.database} is not there", _FIRST_START)]
        database = main.open_database(found)
        current, head = schema.current(database), schema.head()
        if not schema.fits(database):
            return None, [fail("database", f"its schema is {current}, not {head}", "run: stillframe db upgrade")]
        # No operation has this id: it takes the right to write, and changes nothing.
        OperationStore(database).keep_record("", FlowRecord({}, {}, {}))
    except (SQLAlchemyError, StillframeError) as error:
        return None, [fail("database", reason(error), _DATABASE)]
    return database, [ok("database", f"{url.get_backend_name()} at revision {current}, can be written to")]


def usable_database(found: Settings) -> Database:
    """The database; raises `CommandFailed` if it cannot be worked with."""
    database, findings = open_database(found)
    if database is None:
        raise CommandFailed(ExitCode.UNAVAILABLE, f"the database cannot be used: {findings[0].detail}")
    return database


def state(found: Settings, database: Database) -> Iterator[Finding]:
    """Whether it is the latest state of the database that is there, as far as the state folder can tell."""
    check, epochs = _STATE, EpochStore(database)
    held, witness = epochs.put_back(), Witness(found.state_dir, epochs)
    if held is not None:
        told = f"an older state was put back, which {held.noticed_by} noticed at {held.noticed_at} UTC"
        yield fail(check, f"{told}; nothing is restored, rolled back or deleted", _ACCEPT)
        return
    try:
        standing = witness.standing()
    except Damaged as error:
        yield warn(check, error.message, "run this as the service's user")
        return
    if standing is Standing.OLDER:
        yield fail(check, f"an older state was put back: {found.state_dir} remembers a later one", _ACCEPT)
    elif standing is Standing.OTHER and not epochs.is_empty():
        told = f"{found.state_dir} belongs to another database, or to a later state of this one"
        yield fail(check, told, f"correct [database] connection; if an older state was put back: {ACCEPT}")
    elif standing is Standing.SAME:
        yield ok(check, "what the state folder remembers of it is there")
    else:
        yield ok(check, "the state folder remembers nothing that would say otherwise")


def workers(found: Settings, database: Database) -> Iterator[Finding]:
    """Who works on what is accepted."""
    alive = Presence(database).alive(found.engine.claim_seconds)
    waiting = OperationQueue(database).waiting()
    if alive:
        yield ok("workers", f"{alive} alive")
    elif waiting:
        yield fail("workers", f"none is alive, and {waiting} operations wait for one", _START_WORKERS)
    else:
        yield warn("workers", "none is alive", _START_WORKERS)


def jobs(database: Database) -> Iterator[Finding]:
    """What one worker of all does by time."""
    records, now = JobStore(database).look()
    for job in records:
        check, late = f"job '{job.name}'", job.overdue(now)
        at_it = f"; {job.worker} is at it" if job.worker else ""
        if not job.interval:
            yield ok(check, "it is switched off")
        elif late > _LATE:
            told = f"ended well last at {job.succeeded_at} UTC" if job.succeeded_at else "has never ended well"
            yield warn(check, f"it {told}, and is {late:.0f} s late{at_it}", _SEE_JOB)
        else:
            yield ok(check, f"it is not late{at_it}")


def open_drivers(found: Settings) -> tuple[Drivers | None, list[Finding]]:
    """The drivers if they can be loaded, and what was found."""
    try:
        drivers = registry.open_drivers(found)
    except (StillframeError, OSError, ImportError) as error:
        return None, [fail("drivers", str(error), _DRIVERS)]
    return drivers, [ok("drivers", f"compute {found.drivers.compute}, storage {', '.join(found.drivers.storage)}")]


def absent(found: Settings) -> Iterator[Finding]:
    """Copies of storage drivers that are switched off."""
    for one in registry.absent(found):
        copies = one.seen()
        if copies:
            told = f"{len(copies)} copies lie with it, and it is not among those of the settings"
            yield fail(f"storage driver '{one.name}'", told, "name it in [drivers] storage, too")


def logins(drivers: Drivers) -> Iterator[Finding]:
    """What is wrong with the way to the platforms that have one."""
    ways = drivers.all(Problems)
    found = [problem for way in ways for problem in way.problems()]
    for problem in found:
        yield (fail if problem.grave else warn)("login", problem.what, problem.mend)
    if ways and not found:
        yield ok("login", "the service's user can log in and has its roles")


def operations(database: Database) -> Iterator[Finding]:
    """Operations that are not final, and snapshots that wait for one or for somebody."""
    now = DatabaseClock(database).now()
    unfinished = OperationStore(database).unfinished()
    late = [operation for operation in unfinished if operation.deadline < now]
    for operation in late:
        yield fail(
            "operation",
            f"{operation.action} of {operation.snapshot_id} should have ended by {operation.deadline}",
            "start the service; if it runs, its log says what the operation waits for",
        )
    if not late:
        yield ok("operations", f"{len(unfinished)} open, none past its deadline")
    for lock in LeftoverStore(database).locks():
        holder = lock.holder
        if holder is not None and holder.state.final:
            yield warn(
                "operation",
                f"{holder.action} of {holder.snapshot_id} has ended and holds its instance, for a call of it hangs",
                "see what the platform does; the call is given up after [engine] hang_seconds",
            )
    worked_on = {operation.snapshot_id for operation in unfinished}
    for snapshot in _in(database, *_BUSY):
        if snapshot.id not in worked_on:
            yield fail(
                "instance snapshot", f"{snapshot.id} is {snapshot.status} with no operation", "report this as a bug"
            )
    for snapshot in _in(database, *_WAITING):
        yield warn("instance snapshot", f"{_named(snapshot)} is {snapshot.status}", meaning(snapshot.status))


def _in(database: Database, *statuses: Status) -> Iterator[InstanceSnapshot]:
    for status in statuses:
        query = ListQuery(project_id=None, limit=_PAGE, filters={"status": status.value})
        yield from SnapshotStore(database).list(query)


def _named(snapshot: InstanceSnapshot) -> str:
    return f"'{snapshot.name}' ({snapshot.id}) of instance {snapshot.instance_id}"
