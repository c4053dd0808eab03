"""Drafts whose age only another clock tells: they go once the janitor has seen them unchanged for long enough."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stillframe import main
from stillframe.domain.leftover import LeftoverKind
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.platform import Drivers
from stillframe.service.background import RunOutcome
from stillframe.service.janitor import Janitor
from stillframe.service.leftovers import Leftover, Leftovers, Outcome
from stillframe.service.sightings import Sightings
from stillframe.settings import load
from tests.conformance.worlds import LocalWorld
from tests.harness.faults import Clock
from tests.harness.surround import surround

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GRACE = timedelta(hours=1)
DAY = timedelta(days=1).total_seconds()


class Machine:
    """Image files of a machine, and a service whose database has a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.local, self.clock, self.seconds = LocalWorld(folder, Format.RAW), Clock(), 0.0
        self.local.snapshot(self.local.add())
        self.folder = self.local.disks / ".stillframe" / "another-s"
        self.folder.mkdir()
        drivers = Drivers(self.local.compute, self.local.storage, (self.local.leftovers,))
        self.settings = load(
            overrides=[
                (None, "state_dir", str(folder / "service")),
                (None, "auth_strategy", "noauth"),
                ("engine", "janitor_grace", int(GRACE.total_seconds())),
            ]
        )
        self.service = main.build(self.settings, drivers=drivers, now=self.clock)

    def leftovers(self, sightings: Sightings | None) -> Leftovers:
        return main.build_leftovers(self.settings, self.service.database, self.service.drivers, self.clock, sightings)

    def sightings(self) -> Sightings:
        return Sightings(lambda: self.seconds)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.service.stop()
    made.local.close()


def drafts(leftovers: Leftovers) -> list[Leftover]:
    return list(leftovers.look(LeftoverKind.DRAFT))


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_an_empty_folder_is_not_old_because_the_database_s_clock_is_ahead(machine: Machine, ahead: float) -> None:
    machine.clock.jump(ahead)
    assert machine.service.background.run(Janitor.name) is RunOutcome.SUCCEEDED
    assert machine.folder.exists()


def test_an_empty_folder_goes_once_it_was_seen_unchanged_for_long_enough(machine: Machine) -> None:
    leftovers = machine.leftovers(machine.sightings())
    assert drafts(leftovers) == []
    machine.seconds += GRACE.total_seconds() - 1
    assert drafts(leftovers) == []
    machine.seconds += 1
    (found,) = drafts(leftovers)
    assert (found.id, found.sure) == (str(machine.folder), True)
    # A service that has just been started has seen nothing yet.
    assert drafts(machine.leftovers(machine.sightings())) == []
    assert leftovers.remove(found, lambda: None) == (Outcome.REMOVED, "")
    assert not machine.folder.exists()


def test_an_empty_folder_that_was_touched_counts_anew(machine: Machine) -> None:
    leftovers = machine.leftovers(machine.sightings())
    assert drafts(leftovers) == []
    machine.seconds += GRACE.total_seconds()
    (found,) = drafts(leftovers)
    before = machine.folder.stat()
    (machine.folder / "data").touch()
    (machine.folder / "data").unlink()
    # What its owner can set back tells nothing.
    os.utime(machine.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert leftovers.remove(found, lambda: None) == (Outcome.SPARED, "somebody may just have made it")
    assert drafts(leftovers) == []
    machine.seconds += GRACE.total_seconds()
    assert [one.id for one in drafts(leftovers)] == [str(machine.folder)]


def test_a_folder_that_is_filled_at_the_last_instant_stays_with_what_is_in_it(machine: Machine) -> None:
    held = machine.folder / "data"

    def fill_first(name: str, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name.startswith("remove"):
            held.write_bytes(b"theirs")
        return method(*args, **kwargs)

    (draft,) = machine.local.leftovers.drafts()
    machine.local.use(surround(Files(), fill_first))
    machine.local.leftovers.remove(draft)
    assert held.read_bytes() == b"theirs"


def test_who_looks_once_removes_an_empty_folder_only_where_it_is_asked_for(machine: Machine) -> None:
    leftovers = machine.leftovers(None)
    (found,) = drafts(leftovers)
    assert (found.about, found.sure) == (str(machine.folder), False)
    assert leftovers.remove(found, lambda: None) == (Outcome.REMOVED, "")
    assert not machine.folder.exists()
