"""Declaring instances of this machine, and forgetting them."""

from __future__ import annotations

import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.program import Place


def test_an_instance_is_declared_and_seen_by_the_service(served: Place) -> None:
    disks = [f"{served.disk(name, b'')},name={name},format=raw" for name in ("root", "data")]
    added = served.good("instance", "add", "seen", "--disk", disks[0], "--disk", disks[1], "-f", "json").document
    shown = served.good("instance", "show", "seen", "-f", "json").document
    assert shown == {
        "id": added["id"],
        "name": "seen",
        "status": "SHUTOFF",
        "task_state": None,
        "project_id": "default",
        "volumes": added["volumes"],
    }
    listed = served.good("instance", "list", "-f", "json").document
    assert added["id"] in [one["id"] for one in listed]


def test_an_instance_of_another_project_is_not_seen(served: Place) -> None:
    path = served.disk("foreign", b"")
    served.good("instance", "add", "foreign", "--project", "theirs", "--disk", f"{path},format=raw")
    assert served.run("instance", "show", "foreign").code == 3
    assert served.good("--os-project-id", "theirs", "instance", "show", "foreign").code == 0


def test_a_qcow2_disk_needs_no_format(place: Place) -> None:
    path = place.disk("with, comma", b"")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M"], check=True)
    added = place.good("instance", "add", "q", "--disk", str(path), "-f", "json").document
    assert list(added["volumes"]) == ["disk0"]


@pytest.mark.parametrize(
    ("disks", "message"),
    [
        (["{folder}/missing.img"], "is not there"),
        (["{folder}/disks/raw.img"], "has no qcow2 signature"),
        (["{folder}/disks/raw.img,format=vmdk"], "disks.0.format"),
        (["{folder}/disks/raw.img,format=raw", "{folder}/disks/raw.img,format=raw"], "two disks are the same file"),
        (["{folder}/disks/raw.img,format=raw,name=a/b"], "disks.0.name"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(place: Place, disks: list[str], message: str) -> None:
    place.disk("raw", b"")
    options = [option for disk in disks for option in ("--disk", disk.format(folder=place.folder))]
    refused = place.run("instance", "add", "bad", *options)
    assert refused.code == 4
    assert message in refused.err
    assert len(refused.err.splitlines()) == 1


def test_two_instances_share_neither_name_nor_disk(place: Place) -> None:
    place.instance("first", root=b"r")
    other = place.disk("other", b"")
    assert place.run("instance", "add", "first", "--disk", f"{other},format=raw").code == 4
    taken = place.folder / "disks" / "first-root.img"
    assert place.run("instance", "add", "second", "--disk", f"{taken},format=raw").code == 4


def test_an_instance_with_snapshots_is_kept(served: Place) -> None:
    name = f"i{uuid.uuid4().hex[:8]}"
    served.instance(name, root=b"r")
    served.good("snapshot", "create", f"{name}-s", "--instance", name, "--wait")
    refused = served.run("instance", "remove", name)
    assert (refused.code, f"there are 1 instance snapshots of '{name}'" in refused.err) == (4, True)
    served.good("snapshot", "delete", f"{name}-s", "--wait")
    served.good("instance", "remove", name)
    assert served.run("instance", "remove", name).code == 3
    assert (served.folder / "disks" / f"{name}-root.img").exists()


def test_nobody_to_ask_keeps_an_instance_unless_forced(place: Place) -> None:
    place.instance("kept", root=b"r")
    nobody = {"STILLFRAME_ENDPOINT": "http://127.0.0.1:9"}
    assert place.run("instance", "remove", "kept", **nobody).code == 6
    assert place.run("instance", "remove", "kept", "--force", **nobody).code == 0


def test_an_instance_without_a_start_command_is_not_started(served: Place) -> None:
    served.instance("still", root=b"r")
    refused = served.run("instance", "start", "still")
    assert (refused.code, "start_command" in refused.err) == (4, True), refused
    stopped = served.run("instance", "stop", "still")
    assert (stopped.code, "vm_state stopped" in stopped.err) == (4, True)
