"""Whatever a guest agent says: an answer, or an error of the tree, in bounded time and memory; in the watchdog, too."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.domain.errors import StillframeError
from stillframe.drivers.qemu import agent, watchdog
from stillframe.drivers.qemu.conversation import GarbledError, RefusalError, parsed
from tests.fuzz.cases import NOISE, WORDS, bounded, fuzzed
from tests.lab.speakers import line, messages, saying, speaking

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.speakers import Part

SECONDS: Final = 1.0
# Far beyond what one conversation may last, for a machine that has more to do than this.
LONGEST: Final = 20.0


class Stage:
    """One socket for all cases; `part` deals with the next connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part: Part = saying()

    def play(self, connection: socket.socket) -> None:
        self.part(connection)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("fuzz") / "agent")
    with speaking(made.path, made.play):
        yield made


@fuzzed
@given(words=WORDS, synchronised=st.booleans(), what=st.sampled_from(["freeze", "thaw", "frozen"]))
def test_an_agent_gets_no_further_than_an_error_of_the_tree(
    stage: Stage, words: bytes, what: str, *, synchronised: bool
) -> None:
    # Half a line is followed by the end of the connection, so that no case has to last as long as it may.
    stage.part = ending(words) if synchronised else saying(words)
    asks: dict[str, Callable[[], object]] = {
        "freeze": lambda: agent.freeze(stage.path, SECONDS) in range(1 << 31),
        "thaw": lambda: agent.thaw(stage.path, SECONDS)[1] in (True, False),
        "frozen": lambda: agent.frozen(stage.path) in (True, False),
    }
    failure = None
    with bounded(LONGEST):
        try:
            assert asks[what]()
        except StillframeError as error:
            failure = error
    if failure is not None:
        assert failure.message.isprintable()
        assert len(failure.message) < 400
        assert failure.__cause__ is None


@fuzzed
@given(words=WORDS, synchronised=st.booleans())
def test_the_watchdog_meets_nothing_that_it_does_not_catch(stage: Stage, words: bytes, *, synchronised: bool) -> None:
    stage.part = ending(words) if synchronised else saying(words)
    with bounded(LONGEST), suppress(OSError, RefusalError):
        assert watchdog.thaw(str(stage.path), {}) in (True, False)


@fuzzed
@given(words=st.one_of(WORDS, st.builds(lambda some, count: some * count, NOISE, st.integers(1, 50))))
def test_a_line_is_a_message_or_garbled(words: bytes) -> None:
    with bounded(LONGEST):
        for one in words.split(b"\n"):
            with suppress(GarbledError):
                assert isinstance(parsed(one), dict)


def ending(words: bytes) -> Part:
    """An agent that shows that it is there, and answers three questions with words; it waits for no end of a line."""

    def part(connection: socket.socket) -> None:
        for number, asked in enumerate(messages(connection)):
            connection.sendall(line({"return": asked["arguments"]["id"]}) if number == 0 else words)
            if number == 3 or (number and b"\n" not in words):
                return

    return part
