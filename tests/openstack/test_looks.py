"""What others have in the cloud costs no operation of ours anything: Cinder is asked by id, or by project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from stillframe.domain.leftover import LeftoverKind
from stillframe.main import build_leftovers
from stillframe.service.janitor import Janitor
from tests.lab.scripted.cloud import Answer
from tests.lab.scripted.things import SERVICE_PROJECT, TENANT

if TYPE_CHECKING:
    from stillframe.service.leftovers import Leftovers
    from tests.lab.scripted.things import Snapshot
    from tests.openstack.played import PlayedWorld

NEIGHBOURS: Final = 3000
#: A copy and a safety copy of each of two volumes, and as many that are on their way out.
OWN: Final = 8
LONG: Final = 24 * 3600.0
POST: Final = r"POST /volume/snapshots "


@pytest.fixture(autouse=True)
def _neighbours(played: PlayedWorld) -> None:
    """Thousands of snapshots in other projects, half of them with names like ours."""
    volume = played.cloud.attach(played.cloud.add_server(0, project_id="others"))
    for number in range(NEIGHBOURS):
        name = f"stillframe snapshot s-{number} o-{number}" if number % 2 else f"backup {number}"
        played.cloud.snap(volume, name, "", f"others-{number % 7}")


def most(played: PlayedWorld) -> int:
    """How many snapshots were looked at for one request, since this was last asked."""
    looks, played.cloud.looks = played.cloud.looks, []
    assert looks
    return max(count for _asked, count in looks)


def leftovers(played: PlayedWorld) -> Leftovers:
    service = played.service
    return build_leftovers(service.settings, service.database, service.drivers, played.clock)


def come_back(played: PlayedWorld) -> list[str]:
    """Copies of a snapshot that is deleted, made by a request that came through late."""
    snapshot_id = played.create()
    made = [(one.volume_id, one.name, one.project_id) for one in ours(played)]
    played.delete(snapshot_id)
    assert ours(played) == []
    late = [played.cloud.snap(played.cloud.volumes[volume], name, "", owner) for volume, name, owner in made]
    played.clock.jump(LONG)
    return [one.id for one in late]


def ours(played: PlayedWorld) -> list[Snapshot]:
    return [one for one in played.cloud.snapshots.values() if one.project_id in (SERVICE_PROJECT, TENANT)]


def test_an_operation_looks_at_nothing_of_its_neighbours(played: PlayedWorld) -> None:
    played.fill("then")
    snapshot_id = played.create()
    assert most(played) <= OWN
    played.fill("now")
    assert played.restore(snapshot_id, force=True)["fault"] is None
    assert played.contents() == {"then"}
    assert most(played) <= OWN
    played.delete(snapshot_id)
    assert most(played) <= OWN
    assert ours(played) == []
    assert len(played.cloud.snapshots) == NEIGHBOURS


@pytest.mark.parametrize("way", ["retry", "rollback"])
def test_what_mends_a_failed_restore_looks_at_no_others(played: PlayedWorld, way: str) -> None:
    played.fill("then")
    snapshot_id = played.create()
    played.fill("now")
    played.cloud.failures = 2
    assert played.restore(snapshot_id, force=True)["status"] == "restore-error"
    assert (played.retry if way == "retry" else played.rollback)(snapshot_id, force=True)["fault"] is None
    assert played.contents() == {"then" if way == "retry" else "now"}
    assert most(played) <= OWN


def test_the_search_for_a_copy_whose_reply_was_lost_looks_at_no_others(played: PlayedWorld) -> None:
    def lose() -> Answer:
        request = next(one for one in reversed(played.cloud.heard) if one.startswith("POST /volume/snapshots "))
        asked = json.loads(request.partition("snapshots ")[2])["snapshot"]
        with played.cloud.lock:
            volume = played.cloud.volumes[asked["volume_id"]]
            played.cloud.snap(volume, asked["name"], asked["description"], TENANT)
        return Answer(504, b"<html>Gateway Time-out</html>", "text/html")

    played.cloud.on(POST, lose)
    snapshot_id = played.create()
    assert played.show(snapshot_id)["status"] == "available"
    assert len(ours(played)) == len(played.server.volumes)
    assert most(played) <= OWN


def test_a_round_of_the_janitor_looks_at_them_once_however_much_it_removes(played: PlayedWorld) -> None:
    late = come_back(played)
    most(played)
    played.service.background.run(Janitor.name)
    assert not played.cloud.snapshots.keys() & set(late)
    assert len(played.cloud.snapshots) == NEIGHBOURS
    # What nobody has on record, and may be ours all the same, can lie in any project. More pages are of the same look.
    wide = [asked for asked, count in played.cloud.looks if count > OWN]
    assert len([asked for asked in wide if "marker" not in asked]) == 1


def test_the_doctor_looks_at_them_once_and_its_repair_not_again(played: PlayedWorld) -> None:
    late = come_back(played)
    most(played)
    found = leftovers(played)
    sure = [one for one in found.look(LeftoverKind.COPY) if one.sure]
    assert sorted(one.id for one in sure) == sorted(late)
    assert most(played) == NEIGHBOURS + len(late)
    for one in sure:
        found.remove(one, lambda: None)
    assert most(played) <= OWN
    assert not played.cloud.snapshots.keys() & set(late)


def test_cinder_does_not_say_that_it_knows_no_such_column(played: PlayedWorld) -> None:
    """As the real one: a slip in a filter would hide every copy, so it must never go unseen here."""
    snapshots = "/volume/snapshots/detail?all_tenants=1"
    told = [
        len(played.cloud.answer("GET", f"{snapshots}{filters}", b"", SERVICE_PROJECT).document["snapshots"])
        for filters in ("", "&project_id=others-1", "&tenant=others-1", "&name~=STILLFRAME%20snapshot%20s-7%20")
    ]
    assert told == [1000, 429, 0, 1]
    without = played.cloud.answer("GET", "/volume/snapshots/detail?project_id=others-1", b"", SERVICE_PROJECT)
    assert without.document == {"snapshots": []}
