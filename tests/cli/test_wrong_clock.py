"""A machine whose clock is wrong: what is late and what is old is said by the database's clock."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

import pytest

from tests.cli.program import Place, started
from tests.lab.clocks import WrongClock

if TYPE_CHECKING:
    import sqlalchemy as sa

_DAYS: Final = 5 * 86400


@pytest.fixture
def server_kind() -> str:
    return "postgresql"


@pytest.fixture
def served_by_a_server(place: Place, database_url: sa.URL) -> Place:
    place.configure(database__connection=database_url.render_as_string(hide_password=False))
    place.good("db", "upgrade")
    place.instance("i", root=b"r")
    return place


@pytest.mark.parametrize("seconds", [_DAYS, -_DAYS])
def test_the_doctor_of_a_machine_with_a_wrong_clock_calls_nothing_late(served_by_a_server: Place, seconds: int) -> None:
    place = served_by_a_server
    clock = WrongClock(place.folder, seconds)
    with started(place, "api"):
        place.good("snapshot", "create", "s", "--instance", "i")
        found = place.run("doctor", "-f", "json", **clock.variables).document
    assert [one["detail"] for one in found if one["check"].startswith("operation")] == [
        "1 open, none past its deadline"
    ]


def test_a_repair_on_a_machine_with_a_fast_clock_removes_nothing_before_its_time(served_by_a_server: Place) -> None:
    place = served_by_a_server
    folders = (place.folder / "disks" / ".stillframe", place.folder / "state" / "local" / "copies")
    with started(place, "api"), started(place, "worker"):
        place.good("snapshot", "create", "s", "--instance", "i", "--wait")
        for number, folder in enumerate(folders):
            shutil.copytree(folder, place.folder / f"aside-{number}", symlinks=True)
        place.good("snapshot", "delete", "s", "--wait")
    for number, folder in enumerate(folders):
        shutil.copytree(place.folder / f"aside-{number}", folder, dirs_exist_ok=True)
    fast = WrongClock(place.folder, _DAYS)
    # What operations leave is looked at an hour after their end, and that was just now.
    told = place.run("doctor", "-f", "json", **fast.variables).document
    assert [one["result"] for one in told if one["check"] == "copies"] == ["ok"]
    assert place.run("doctor", "--repair", "--yes", "-f", "json", **fast.variables).document == []
    assert len(list(folders[0].iterdir())) == 1
