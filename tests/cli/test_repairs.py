"""stillframe doctor --repair: what was left over is listed, asked about, and removed."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.program import Place, started

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def left(place: Place) -> Place:
    """A service that has ended, with a snapshot, and copies of another one that were there again after its deletion."""
    place.configure(engine__janitor_grace="0")
    place.instance("i", root=b"r")
    with started(place, "serve"):
        place.good("snapshot", "create", "kept", "--instance", "i", "--wait")
        place.good("snapshot", "create", "gone", "--instance", "i", "--wait")
        kept = (copies(place), place.folder / "state" / "local" / "copies")
        for number, folder in enumerate(kept):
            shutil.copytree(folder, place.folder / f"aside-{number}", symlinks=True)
        place.good("snapshot", "delete", "gone", "--wait")
    for number, folder in enumerate(kept):
        shutil.copytree(place.folder / f"aside-{number}", folder, dirs_exist_ok=True)
    return place


def copies(place: Place) -> Path:
    return place.folder / "disks" / ".stillframe"


def forget(place: Place) -> None:
    """Let the service have another database, as another service on the same disks would."""
    for path in (place.folder / "state").glob("stillframe.sqlite*"):
        path.unlink()
    place.good("db", "upgrade")


def repaired(place: Place, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.good("doctor", "--repair", *arguments, "-f", "json").document
    return found


def test_what_is_certain_is_removed_and_nothing_else(left: Place) -> None:
    assert len(list(copies(left).iterdir())) == 2
    (found,) = [one for one in left.run("doctor", "-f", "json").document if one["check"] == "copies"]
    assert (found["result"], "the janitor removes it" in found["mend"]) == ("warn", True)
    (done,) = repaired(left, "--yes")
    assert (done["kind"], done["result"]) == ("copy", "removed")
    assert str(copies(left)) in done["what"]
    assert len(list(copies(left).iterdir())) == 1
    assert repaired(left, "--yes") == []
    with started(left, "serve"):
        left.good("snapshot", "restore", "kept", "--wait")


def test_a_repair_works_beside_the_service(left: Place) -> None:
    with started(left, "serve"):
        assert [one["result"] for one in repaired(left, "--yes")] == ["removed"]
        left.good("snapshot", "restore", "kept", "--wait")


def test_the_service_does_it_by_itself(left: Place) -> None:
    left.configure(engine__janitor_grace="0", engine__janitor_interval="1")
    with started(left, "serve") as service:
        while len(list(copies(left).iterdir())) > 1:
            assert service.process.poll() is None
            time.sleep(0.1)
        assert left.statuses() == {"kept": "available"}


def test_nothing_is_removed_without_somebody_to_ask(left: Place) -> None:
    refused = left.run("doctor", "--repair")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert "its instance snapshot is deleted" in refused.err
    assert len(list(copies(left).iterdir())) == 2


@pytest.mark.parametrize(("answer", "count"), [("y", 1), ("n", 2), ("", 2)])
def test_a_repair_asks_before_it_removes(left: Place, answer: str, count: int) -> None:
    code, shown = left.at_a_terminal("doctor", "--repair", typed=f"{answer}\n")
    assert (code, "Remove these 1? [y/N]" in shown) == (0, True)
    assert len(list(copies(left).iterdir())) == count


def test_copies_of_another_service_are_removed_only_by_name(left: Place) -> None:
    forget(left)
    found = repaired(left, "--yes")
    assert [one["result"] for one in found] == ["left", "left"]
    assert len(list(copies(left).iterdir())) == 2
    named = found[0]["of"]
    done = {one["of"]: one["result"] for one in repaired(left, "--yes", "--also", named)}
    assert done == {named: "removed", found[1]["of"]: "left"}
    assert len(list(copies(left).iterdir())) == 1


def test_a_name_that_nothing_was_left_of_is_told(left: Place) -> None:
    refused = left.run("doctor", "--repair", "--yes", "--also", "nothing")
    assert (refused.code, "nothing was left over of: nothing" in refused.err) == (3, True)
    assert len(list(copies(left).iterdir())) == 2


def test_empty_drafts_and_notes_of_a_pause_go(left: Place) -> None:
    draft = copies(left) / "00000000-0000-4000-8000-000000000000"
    draft.mkdir()
    marks = left.folder / "state" / "local" / "quiesced"
    marks.mkdir(parents=True, exist_ok=True)
    instance = next((left.folder / "state" / "instances").glob("*.toml")).read_text().split('id = "')[1].split('"')[0]
    (marks / instance).touch()
    (marks / "of-an-instance-that-is-not-declared").touch()
    done = {one["kind"]: one["result"] for one in repaired(left, "--yes")}
    assert done == {"copy": "removed", "scrap": "removed", "quiesce": "removed"}
    assert not draft.exists()
    assert [mark.name for mark in marks.iterdir()] == ["of-an-instance-that-is-not-declared"]


def test_what_no_record_knows_stays_and_is_named(left: Place) -> None:
    orphan = copies(left) / "00000000-0000-4000-8000-000000000000"
    orphan.mkdir()
    (orphan / "data").write_bytes(b"perhaps somebody's")
    assert "scrap" not in {one["kind"] for one in repaired(left, "--yes")}
    (found,) = [one for one in left.run("doctor", "-f", "json").document if one["check"] == "orphans"]
    assert (found["result"], str(orphan) in found["detail"]) == ("warn", True)
    subprocess.run(shlex.split(found["mend"].rpartition(": ")[2]), check=True)
    assert not orphan.exists()
    (found,) = [one for one in left.run("doctor", "-f", "json").document if one["check"] == "orphans"]
    assert found["result"] == "ok"


def test_copies_that_are_gone_are_told_by_the_doctor_and_by_the_plan(left: Place) -> None:
    assert len(repaired(left, "--yes")) == 1
    (folder,) = copies(left).iterdir()
    (folder / "data").unlink()
    told = left.run("doctor", "-f", "json")
    (found,) = [one for one in told.document if one["check"] == "copies that are lost"]
    assert (told.code, found["result"], "removed them" in found["detail"]) == (1, "fail", True)
    with started(left, "serve"):
        refused = left.run("snapshot", "restore", "kept", "--wait")
    assert (refused.code, "data are gone" in refused.err) == (4, True), refused.err


def test_only_a_repair_has_a_question(place: Place) -> None:
    assert place.run("doctor", "--yes").code == 2


def test_nothing_is_removed_without_a_database(place: Place) -> None:
    refused = place.run("doctor", "--repair", "--yes")
    assert (refused.code, "the database cannot be used" in refused.err) == (6, True)
