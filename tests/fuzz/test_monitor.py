"""Whatever a monitor says: an answer of its form, or an error of the tree, in bounded time and memory."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.domain.errors import StillframeError
from stillframe.drivers.qemu import watchdog
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.conversation import RefusalError
from tests.fuzz.cases import NOISE, REPLIES, VALUES, WORDS, bounded, fuzzed
from tests.lab.speakers import GREETING, line, messages, saying, speaking

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.speakers import Part

SECONDS: Final = 2.0
LONGEST: Final = 30.0
# Answers that nearly have the form that QEMU's schema gives them.
FIELDS: Final = (
    "status", "id", "inserted", "node-name", "drv", "file", "type", "error", "current-progress", "total-progress",
)  # fmt: skip
RECORDS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=len(FIELDS))
ANSWERS = st.one_of(VALUES, RECORDS, st.lists(RECORDS, max_size=3))


class Stage:
    """One socket for all cases; `part` deals with the next connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part: Part = saying()
        self.qemu = Qemu(SECONDS)

    def play(self, connection: socket.socket) -> None:
        self.part(connection)

    def calls(self) -> list[Callable[[], object]]:
        qemu, path = self.qemu, self.path
        return [
            lambda: qemu.status(path),
            lambda: qemu.resume(path),
            lambda: qemu.nodes(path),
            lambda: qemu.job(path, "sf"),
            lambda: qemu.foreign_jobs(path),
        ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("fuzz") / "qmp")
    with speaking(made.path, made.play):
        yield made


def tried(call: Callable[[], object]) -> None:
    failure = None
    with bounded(LONGEST):
        try:
            call()
        except StillframeError as error:
            failure = error
    if failure is not None:
        assert failure.__cause__ is None
        assert len(failure.message) < 1000


@pytest.mark.lasts(90)
@fuzzed
@given(answer=ANSWERS, number=st.integers(0, 4))
def test_an_answer_of_another_form_is_an_error_of_the_tree(stage: Stage, answer: object, number: int) -> None:
    stage.part = conversing(lambda identity: line({"return": answer, "id": identity}))
    tried(stage.calls()[number])


@fuzzed
@given(words=st.one_of(REPLIES, NOISE), number=st.integers(0, 4))
def test_words_that_are_no_answer_are_an_error_of_the_tree(stage: Stage, words: bytes, number: int) -> None:
    stage.part = conversing(lambda _identity: words, answers=1)
    tried(stage.calls()[number])


@fuzzed
@given(words=WORDS)
def test_the_watchdog_meets_nothing_that_it_does_not_catch(stage: Stage, words: bytes) -> None:
    stage.part = conversing(lambda _identity: words, answers=1)
    with bounded(LONGEST), suppress(OSError, RefusalError):
        assert watchdog.resume(str(stage.path), {"requests": {}}) in (True, False)


def conversing(answer: Callable[[object], bytes], answers: int = 10) -> Part:
    """A monitor that greets, agrees to everything at first, and hangs up after some answers."""

    def part(connection: socket.socket) -> None:
        connection.sendall(line(GREETING))
        for number, asked in enumerate(messages(connection)):
            identity = asked.get("id")
            agreed = line({"return": {}} | ({} if identity is None else {"id": identity}))
            connection.sendall(agreed if number == 0 else answer(identity))
            if number == answers:
                return

    return part
