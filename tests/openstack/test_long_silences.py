"""Cinder's API is away for longer than a request is waited for, and works on it under the first looks that it answers.

A first answer after a silence says what was, wherever it is looked at and whoever looks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import pytest

from tests.openstack.played import playing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.scripted.cloud import Late
    from tests.openstack.played import PlayedWorld

REVERT: Final = '"revert"'
REIMAGE: Final = '"os-reimage"'
OPEN: Final = '"os-reset_status".*"available"'
CLOSE: Final = '"os-reset_status".*"in-use"'


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedWorld]:
    # A restore that waits for a lost revert does so for as long as an hour; for an answer it waits for half a second.
    with playing(tmp_path, revert_timeout=3600, late_requests=0.05) as world:
        yield world


def delay(played: PlayedWorld, request: str, looks: int, silent: float) -> Late:
    """Leave a request about the volume unanswered, and so many looks; it comes under a later one."""
    volume_id = played.server.volumes[0]
    path = f"/volume/volumes/{volume_id}/action"
    return played.cloud.delay(f"POST {path} .*{request}", f"GET /volume/.*{volume_id}", looks, silent=silent)


def cut(played: PlayedWorld, request: str) -> str:
    """A snapshot that one volume is put back to by such a request."""
    volume_id = played.server.volumes[0]
    played.fill("then")
    snapshot_id = played.create(volume_id)
    if request == REIMAGE:
        played.create(volume_id)
    played.fill("now")
    played.cloud.storage.seconds = 1.0
    return snapshot_id


def holds(played: PlayedWorld, snapshot_id: str, contents: str = "then") -> None:
    """Everything is as it is after a restore in which all was answered."""
    shown, volume = played.show(snapshot_id), played.cloud.volumes[played.server.volumes[0]]
    assert (shown["status"], shown["fault"], volume.content) == ("available", None, contents)
    at_rest(played)


def at_rest(played: PlayedWorld) -> None:
    assert {one.status for one in played.cloud.volumes.values()} == {"in-use"}
    assert {one.status for one in played.cloud.snapshots.values()} <= {"available"}
    assert not played.server.locked


@pytest.mark.parametrize(
    ("request_", "silent", "looks"),
    [
        # The last look of the attempt that was not answered.
        (REVERT, 4, 1),
        (REVERT, 5, 1),
        (REIMAGE, 0, 1),
        # The looks of the next attempt, which then sets the status.
        (REVERT, 6, 3),
        # Over the next revert.
        (OPEN, 5, 5),
        (CLOSE, 5, 7),
    ],
)
def test_a_restore_does_not_go_by_the_first_looks_after_a_silence(
    played: PlayedWorld, request_: str, silent: int, looks: int
) -> None:
    snapshot_id = cut(played, request_)
    delay(played, request_, looks, silent)
    played.restore(snapshot_id, force=True)
    holds(played, snapshot_id)


def test_a_restore_that_was_answered_waits_for_nothing(tmp_path: Path) -> None:
    with playing(tmp_path, late_requests=3600) as played:
        snapshot_id = cut(played, REVERT)
        played.restore(snapshot_id, force=True)
        holds(played, snapshot_id)


def test_a_worker_that_takes_over_waits_for_what_its_predecessor_was_not_answered(played: PlayedWorld) -> None:
    snapshot_id = cut(played, REVERT)
    late = delay(played, REVERT, 3, math.inf)
    played.begin("restore", snapshot_id, force=True)
    played.wait_for(lambda: late.work is not None)
    played.stop()
    late.silent = 0
    played.start_anew()
    played.settle()
    holds(played, snapshot_id)


@pytest.mark.parametrize(
    ("way", "looks"), [("retry", 9), ("rollback", 9), ("delete", 3)], ids=["retry", "rollback", "delete"]
)
def test_an_operation_of_another_process_waits_for_what_a_failed_restore_was_not_answered(
    played: PlayedWorld, way: str, looks: int
) -> None:
    snapshot_id = cut(played, REVERT)
    late = delay(played, REVERT, looks, math.inf)
    assert played.restore(snapshot_id, force=True)["status"] == "restore-error"
    played.stop()
    late.silent = 0
    played.start_anew()
    if way == "delete":
        running: list[int] = []
        played.cloud.on("DELETE /volume/snapshots", lambda: running.append(len(played.cloud.storage.running)))
        played.delete(snapshot_id)
        assert (played.is_gone(snapshot_id), running) == (True, [0])
        at_rest(played)
    else:
        played.begin(way, snapshot_id, force=True)
        played.settle()
        holds(played, snapshot_id, {"retry": "then", "rollback": "now"}[way])
