"""The cut: the guest is let go whatever happens, it is repeated as a whole, and only what was achieved is told."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.compute import Stillness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.flows.world import World

BROKEN = BackendError("it broke, as the test wished")


@pytest.fixture
def running(world: World) -> World:
    """A world whose instance runs."""
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    return world


@pytest.fixture
def heard(running: World) -> list[str]:
    """What happens around each cut: `freeze`, `cut`, `thaw`."""
    words: list[str] = []

    def cutting(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert running.driver.held == {running.instance.id}, "a guest was cut that was not held still"
        words.append("cut")
        return method(*args, **kwargs)

    @contextmanager
    def quiescing(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        with method(*args, **kwargs) as level:
            words.append("freeze")
            try:
                yield level
            finally:
                words.append("thaw")

    running.faults.put("cut", cutting)
    running.faults.put("quiesced", quiescing)
    return words


def unavailable(running: World, times: int) -> None:
    """Let the next cuts find the platform away, after the ones that are listened to have been noted."""
    listening = running.faults.take("cut")
    left = iter(range(times))

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = listening(method, args, kwargs)
        if next(left, None) is not None:
            raise Unavailable("the reply was lost, as the test wished")
        return made

    running.faults.put("cut", act)


def test_a_guest_is_held_still_for_the_cut_and_let_go_after_it(running: World, heard: list[str]) -> None:
    shown = running.show(running.create())
    assert shown["status"] == "available"
    assert heard == ["freeze", "cut", "thaw"]
    assert running.driver.held == set()


def test_a_cut_that_is_unavailable_is_repeated_with_its_freeze_and_its_thaw(running: World, heard: list[str]) -> None:
    unavailable(running, 2)
    snapshot_id = running.create()
    assert running.show(snapshot_id)["status"] == "available"
    assert heard == ["freeze", "cut", "thaw"] * 3
    assert len(running.copies()) == 2


def test_a_cut_that_stays_unavailable_fails_and_leaves_nothing(running: World, heard: list[str]) -> None:
    unavailable(running, 99)
    shown = running.show(running.create())
    assert (shown["status"], shown["fault"]["code"], shown["snapshots"]) == ("error", "unavailable", None)
    assert heard == ["freeze", "cut", "thaw"] * 3
    assert running.copies() == []
    assert running.driver.held == set()


def test_the_bytes_of_a_repeated_cut_are_those_of_its_last_attempt(running: World) -> None:
    content = iter([b"first", b"second"])

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = method(*args, **kwargs)
        if (data := next(content, None)) is not None:
            running.write(data)
            raise Unavailable("the reply was lost, as the test wished")
        return made

    running.faults.put("cut", act)
    snapshot_id = running.create()
    running.faults.mend()
    running.write(b"later")
    assert running.restore(snapshot_id, force=True)["status"] == "available"
    assert running.read() == [b"second", b"second"]


def test_a_cut_that_fails_for_good_lets_the_guest_go_and_is_not_repeated(running: World, heard: list[str]) -> None:
    listening = running.faults.take("cut")

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        listening(method, args, kwargs)
        raise BROKEN

    running.faults.put("cut", act)
    shown = running.show(running.create())
    assert (shown["status"], shown["fault"]["code"]) == ("error", "backend-error")
    assert heard == ["freeze", "cut", "thaw"]
    assert running.driver.held == set()
    assert running.copies() == []


def test_a_guest_that_did_not_stay_still_has_no_snapshot(running: World) -> None:
    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        running.driver.held.clear()
        return method(*args, **kwargs)

    running.faults.put("cut", act)
    shown = running.show(running.create())
    assert (shown["status"], shown["snapshots"]) == ("error", None)
    assert "still" in shown["fault"]["message"]
    assert running.copies() == []


def test_a_guest_that_an_earlier_attempt_left_frozen_is_released_first(running: World) -> None:
    running.driver.held.add(running.instance.id)
    released: list[set[str]] = []

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        released.append(set(running.driver.held))
        return method(*args, **kwargs)

    running.faults.put("get_instance", act)
    running.create()
    # The request looks at it once as it is; the operation has released it when it looks.
    assert released[:2] == [{running.instance.id}, set()]


@pytest.mark.parametrize(
    ("state", "volumes", "told"),
    [
        (PowerState.ACTIVE, 2, ConsistencyLevel.APPLICATION),
        (PowerState.SHUTOFF, 2, ConsistencyLevel.CRASH),
        (PowerState.SHUTOFF, 1, ConsistencyLevel.CRASH),
    ],
)
def test_the_level_that_was_achieved_is_told(
    world: World, state: PowerState, volumes: int, told: ConsistencyLevel
) -> None:
    world.driver.set_power_state(world.instance.id, state)
    shown = world.show(world.create(*[world.first, world.second][:volumes]))
    assert shown["consistency"]["level"] == told


@pytest.mark.parametrize(
    ("level", "simultaneous", "volumes", "told"),
    [
        (ConsistencyLevel.NONE, False, 2, ConsistencyLevel.NONE),
        (ConsistencyLevel.NONE, True, 2, ConsistencyLevel.CRASH),
        # One volume is cut at one instant in any case.
        (ConsistencyLevel.NONE, False, 1, ConsistencyLevel.CRASH),
        (ConsistencyLevel.CRASH, False, 2, ConsistencyLevel.CRASH),
        (ConsistencyLevel.FILESYSTEM, False, 2, ConsistencyLevel.FILESYSTEM),
        (ConsistencyLevel.FILESYSTEM, True, 1, ConsistencyLevel.FILESYSTEM),
        (ConsistencyLevel.APPLICATION, False, 2, ConsistencyLevel.APPLICATION),
    ],
)
def test_a_level_follows_from_how_still_the_guest_was_and_how_the_volumes_were_cut(
    running: World, level: ConsistencyLevel, *, simultaneous: bool, volumes: int, told: ConsistencyLevel
) -> None:
    @contextmanager
    def quiescing(_method: Callable[..., Any], _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Iterator[Any]:
        yield Stillness(level, "because")

    def cutting(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return replace(method(*args, **kwargs), simultaneous=simultaneous, window_ms=12.3456)

    running.faults.put("quiesced", quiescing)
    running.faults.put("cut", cutting)
    shown = running.show(running.create(*[running.first, running.second][:volumes]))
    assert shown["consistency"] == {"level": told, "cut_window_ms": 12.346, "reason": "because"}


def test_a_volume_that_is_detached_before_the_cut_fails_the_snapshot(world: World) -> None:
    gate = world.faults.hold("release")
    snapshot_id, _task = world.begin_create()
    gate.arrived()
    world.driver.instances[world.instance.id] = replace(world.instance, attachments=world.instance.attachments[:1])
    gate.let_go()
    world.settle()
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("error", "refused")
    assert world.second in shown["fault"]["message"]


def test_copies_that_a_failed_creation_could_not_remove_go_with_its_snapshot(world: World) -> None:
    world.faults.fail("complete", BROKEN)
    world.faults.fail("delete", BROKEN)
    snapshot_id = world.create()
    assert world.show(snapshot_id)["status"] == "error"
    assert len(world.copies()) == 2
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert world.copies() == []


def test_a_failed_creation_removes_all_the_copies_that_it_can(world: World) -> None:
    world.faults.fail("complete", BROKEN)
    world.faults.fail("delete", BROKEN, times=1)
    snapshot_id = world.create()
    assert world.show(snapshot_id)["status"] == "error"
    assert len(world.copies()) == 1


def test_a_cut_is_prepared_while_the_guest_still_runs(running: World, heard: list[str]) -> None:
    def preparing(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert not running.driver.held, "a guest was held still while its cut was prepared"
        heard.append("prepare")
        return method(*args, **kwargs)

    running.faults.put("prepare_cut", preparing)
    running.create()
    assert heard == ["prepare", "freeze", "cut", "thaw"]


def test_a_preparation_that_fails_leaves_nothing_and_the_guest_alone(running: World, heard: list[str]) -> None:
    running.faults.fail("prepare_cut", BROKEN)
    assert running.show(running.create())["status"] == "error"
    assert heard == []
    assert running.copies() == []


@pytest.mark.parametrize("method", ["find", "prepare_cut", "complete", "check_cut"])
def test_operations_wait_longer_for_the_platform_than_requests_do(world: World, method: str) -> None:
    # The request itself calls some of them once, before anything is accepted.
    world.faults.fail(method, Unavailable("down"), after=1, times=12)
    assert world.show(world.create())["status"] == "available"
