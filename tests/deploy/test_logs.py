"""What the logs of an API and a worker tell: each operation, no routine, and a dead database once a minute."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import requests

from tests.cli.program import Place, Process, started
from tests.databases import database_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PATIENCE: Final = 180.0


def wait_for(reached: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE
    while not reached():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def lines(process: Process) -> list[dict[str, Any]]:
    """The log from where it is JSON on, which is then all that it is."""
    text = process.log.read_text().splitlines()
    begun = next((number for number, line in enumerate(text) if line.startswith("{")), len(text))
    return [json.loads(line) for line in text[begun:]]


def about(process: Process, text: str) -> list[dict[str, Any]]:
    return [line for line in lines(process) if text in line["message"]]


@contextmanager
def apart(folder: Path) -> Iterator[tuple[Place, Process, Process, Any]]:
    """An API and a worker on a PostgreSQL of their own."""
    place = Place(folder)
    with database_server("postgresql") as server:
        url = server.create_database()
        place.configure(
            use_json="true",
            metrics_peers="127.0.0.0/8",
            database__connection=url.render_as_string(hide_password=False),
        )
        place.good("db", "upgrade")
        with started(place, "api") as api, started(place, "worker") as worker:
            yield place, api, worker, server


def test_operations_are_told_once_routine_never_and_a_dead_database_once_a_minute(tmp_path: Path) -> None:
    with apart(tmp_path) as (place, api, worker, server):
        url = place.variables["STILLFRAME_ENDPOINT"]
        instance = place.instance("web", root=b"one")
        reply = requests.post(
            f"{url}/compute/v2.1/default/servers/{instance.id}/action",
            json={"vm-snapshot": {"name": "one", "description": "", "volumes": []}},
            headers={"X-Auth-Token": place.token},
            timeout=60,
        )
        request_id = reply.headers["X-Openstack-Request-Id"]
        task_id = reply.json()["instance_snapshot"]["task_uri"].split("task_id=")[1].split("&")[0]
        wait_for(lambda: bool(about(worker, "has succeeded after")), "the end is told")
        for process, text in ((api, "accepted snapshot of"), (worker, "has succeeded after")):
            (told,) = about(process, text)
            assert (told["context"]["request_id"], told["context"]["operation_id"]) == (request_id, task_id)
        for path in ("/healthcheck", "/metrics"):
            assert requests.get(url + path, timeout=60).status_code == 200
        assert not [line for line in lines(api) if "/healthcheck" in line["message"] or "/metrics" in line["message"]]

        began = time.monotonic()
        server.stop()
        for _ in range(10):
            listed = requests.get(
                f"{url}/volume/v3/default/instance-snapshots", headers={"X-Auth-Token": place.token}, timeout=60
            )
            assert listed.status_code == 503
        wait_for(lambda: bool(about(worker, "database")), "the worker tells of it")
        # Each thing that a worker does every second has met it by then.
        time.sleep(5)
        most = 1 + (time.monotonic() - began) // 60
        for process in (api, worker):
            assert process.process.poll() is None
            told_of = about(process, "does not answer")
            assert 1 <= len(told_of) <= most, told_of
            assert not [line for line in lines(process) if line.get("traceback")]
        server.start()
        wait_for(lambda: _lists(url, place), "the service goes on by itself")


def _lists(url: str, place: Place) -> bool:
    listed = requests.get(
        f"{url}/volume/v3/default/instance-snapshots", headers={"X-Auth-Token": place.token}, timeout=60
    )
    return listed.status_code == 200
