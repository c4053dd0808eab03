"""A process that has everything loaded and forks APIs and workers, so that a new one costs no start-up.

It reads one JSON order a line and answers with one JSON line. What it forks are processes with threads, connections
and a log of their own, as `stillframe api` and `stillframe worker` are; only their birth is cheaper, and their driver
is written down in a ledger.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from falcon.testing import TestClient

from stillframe import main
from stillframe.cli.http_server import HttpServer, end_on_signal
from stillframe.domain.errors import Unavailable
from stillframe.drivers.wrappers import surround
from stillframe.settings import Settings, load
from tests.storm.ledger import Ledger, Recorder

LOG = logging.getLogger(__name__)

#: How a process ends that found no database to begin with; whoever keeps it up starts it again.
NO_DATABASE: Final = 6
_UNFINISHED: Final = 7
_STOP_SECONDS: Final = 30.0


def live(order: dict[str, Any]) -> NoReturn:
    """Be an API or a worker until a signal ends it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.disable(logging.NOTSET)
    form = f"%(asctime)s {order['name']} %(levelname)s %(threadName)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, force=True)
    code = 1
    try:
        code = _serve(order) if order["role"] == "api" else _work(order)
    except Unavailable as error:
        LOG.info("no database: %s", error)
        code = NO_DATABASE
    except BaseException:  # noqa: BLE001  # whatever it is, the log tells it
        traceback.print_exc()
    finally:
        os._exit(code)


def _build(order: dict[str, Any]) -> main.Service:
    settings = _settings(order)
    recorder = Recorder(Ledger(Path(order["ledger"])), order["name"], Path(order["marks"]))
    plain = main.build_drivers(settings)
    drivers = replace(
        plain,
        compute=surround(plain.compute, recorder.around),
        storage=surround(plain.storage, recorder.around),
    )
    return main.build(settings, drivers=drivers, serve=order["role"] == "api")


def _serve(order: dict[str, Any]) -> int:
    with end_on_signal() as ending:
        service = _build(order)
        api = service.settings.api
        HttpServer(service.wsgi, api.bind_host, api.bind_port, api.threads, api.max_body_size).run(ending)
    return 0 if service.stop(_STOP_SECONDS) else _UNFINISHED


def _work(order: dict[str, Any]) -> int:
    with end_on_signal() as ending:
        service = _build(order)
        service.start()
        LOG.info("works")
        ending.wait()
    return 0 if service.stop(_STOP_SECONDS) else _UNFINISHED


def _settings(order: dict[str, Any]) -> Settings:
    return load(overrides=[tuple(one) for one in order["overrides"]])


def _warm_up() -> None:
    """Load everything once, before the first fork; no thread is started by that."""
    with tempfile.TemporaryDirectory() as folder:
        service = main.build(load(overrides=[(None, "state_dir", folder), (None, "auth_strategy", "noauth")]))
        wsgi = service.wsgi
        client = TestClient(
            lambda environ, start_response: wsgi(environ, start_response),  # noqa: PLW0108
            headers={"Host": "localhost"},
        )
        client.simulate_get("/volume/v3/demo/instance-snapshots")
        service.database.close()
    gc.freeze()


def _ended() -> list[list[int]]:
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


def _serve_orders() -> None:
    logging.disable(logging.CRITICAL)
    _warm_up()
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any
        if order["do"] == "start":
            answer = os.fork()
            if answer == 0:
                live(order)
        else:
            answer = _ended()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve_orders()
