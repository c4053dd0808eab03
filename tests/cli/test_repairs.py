"""stillframe doctor --repair: what was left over is listed, asked about, and removed."""

from __future__ import annotations

import shutil
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
        shutil.copytree(copies(place), place.folder / "aside", symlinks=True)
        place.good("snapshot", "delete", "gone", "--wait")
    shutil.copytree(place.folder / "aside", copies(place), dirs_exist_ok=True)
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


def test_it_works_beside_the_service(left: Place) -> None:
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


def test_without_somebody_to_ask_nothing_is_removed(left: Place) -> None:
    refused = left.run("doctor", "--repair")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    assert "its instance snapshot is deleted" in refused.err
    assert len(list(copies(left).iterdir())) == 2


@pytest.mark.parametrize(("answer", "count"), [("y", 1), ("n", 2), ("", 2)])
def test_it_asks_before_it_removes(left: Place, answer: str, count: int) -> None:
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
    draft = copies(left) / "00000000-0000-4000-8000-000000000000.partial.new"
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


def test_a_draft_that_holds_something_stays(left: Place) -> None:
    draft = copies(left) / "00000000-0000-4000-8000-000000000000.partial.new"
    draft.mkdir()
    (draft / "meta.json").write_text("{}")
    assert "scrap" not in {one["kind"] for one in repaired(left, "--yes")}
    assert draft.exists()


def test_only_a_repair_has_a_question(place: Place) -> None:
    assert place.run("doctor", "--yes").code == 2


def test_without_a_database_nothing_is_removed(place: Place) -> None:
    refused = place.run("doctor", "--repair", "--yes")
    assert (refused.code, "the database cannot be used" in refused.err) == (6, True)
