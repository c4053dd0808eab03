"""Tasks that fail with what is not of our tree, or cannot be written down: the operation fails at once, undone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from qemu.qmp import ExecuteError
from qemu.qmp.message import Message
from qemu.qmp.models import ErrorResponse

from stillframe.domain.errors import BackendError, Refused, StillframeError
from tests.flows.test_logs import logged

if TYPE_CHECKING:
    from tests.harness.world import World

UNEXPECTED = "An unexpected error; the service's log has its details under this task's id."


class Dumb(Exception):
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Private(BackendError):
    """A kind that only its driver knows."""


def deep(depth: int = 0) -> None:
    deep(depth + 1)


def too_deep() -> BaseException:
    try:
        deep()
    except RecursionError as error:
        return error
    raise AssertionError


def from_qemu() -> BaseException:
    """What QEMU's library raises for a refusal, as the cause of ours."""
    answer = ErrorResponse({"error": {"class": "GenericError", "desc": "busy"}})
    ours = Private("QEMU refused transaction: busy")
    ours.__cause__ = ExecuteError(answer, Message(b"{}"), Message(b"{}"))
    return ours


FOREIGN = {
    "a deep recursion": too_deep(),
    "undecodable bytes": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "a missing key": KeyError(("a", object())),
    "arguments that cannot be written": RuntimeError(object(), {1, 2}, b"\x00\xff"),
    "no words": Dumb(),
    "the end of the process": SystemExit(3),
    "the end of a coroutine": asyncio.CancelledError(),
}
OURS = {
    "half a character": (BackendError("\udcff and \0"), "backend-error", "\\udcff and \\x00"),
    "a foreign cause": (from_qemu(), "backend-error", "QEMU refused transaction: busy"),
    "many words": (Refused("x" * 100_000), "refused", "x" * 3996 + " ..."),
}


@pytest.mark.parametrize("call", ["check_cut", "cut", "complete"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_snapshot_fails_at_once_by_what_nobody_expected(world: World, call: str, name: str) -> None:
    # The request makes the same check.
    world.faults.fail(call, FOREIGN[name], after=1 if call == "check_cut" else 0)
    with logged("stillframe") as lines:
        snapshot_id, task = world.begin_create()
        world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "internal-error")
    assert shown["fault"]["message"] == UNEXPECTED
    assert world.attempts(task) == 1
    assert world.faults.calls.count("quiesced") <= 1
    assert world.copies() == []
    told = [one for one in lines.documents if one["levelname"] == "ERROR" and one["traceback"]]
    assert any(type(FOREIGN[name]).__name__ in "".join(one["traceback"]) for one in told)


@pytest.mark.parametrize("name", OURS)
def test_a_snapshot_fails_at_once_in_the_words_of_what_broke(world: World, name: str) -> None:
    error, code, message = OURS[name]
    world.faults.fail("cut", error)
    snapshot_id, task = world.begin_create()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"], shown["fault"]["message"]) == ("error", code, message)
    assert world.attempts(task) == 1
    assert world.faults.calls.count("quiesced") == 1
    assert world.copies() == []


@pytest.mark.parametrize("name", FOREIGN)
def test_a_volume_that_fails_by_what_nobody_expected_can_be_rolled_back(world: World, name: str) -> None:
    world.write(b"before")
    snapshot_id = world.create()
    world.write(b"later")
    world.faults.fail("restore", FOREIGN[name], world.second)
    shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("restore-error", "internal-error")
    assert UNEXPECTED in shown["fault"]["message"]
    assert world.attempts(shown["task_uri"]) == 1
    world.faults.mend()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


@pytest.mark.parametrize("name", FOREIGN)
def test_an_undoing_that_fails_by_what_nobody_expected_comes_to_an_end(world: World, name: str) -> None:
    world.faults.fail("complete", BackendError("broken"))
    world.faults.fail("delete", FOREIGN[name])
    snapshot_id, task = world.begin_create()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["message"]) == ("error", "broken")
    assert world.attempts(task) == 1
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.copies() == []


def test_a_guest_that_cannot_be_released_keeps_no_copy_from_being_removed(world: World) -> None:
    world.faults.fail("complete", BackendError("broken"))
    world.faults.fail("release", KeyError("a mistake"), after=1)
    shown = world.show(world.create())
    assert (shown["status"], shown["fault"]["message"]) == ("error", "broken")
    assert world.copies() == []


@pytest.mark.parametrize("error", [OSError("gone"), StillframeError("ours"), ValueError("a mistake")])
def test_what_breaks_off_in_the_same_way_twice_is_given_up_and_undone(world: World, error: Exception) -> None:
    with world.broken_store("UPDATE atomdetails", error=error):
        snapshot_id, task = world.begin_create()
        world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "internal-error")
    assert "twice" in shown["fault"]["message"]
    assert world.attempts(task) == 2
    assert world.copies() == []


def test_a_restore_that_breaks_off_in_the_same_way_twice_before_it_touched_a_volume_is_undone(world: World) -> None:
    world.write(b"before")
    snapshot_id = world.create()
    world.write(b"later")
    with world.broken_store("UPDATE atomdetails", error=OSError("gone")):
        shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "internal-error")
    assert world.read() == [b"later", b"later"]
    assert world.fences() == (None, None)
    assert world.copies("safety") == []
