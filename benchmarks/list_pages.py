"""A page of 100 out of 10,000 instance snapshots over HTTP, against a store that has no more than that page."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from benchmarks.figures import Figure, median, percentile
from benchmarks.service import PROJECT, SNAPSHOTS, Client, Running, processor_seconds, serving
from stillframe.domain.snapshot import Consistency, ConsistencyLevel, InstanceSnapshot
from stillframe.domain.status import Status
from stillframe.store.database import connect
from stillframe.store.rows import snapshot_to_row
from stillframe.store.tables import SNAPSHOTS as TABLE

_PAGE: Final = 100
_SIZES: Final = (100, 10_000)
_FIRST: Final = f"{SNAPSHOTS}?limit={_PAGE}"
_WARM_UP: Final = 20
_ALONE: Final = 200


def measure(rounds: int) -> list[Figure]:
    """Two services; every round asks each for its first page, and the full one for a page further back.

    A document that is always the same shows what the machine, HTTP and the client take of that.
    """
    with ExitStack() as stack:
        clients = {}
        for size in _SIZES:
            service = stack.enter_context(serving())
            _fill(service, size)
            clients[size] = service.client()
        few, many = clients[_SIZES[0]], clients[_SIZES[1]]
        marker = _marker(many, _SIZES[1] // 2)
        asked = {
            "100": (few, _FIRST),
            "10,000": (many, _FIRST),
            "10,000, half way": (many, f"{_FIRST}&marker={marker}"),
            "versions": (many, "/compute/v2.1"),
        }
        times: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(_WARM_UP):
            for client, path in asked.values():
                client.request("GET", path)
        for _ in range(40 * rounds):
            for name, (client, path) in asked.items():
                started = time.perf_counter()
                client.request("GET", path)
                times[name].append((time.perf_counter() - started) * 1000)
        worked = processor_seconds(service.process_id)
        for _ in range(_ALONE):
            many.request("GET", _FIRST)
        worked = processor_seconds(service.process_id) - worked
    figures = [
        Figure("10,000: 99 of 100 pages at most", percentile(times["10,000"], 99), "ms", below=50),
        Figure("10,000, half way: 99 of 100 pages at most", percentile(times["10,000, half way"], 99), "ms", below=50),
        Figure("100: 99 of 100 pages at most", percentile(times["100"], 99), "ms"),
        Figure("a document without a database: 99 of 100 at most", percentile(times["versions"], 99), "ms"),
        Figure("10,000: the service's processor time for a page", worked * 1000 / _ALONE, "ms"),
        Figure("median at 10,000 against 100", median(times["10,000"]) / median(times["100"]), "x"),
    ]
    return figures + [Figure(f"{name}: median", median(values), "ms") for name, values in times.items()]


def _fill(service: Running, count: int) -> None:
    database = connect(f"sqlite:///{service.state_dir / 'stillframe.sqlite'}")
    start = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=30)
    rows = [snapshot_to_row(_snapshot(number, start + timedelta(minutes=number // 3))) for number in range(count)]
    with database.writer.begin() as connection:
        connection.execute(sa.insert(TABLE), rows)
    database.close()


def _snapshot(number: int, created_at: datetime) -> InstanceSnapshot:
    volumes = [str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number % 500}/{disk}")) for disk in range(3)]
    return InstanceSnapshot(
        id=str(uuid.uuid4()),
        project_id=PROJECT,
        user_id="user",
        instance_id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(number % 500))),
        name=f"nightly {number}",
        description="made by the scheduler",
        status=Status.AVAILABLE,
        created_at=created_at,
        task_id=str(uuid.uuid4()),
        action="snapshot",
        snapshots={volume: str(uuid.uuid4()) for volume in volumes},
        consistency=Consistency(ConsistencyLevel.FILESYSTEM, 0.4),
    )


def _marker(client: Client, position: int) -> str:
    marker = None
    for _ in range(position // 1000):
        marker = client.page(1000, marker)[-1]["id"]
    assert marker is not None
    return str(marker)
