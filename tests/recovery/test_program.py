"""The page on backing up the database, as an operator goes by it: the real program, real files, and its own advice."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy as sa

from tests.cli.program import Place, started
from tests.recovery.dumps import Dump

if TYPE_CHECKING:
    from pathlib import Path

_REFUSED: Final = 4


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.configure(engine__janitor_grace="0")
    return made


def database(place: Place) -> sa.URL:
    return sa.make_url(f"sqlite:///{place.folder / 'state' / 'stillframe.sqlite'}")


def state(place: Place) -> dict[str, Any]:
    """What the doctor says of the database's state."""
    (found,) = [one for one in place.run("doctor", "-f", "json").document if one["check"] == "database's state"]
    return dict(found)


def write(place: Place, content: bytes) -> None:
    with (place.folder / "disks" / "web-root.img").open("r+b") as disk:
        disk.write(content)


def snapshots(place: Place) -> dict[str, str]:
    listed = place.good("snapshot", "list", "-f", "json", "-c", "name", "-c", "status").document
    return {one["name"]: one["status"] for one in listed}


@pytest.mark.lasts(40)
def test_an_operator_who_goes_by_what_the_program_says_loses_nothing(place: Place) -> None:
    place.instance("web", root=b"one")
    with started(place, "serve"):
        for name in ("kept", "gone"):
            place.good("snapshot", "create", name, "--instance", "web", "--wait")
        assert state(place)["result"] == "ok"
        dump = Dump(database(place), place.folder)
        place.good("snapshot", "delete", "gone", "--wait")
        write(place, b"two")
        place.good("snapshot", "create", "newest", "--instance", "web", "--wait")
    copies = sorted((place.folder / "disks" / ".stillframe").iterdir())
    dump.put_back()

    found = state(place)
    assert (found["result"], "remembers a later one" in found["detail"]) == ("fail", True)
    with started(place, "serve"):
        assert snapshots(place) == {"kept": "available", "gone": "available"}
        for command in (("restore", "kept"), ("restore", "gone"), ("delete", "kept")):
            done = place.run("snapshot", *command)
            assert (done.code, "stillframe db accept-older" in done.err) == (_REFUSED, True), done
        assert place.content("web", "root") == b"two"
        swept = place.good("doctor", "--repair", "--yes", "-f", "json").document
        assert {one["result"] for one in swept} == {"left"}

        found = state(place)
        (advice,) = re.findall(r"stillframe (db accept-older)", found["mend"])
        asked = place.run(*shlex.split(advice))
        assert (asked.code, "copies that it names are not there" in asked.err) == (2, True), asked
        assert snapshots(place)["gone"] == "available"
        rows = place.good(*shlex.split(advice), "--yes", "-f", "json").document
        assert [(one["was"], one["is"]) for one in rows] == [("available", "error"), ("-", "-")]

        assert state(place)["result"] == "ok"
        assert snapshots(place) == {"kept": "available", "gone": "error"}
        assert sorted((place.folder / "disks" / ".stillframe").iterdir()) == copies
        assert place.content("web", "root") == b"two"
        place.good("snapshot", "restore", "kept", "--wait")
        assert place.content("web", "root") == b"one"
        assert place.run(*shlex.split(advice)).code == _REFUSED


def test_an_operator_can_say_what_nobody_remembers(place: Place) -> None:
    place.instance("web", root=b"one")
    with started(place, "serve"):
        place.good("snapshot", "create", "gone", "--instance", "web", "--wait")
        dump = Dump(database(place), place.folder)
        place.good("snapshot", "delete", "gone", "--wait")
    dump.put_back()
    (place.folder / "state" / "witness.json").unlink()
    assert state(place)["result"] == "ok"
    told = place.run("db", "accept-older")
    assert (told.code, "--unnoticed" in told.err) == (_REFUSED, True)
    (changed,) = place.good("db", "accept-older", "--unnoticed", "--yes", "-f", "json").document
    assert (changed["was"], changed["is"]) == ("available", "error")


def found(place: Place, check: str) -> list[str]:
    """What is wrong, as the doctor says of a check."""
    told = place.run("doctor", "-f", "json").document
    return [one["detail"] for one in told if one["check"] == check and one["result"] != "ok"]


def test_records_that_are_older_than_the_database_and_records_that_are_gone(place: Place) -> None:
    place.instance("web", root=b"one")
    state, beside = place.folder / "state", place.folder / "disks" / ".stillframe"
    with started(place, "serve"):
        for name in ("kept", "gone"):
            place.good("snapshot", "create", name, "--instance", "web", "--wait")
        dump = Dump(database(place), place.folder)
        dump.back_up_records()
        place.good("snapshot", "delete", "gone", "--wait")
        place.good("snapshot", "create", "newest", "--instance", "web", "--wait")
    latest = {record.name: record.read_bytes() for record in (state / "local" / "copies").iterdir()}
    data = sorted(beside.iterdir())
    write(place, b"two")

    # Gone: neither of the two can be restored, and nothing of them is touched.
    shutil.rmtree(state / "local" / "copies")
    assert len(found(place, "copies that are lost")) == len(latest) == 2
    (orphans,) = found(place, "orphans")
    assert all(str(path) in orphans for path in data)

    # Older ones are put back.
    dump.put_records_back()
    with started(place, "serve"):
        lost = found(place, "copies that are lost")
        (orphans,) = found(place, "orphans")
        assert len([path for path in data if str(path) in orphans]) == 1
        # And the record of the copy that was deleted since, whose data are gone.
        assert len(lost) == 2
        refused = place.run("snapshot", "restore", "newest")
        assert refused.code not in (0, 1), refused
        assert place.content("web", "root") == b"two"
        place.good("snapshot", "restore", "kept", "--wait")
        assert place.content("web", "root") == b"one"


def test_a_database_that_is_older_than_the_records_is_accepted_and_no_record_goes(place: Place) -> None:
    place.instance("web", root=b"one")
    with started(place, "serve"):
        place.good("snapshot", "create", "kept", "--instance", "web", "--wait")
        dump = Dump(database(place), place.folder)
        dump.back_up_records()
        place.good("snapshot", "create", "newest", "--instance", "web", "--wait")
    records = sorted((place.folder / "state" / "local" / "copies").iterdir())
    dump.put_back()
    dump.put_records_back()
    assert sorted((place.folder / "state" / "local" / "copies").iterdir()) == records
    rows = place.good("db", "accept-older", "--yes", "-f", "json").document
    assert [(one["was"], one["is"]) for one in rows] == [("-", "-")]
    with started(place, "serve"):
        assert len(found(place, "copies")) == 1
        assert found(place, "copies that are lost") == found(place, "orphans") == []
        place.good("snapshot", "restore", "kept", "--wait")
    assert sorted((place.folder / "state" / "local" / "copies").iterdir()) == records


def test_a_service_does_not_start_on_the_database_of_another(place: Place, tmp_path: Path) -> None:
    place.instance("web", root=b"one")
    with started(place, "serve"):
        place.good("snapshot", "create", "ours", "--instance", "web", "--wait")
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    other.configure()
    with started(other, "serve"):
        pass
    other.configure(database__connection=database(place).render_as_string())
    done = other.run("serve")
    assert (done.code, "belongs to another database" in done.err) == (_REFUSED, True)
    assert state(other)["result"] == "fail"
    # Nothing has been done to it.
    assert state(place)["result"] == "ok"
