"""What is prepared and never cut: it is forgotten, on the array and in memory."""

from __future__ import annotations

from dataclasses import replace

from stillframe.drivers.storage_virtualize.options import Strategy
from tests.storage_virtualize.within import INSTANCE, NAME, VDISK, Story


def test_what_was_prepared_and_deleted_is_kept_nowhere() -> None:
    story = Story(Strategy.FLASHCOPY)
    call = story.call()
    story.storage.prepare_cut(call, INSTANCE, [NAME])
    for copy in story.storage.find(NAME.snapshot_id, "i"):
        story.storage.delete(call, copy.id)
    assert story.objects() == [VDISK]
    assert _kept(story) == 0


def test_what_nobody_ever_comes_for_is_not_kept_for_ever() -> None:
    story = Story(Strategy.FLASHCOPY)
    for number in range(80):
        operation_id = f"66666666-6666-6666-6666-{number:012d}"
        story.storage.prepare_cut(story.call(), INSTANCE, [replace(NAME, operation_id=operation_id)])
    assert _kept(story) <= 64


def _kept(story: Story) -> int:
    return len(story.storage._prepared)  # noqa: SLF001  # what takes memory shows nowhere else
