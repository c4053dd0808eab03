"""A cinder-volume dies with a revert in its queue: whatever is done then, it waits until that revert is over.

Nothing takes a queued command back. Until its end it may write to the volume at any time, so that nothing counts as
done, no safety copy goes, and the server stays locked and off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest

from tests.openstack.played import playing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.openstack.played import PlayedWorld

REVERT: Final = r"POST /volume/volumes/.*\"(revert|os-reimage)\""
LOOK: Final = r"GET /volume/(volumes|snapshots)/detail"


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedWorld]:
    with playing(tmp_path, volume_service_interval=0.05) as world:
        yield world


def queue_a_revert(played: PlayedWorld, *, newer: bool = False) -> str:
    """The snapshot whose restore has failed, with a revert, or else a reimage, in the queue of a dead service."""
    played.fill("then")
    snapshot_id = played.create()
    if newer:
        played.create()
    played.fill("now")
    played.cloud.on(REVERT, lambda: played.cloud.storage.die(seen=True))
    shown = played.restore(snapshot_id, force=True)
    assert shown["status"] == "restore-error"
    assert len(played.cloud.storage.queue) in (1, 2)
    holds(played)
    return snapshot_id


def holds(played: PlayedWorld) -> None:
    """The server is off and locked, the way back is there, and Cinder tells that something is still to come."""
    safe = [one for one in played.cloud.snapshots.values() if one.name.startswith("stillframe safety")]
    assert (played.server.locked, played.server.power, len(safe)) == (True, ["stop"], 2)
    assert {one.status for one in played.cloud.volumes.values()} & {"reverting", "downloading"}


def looks(played: PlayedWorld) -> None:
    """Wait until it has been looked at the volumes for some more times."""
    before = len(played.cloud.asked(LOOK))
    played.wait_for(lambda: len(played.cloud.asked(LOOK)) > before + 12)


def at_once(_played: PlayedWorld) -> None: ...


def while_it_runs(played: PlayedWorld) -> None:
    looks(played)


def while_it_runs_and_the_service_dies(played: PlayedWorld) -> None:
    looks(played)
    played.look_anew()
    looks(played)


@pytest.mark.parametrize(
    ("way", "newer", "meanwhile"),
    [
        ("retry", False, while_it_runs),
        ("rollback", False, while_it_runs),
        ("rollback", False, while_it_runs_and_the_service_dies),
        ("rollback", True, while_it_runs),
        ("rollback", False, at_once),
    ],
    ids=lambda one: one.__name__ if callable(one) else str(one),
)
def test_nothing_is_begun_and_nothing_ends_before_what_was_queued(
    played: PlayedWorld, way: str, meanwhile: Callable[[PlayedWorld], None], *, newer: bool
) -> None:
    cloud, snapshot_id = played.cloud, queue_a_revert(played, newer=newer)
    # It was away for longer than any revert may take, and is back now.
    cloud.gone_by += 5 * 3600
    cloud.storage.seconds = 0.0 if meanwhile is at_once else math.inf
    cloud.storage.come_back()
    queued, asked = list(cloud.storage.running), cloud.asked(REVERT)
    played.begin(way, snapshot_id, force=True)
    meanwhile(played)
    if queued:
        holds(played)
        volumes = [one for one in cloud.volumes.values() if one.status in ("reverting", "downloading")]
        own = [one for one in cloud.asked(REVERT)[len(asked) :] if any(volume.id in one for volume in volumes)]
        assert (own, played.show(snapshot_id)["status"]) == ([], {"retry": "restoring"}.get(way, "rolling-back"))
    cloud.storage.finish()
    played.settle()
    shown = played.show(snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert played.contents() == {"then" if way == "retry" else "now"}
    assert (played.server.power, played.server.locked) == (["stop", "start"], False)
    assert (cloud.storage.queue, cloud.storage.running) == ([], [])
    assert {one.status for one in cloud.volumes.values()} == {"in-use"}
    assert not [one for one in cloud.snapshots.values() if one.name.startswith("stillframe safety")]


def test_what_is_queued_keeps_the_fence_from_going_with_its_snapshot(played: PlayedWorld) -> None:
    snapshot_id = queue_a_revert(played)
    played.delete(snapshot_id)
    shown = played.show(snapshot_id)
    assert (shown["status"], "may be in its queue" in shown["fault"]["message"]) == ("error-deleting", True)
    holds(played)
    played.cloud.storage.come_back()
    played.delete(snapshot_id)
    assert played.is_gone(snapshot_id)
    assert (played.server.locked, played.server.power, played.cloud.snapshots) == (False, ["stop"], {})


def test_what_is_queued_keeps_other_snapshots_from_being_restored(played: PlayedWorld) -> None:
    other = played.create()
    queue_a_revert(played)
    for alive in (False, True):
        if alive:
            played.cloud.storage.seconds = math.inf
            played.cloud.storage.come_back()
        assert played.restore_refused(other)[0] == 409
        holds(played)


def test_a_service_that_is_silent_may_have_a_revert_in_its_queue_however_long(tmp_path: Path) -> None:
    with playing(tmp_path, volume_service_interval=0.05, revert_timeout=1) as played:
        played.fill("then")
        snapshot_id = played.create()
        played.fill("now")
        # It reports that it is up, and comes to nothing.
        played.cloud.on(REVERT, lambda: played.cloud.storage.die(seen=False))
        shown = played.restore(snapshot_id, force=True)
        assert (shown["status"], "may be in its queue" in shown["fault"]["message"]) == ("restore-error", True)
        holds(played)
        played.cloud.storage.come_back()
        shown = played.rollback(snapshot_id, force=True)
        assert (shown["status"], shown["fault"], played.contents()) == ("available", None, {"now"})
