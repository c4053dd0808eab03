"""Restores at their edges: what is undone, what is left over, what stays fenced, and the ways out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from stillframe.domain.errors import BackendError, OutOfSpace, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.store.tables import SNAPSHOTS
from tests.harness.faults import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.world import World

BROKEN = BackendError("it broke, as the test wished")


def is_on(world: World) -> bool:
    return world.driver.instances[world.instance.id].power_state is PowerState.ACTIVE


@pytest.fixture
def snapshot_id(world: World) -> str:
    """A snapshot of the volumes when they held `before`; now they hold `later`."""
    world.write(b"before")
    snapshot_id = world.create()
    world.write(b"later")
    return snapshot_id


@pytest.mark.parametrize("failing", ["check_restore", "stop", "fence", "cut", "complete"])
@pytest.mark.parametrize("state", [PowerState.ACTIVE, PowerState.SHUTOFF])
def test_a_restore_that_fails_before_it_touches_a_volume_is_undone(
    world: World, snapshot_id: str, failing: str, state: PowerState
) -> None:
    world.driver.set_power_state(world.instance.id, state)
    # The request looks at the volumes, and the operation looks again.
    world.faults.fail(failing, BROKEN, after=1 if failing == "check_restore" else 0)
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "backend-error")
    assert BROKEN.message in shown["fault"]["message"]
    assert (shown["temp_snapshots"], shown["failed_snapshots"]) == (None, None)
    assert world.read() == [b"later", b"later"]
    assert world.copies("safety") == []
    assert world.fences() == (None, None)
    assert is_on(world) is (state is PowerState.ACTIVE)
    assert world.operation(snapshot_id)["state"] == "failed"


def test_a_restore_looks_again_inside_the_fence_before_and_after_the_stop(world: World, snapshot_id: str) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.calls.clear()
    world.restore(snapshot_id, force=True)
    seen = [call for call in world.faults.calls if call in ("check_restore", "fence", "stop", "cut")]
    assert seen == ["check_restore", "fence", "check_restore", "stop", "check_restore", "cut"]


def test_a_volume_that_is_not_restorable_once_the_instance_is_off_leaves_it_running_again(
    world: World, snapshot_id: str
) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.fail("check_restore", BROKEN, after=2)
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "backend-error")
    assert world.read() == [b"later", b"later"]
    assert world.fences() == (None, None)
    assert is_on(world)


def test_a_restore_that_was_undone_can_be_asked_for_again(world: World, snapshot_id: str) -> None:
    world.faults.fail("complete", OutOfSpace("full"))
    assert world.restore(snapshot_id)["fault"]["code"] == "out-of-space"
    world.faults.mend()
    shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert world.read() == [b"before", b"before"]


def test_an_undone_restore_whose_safety_copies_cannot_be_deleted_leaves_them_to_the_next(
    world: World, snapshot_id: str
) -> None:
    world.faults.fail("complete", BROKEN)
    world.faults.fail("delete", BROKEN)
    assert world.restore(snapshot_id)["status"] == "available"
    assert len(world.copies("safety")) == 2
    world.faults.mend()
    assert world.restore(snapshot_id)["status"] == "available"
    assert world.copies("safety") == []


def test_an_undone_restore_that_cannot_lift_its_fence_has_a_way_out(world: World, snapshot_id: str) -> None:
    world.faults.fail("complete", OutOfSpace("full"))
    world.faults.fail("unfence", BROKEN)
    shown = world.restore(snapshot_id)
    assert world.fences() == (snapshot_id, snapshot_id)
    assert shown["status"] == "restore-error"
    world.faults.mend()
    assert world.retry(snapshot_id)["status"] == "available"
    assert world.fences() == (None, None)
    assert world.read() == [b"before", b"before"]
    assert world.copies("safety") == []


def test_an_undone_restore_that_cannot_start_the_instance_again_says_so(world: World, snapshot_id: str) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.fail("complete", OutOfSpace("full"))
    world.faults.fail("start", BROKEN)
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "out-of-space")
    assert "not up" in shown["fault"]["message"]


def test_safety_copies_that_cannot_be_deleted_stay_shown_until_the_next_restore(world: World, snapshot_id: str) -> None:
    world.faults.fail("delete", BROKEN)
    shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "backend-error")
    assert set(shown["temp_snapshots"]) == {world.first, world.second}
    assert shown["failed_snapshots"] is None
    assert world.read() == [b"before", b"before"]
    assert world.fences() == (None, None)
    assert len(world.copies("safety")) == 2
    world.faults.mend()
    shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
    assert world.copies("safety") == []


def test_safety_copies_left_over_go_with_their_snapshot(world: World, snapshot_id: str) -> None:
    world.faults.fail("delete", BROKEN)
    world.restore(snapshot_id)
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.copies() == []


def test_an_instance_that_ran_is_started_again(world: World, snapshot_id: str) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    assert world.restore(snapshot_id, force=True)["status"] == "available"
    assert is_on(world)


def test_a_restore_is_good_even_if_the_instance_does_not_start_after_it(world: World, snapshot_id: str) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.fail("start", BROKEN)
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "backend-error")
    assert "not up" in shown["fault"]["message"]
    assert (shown["temp_snapshots"], shown["failed_snapshots"]) == (None, None)
    assert world.read() == [b"before", b"before"]
    assert world.copies("safety") == []
    assert world.fences() == (None, None)
    assert not is_on(world)


def test_a_fence_that_cannot_be_lifted_is_lifted_by_a_retry(world: World, snapshot_id: str) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.fail("unfence", BROKEN)
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], shown["failed_snapshots"]) == ("restore-error", {})
    assert "not free" in shown["fault"]["message"]
    assert world.fences() == (snapshot_id, snapshot_id)
    assert not is_on(world)
    world.faults.mend()
    shown = world.retry(snapshot_id)
    assert (shown["status"], shown["fault"], shown["failed_snapshots"]) == ("available", None, None)
    assert shown["temp_snapshots"] is None
    assert world.copies("safety") == []
    assert world.fences() == (None, None)
    assert world.read() == [b"before", b"before"]
    assert is_on(world)


def test_a_retry_restores_only_what_failed(world: World) -> None:
    world.write(b"before")
    snapshot_id = world.restore_error(world.second)
    assert world.read() == [b"before", b"later"]
    assert set(world.show(snapshot_id)["failed_snapshots"]) == {world.second}
    world.faults.calls.clear()
    shown = world.retry(snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert world.faults.calls.count("restore") == 1
    assert world.faults.calls.count("cut") == 0
    assert world.read() == [b"before", b"before"]


def test_a_rollback_that_fails_for_some_volumes_can_be_asked_for_again(world: World) -> None:
    world.write(b"before")
    snapshot_id = world.restore_error(world.second)
    world.faults.fail("restore", BROKEN, world.first)
    shown = world.rollback(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("rollback-error", "backend-error")
    assert set(shown["temp_snapshots"]) == {world.first, world.second}
    assert set(shown["failed_snapshots"]) == {world.second}
    assert world.fences() == (snapshot_id, snapshot_id)
    assert world.read() == [b"before", b"later"]
    retried = world.act({"vm-restore": {"instance_snapshot_id": snapshot_id, "retry": True}})
    assert retried.status_code == 400
    world.faults.mend()
    shown = world.rollback(snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert (shown["temp_snapshots"], shown["failed_snapshots"]) == (None, None)
    assert world.read() == [b"later", b"later"]
    assert world.copies("safety") == []
    assert world.fences() == (None, None)


def test_a_rollback_starts_what_ran_before_the_first_restore(world: World, snapshot_id: str) -> None:
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.fail("restore", BROKEN, world.second)
    assert world.restore(snapshot_id, force=True)["status"] == "restore-error"
    assert not is_on(world)
    world.faults.mend()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert is_on(world)


def test_a_rollback_whose_fence_stays_is_rolled_back_again(world: World) -> None:
    snapshot_id = world.restore_error()
    world.faults.fail("unfence", BROKEN)
    assert world.rollback(snapshot_id)["status"] == "rollback-error"
    assert world.fences() == (snapshot_id, snapshot_id)
    world.faults.mend()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.fences() == (None, None)
    assert world.read() == [b"later", b"later"]


def test_deleting_a_snapshot_whose_restore_failed_lifts_its_fence_and_leaves_the_instance_off(world: World) -> None:
    snapshot_id = world.create()
    world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)
    world.faults.fail("restore", BROKEN, world.second)
    assert world.restore(snapshot_id, force=True)["status"] == "restore-error"
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert world.fences() == (None, None)
    assert world.copies() == []
    assert not is_on(world)
    # It is nobody's any more: a new snapshot can be taken.
    assert world.show(world.create())["status"] == "available"


def test_a_deletion_that_fails_shows_what_is_left_and_can_be_asked_for_again(world: World) -> None:
    snapshot_id = world.create()
    left = world.show(snapshot_id)["snapshots"][world.second]
    world.faults.fail("delete", BROKEN, left)
    world.delete(snapshot_id)
    shown = world.show(snapshot_id)
    assert (shown["status"], shown["snapshots"]) == ("error-deleting", {world.second: left})
    assert left in shown["fault"]["message"]
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert world.copies() == []


def test_a_deletion_that_fails_keeps_the_fence_of_a_failed_restore(world: World) -> None:
    snapshot_id = world.restore_error()
    world.faults.fail("delete", BROKEN)
    world.delete(snapshot_id)
    assert world.show(snapshot_id)["status"] == "error-deleting"
    assert world.fences() == (snapshot_id, snapshot_id)
    world.faults.mend()
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert world.fences() == (None, None)


def test_only_those_of_the_leftover_safety_copies_are_shown_that_still_exist(world: World, snapshot_id: str) -> None:
    copies: list[str] = []

    def keep_the_first(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        copies.append(args[1].id)
        if args[1].id == copies[0]:
            raise BROKEN
        return method(*args, **kwargs)

    world.faults.put("delete", keep_the_first)
    shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("available", "backend-error")
    assert list(shown["temp_snapshots"].values()) == copies[:1]
    assert list(shown["temp_snapshots"]) == world.copies("safety")
    world.faults.mend()
    assert world.restore(snapshot_id)["temp_snapshots"] is None
    assert world.copies("safety") == []


def half_done(then: Exception) -> Callable[..., None]:
    """A restore that has put the volume back when it fails."""

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        method(*args, **kwargs)
        raise then

    return act


def _free_at_the_end(world: World, *, started: bool) -> Callable[..., None]:
    """Both volumes are put back, and an administrator of the platform frees the instance before the service does."""
    together = threading.Barrier(2)

    def act(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        together.wait(30)
        method(*args, **kwargs)
        world.driver.fences.clear()
        if started:
            world.driver.set_power_state(world.instance.id, PowerState.ACTIVE)

    return act


@pytest.mark.parametrize("started", [False, True])
def test_a_restore_whose_instance_somebody_else_has_freed_is_not_called_whole(
    world: World, snapshot_id: str, *, started: bool
) -> None:
    world.faults.put("restore", _free_at_the_end(world, started=started))
    shown = world.restore(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("restore-error", "conflict")
    assert "freed by somebody else" in shown["fault"]["message"]
    # Whichever of them a guest has written to, nobody knows.
    assert set(shown["failed_snapshots"]) == {world.first, world.second}
    assert set(shown["temp_snapshots"]) == {world.first, world.second}
    assert is_on(world) is started
    world.faults.mend()
    world.write(b"astray")
    shown = world.retry(snapshot_id, force=True)
    assert (shown["status"], shown["fault"], shown["temp_snapshots"]) == ("available", None, None)
    assert world.read() == [b"before", b"before"]
    assert world.copies("safety") == []
    assert world.fences() == (None, None)


def test_a_rollback_whose_instance_somebody_else_has_freed_is_not_called_whole(world: World, snapshot_id: str) -> None:
    world.faults.put("restore", half_done(BROKEN), world.second)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    world.faults.mend()
    world.faults.put("restore", _free_at_the_end(world, started=True))
    shown = world.rollback(snapshot_id)
    assert (shown["status"], shown["fault"]["code"]) == ("rollback-error", "conflict")
    assert set(shown["temp_snapshots"]) == {world.first, world.second}
    world.faults.mend()
    assert world.rollback(snapshot_id, force=True)["status"] == "available"
    assert world.read() == [b"later", b"later"]
    assert world.fences() == (None, None)


def test_progress_says_how_each_volume_is_put_back(world: World, snapshot_id: str) -> None:
    task_uri = world.begin("restore", snapshot_id)
    plan = {world.first: "copy", world.second: "copy"}
    assert world.progress(task_uri)["plan"] == plan
    world.settle()
    assert world.progress(task_uri)["plan"] == plan
    assert "plan" not in world.progress(world.begin_delete(snapshot_id))


ALL_REFUSED = BackendError("refused, as the test wished")


@pytest.mark.parametrize("state", [PowerState.ACTIVE, PowerState.SHUTOFF])
def test_a_restore_of_which_no_byte_was_changed_is_rolled_back_without_putting_anything_back(
    world: World, snapshot_id: str, state: PowerState
) -> None:
    world.driver.set_power_state(world.instance.id, state)
    world.faults.fail("restore", ALL_REFUSED)
    shown = world.restore(snapshot_id, force=True)
    assert (shown["status"], set(shown["failed_snapshots"])) == ("restore-error", {world.first, world.second})
    # What was refused is refused still, and so is every look at it.
    world.faults.fail("check_restore", ALL_REFUSED, world.instance.id)
    world.faults.calls.clear()
    shown = world.rollback(snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert (shown["temp_snapshots"], shown["failed_snapshots"]) == (None, None)
    assert "restore" not in world.faults.calls
    assert world.read() == [b"later", b"later"]
    assert world.copies("safety") == []
    assert world.fences() == (None, None)
    assert is_on(world) is (state is PowerState.ACTIVE)


def test_a_rollback_puts_back_only_what_was_touched_and_says_so_beforehand(world: World) -> None:
    world.write(b"before")
    snapshot_id = world.restore_error(world.second)
    world.faults.calls.clear()
    task = world.begin("rollback", snapshot_id)
    world.settle()
    assert world.progress(task)["plan"] == {world.first: "copy", world.second: "untouched"}
    assert world.faults.calls.count("restore") == 1
    assert world.show(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


@pytest.mark.parametrize("then", [BROKEN, Unavailable("the reply was lost"), ValueError("a mistake")])
def test_a_volume_that_may_have_been_touched_is_rolled_back(world: World, snapshot_id: str, then: Exception) -> None:
    world.faults.put("restore", half_done(then))
    assert world.restore(snapshot_id)["status"] == "restore-error"
    assert world.read() == [b"before", b"before"]
    world.faults.mend()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


def test_a_volume_that_the_retry_has_touched_is_rolled_back(world: World, snapshot_id: str) -> None:
    world.faults.fail("restore", ALL_REFUSED)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    world.faults.put("restore", half_done(BROKEN))
    assert world.retry(snapshot_id)["status"] == "restore-error"
    assert world.read() == [b"before", b"before"]
    world.faults.mend()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


def test_a_volume_that_a_retry_has_left_alone_too_is_not_put_back(world: World, snapshot_id: str) -> None:
    world.faults.fail("restore", ALL_REFUSED)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    assert world.retry(snapshot_id)["status"] == "restore-error"
    world.faults.calls.clear()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert "restore" not in world.faults.calls
    assert world.read() == [b"later", b"later"]


def test_what_a_guest_wrote_that_somebody_else_had_started_is_rolled_back_with_the_rest(
    world: World, snapshot_id: str
) -> None:
    world.faults.fail("restore", ALL_REFUSED)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    world.faults.mend()
    world.driver.fences.clear()
    world.write(b"astray")
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


def test_what_an_attempt_that_broke_off_has_touched_is_rolled_back(world: World, snapshot_id: str) -> None:
    world.faults.put("restore", half_done(BROKEN))
    with world.broken_store(
        "UPDATE atomdetails", times=1, error=OSError("gone"), after="UPDATE operations SET committed"
    ):
        world.begin("restore", snapshot_id)
        wait_until(lambda: world.read() == [b"before", b"before"], "no volume was put back")
        world.faults.fail("restore", ALL_REFUSED)
        world.settle()
    assert world.show(snapshot_id)["status"] == "restore-error"
    world.faults.mend()
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


def test_what_a_release_that_knows_nothing_of_it_has_done_since_counts_as_touched(
    world: World, snapshot_id: str
) -> None:
    world.faults.fail("restore", ALL_REFUSED)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    world.faults.mend()
    # Its retry leaves the column as it is, and puts a volume back before it fails.
    with world.service.database.writer.begin() as connection:
        here = SNAPSHOTS.c.id == snapshot_id
        connection.execute(sa.update(SNAPSHOTS).where(here).values(task_id="another operation"))
    world.write(b"before")
    assert world.rollback(snapshot_id)["status"] == "available"
    assert world.read() == [b"later", b"later"]


def test_deleting_a_snapshot_releases_no_volume_that_its_restore_left_alone(world: World, snapshot_id: str) -> None:
    world.faults.fail("restore", ALL_REFUSED)
    assert world.restore(snapshot_id)["status"] == "restore-error"
    world.faults.fail("release", ALL_REFUSED, world.first)
    world.faults.fail("release", ALL_REFUSED, world.second)
    world.delete(snapshot_id)
    assert world.is_gone(snapshot_id)
    assert world.fences() == (None, None)


def test_a_restore_that_hung_before_it_had_safety_copies_is_rolled_back_to_where_it_was(
    world: World, snapshot_id: str
) -> None:
    gate = world.faults.hold("complete")
    world.begin("restore", snapshot_id)
    gate.arrived()
    world.clock.jump(86400 + 11)
    wait_until(lambda: world.show(snapshot_id)["status"] == "restore-error", "it was never settled")
    gate.let_go()
    world.settle()
    world.faults.mend()
    assert world.show(snapshot_id)["temp_snapshots"] is None
    shown = world.rollback(snapshot_id)
    assert (shown["status"], shown["fault"]) == ("available", None)
    assert world.read() == [b"later", b"later"]
    assert world.fences() == (None, None)
    assert world.copies("safety") == []
