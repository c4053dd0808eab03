"""What is prepared and never cut can be deleted, and is kept nowhere."""

from __future__ import annotations

import gc
import weakref

from stillframe.drivers.storage_virtualize.options import Strategy
from tests.storage_virtualize.within import INSTANCE, NAME, VDISK, Story


def test_what_was_prepared_and_never_cut_is_deleted_from_the_array() -> None:
    story = Story(Strategy.FLASHCOPY)
    call = story.call()
    story.storage.prepare_cut(call, INSTANCE, [NAME])
    for copy in story.storage.find(NAME.snapshot_id, "i"):
        story.storage.delete(call, copy.reference)
    assert story.objects() == [VDISK]


def test_what_was_prepared_is_kept_by_nobody_but_who_asked_for_it() -> None:
    story = Story(Strategy.FLASHCOPY)
    prepared = story.storage.prepare_cut(story.call(), INSTANCE, [NAME])
    kept = weakref.ref(prepared)
    del prepared
    gc.collect()
    assert kept() is None
