"""Operations of several worker processes on one PostgreSQL, with drivers that do nothing: what the service costs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import sqlalchemy as sa
from falcon.testing import TestClient
from tests.databases import Server, database_server
from tests.store import plenty

from benchmarks.figures import Figure, median, percentile
from benchmarks.service import PROJECT, SNAPSHOTS, Client, processor_seconds, tree
from benchmarks.worker_process import INSTANCES, build
from stillframe import main
from stillframe.store.database import connect

_WORKERS: Final = (1, 2, 4)
_STORED: Final = (10, 1_000, 100_000)
_OPERATIONS: Final = 200
_PATIENCE: Final = 300.0
_SAMPLE_SECONDS: Final = 0.002
# The innermost of these that a thread is in, from the inside outwards, is what it is busy with.
_PARTS: Final = {
    "taskflow/persistence": "TaskFlow's records",
    "taskflow": "TaskFlow itself",
    "stillframe/store": "the store",
    "stillframe/drivers": "drivers",
    "stillframe": "the service itself",
}


def measure(rounds: int) -> list[Figure]:
    """Throughput by workers, latency meanwhile, statements and growth by what is stored, and where the time goes."""
    few = max(1, rounds // 5)
    with database_server("postgresql") as server:
        rates: dict[int, list[float]] = {count: [] for count in _WORKERS}
        latencies: dict[str, list[float]] = {"list": [], "show": [], "accept": []}
        costs: dict[int, list[tuple[float, float]]] = {count: [] for count in _WORKERS}
        for _round in range(few):
            for count in _WORKERS:
                rate, cost, seen = _throughput(server, count)
                rates[count].append(rate)
                costs[count].append(cost)
                if count == _WORKERS[1]:
                    for name, times in seen.items():
                        latencies[name] += times
        grown = _growth(server, few)
        statements = _statements(server)
        shares = _shares(server)
    alone = median(rates[1])
    return [
        *(Figure(f"operations a second, {count} worker(s)", median(rates[count]), "/s") for count in _WORKERS),
        *(Figure(f"{count} workers against one", median(rates[count]) / alone, "x") for count in _WORKERS[1:]),
        *(
            Figure(f"processor time of an operation, {who}, {count} worker(s)", median(spent), "ms")
            for count in _WORKERS
            for who, spent in zip(("workers", "PostgreSQL"), zip(*costs[count], strict=True), strict=True)
        ),
        *(
            Figure(f"{name}, 2 workers busy: {percent} of 100 at most", percentile(times, percent), "ms")
            for name, times in latencies.items()
            for percent in (50, 99)
        ),
        *(Figure(f"statements of an operation: {part}", count, "") for part, count in statements.items()),
        *(Figure(f"an operation with {stored:,} stored", took, "ms") for stored, took in grown.items()),
        Figure("100,000 stored against 10", grown[_STORED[-1]] / grown[_STORED[0]], "x", below=1.2),
        *(Figure(f"share of an operation's time: {part}", share, "%") for part, share in shares.items()),
    ]


@contextmanager
def _database(server: Server) -> Iterator[str]:
    url = server.create_database()
    opened = connect(text := url.render_as_string(hide_password=False))
    main.upgrade_database(opened)
    opened.close()
    yield text
    server.drop_database(url)


@contextmanager
def _process(role: str, url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "benchmarks.worker_process", role, url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(60)


def _throughput(server: Server, count: int) -> tuple[float, tuple[float, float], dict[str, list[float]]]:
    """Operations a second, milliseconds of processor each by workers and database, and latencies meanwhile."""
    with ExitStack() as stack:
        url = stack.enter_context(_database(server))
        _process_of_api, address = stack.enter_context(_process("api", url))
        workers = [stack.enter_context(_process("worker", url))[0].pid for _ in range(count)]
        client = Client(int(address.rpartition(":")[2]))
        watched = sa.create_engine(url)
        stack.callback(watched.dispose)
        before = _spent(workers), _spent(tree(server.process_id))
        times: dict[str, list[float]] = {"list": [], "show": [], "accept": []}
        started = time.perf_counter()
        for number in range(_OPERATIONS):
            snapshot_id = _timed(times["accept"], client.take, INSTANCES[number])
            if number % 10 == 0:
                _timed(times["list"], client.request, "GET", f"{SNAPSHOTS}?limit=100")
                _timed(times["show"], client.request, "GET", f"{SNAPSHOTS}/{snapshot_id}")
        _await_all(watched)
        took = time.perf_counter() - started
        spent = _spent(workers) - before[0], _spent(tree(server.process_id)) - before[1]
        client.close()
    return _OPERATIONS / took, (spent[0] * 1000 / _OPERATIONS, spent[1] * 1000 / _OPERATIONS), times


def _timed(times: list[float], act: Any, *arguments: Any) -> Any:
    started = time.perf_counter()
    result = act(*arguments)
    times.append((time.perf_counter() - started) * 1000)
    return result


def _spent(processes: Sequence[int]) -> float:
    return sum(processor_seconds(process) for process in processes)


def _await_all(engine: sa.Engine) -> None:
    until = time.monotonic() + _PATIENCE
    statement = sa.text("SELECT COUNT(*) FROM operations WHERE state IN ('pending', 'running')")
    while time.monotonic() < until:
        with engine.connect() as connection:
            if not connection.execute(statement).scalar_one():
                return
        time.sleep(0.02)
    raise TimeoutError("the operations did not come to their end")


@contextmanager
def _in_process(url: str, **engine: Any) -> Iterator[tuple[main.Service, Any]]:
    """A service in this process that carries operations out, and a client of it without HTTP."""
    with TemporaryDirectory() as folder:
        service = build(url, Path(folder), **engine)
        service.start()
        try:
            # The client tells WSGI from ASGI by the signature, which a chain of middleware does not show.
            client = TestClient(
                lambda environ, respond: service.wsgi(environ, respond),  # noqa: PLW0108
                headers={"Host": "localhost"},
            )
            yield service, client
        finally:
            service.stop()


def _take_all(service: main.Service, client: Any, instances: Sequence[str]) -> float:
    """Snapshots of instances; seconds until the last is there."""
    started = time.perf_counter()
    headers = {"X-Auth-Token": f"bench:{PROJECT}"}
    for instance_id in instances:
        body = {"vm-snapshot": {"name": "bench", "description": ""}}
        reply = client.simulate_post(
            f"/compute/v2.1/{PROJECT}/servers/{instance_id}/action", json=body, headers=headers
        )
        assert reply.status_code == 200, reply.text
    _await_all(service.database.reader)
    return time.perf_counter() - started


def _growth(server: Server, rounds: int) -> dict[int, float]:
    """Milliseconds of an operation by how many instance snapshots and records of operations are stored already."""
    with ExitStack() as stack:
        places = {}
        for stored in _STORED:
            url = stack.enter_context(_database(server))
            opened = connect(url)
            for start in range(0, stored, 10_000):
                plenty.snapshots(opened, min(10_000, stored - start), 50)
                plenty.settled_operations(opened, min(10_000, stored - start))
            with opened.writer.begin() as connection:
                connection.execute(sa.text("ANALYZE"))
            opened.close()
            # One at a time: how long each takes is asked, not how many get through.
            places[stored] = stack.enter_context(_in_process(url, workers=1))
        times: dict[int, list[float]] = {stored: [] for stored in _STORED}
        for number in range(rounds + 1):
            some = INSTANCES[number * 20 : number * 20 + 20]
            for stored, (service, client) in places.items():
                took = _take_all(service, client, some) * 1000 / len(some)
                if number:
                    times[stored].append(took)
        return {stored: median(found) for stored, found in times.items()}


def _statements(server: Server) -> dict[str, float]:
    """Statements that one snapshot needs, by who sends them."""
    with _database(server) as url, _in_process(url) as (service, client):
        _take_all(service, client, INSTANCES[:1])
        counted: Counter[str] = Counter()

        def count(_connection: Any, _cursor: Any, text: str, *_rest: Any) -> None:
            if threading.current_thread().name in ("taker", "overseer", "heartbeat", "background", "sweeper"):
                who = "taking it up" if "FOR UPDATE" in text or "UPDATE operations" in text else None
            elif threading.current_thread() is threading.main_thread():
                who = "accepting it" if "COUNT(*) FROM operations WHERE state" not in text else None
            else:
                who = "the flow's records" if "details" in text or "logbooks" in text else "the operation"
            if who:
                counted[who] += 1

        sa.event.listen(service.database.writer, "before_cursor_execute", count)
        some = INSTANCES[1:21]
        for instance_id in some:
            _take_all(service, client, [instance_id])
        return {who: number / len(some) for who, number in counted.items()} | {"all": counted.total() / len(some)}


def _shares(server: Server) -> dict[str, float]:
    """Where the threads that carry operations out are, by samples, waits for the database included."""
    found: Counter[str] = Counter()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            frames = sys._current_frames()  # noqa: SLF001  # the only way, and named so for being CPython's alone
            for thread in threading.enumerate():
                if thread.name.startswith(("operation", "task")) and thread.ident in frames:
                    part = _part(frames[thread.ident])
                    if part:
                        found[part] += 1

    with _database(server) as url, _in_process(url, workers=1) as (service, client):
        _take_all(service, client, INSTANCES[:5])
        sampler = threading.Thread(target=sample)
        sampler.start()
        _take_all(service, client, INSTANCES[5:105])
        ended.set()
        sampler.join()
    return {part: 100 * found[part] / found.total() for part in _PARTS.values()}


def _part(frame: Any) -> str | None:
    while frame is not None:
        place = frame.f_code.co_filename
        for path, part in _PARTS.items():
            if f"/{path}" in place and "persistence.py" not in place:
                idle = part == "the service itself" and frame.f_code.co_name == "wait"
                return None if idle else part
        frame = frame.f_back
    return None
