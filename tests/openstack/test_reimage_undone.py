"""A reimage that fails and is rolled back leaves no helping image, and the volume as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from stillframe.drivers.leftovers import DriverLeftovers, FoundDraft
from stillframe.service.background import RunOutcome
from stillframe.service.janitor import Janitor

if TYPE_CHECKING:
    from tests.openstack.played import PlayedWorld


def test_a_rollback_takes_back_what_a_failed_reimage_has_begun(played: PlayedWorld) -> None:
    played.fill("then")
    older = played.create()
    played.create()
    played.fill("now")
    for volume in played.cloud.volumes.values():
        volume.image_metadata = {"os": "theirs"}
    # To the older one there is no way but a reimage.
    played.cloud.failures = 1
    assert played.restore(older, force=True)["status"] == "restore-error"
    assert len(played.cloud.images) == 1
    shown = played.rollback(older, force=True)
    assert (shown["status"], played.contents()) == ("available", {"now"})
    assert played.cloud.images == {}
    seen = {(one.bootable, *one.image_metadata.items()) for one in played.cloud.volumes.values()}
    assert seen == {("false", ("os", "theirs"))}


def test_an_image_that_is_left_is_found_and_removed_once_nobody_needs_it(played: PlayedWorld) -> None:
    played.fill("then")
    older = played.create()
    played.create()
    played.cloud.failures = 1
    assert played.restore(older, force=True)["status"] == "restore-error"
    # A retry may still need it.
    leftovers = played.drivers.ability(DriverLeftovers)
    assert leftovers is not None
    assert leftovers.drafts() == []
    played.server.locked, played.server.locked_reason = False, None
    (draft,) = leftovers.drafts()
    assert draft.id in played.cloud.snapshots
    leftovers.remove(FoundDraft(draft.id, "of another time"))
    assert len(played.cloud.images) == 1
    for _ in range(2):
        leftovers.remove(draft)
    assert played.cloud.images == {}


def test_an_image_is_not_old_because_the_cloud_s_clock_is_behind(played: PlayedWorld) -> None:
    older = played.create()
    played.create()
    played.cloud.failures = 1
    assert played.restore(older, force=True)["status"] == "restore-error"
    played.server.locked, played.server.locked_reason = False, None
    played.clock.jump(timedelta(days=400).total_seconds())
    assert played.service.background.run(Janitor.name) is RunOutcome.SUCCEEDED
    assert len(played.cloud.images) == 1
