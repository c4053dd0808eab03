"""A fork server for APIs and workers, which do what `stillframe api`, `worker` and `serve` do.

Each has a log of its own, and what its drivers are asked for is written down in a ledger. The release is the one that
PYTHONPATH leads to, so all that is used of it here has to be what each release has.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import stillframe
from stillframe import main
from stillframe.cli import running
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.errors import Unavailable
from stillframe.settings import load
from tests.harness.client import client_of
from tests.harness.forks import fork, serve
from tests.harness.surround import surround
from tests.storm.ledger import Ledger, Recorder

LOG = logging.getLogger(__name__)

_ROLES: Final[dict[str, dict[str, Any]]] = {
    "api": {"serve": True, "work": False},
    "worker": {"serve": False, "work": True},
    "serve": {"serve": True, "work": True},
}


def live(order: dict[str, Any]) -> int:
    """Be an API or a worker until a signal ends it; the exit code is the program's own."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.disable(logging.NOTSET)
    try:
        recorder = Recorder(Ledger(Path(order["ledger"])), order["name"], Path(order["marks"]))
        _record(recorder)
        settings = load(overrides=[tuple(one) for one in order["overrides"]])
        running.run(settings, lambda line: _say(order, line), **_ROLES[order["role"]])
    except CommandFailed as error:
        LOG.info("%s", error)
        return int(error.code)
    except Unavailable as error:
        LOG.info("no database: %s", error)
        return int(ExitCode.UNAVAILABLE)
    return 0


def _record(recorder: Recorder) -> None:
    """Let every driver that is built from now on be written down: the composition root is where it is given to all."""
    place, name = _builder()
    build = getattr(place, name)

    def build_recorded(settings: Any) -> Any:
        plain = build(settings)
        compute = surround(plain.compute, recorder.around)
        return replace(plain, compute=compute, storage=surround(plain.storage, recorder.around))

    setattr(place, name, build_recorded)


def _builder() -> tuple[ModuleType, str]:
    """Where the release makes its drivers: in the registry, or in the composition root while there was none."""
    if find_spec("stillframe.drivers.registry") is None:
        return main, "build_drivers"
    return import_module("stillframe.drivers.registry"), "open_drivers"


def _say(order: dict[str, Any], line: str) -> None:
    """What the program says once it is up; from then on it ends in order when it is told to."""
    LOG.info("%s is up: %s", order["name"], line)
    (Path(order["ups"]) / order["name"]).touch()


def _warm_up() -> None:
    """Load everything once, before the first fork; no thread is started by that."""
    with tempfile.TemporaryDirectory() as folder:
        service = main.build(load(overrides=[(None, "state_dir", folder), (None, "auth_strategy", "noauth")]))
        client_of(service.wsgi).simulate_get("/volume/v3/demo/instance-snapshots")
        service.database.close()


def _ended(_order: dict[str, Any]) -> list[list[int]]:
    """Process and exit status of each that has ended since the last look."""
    found: list[list[int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append([pid, os.waitstatus_to_exitcode(status)])


def _upgrade(order: dict[str, Any]) -> int:
    """Bring the database to this release's schema, as `stillframe db upgrade` does; 0 if that went well.

    In a process of its own: no thread and no connection may be here when others are forked.
    """

    def bring() -> None:
        main.upgrade_database(main.open_database(load(overrides=[tuple(one) for one in order["overrides"]])))

    return os.waitstatus_to_exitcode(os.waitpid(fork(bring), 0)[1])


if __name__ == "__main__":
    serve(
        {
            "start": lambda order: fork(lambda: live(order)),
            "where": lambda _order: stillframe.__file__,
            "upgrade": _upgrade,
            "look": _ended,
        },
        _warm_up,
    )
