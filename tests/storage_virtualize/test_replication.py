"""Volumes that are replicated by a policy: refused before a safety copy is taken, and nothing is touched."""

from __future__ import annotations

import pytest

from stillframe.domain.errors import Refused
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.storage_virtualize.options import Strategy
from tests.storage_virtualize.within import INSTANCE, VDISK, VOLUME, Story


@pytest.mark.parametrize("told", ["by the volume", "by its group"])
@pytest.mark.parametrize("strategy", [Strategy.FLASHCOPY, Strategy.SNAPSHOTS])
def test_a_replicated_volume_is_neither_cut_nor_put_back(strategy: Strategy, told: str) -> None:
    story = Story(strategy)
    copy_id = story.cut()
    story.storage.complete(story.call(), CopyReference(copy_id))
    vdisk = story.array.vdisk(VDISK)
    if told == "by the volume":
        vdisk.replication_mode = "production"
    else:
        vdisk.volume_group, story.array.policies = "web", {"web": "to-the-other-site"}
    before = story.objects()
    with pytest.raises(Refused, match="replicated"):
        story.storage.check_cut(INSTANCE, [VOLUME])
    with pytest.raises(Refused, match="replicated"):
        story.storage.check_restore(INSTANCE, {VOLUME: copy_id})
    with pytest.raises(Refused, match="replicated"):
        story.storage.restore(story.call(), INSTANCE, VOLUME, copy_id)
    assert story.objects() == before


def test_a_volume_group_without_a_policy_is_no_hindrance() -> None:
    story = Story(Strategy.FLASHCOPY)
    story.array.vdisk(VDISK).volume_group = "web"
    story.write("a")
    copy_id = story.cut()
    story.storage.complete(story.call(), CopyReference(copy_id))
    story.write("b")
    story.storage.restore(story.call(), INSTANCE, VOLUME, copy_id)
    assert story.read() == "a---"
