"""Replies that make no sense, as a proxy or a restarting array gives them: the array is away, and the work goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import pytest

from stillframe.domain.errors import Unavailable
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.storage_virtualize.mappings import FlashCopyCheck
from stillframe.drivers.storage_virtualize.options import Strategy
from stillframe.testing.world import SNAPSHOT, a_call, pattern
from tests.conformance.worlds import ArrayWorld
from tests.lab.storage_virtualize.faults import PAGE
from tests.storage_virtualize.conftest import Make
from tests.storage_virtualize.stories import SIZE, restored
from tests.storage_virtualize.within import COMMANDS

T = TypeVar("T")

LEVEL: Final = "8.6.2.0 (build 169.4.2311)"

#: What answers nothing, whatever was asked.
SENSELESS: Final = (PAGE, '{"id": "1"', "nonsense", "17", '["a list"]', '{"an": "object"}')

#: What an array says of its objects, and what it has made; to the other commands it says nothing.
TELLING: Final = ("", "[[]]", "null")

FLASHCOPY: Final = ("auth", *COMMANDS[Strategy.FLASHCOPY])
SNAPSHOTS: Final = ("lssystem", *COMMANDS[Strategy.SNAPSHOTS])


def patiently(do: Callable[[], T]) -> T:
    """What is done in the end, by somebody who tries again as long as the array is away."""
    for _ in range(40):
        try:
            return do()
        except Unavailable:
            continue
    pytest.fail("it does not go on once the array answers again")


def strike(world: ArrayWorld, command: str) -> None:
    """Let the next replies to a command make no sense, each in another way."""
    told = command == "auth" or command.startswith(("ls", "mk", "add"))
    for number, content in enumerate(SENSELESS + TELLING if told else SENSELESS):
        world.served.faults.put(command, "say", content=content, nth=number + 1)
    if command == "auth":
        world.served.tokens.clear()


@pytest.mark.parametrize(
    ("strategy", "command"),
    [
        *((Strategy.FLASHCOPY, command) for command in FLASHCOPY),
        *((Strategy.SNAPSHOTS, command) for command in SNAPSHOTS),
    ],
)
def test_replies_without_sense_are_an_array_that_is_away(make: Make, strategy: Strategy, command: str) -> None:
    world = make(strategy, code_level=LEVEL)
    instance = world.add((SIZE,))
    volume_id = instance.volume_ids[0]
    before = world.served.objects()
    world.write(volume_id, 0, pattern(1, SIZE))
    strike(world, command)

    def snapshot() -> str:
        for half_made in world.storage.find(SNAPSHOT):
            world.storage.delete(a_call(), half_made.reference)
        world.storage.check_cut(instance, [volume_id])
        return world.snapshot(instance, SNAPSHOT)[0].id

    copy = patiently(snapshot)
    world.write(volume_id, 0, pattern(2, SIZE // 2))
    found = patiently(lambda: world.storage.find(SNAPSHOT))
    assert [one.id for one in found] == [copy]
    assert patiently(lambda: restored(world, volume_id, found[0])) == pattern(1, SIZE)
    world.write(volume_id, 0, pattern(3, SIZE // 2))
    patiently(lambda: world.storage.delete(a_call(), CopyReference(copy)))
    assert world.served.faults.armed[-1].seen >= len(SENSELESS), "the story has to use this command"
    assert world.storage.find(None) == []
    world.served.wait_for(before)


@pytest.mark.parametrize("content", ["", *SENSELESS])
@pytest.mark.parametrize("command", ["auth", "lsvdisk", "lsfcmap"])
def test_the_flashcopy_check_says_that_the_array_is_away(make: Make, command: str, content: str) -> None:
    world = make()
    instance = world.add((SIZE,))
    world.snapshot(instance)
    if command == "auth":
        world.served.tokens.clear()
    check = FlashCopyCheck(world.arrays, world.volumes)
    for details in (False, True):
        world.served.faults.put(command, "say", content=content)
        with pytest.raises(Unavailable):
            check.mappings(instance.volume_ids[0], details=details)
        assert len(check.mappings(instance.volume_ids[0], details=details)) == 1
        if command == "auth":
            world.served.tokens.clear()
