"""What a server has to be brought out of first is told at the request, with how; nothing has been changed then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.openstack.played import PlayedWorld

FIRST = {
    "RESCUE": "openstack server unrescue",
    "VERIFY_RESIZE": "openstack server resize confirm",
    "SHELVED": "openstack server unshelve",
    "SHELVED_OFFLOADED": "openstack server unshelve",
    "SOFT_DELETED": "openstack server restore",
    "REBUILD": "wait until Nova is done",
    "MIGRATING": "wait until Nova is done",
    "BUILD": "wait until Nova is done",
    "UNKNOWN": "wait until Nova is done",
}


def changes(played: PlayedWorld) -> list[str]:
    return [one for one in played.cloud.asked("^(POST|PUT|DELETE)") if "/auth/tokens" not in one]


def test_a_restore_is_refused(played: PlayedWorld) -> None:
    snapshot_id = played.create()
    before = changes(played)
    for status, first in FIRST.items():
        played.server.status = status
        for volume in played.cloud.volumes.values():
            volume.status = "reserved" if status == "SHELVED_OFFLOADED" else "in-use"
        for force in (True, False):
            code, words = played.restore_refused(snapshot_id, force=force)
            assert (code, status in words, first in words) == (409, True, True), words
            assert (changes(played), played.show(snapshot_id)["status"]) == (before, "available")


def test_a_restore_goes_through_when_what_was_told_has_been_done(played: PlayedWorld) -> None:
    snapshot_id = played.create()
    played.server.status = "RESCUE"
    assert played.restore_refused(snapshot_id)[0] == 409
    played.server.status = "ACTIVE"
    assert played.restore(snapshot_id, force=True)["fault"] is None


def test_a_snapshot_is_refused_of_a_server_without_its_volumes_and_taken_of_any_other(played: PlayedWorld) -> None:
    for status in ("RESCUE", "VERIFY_RESIZE", "SUSPENDED", "PAUSED", "ERROR"):
        played.server.status = status
        assert played.show(played.create())["status"] == "available"
    before = changes(played)
    for volume in played.cloud.volumes.values():
        volume.status = "reserved"
    for status in ("SHELVED", "SHELVED_OFFLOADED", "BUILD"):
        played.server.status = status
        code, words = played.refused({"vm-snapshot": {"name": "s"}})
        assert (code, FIRST[status] in words) == (409, True), words
    assert changes(played) == before


@pytest.mark.parametrize(("status", "way"), [("PAUSED", "unpause"), ("SUSPENDED", "resume")])
def test_a_server_that_is_held_is_let_run_before_it_is_shut_off(played: PlayedWorld, status: str, way: str) -> None:
    snapshot_id = played.create()
    played.server.status = status
    code, words = played.restore_refused(snapshot_id, force=False)
    assert (code, "let it run again and shut it off first" in words) == (400, True)
    assert played.restore(snapshot_id, force=True)["fault"] is None
    assert played.server.power == [way, "stop", "start"]


def test_a_server_that_is_rescued_after_the_request_ends_the_restore_before_it_is_locked(played: PlayedWorld) -> None:
    snapshot_id = played.create()

    def rescue() -> None:
        played.server.status = "RESCUE"

    # It is the last that the request looks at.
    played.cloud.on(f"GET /compute/servers/{played.server.id}/diagnostics", rescue)
    shown = played.restore(snapshot_id, force=True)
    assert (shown["status"], "unrescue" in shown["fault"]["message"]) == ("available", True)
    assert played.cloud.asked('"lock"') == []
