"""cinder-volume is dead, or Cinder is away: seen by what Cinder tells of its services, not by the time that goes by."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab.scripted.cloud import Answer
from tests.openstack.played import playing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.openstack.played import PlayedWorld

REVERT: Final = r"POST /volume/volumes/.*\"revert\""
LOOK: Final = r"GET /volume/(volumes|snapshots)/"
SNAP: Final = r"POST /volume/snapshots "
LOCK: Final = r"POST /compute/servers/.*\"lock\""


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedWorld]:
    with playing(tmp_path, volume_service_interval=0.05) as world:
        yield world


def statuses(played: PlayedWorld) -> set[str]:
    return {one.status for one in played.cloud.volumes.values()}


def die(played: PlayedWorld) -> None:
    """Before it comes to what it is asked for next, which is queued then."""
    played.cloud.storage.die(seen=True)


def die_in_the_middle(played: PlayedWorld) -> None:
    """After it has begun what it is asked for next, and has answered a question since."""
    cloud = played.cloud
    cloud.storage.seconds = math.inf

    def answered() -> None:
        cloud.on(LOOK, lambda: die(played))

    cloud.on("GET /volume/capabilities", answered)


@pytest.mark.parametrize("seen", [True, False], ids=["cinder has noticed", "cinder has not noticed yet"])
def test_requests_are_refused_while_nobody_could_carry_them_out(played: PlayedWorld, *, seen: bool) -> None:
    snapshot_id = played.create()
    played.cloud.storage.die(seen=seen)
    for code, words in (played.restore_refused(snapshot_id), played.refused({"vm-snapshot": {"name": "s"}})):
        assert (code, "openstack volume service list" in words) == (409, True), words
    assert (played.cloud.storage.queue, played.server.power, played.server.locked) == ([], [], False)
    played.cloud.storage.come_back()
    assert played.restore(snapshot_id, force=True)["fault"] is None


def test_a_revert_that_dies_ends_without_its_timeout_and_its_retry_does_not_wait(played: PlayedWorld) -> None:
    played.fill("then")
    volume = played.cloud.volumes[played.server.volumes[0]]
    snapshot_id = played.create(volume.id)
    played.fill("now")
    played.cloud.on(REVERT, lambda: die_in_the_middle(played))
    shown = played.restore(snapshot_id, force=True)
    assert shown["status"] == "restore-error"
    assert "is down" in shown["fault"]["message"]
    assert (played.server.locked, played.server.power) == (True, ["stop"])
    retry = {"vm-restore": {"instance_snapshot_id": snapshot_id, "retry": True, "force": True}}
    assert played.refused(retry)[0] == 409
    assert (volume.status, volume.content, played.cloud.storage.queue) == ("in-use", "now", [])
    played.cloud.storage.seconds = 0.0
    played.cloud.storage.come_back()
    shown = played.retry(snapshot_id, force=True)
    assert (shown["status"], shown["fault"], volume.content) == ("available", None, "then")
    assert (played.server.power, played.server.locked) == (["stop", "start"], False)


def test_a_revert_that_has_been_waited_for_is_not_waited_for_once_more(tmp_path: Path) -> None:
    with playing(tmp_path, volume_service_interval=0.05, revert_timeout=2) as played:
        snapshot_id = played.create()

        def be_slow() -> None:
            played.cloud.storage.seconds = math.inf

        played.cloud.on(REVERT, be_slow)
        assert played.restore(snapshot_id, force=True)["status"] == "restore-error"
        assert statuses(played) == {"reverting"}
        checks: list[None] = []
        call = replace(played.a_call(), check=lambda: checks.append(None))
        volume = next(iter(played.cloud.volumes.values()))
        played.drivers.storage.release(call, volume.id)
        assert len(checks) <= 2
        assert volume.status == "in-use"
        assert {one.status for one in played.cloud.snapshots.values() if one.volume_id == volume.id} == {"available"}


def test_a_snapshot_whose_service_dies_in_the_cut_ends_and_leaves_nothing(played: PlayedWorld) -> None:
    played.cloud.on(SNAP, lambda: die(played))
    snapshot_id = played.create()
    shown = played.show(snapshot_id)
    assert (shown["status"], shown["snapshots"]) == ("error", None)
    assert "is down" in shown["fault"]["message"]
    assert (played.server.power, played.server.locked) == ([], False)
    played.cloud.storage.come_back()
    played.delete(snapshot_id)
    assert (played.cloud.snapshots, statuses(played)) == ({}, {"in-use"})


def test_a_restore_goes_on_when_cinder_was_away_for_a_while(played: PlayedWorld) -> None:
    played.fill("then")
    snapshot_id = played.create()
    played.fill("now")
    away = Answer(503, b"<html>away</html>", "text/html")
    played.cloud.on(LOCK, lambda: played.cloud.on(" /volume/", lambda: away, times=8))
    shown = played.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"], played.contents()) == ("available", None, {"then"})
    assert (played.server.power, played.server.locked) == (["stop", "start"], False)


def test_a_snapshot_goes_on_when_cinder_was_away_for_a_while(played: PlayedWorld) -> None:
    away = Answer(503, b"<html>away</html>", "text/html")
    played.cloud.on(SNAP, lambda: played.cloud.on(" /volume/", lambda: away, times=20))
    shown = played.show(played.create())
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert set(shown["snapshots"].values()) == set(played.cloud.snapshots)
    assert played.server.power == []
