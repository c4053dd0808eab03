"""The list of workers, as Cinder lists its services, for administrators."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stillframe.store.clock import utc_now
from stillframe.store.tables import WORKERS
from tests.api.running import running

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = {"id", "binary", "host", "zone", "status", "state", "updated_at", "disabled_reason", "started_at"}


def test_a_worker_that_is_there_is_up_and_one_that_went_silent_is_down(tmp_path: Path) -> None:
    with running(tmp_path) as api:
        database = api.service.database
        with database.writing() as connection:
            now = utc_now(connection)
            seen = now - timedelta(seconds=api.service.settings.engine.claim_seconds + 5)
            connection.execute(sa.insert(WORKERS).values(name="far:1:x", started_at=seen, seen_at=seen))
        uri = "/volume/v3/any/os-services"
        assert api.call("GET", uri).status_code == 403
        api.session.headers["X-Auth-Token"] = "admin:any"
        listed = {one["host"]: one for one in api.call("GET", uri).json()["services"]}
        assert {host: one["state"] for host, one in listed.items()} == {socket.gethostname(): "up", "far": "down"}
        for one in listed.values():
            assert one.keys() == _KEYS
            assert (one["binary"], one["status"]) == ("stillframe-worker", "enabled")
        told = datetime.strptime(listed["far"]["updated_at"], "%Y-%m-%dT%H:%M:%S.%f")  # noqa: DTZ007  # UTC, as told
        assert told == seen
        for query, hosts in (("host=far", ["far"]), ("binary=stillframe-worker&host=far", ["far"]), ("binary=x", [])):
            found = api.call("GET", f"/v3/os-services?{query}").json()["services"]
            assert [one["host"] for one in found] == hosts, query
