"""A pause or an unpause of which nobody knows what became of it; this needs no OpenStack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from stillframe.domain.errors import BackendError, Conflict, GuestHeld, Unavailable
from stillframe.drivers.call import Call
from stillframe.drivers.openstack.cloud import Cloud
from stillframe.drivers.openstack.leftovers import CloudLeftovers
from stillframe.drivers.openstack.pausing import Pausing
from stillframe.drivers.openstack.waiting import Waiting
from stillframe.drivers.watchdog_client import WatchdogClient

OURS: Final = "the service's user"
CALL: Final = Call("operation", "request", lambda: None, lambda _done, _total: None)


@dataclass
class Nova:
    """One server; `late`: what is asked for comes only when it `arrives`, and its answer is lost."""

    status: str = "ACTIVE"
    late: bool = False
    deaf: bool = False
    history: list[dict[str, str]] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)

    def get(self, path: str, _shape: object, **_query: str) -> Any:
        if path.endswith("os-instance-actions"):
            return list(self.history)
        return self._server()

    def pages(self, _path: str, _shape: object, **query: str) -> Iterator[Any]:
        return iter([self._server()] if query.get("status") == self.status else [])

    def act(self, _path: str, body: dict[str, None], _request_id: str | None = None) -> None:
        (action,) = body
        if self.deaf:
            return
        if self.late:
            self.queue.append(action)
            raise Unavailable("the reply is lost")
        self.change(action)

    def change(self, action: str, user: str = OURS) -> None:
        self.status = "PAUSED" if action == "pause" else "ACTIVE"
        self.history.insert(0, {"action": action, "user_id": user, "request_id": f"req-{len(self.history)}"})

    def arrive(self) -> None:
        self.late = False
        while self.queue:
            self.change(self.queue.pop(0))

    def _server(self) -> dict[str, Any]:
        return {"id": "one", "status": self.status, "OS-EXT-STS:task_state": None}


@dataclass
class Scene:
    nova: Nova
    pausing: Pausing
    #: By server, the request after which the pause came that is watched over.
    armed: dict[str, str | None]


@pytest.fixture
def scene() -> Scene:
    nova, armed = Nova(), dict[str, str | None]()
    watchdog = SimpleNamespace(
        arm=lambda key, order: armed.update({key: order["after"]}),
        disarm=lambda key: armed.pop(key, None),
        process_id=None,
    )
    credentials = SimpleNamespace(endpoint="http://127.0.0.1", headers={}, verify=True, cert=None)
    cloud = SimpleNamespace(
        service=lambda _kind: nova, user_id=lambda: OURS, credentials=lambda _kind, _seconds: credentials
    )
    waiting, client = Waiting(0.01, 0.02), cast("WatchdogClient", watchdog)
    pausing = Pausing(cast("Cloud", cloud), waiting, seconds=5, timeout=0.2, watchdog=client)
    return Scene(nova, pausing, armed)


def test_a_pause_whose_answer_is_lost_stays_with_the_watchdog(scene: Scene) -> None:
    scene.nova.late = True
    with pytest.raises(Unavailable), scene.pausing.paused(CALL, "one"):
        pytest.fail("nobody knows that it is paused")
    assert scene.armed == {"one": None}
    scene.nova.arrive()
    leftovers = CloudLeftovers(scene.pausing)
    assert (scene.nova.status, leftovers.quiesced()) == ("PAUSED", ["one"])
    leftovers.let_run("one", lambda: None)
    assert (scene.nova.status, leftovers.quiesced()) == ("ACTIVE", [])


def test_a_pause_that_is_known_of_is_no_longer_watched_once_it_has_ended(scene: Scene) -> None:
    with scene.pausing.paused(CALL, "one") as held:
        assert (held, scene.nova.status, scene.armed) == (True, "PAUSED", {"one": None})
    assert (scene.nova.status, scene.armed) == ("ACTIVE", {})


def test_the_watchdog_learns_what_was_asked_for_before_the_pause(scene: Scene) -> None:
    for action, user in (("pause", OURS), ("unpause", "an administrator")):
        scene.nova.change(action, user)
    with scene.pausing.paused(CALL, "one"):
        assert scene.armed == {"one": "req-1"}
    # A pause whose answer was lost comes just before the next one is watched over: it is to end, too.
    scene.nova.change("pause")
    with scene.pausing.paused(CALL, "one"):
        assert scene.armed == {"one": "req-3"}


def test_an_unpause_that_nobody_sees_is_a_guest_that_may_be_held(scene: Scene) -> None:
    with pytest.raises(GuestHeld, match="openstack server unpause one"), scene.pausing.paused(CALL, "one"):
        scene.nova.deaf = True
    assert scene.armed == {"one": None}
    # As the message advises.
    scene.nova.change("unpause", "an administrator")
    scene.pausing.let_run("one")
    assert scene.nova.status == "ACTIVE"


def test_a_pause_that_an_operation_has_begun_meanwhile_is_left_to_it(scene: Scene) -> None:
    scene.nova.change("pause")

    def begin_another() -> None:
        # Nobody is on the server; right after that somebody lets it run, and an operation begins.
        scene.nova.change("unpause")
        scene.nova.change("pause")

    CloudLeftovers(scene.pausing).let_run("one", begin_another)
    assert scene.nova.status == "PAUSED"
    CloudLeftovers(scene.pausing).let_run("one", lambda: None)
    assert scene.nova.status == "ACTIVE"


def test_a_server_that_an_operation_is_on_is_left_to_it(scene: Scene) -> None:
    scene.nova.change("pause")

    def refuse() -> None:
        raise Conflict("an operation runs on it")

    with pytest.raises(Conflict):
        CloudLeftovers(scene.pausing).let_run("one", refuse)
    assert scene.nova.status == "PAUSED"


def test_a_cut_whose_pause_ends_all_the_same_fails_and_says_so(scene: Scene) -> None:
    def cut() -> None:
        with scene.pausing.paused(CALL, "one"):
            # By a request that was under way for long; and the pause may even be made anew.
            scene.nova.change("unpause")
            scene.nova.change("pause")

    with pytest.raises(BackendError, match="did not stay paused"):
        cut()
    assert (scene.nova.status, scene.armed) == ("ACTIVE", {})


def test_a_server_that_its_owner_has_paused_is_neither_ours_nor_left_over(scene: Scene) -> None:
    scene.nova.change("pause", "its owner")
    assert CloudLeftovers(scene.pausing).quiesced() == []
    scene.pausing.let_run("one")
    assert scene.nova.status == "PAUSED"
