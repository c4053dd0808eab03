"""nova-compute of a server's host is dead: nothing is asked of it that it would do when it comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.openstack.played import playing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.openstack.played import PlayedWorld

LOCK = r"POST /compute/servers/.*\"lock\""
STOP = r"POST /compute/servers/.*os-stop"


def test_a_server_goes_back_while_its_host_is_well(played: PlayedWorld) -> None:
    played.fill("then")
    snapshot_id = played.create()
    played.fill("now")
    shown = played.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert (played.contents(), played.server.power, played.server.status) == ({"then"}, ["stop", "start"], "ACTIVE")
    assert not played.server.locked
    played.delete(snapshot_id)
    assert played.cloud.snapshots == {}


@pytest.mark.parametrize("seen", [True, False], ids=["nova has noticed", "nova has not noticed yet"])
def test_a_restore_is_refused_and_leaves_nothing_queued(played: PlayedWorld, *, seen: bool) -> None:
    snapshot_id = played.create()
    played.cloud.compute.die(seen=seen)
    code, words = played.restore_refused(snapshot_id)
    assert code == 409
    assert "start nova-compute there" in words
    # Nova tells nobody but administrators.
    assert "compute-1" not in words
    assert (played.cloud.asked("POST /compute/servers"), played.show(snapshot_id)["status"]) == ([], "available")
    played.cloud.compute.come_back()
    assert (played.server.power, played.server.status) == ([], "ACTIVE")
    # What the message says is done, and the restore goes through.
    assert played.restore(snapshot_id, force=True)["fault"] is None


def test_a_host_that_is_disabled_is_none_that_is_dead(played: PlayedWorld) -> None:
    snapshot_id = played.create()
    played.cloud.compute.status = "disabled"
    assert played.restore(snapshot_id, force=True)["fault"] is None
    played.cloud.compute.die(seen=True)
    assert played.restore_refused(snapshot_id)[0] == 409


def test_a_host_that_dies_after_the_request_ends_the_restore_before_anything_is_queued(played: PlayedWorld) -> None:
    snapshot_id = played.create()
    played.fill("now")
    played.cloud.on(LOCK, lambda: played.cloud.compute.die(seen=False))
    shown = played.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "conflict")
    assert "start nova-compute there" in shown["fault"]["message"]
    assert (played.cloud.asked(STOP), played.server.locked) == ([], False)
    played.cloud.compute.come_back()
    assert (played.server.power, played.server.status, played.contents()) == ([], "ACTIVE", {"now"})


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[PlayedWorld]:
    with playing(tmp_path, server_timeout=0.2) as world:
        yield world


def test_a_stop_that_is_queued_already_is_waited_for_and_the_restore_goes_on(
    impatient: PlayedWorld, caplog: pytest.LogCaptureFixture
) -> None:
    played = impatient
    played.fill("then")
    snapshot_id = played.create()
    played.fill("now")
    played.cloud.on(STOP, lambda: played.cloud.compute.die(seen=True))
    task = played.begin("restore", snapshot_id, force=True)
    played.wait_for(lambda: "cannot be taken back" in caplog.text)
    assert played.server.locked
    played.cloud.compute.come_back()
    played.settle()
    assert played.progress(task)["progress"] == 100
    assert played.cloud.asked("os-resetState") == []
    assert (played.server.power, played.contents()) == (["stop", "start"], {"then"})
    assert not played.server.locked


def test_a_host_that_dies_in_the_restore_leaves_the_server_off_and_no_start_queued(played: PlayedWorld) -> None:
    played.fill("then")
    snapshot_id = played.create()
    played.cloud.on(r"POST .*\"unlock\"", lambda: played.cloud.compute.die(seen=False))
    shown = played.restore(snapshot_id, force=True)
    assert shown["status"] == "available"
    assert "The volumes are whole, but the instance is not up" in shown["fault"]["message"]
    assert "openstack server start" in shown["fault"]["message"]
    played.cloud.compute.come_back()
    assert (played.server.power, played.server.locked, played.contents()) == (["stop"], False, {"then"})
    # As the message advises.
    played.drivers.compute.start(played.a_call(), played.server.id)
    assert (played.server.power, played.server.status) == (["stop", "start"], "ACTIVE")


def test_a_server_that_is_off_goes_back_without_its_host(played: PlayedWorld) -> None:
    played.fill("then")
    snapshot_id = played.create()
    played.fill("now")
    played.server.status = "SHUTOFF"
    played.cloud.compute.die(seen=True)
    assert played.restore(snapshot_id)["fault"] is None
    assert (played.contents(), played.cloud.compute.queue) == ({"then"}, [])


def test_a_snapshot_needs_no_host_and_asks_it_for_no_pause(pausing: PlayedWorld) -> None:
    assert pausing.show(pausing.create())["consistency"]["level"] == "crash"
    assert pausing.server.power == ["pause", "unpause"]
    pausing.cloud.compute.die(seen=False)
    shown = pausing.show(pausing.create())
    assert (shown["status"], shown["consistency"]["level"]) == ("available", "none")
    pausing.cloud.compute.come_back()
    assert pausing.server.power == ["pause", "unpause"]


def test_a_pause_that_its_host_forgets_and_comes_to_later_leaves_no_guest_held(pausing: PlayedWorld) -> None:
    pausing.cloud.on(r"POST .*\"pause\"", lambda: pausing.cloud.compute.die(seen=False))
    snapshot_id, _task = pausing.begin_create()
    pausing.wait_for(lambda: pausing.server.task_state == "pausing")
    pausing.cloud.compute.come_back()
    assert (pausing.server.status, pausing.server.held) == ("ACTIVE", True)
    pausing.settle()
    assert pausing.show(snapshot_id)["status"] == "available"
    assert (pausing.server.status, pausing.server.held, pausing.server.task_state) == ("ACTIVE", False, None)
    # Its user is asked for nothing: the guest was only held still for a while.
    assert set(pausing.server.power) == {"pause", "unpause"}
