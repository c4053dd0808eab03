"""The service's own parts: settings, policy, state folder, database, drivers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from stillframe import main
from stillframe.api.auth.strategies import NOBODY_IS_ASKED, check_strategy
from stillframe.api.hosts import known_hosts
from stillframe.cli.db import reason
from stillframe.domain.errors import InvalidInput, StillframeError
from stillframe.drivers import registry
from stillframe.drivers.finding import Finding, fail, ok, warn
from stillframe.drivers.problems import Problems
from stillframe.engine.job_board import probe
from stillframe.service.policy import Policy
from stillframe.store import schema
from stillframe.store.database import parsed
from stillframe.store.operations import OperationStore
from stillframe.store.presence import Presence
from stillframe.store.queue import OperationQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillframe.drivers.platform import Drivers
    from stillframe.settings import Settings
    from stillframe.store.database import Database

_START_WORKERS: Final = "start the service: 'stillframe serve', or 'stillframe worker' beside 'stillframe api'"
_FIRST_START: Final = "nothing to do: the first 'stillframe serve' makes it"


def settings(found: Settings) -> Iterator[Finding]:
    """How the API would be served, and to whom."""
    api = found.api
    try:
        check_strategy(found)
        known_hosts(api.bind_host, api.public_endpoint, api.allowed_hosts)
    except StillframeError as error:
        yield fail("settings", error.message, "correct the settings file")
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
        yield fail("policy", error.message, "correct the policy file, or [oslo_policy] in the settings")
    else:
        yield ok("policy", "the rules can be used")


def job_board(found: Settings) -> Iterator[Finding]:
    """The job board, if there is one."""
    if found.job_board is None:
        return
    try:
        probe(found.job_board)
    except Exception as error:  # noqa: BLE001  # the libraries of the boards raise many kinds
        mend = "see that it runs and that [job_board] is right; until then workers look into the database"
        yield warn("job board", f"{found.job_board.backend}: {type(error).__name__}: {error}", mend)
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
        OperationStore(database).keep_record("", {})
    except (SQLAlchemyError, StillframeError) as error:
        return None, [fail("database", reason(error), "see that it runs and that [database] connection is right")]
    return database, [ok("database", f"{url.get_backend_name()} at revision {current}, can be written to")]


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


def open_drivers(found: Settings) -> tuple[Drivers | None, list[Finding]]:
    """The drivers if they can be loaded, and what was found."""
    try:
        drivers = registry.open_drivers(found)
    except (StillframeError, OSError, ImportError) as error:
        return None, [fail("drivers", str(error), "correct [drivers] in the settings file")]
    return drivers, [ok("drivers", f"compute {found.drivers.compute}, storage {found.drivers.storage}")]


def logins(drivers: Drivers) -> Iterator[Finding]:
    """What is wrong with the way to the platforms that have one."""
    ways = drivers.all(Problems)
    found = [problem for way in ways for problem in way.problems()]
    for problem in found:
        yield (fail if problem.grave else warn)("login", problem.what, problem.mend)
    if ways and not found:
        yield ok("login", "the service's user can log in and has its roles")
