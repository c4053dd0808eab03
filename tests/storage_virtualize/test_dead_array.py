"""One array that refuses or hangs: what lies on it is in trouble, and nothing else."""

from __future__ import annotations

import logging
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stillframe import main
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.registry import open_drivers
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions
from stillframe.main import build_leftovers
from stillframe.service.leftovers import Outcome
from stillframe.settings import load
from tests.cli.program import Place
from tests.lab.boards import free_port
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray, simulated
from tests.storage_virtualize.running import PROJECT, SIZE, Service, configured, running

#: A list is answered sooner than this, whatever the dead array does; who waits for that waits for twice as long.
BOUND = 40.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimulatedArray]:
    with simulated(tmp_path) as served:
        yield served


@pytest.fixture(params=["refuses", "hangs"])
def dead(request: pytest.FixtureRequest) -> Iterator[str]:
    """The endpoint of an array that is not there, or that takes connections and says nothing."""
    if request.param == "refuses":
        yield f"https://127.0.0.1:{free_port()}"
        return
    with closing(socket.create_server(("127.0.0.1", 0), backlog=256)) as listener:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"


def declare(folder: Path, served: SimulatedArray, name: str, array: str | None) -> str:
    """An instance with one vdisk, which is there if it is said to be on the array that lives, or anywhere."""
    instance_id = str(uuid.uuid4())
    instances = folder / "state" / "instances"
    instances.mkdir(parents=True, exist_ok=True)
    if array != "b":
        served.array.add_vdisk(name, SIZE)
    lines = [
        f'id = "{instance_id}"',
        f'name = "{name}"',
        f'project_id = "{PROJECT}"',
        f'qmp_socket = "{folder}/{name}"',
    ]
    lines += ["[[vdisks]]", f'name = "{name}"', f'vdisk = "{name}"', *([f'array = "{array}"'] if array else [])]
    (instances / f"{name}.toml").write_text("\n".join(lines))
    return instance_id


def settings(folder: Path, served: SimulatedArray, dead: str, **options: object) -> Path:
    config = configured(folder, served, arrays="a,b", **options)
    config.write_text(
        f"{config.read_text()}\n[array:b]\nendpoint = {dead}\nusername = {USER}\n"
        f"password_file = {folder}/password\nca_file = {served.ca_file}\ntimeout = {2 * BOUND}\n"
    )
    return config


@pytest.fixture(params=["named", "not named"])
def service(request: pytest.FixtureRequest, tmp_path: Path, served: SimulatedArray, dead: str) -> Iterator[Service]:
    """An instance on the array that lives, which its declaration names or not, and one on the array that is dead."""
    alive = declare(tmp_path, served, "alive", "a" if request.param == "named" else None)
    declare(tmp_path, served, "lost", "b")
    with running(settings(tmp_path, served, dead), served, alive) as service:
        yield service


def listed(service: Service, path: str, key: str) -> list[dict[str, Any]]:
    began = time.monotonic()
    reply = service.call("GET", path)
    assert reply.status_code == 200, reply.text
    assert time.monotonic() - began < BOUND
    found: list[dict[str, Any]] = reply.json()[key]
    return found


def test_an_instance_on_a_living_array_is_snapshot_restored_and_deleted(service: Service) -> None:
    service.fill("x")
    before = service.read()
    snapshot_id = service.snapshot("one")
    service.fill("y")
    assert service.restore(snapshot_id)["status"] == "available", service.show(snapshot_id)
    assert service.read() == before
    service.delete(snapshot_id)
    assert service.served.objects() == {"vdisks": ["alive"], "mappings": [], "groups": [], "snapshots": []}


def test_lists_show_everybody_what_lives_and_what_is_not_known(service: Service) -> None:
    for _ in range(2):
        volumes = listed(service, f"/volume/v3/{PROJECT}/volumes/detail", "volumes")
        assert {one["name"]: one["status"] for one in volumes} == {"alive-alive": "in-use", "lost-lost": "unknown"}
        servers = listed(service, f"/compute/v2.1/{PROJECT}/servers/detail", "servers")
        assert {one["name"] for one in servers} == {"alive", "lost"}


def test_each_volume_is_shown_as_in_the_list(service: Service) -> None:
    for one in listed(service, f"/volume/v3/{PROJECT}/volumes/detail", "volumes"):
        began = time.monotonic()
        reply = service.call("GET", f"/volume/v3/{PROJECT}/volumes/{one['id']}")
        assert time.monotonic() - began < BOUND
        assert reply.status_code == 200, reply.text
        assert reply.json()["volume"]["status"] == one["status"]


def test_the_flashcopy_check_of_what_lives_is_answered(service: Service) -> None:
    service.snapshot("one")
    reply = service.check("alive")
    assert reply.status_code == 202, reply.text
    assert len(reply.json()["copy_details"]) == 1


def test_many_who_list_at_a_time_are_not_held_up(service: Service) -> None:
    listed(service, f"/volume/v3/{PROJECT}/volumes/detail", "volumes")
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: service.call("GET", f"/volume/v3/{PROJECT}/volumes/detail"), range(64)))
    assert {one.status_code for one in replies} == {200}
    assert time.monotonic() - began < BOUND


def test_the_janitor_removes_what_the_living_array_has(
    tmp_path: Path, served: SimulatedArray, dead: str, caplog: pytest.LogCaptureFixture
) -> None:
    alive = declare(tmp_path, served, "alive", "a")
    declare(tmp_path, served, "lost", "b")
    config = settings(tmp_path, served, dead, engine__janitor_grace="0")
    with running(config, served, alive) as service:
        snapshot_id = service.snapshot("gone")
        _forget(tmp_path, snapshot_id)
        with caplog.at_level(logging.WARNING):
            _sweep(config)
    assert served.objects()["vdisks"] == ["alive"]
    assert "array 'b'" in caplog.text


def test_the_doctor_tells_of_the_dead_array_and_of_what_is_not_known(
    tmp_path: Path, served: SimulatedArray, dead: str
) -> None:
    declare(tmp_path, served, "alive", "a")
    declare(tmp_path, served, "lost", "b")
    settings(tmp_path, served, dead)
    began = time.monotonic()
    found = {one["check"]: one for one in Place(tmp_path).run("doctor", "-f", "json").document}
    assert time.monotonic() - began < 10 * BOUND
    assert found["array a"]["result"] == "ok"
    assert found["array b"]["result"] == "fail"
    assert (found["login"]["result"], "on array 'b'" in found["login"]["detail"]) == ("warn", True)
    assert "volume alive-alive" not in found
    assert "not known whether" in found["volume lost-lost"]["detail"]


def _forget(folder: Path, snapshot_id: str) -> None:
    with closing(sqlite3.connect(folder / "state" / "stillframe.sqlite")) as connection:
        connection.execute("DELETE FROM instance_snapshots WHERE id = ?", (snapshot_id,))
        connection.commit()


def _sweep(config: Path) -> None:
    found = load([str(config)])
    leftovers = build_leftovers(found, main.open_database(found), open_drivers(found))
    for one in leftovers.look(LeftoverKind.COPY):
        assert leftovers.remove(one, lambda: None) == (Outcome.REMOVED, "")


def test_an_array_that_cannot_be_reached_is_not_asked_by_everybody_who_lists(served: SimulatedArray) -> None:
    """To learn that again takes a turn of the commands that it is given, for which all the others wait."""
    endpoints = {"a": served.endpoint, "b": f"https://127.0.0.1:{free_port()}"}
    options = [
        ArrayOptions(name, endpoint, USER, PASSWORD, ca_file=served.ca_file) for name, endpoint in endpoints.items()
    ]
    arrays = Arrays([Array(Client(one)) for one in options])
    asked: list[str] = []

    def look(array: Array) -> tuple[int, ...]:
        asked.append(array.name)
        return array.code_level()

    for _ in range(20):
        answers = arrays.ask(look, None, arrays.list_seconds)
        assert (list(answers.given), list(answers.missing)) == (["a"], ["b"])
    # However slow this machine is, not each time.
    assert (asked.count("a"), asked.count("b") < 20) == (20, True)
    # Whoever needs it asks it.
    asked.clear()
    assert arrays.ask(look, arrays.named(frozenset("b"))).missing
    assert asked == ["b"]
