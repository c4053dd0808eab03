"""What others have in the cloud costs no look for what was left behind anything: Nova is not asked server by server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.openstack.strangers import MOST, Strangers
from stillframe.main import build_leftovers
from tests.lab.scripted.things import SERVICE_USER
from tests.openstack.played import playing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillframe.service.leftovers import Leftovers
    from tests.openstack.played import PlayedWorld

NEIGHBOURS: Final = 2000
KINDS: Final[tuple[dict[str, Any], ...]] = ({"status": "PAUSED"}, {"locked": True, "locked_reason": "mine"}, {}, {}, {})
PAUSED: Final = NEIGHBOURS // len(KINDS)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedWorld]:
    # Rounds follow each other at once, and Nova's seconds are shorter.
    with playing(tmp_path, paused_servers_interval=0, updated_resolution=0) as world:
        yield world


@pytest.fixture
def _neighbours(played: PlayedWorld) -> None:
    # It looks for the same by itself.
    played.service.stop()
    assert played.service.background.ended(60)
    for number in range(NEIGHBOURS):
        kind = KINDS[number % len(KINDS)]
        played.cloud.add_server(0, project_id=f"others-{number % 7}", actions=[("pause", "somebody")], **kind)


def leftovers(played: PlayedWorld) -> Leftovers:
    service = played.service
    return build_leftovers(service.settings, service.database, service.drivers, played.clock)


def requests(played: PlayedWorld) -> int:
    """What Nova was asked since this was called last."""
    asked = len(played.cloud.asked(" /compute/"))
    played.cloud.heard.clear()
    return asked


@pytest.mark.usefixtures("_neighbours")
def test_fences_are_looked_for_among_locked_servers_only(played: PlayedWorld) -> None:
    played.server.locked, played.server.locked_reason = True, "stillframe: restoring instance snapshot gone"
    look = leftovers(played)
    requests(played)
    (found,) = look.look(LeftoverKind.FENCE)
    assert (found.id, found.about) == (played.server.id, "gone")
    assert requests(played) == 1


@pytest.mark.usefixtures("_neighbours")
def test_paused_servers_are_asked_about_when_they_have_changed(played: PlayedWorld) -> None:
    played.server.status, played.server.held = "PAUSED", True
    played.server.actions.append(("pause", SERVICE_USER))
    look = leftovers(played)
    # Of servers that are paused, and of those whose guests stand still.
    lists, asked, ours = 2, [], played.server.id
    for number in range(11):
        requests(played)
        # Ours was paused last, and is found at once, however many there are.
        played.server.updated = f"2026-01-02T00:00:{number:02}Z"
        assert [one.id for one in look.look(LeftoverKind.QUIESCE)] == [ours]
        asked.append(requests(played) - lists)
    assert max(asked) <= MOST
    assert sum(asked) <= 2 * PAUSED + len(asked) + MOST
    # Once each has been asked about, only ours is.
    assert asked[-1] == 1
    neighbour = next(one for one in played.cloud.servers.values() if one.status == "PAUSED" and one.id != ours)
    neighbour.actions.append(("pause", SERVICE_USER))
    neighbour.updated = "2026-01-03T00:00:00Z"
    assert sorted(one.id for one in look.look(LeftoverKind.QUIESCE)) == sorted([ours, neighbour.id])
    assert requests(played) - lists == 2


def test_a_server_that_changes_twice_within_a_second_is_asked_about_again() -> None:
    known = Strangers(0.2)
    server = {"id": "one", "updated": "2026-01-01T00:00:00Z"}
    assert known.sort_out([server], lambda _one: False) == []
    # Somebody else had paused it, and we do so in the same second of Nova's.
    assert known.sort_out([server], lambda _one: True) == ["one"]
    assert known.sort_out([server], lambda _one: False) == []
    time.sleep(0.3)
    assert known.sort_out([server], lambda _one: False) == []
    assert known.sort_out([server], lambda _one: pytest.fail("it has not changed")) == []
