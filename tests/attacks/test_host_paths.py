"""A tenant who reads every word of the service, to learn what lies where on its host."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from tests.attacks.machine import SECRET, Machine, machine
from tests.attacks.served import Things, probes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MINE, THEIRS = "blue", "green"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path) as one:
        yield one


def require_silence(host: Machine) -> None:
    for text in host.said:
        for part in (SECRET, *SECRET.split(), *host.folder.parts[1:], "/usr/", "Traceback"):
            assert part not in text, text


def test_an_id_of_another_project_is_answered_like_one_that_nobody_has(host: Machine) -> None:
    theirs = replace(host.things(THEIRS), project_id=MINE)
    nobodys = Things(MINE, *(str(uuid.uuid4()) for _ in range(4)))
    fields = ("server_id", "snapshot_id", "volume_id", "task_id", "copy_id")
    names = {getattr(theirs, field): getattr(nobodys, field) for field in fields}
    host.said.clear()
    for foreign, unknown in zip(probes(theirs), probes(nobodys), strict=True):
        replies = [host.ask(one.method, one.path, one.body) for one in (foreign, unknown)]
        text = replies[0].text
        for one, other in names.items():
            text = text.replace(one, other)
        assert (replies[0].status_code, text) == (replies[1].status_code, replies[1].text), foreign
    require_silence(host)


def no_disk(host: Machine, _things: Things) -> None:
    for disk in host.local.disks.iterdir():
        if disk.is_file():
            disk.unlink()


def a_folder_for_a_disk(host: Machine, things: Things) -> None:
    no_disk(host, things)
    for _declaration, disk in host.local.declarations.disks():
        disk.path.mkdir()


def a_fifo_for_a_disk(host: Machine, things: Things) -> None:
    no_disk(host, things)
    for _declaration, disk in host.local.declarations.disks():
        os.mkfifo(disk.path)


def a_disk_of_another_size(host: Machine, _things: Things) -> None:
    for _declaration, disk in host.local.declarations.disks():
        os.truncate(disk.path, 12345)


def a_second_name_for_a_disk(host: Machine, _things: Things) -> None:
    for _declaration, disk in host.local.declarations.disks():
        os.link(disk.path, disk.path.with_suffix(".link"))


def no_copies(host: Machine, _things: Things) -> None:
    shutil.rmtree(host.local.disks / ".stillframe")


def a_file_for_the_copies(host: Machine, things: Things) -> None:
    no_copies(host, things)
    (host.local.disks / ".stillframe").write_bytes(b"")


def copies_of_other_content(host: Machine, _things: Things) -> None:
    for copy in (host.local.disks / ".stillframe").rglob("data"):
        os.truncate(copy, 777)


def no_records(host: Machine, _things: Things) -> None:
    shutil.rmtree(host.folder / "state" / "local")


def broken_records(host: Machine, _things: Things) -> None:
    for record in (host.folder / "state" / "local" / "copies").rglob("*"):
        if record.is_file():
            record.write_bytes(b"\xff{")


def files_for_folders_of_the_state(host: Machine, things: Things) -> None:
    no_records(host, things)
    (host.folder / "state" / "local").write_bytes(b"")


def a_disk_that_everybody_may_swap(host: Machine, _things: Things) -> None:
    host.local.disks.chmod(0o777)


def an_instance_that_cannot_start(host: Machine, _things: Things) -> None:
    for path in host.local.instances.iterdir():
        text = path.read_text()
        head, _, rest = text.partition("start_command = [")
        path.write_text(f'{head}start_command = ["{host.folder}/no such program"]{rest.partition("]")[2]}')


def an_instance_file_without_sense(host: Machine, _things: Things) -> None:
    for path in host.local.instances.iterdir():
        path.write_text("= nonsense")


DAMAGES: Final[list[Callable[[Machine, Things], None]]] = [
    no_disk,
    a_folder_for_a_disk,
    a_fifo_for_a_disk,
    a_disk_of_another_size,
    a_second_name_for_a_disk,
    no_copies,
    a_file_for_the_copies,
    copies_of_other_content,
    no_records,
    broken_records,
    files_for_folders_of_the_state,
    a_disk_that_everybody_may_swap,
    an_instance_that_cannot_start,
    an_instance_file_without_sense,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_whatever_breaks_on_the_host_is_told_without_its_paths(host: Machine, damage: Callable[..., None]) -> None:
    things = host.things(MINE)
    instance = host.service.drivers.compute.get_instance(things.server_id)
    damage(host, things)
    went_wrong = []
    snapshot = {"instance_snapshot_id": things.snapshot_id}
    for body in (
        {"vm-snapshot": {"name": "another"}},
        {"vm-restore": snapshot},
        {"vm-restore": {**snapshot, "retry": True}},
        {"vm-restore": {**snapshot, "rollback": True}},
        {"os-start": None},
    ):
        reply = host.act(instance, body)
        ended = host.settled(instance, reply) if "os-start" not in body and "retry" not in str(body) else None
        went_wrong.append(reply.status_code >= 400 or (ended or {}).get("fault") is not None)
    for probe in probes(things):
        if probe.method == "GET":
            host.ask(probe.method, probe.path)
    reply = host.ask("DELETE", f"/v3/{MINE}/instance-snapshots/{things.snapshot_id}")
    host.settled(instance, reply)
    assert any(went_wrong)
    require_silence(host)
