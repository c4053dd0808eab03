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

    from tests.harness.world import World

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


LEVELS = [level.value for level in ConsistencyLevel]


def holding(running: World, level: ConsistencyLevel, reason: str | None, *, at_once: bool = False) -> None:
    """The guest is held no stiller than that, whatever was to be expected, and the back end adds one instant or not."""

    @contextmanager
    def quiescing(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
        with method(*args, **kwargs):
            yield Stillness(level, reason)

    def cutting(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return replace(method(*args, **kwargs), simultaneous=at_once)

    running.faults.put("quiesced", quiescing)
    running.faults.put("cut", cutting)


def expecting(running: World, level: ConsistencyLevel, *, at_once: bool = False) -> None:
    """No more than that is to be expected."""
    running.faults.put("outlook", lambda _method, _args, _kwargs: Stillness(level, "the guest has no agent"))
    running.faults.put("simultaneous", lambda _method, _args, _kwargs: at_once)


@pytest.mark.parametrize("minimum", LEVELS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_cut_below_the_minimum_keeps_nothing_and_says_why(running: World, level: str, minimum: str) -> None:
    holding(running, ConsistencyLevel(level), "the agent does not answer")
    snapshot_id, task = running.begin_create(minimum_consistency=minimum)
    running.settle()
    shown = running.show(snapshot_id)
    assert shown["minimum_consistency"] == minimum
    if LEVELS.index(level) <= LEVELS.index(minimum):
        assert (shown["status"], shown["consistency"]["level"], shown["fault"]) == ("available", level, None)
        return
    assert (shown["status"], shown["consistency"], shown["snapshots"]) == ("error", None, None)
    assert shown["fault"]["code"] == "refused"
    assert f"'{minimum}' is asked for" in shown["fault"]["message"]
    assert f"than '{level}' is reached: the agent does not answer" in shown["fault"]["message"]
    assert running.copies() == []
    assert running.driver.held == set()
    assert running.attempts(task) == 1
    assert running.faults.calls.count("quiesced") == 1
    # Where it cannot be reached any more, no volume is cut.
    assert running.faults.calls.count("cut") == (1 if minimum == "crash" else 0)


def test_what_the_back_end_cuts_at_one_instant_reaches_crash(running: World) -> None:
    holding(running, ConsistencyLevel.NONE, "nothing holds it", at_once=True)
    expecting(running, ConsistencyLevel.NONE, at_once=True)
    snapshot_id, _task = running.begin_create(minimum_consistency="crash")
    running.settle()
    assert running.show(snapshot_id)["consistency"]["level"] == "crash"


def test_one_volume_alone_reaches_crash(running: World) -> None:
    holding(running, ConsistencyLevel.NONE, "nothing holds it")
    expecting(running, ConsistencyLevel.NONE)
    snapshot_id, _task = running.begin_create(None, running.first, minimum_consistency="crash")
    running.settle()
    assert running.show(snapshot_id)["status"] == "available"


@pytest.mark.parametrize("minimum", LEVELS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_minimum_that_is_known_to_be_out_of_reach_is_refused(running: World, level: str, minimum: str) -> None:
    expecting(running, ConsistencyLevel(level))
    reply = running.act({"vm-snapshot": {"name": "kept", "minimum_consistency": minimum}})
    if LEVELS.index(level) <= LEVELS.index(minimum):
        assert reply.status_code == 200
        running.settle()
        return
    assert reply.status_code == 400
    said = reply.json["badRequest"]["message"]
    assert f"'{minimum}' is asked for" in said
    assert f"than '{level}' is reached: the guest has no agent" in said
    assert running.driver.storage.find(None) == []
    assert running.ask("GET", "/volume/v3/demo/instance-snapshots").json["instance_snapshots"] == []
    # As it says: with less it goes.
    assert running.act({"vm-snapshot": {"name": "kept", "minimum_consistency": level}}).status_code == 200
    running.settle()


def test_an_instance_that_is_off_reaches_crash_and_no_more(world: World) -> None:
    assert world.act({"vm-snapshot": {"name": "kept", "minimum_consistency": "filesystem"}}).status_code == 400
    snapshot_id, _task = world.begin_create(minimum_consistency="crash")
    world.settle()
    assert world.show(snapshot_id)["status"] == "available"


@pytest.mark.parametrize("minimum", ["", "best", "CRASH", 1, True, ["crash"]])
def test_a_minimum_that_is_no_level_is_refused_by_its_name(world: World, minimum: object) -> None:
    reply = world.act({"vm-snapshot": {"name": "kept", "minimum_consistency": minimum}})
    assert reply.status_code == 400
    assert "vm-snapshot.minimum_consistency" in reply.json["badRequest"]["message"]


@pytest.mark.parametrize("given", [{}, {"minimum_consistency": None}, {"minimum_consistency": "none"}])
def test_any_level_will_do_without_a_minimum(running: World, given: dict[str, Any]) -> None:
    expecting(running, ConsistencyLevel.NONE)
    holding(running, ConsistencyLevel.NONE, "nothing holds it")
    snapshot_id, _task = running.begin_create(**given)
    running.settle()
    shown = running.show(snapshot_id)
    assert (shown["status"], shown["minimum_consistency"]) == ("available", "none")
