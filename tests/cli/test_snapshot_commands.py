"""Instance snapshots from the command line, against a service that runs."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.program import Place


@pytest.fixture
def instance(served: Place) -> str:
    """The name of a new instance with two disks."""
    name = f"i{uuid.uuid4().hex[:8]}"
    served.instance(name, root=b"the root", data=b"the data")
    return name


def taken(served: Place, instance: str) -> str:
    """The name of a new snapshot of an instance."""
    name = f"{instance}-before"
    served.good("snapshot", "create", name, "--instance", instance, "--wait")
    return name


def test_a_snapshot_is_taken_shown_and_listed(served: Place, instance: str) -> None:
    created = served.good(
        "snapshot", "create", f"{instance}-s", "--instance", instance, "--description", "why", "--wait", "-f", "json"
    )
    assert created.document["status"] == "available"
    assert len(created.document["snapshots"]) == 2
    assert created.document["user_id"] == "admin"
    assert created.err.splitlines()[-1] == f"taking {instance}-s: 100 %"
    by_id = served.good("snapshot", "show", created.document["id"], "-f", "json").document
    by_name = served.good("snapshot", "show", f"{instance}-s", "-f", "json").document
    assert by_id == by_name == created.document
    listed = served.good("snapshot", "list", "--instance", instance, "-f", "json").document
    assert [one["id"] for one in listed] == [created.document["id"]]


def test_one_volume_of_an_instance(served: Place, instance: str) -> None:
    named = served.good(
        "snapshot", "create", f"{instance}-s", "--instance", instance, "--volume", "data", "--wait", "-f", "json"
    ).document
    volumes = served.good("instance", "show", instance, "-f", "json").document["volumes"]
    assert list(named["snapshots"]) == [volumes["data"]]
    unknown = served.run("snapshot", "create", "x", "--instance", instance, "--volume", "nope")
    assert (unknown.code, unknown.err) == (3, "the instance has no volume 'nope'\n")


def test_a_level_that_is_out_of_reach_is_refused(served: Place, instance: str) -> None:
    create = ("snapshot", "create", f"{instance}-s", "--instance", instance, "--minimum-consistency")
    refused = served.run(*create, "filesystem")
    assert refused.code == 4
    assert "'filesystem' is asked for, and no more than 'crash' is reached" in refused.err
    kept = served.good(*create, "crash", "--wait", "-f", "json").document
    assert (kept["status"], kept["minimum_consistency"]) == ("available", "crash")
    assert served.run(*create, "best").code == 2


def test_a_restore_puts_all_disks_back(served: Place, instance: str) -> None:
    name = taken(served, instance)
    served.disk(f"{instance}-root", b"spoilt")
    served.disk(f"{instance}-data", b"spoilt")
    restored = served.good("snapshot", "restore", name, "--wait", "-f", "value", "-c", "status")
    assert restored.out == "available\n"
    # The plan, and then how far it is.
    assert restored.err.count("goes back by replace") == 2, restored.err
    assert served.content(instance, "root") == b"the root"
    assert served.content(instance, "data") == b"the data"


def test_the_snapshot_is_shown_as_it_is_now_without_waiting(served: Place, instance: str) -> None:
    accepted = served.good("snapshot", "create", f"{instance}-s", "--instance", instance, "-f", "json").document
    assert accepted["status"] in ("creating", "available")
    waited = served.good("snapshot", "progress", accepted["task_uri"], "--wait", "-f", "json").document
    assert waited["progress"] == 100
    assert waited["flow_details"] == {"InstSnapshotFlow": "SUCCESS"}
    assert served.good("snapshot", "progress", accepted["id"], "-f", "json").document == waited


def test_a_restore_that_fails_is_retried_or_rolled_back(served: Place, instance: str) -> None:
    name = taken(served, instance)
    volume = served.good("instance", "show", instance, "-f", "json").document["volumes"]["data"]
    obstacle = served.folder / "disks" / ".stillframe" / f"{volume}.restoring"
    served.disk(f"{instance}-data", b"first damage")
    obstacle.mkdir()
    failed = served.run("snapshot", "restore", name, "--wait")
    assert failed.code == 1
    assert "Is a directory" in failed.err
    assert "stillframe snapshot retry" in failed.err
    assert list(served.good("snapshot", "show", name, "-f", "json").document["failed_snapshots"]) == [volume]
    fenced = served.run("instance", "start", instance)
    assert (fenced.code, "fenced" in fenced.err) == (4, True)
    obstacle.rmdir()
    served.good("snapshot", "retry", name, "--wait")
    assert served.content(instance, "data") == b"the data"

    served.disk(f"{instance}-root", b"second damage")
    obstacle.mkdir()
    assert served.run("snapshot", "restore", name, "--wait").code == 1
    assert served.content(instance, "root") == b"the root"
    obstacle.rmdir()
    served.good("snapshot", "rollback", name, "--wait")
    assert served.content(instance, "root") == b"second damage"
    assert served.statuses()[name] == "available"


def test_name_and_description_are_changed(served: Place, instance: str) -> None:
    name = taken(served, instance)
    served.good("snapshot", "set", name, "--name", f"{instance}-after", "--description", "")
    shown = served.good("snapshot", "show", f"{instance}-after", "-f", "json").document
    assert shown["description"] == ""
    nothing = served.run("snapshot", "set", f"{instance}-after")
    assert (nothing.code, nothing.err) == (2, "nothing to change: give --name, --description or both\n")


def test_snapshots_are_deleted_though_one_is_unknown(served: Place, instance: str) -> None:
    name = taken(served, instance)
    done = served.run("snapshot", "delete", "nope", name, "--wait")
    assert done.code == 3
    assert "nope: there is no instance snapshot with the id or name 'nope'" in done.err
    assert served.run("snapshot", "show", name).code == 3


def test_a_name_that_two_have_is_not_enough(served: Place, instance: str) -> None:
    name = taken(served, instance)
    taken(served, instance)
    ambiguous = served.run("snapshot", "show", name)
    assert (ambiguous.code, "2 instance snapshots are called" in ambiguous.err) == (4, True)
    listed = served.good("snapshot", "list", "--name", name, "--limit", "1", "-f", "value", "-c", "id")
    assert len(listed.out.split()) == 1


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", '"name": "{name}"'),
        ("yaml", "name: {name}"),
        ("value", "{name}"),
        ("shell", 'name="{name}"'),
        ("table", "name  {name}\n"),
    ],
)
def test_the_forms_of_output(served: Place, instance: str, form: str, expected: str) -> None:
    shown = served.good("instance", "show", instance, "-f", form, "-c", "name")
    assert expected.format(name=instance) in shown.out


def test_who_sits_at_a_terminal_waits_and_sees_a_bar(served: Place, instance: str) -> None:
    code, shown = served.at_a_terminal("snapshot", "create", f"{instance}-s", "--instance", instance)
    assert code == 0
    assert "━" in shown
    assert "100 %" in shown
    assert "SnapshotDone" in shown
    assert "available" in shown
