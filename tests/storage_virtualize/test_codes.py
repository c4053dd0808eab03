"""Every error code of the commands that are used, at every one of them: the right end, and nothing left.

The codes are those that IBM's own block CSI driver looks at (`controllers/array_action/array_mediator_svc.py` of
https://github.com/IBM/ibm-block-csi-driver), those of IBM's driver for Cinder, and some that no list has. IBM documents
each on a page of its own, such as https://www.ibm.com/docs/en/flashsystem-c200/9.1.3?topic=messages-cmmvc6153e; what is
right at which command no page tells, so the object has to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest

from stillframe.domain.errors import (
    BackendError,
    Conflict,
    NotFound,
    NotSupported,
    OutOfSpace,
    Refused,
    StillframeError,
    Unavailable,
)
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.storage import PartOnly
from stillframe.drivers.storage_virtualize.options import Strategy
from tests.storage_virtualize.within import COMMANDS, INSTANCE, VDISK, VOLUME, Story

#: What a code is to the caller where the object is not as wished; all of them keep the array's own words.
CODES: Final[dict[str, type[StillframeError]]] = {
    # Something does not exist.
    "CMMVC5753E": NotFound,
    "CMMVC5754E": NotFound,
    "CMMVC5804E": NotFound,
    "CMMVC8957E": NotFound,
    "CMMVC9755E": NotFound,
    # Something exists already.
    "CMMVC6035E": Conflict,
    "CMMVC6466E": Conflict,
    # Something is in another state, or in use.
    "CMMVC5840E": Refused,
    "CMMVC5842E": BackendError,
    "CMMVC5903E": BackendError,
    "CMMVC5907E": BackendError,
    "CMMVC5912E": BackendError,
    "CMMVC5924E": Refused,
    "CMMVC8783E": BackendError,
    # There is no room.
    "CMMVC5860E": OutOfSpace,
    "CMMVC8710E": OutOfSpace,
    # Not now.
    "CMMVC5786E": Unavailable,
    "CMMVC8587E": Unavailable,
    # Not here.
    "CMMVC5703E": BackendError,
    "CMMVC5709E": NotSupported,
    "CMMVC5729E": BackendError,
    "CMMVC5738E": BackendError,
    "CMMVC5741E": BackendError,
    "CMMVC6527E": BackendError,
    "CMMVC7205E": NotSupported,
    "CMMVC9292E": BackendError,
    # In no list.
    "CMMVC9999E": BackendError,
}

#: A code that is none of those that the caller is told, for the object shows that something else is wrong.
SEEN_OTHERWISE: Final = (NotFound, Conflict)


def ended(do: Callable[[], object]) -> StillframeError | None:
    try:
        do()
    except StillframeError as error:
        return error
    return None


@pytest.mark.parametrize("way", ["fail", "refuse after"])
@pytest.mark.parametrize(
    ("strategy", "command"), [(strategy, command) for strategy, used in COMMANDS.items() for command in used]
)
def test_a_code_leads_to_the_right_end_and_leaves_nothing(strategy: Strategy, command: str, way: str) -> None:
    for code, kind in CODES.items():
        story = Story(strategy)
        before = story.objects()
        story.write("a")
        fault = story.wire.faults.put(command, way, code=code)
        where = f"{code} at {command}, {way}"
        for error in filter(None, _play(story)):
            assert code in error.message, where
            # A list that is refused may be answered later.
            seen = (kind, BackendError) if kind in SEEN_OTHERWISE else (kind,)
            if (command, kind) == ("chsnapshot", NotFound):
                # What is renamed was there a moment ago, and has another name since, perhaps by our own command.
                seen = (*seen, Unavailable)
            assert isinstance(error, (*seen, PartOnly)), where
        assert fault.seen > 0, where
        assert story.objects() == before, where


def _play(story: Story) -> list[StillframeError | None]:
    """A snapshot, a restore and a deletion, each tried again once; what went wrong in them, and the bytes are right."""
    made: list[str] = []

    def snapshot() -> None:
        copy_id = story.cut()
        assert story.storage.complete(story.call(), CopyReference(copy_id)).ready
        made.append(copy_id)

    def restore() -> None:
        story.storage.restore(story.call(), INSTANCE, VOLUME, made[0])
        assert story.read() == "a---"

    errors = [ended(snapshot)]
    if not made:
        with suppress(StillframeError):
            story.clear()
        snapshot()
    story.write("b")
    errors.append(ended(restore))
    if errors[-1] is not None:
        assert story.read() in ("a---", "b---")
        restore()
    errors.append(ended(story.clear))
    if errors[-1] is None:
        assert story.objects() == [VDISK]
    else:
        story.clear()
    return errors
