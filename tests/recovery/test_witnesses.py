"""Workers with state folders of their own over one database: the folder that remembers most decides for all of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from stillframe import main
from stillframe.domain.epoch import Standing
from stillframe.domain.errors import OlderDatabase
from stillframe.domain.operation import OperationState
from stillframe.domain.status import Event, Status
from stillframe.service.witness import Witness
from stillframe.store.database import connect
from stillframe.store.epochs import EpochStore
from stillframe.store.operations import OperationStore
from stillframe.store.queue import OperationQueue
from tests.recovery.dumps import Dump
from tests.store.samples import available, creating, following, restoring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from stillframe.domain.operation import Operation


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker asks before it takes anything up, by its own state folder."""

    witness: Witness
    queue: OperationQueue

    def taken(self) -> list[str]:
        return [operation.id for operation in self.queue.take("worker", 5, 30)]


@dataclass(frozen=True, slots=True)
class Site:
    """Two workers over one database, whose processes have been started anew."""

    epochs: EpochStore
    operations: OperationStore
    early: Worker
    late: Worker

    def standings(self) -> tuple[Standing, Standing]:
        return self.early.witness.standing(), self.late.witness.standing()


class Sites:
    """Opens the database for one start of all its workers after another."""

    def __init__(self, url: sa.URL, folder: Path) -> None:
        self._url, self._folder = url, folder

    @contextmanager
    def started(self) -> Iterator[Site]:
        database = connect(self._url.render_as_string(hide_password=False))
        try:
            main.upgrade_database(database)
            epochs = EpochStore(database)
            witnesses = [Witness(self._folder / name, epochs) for name in ("early", "late")]
            workers = [Worker(one, OperationQueue(database, memory=one.memory)) for one in witnesses]
            yield Site(epochs, OperationStore(database), *workers)
        finally:
            database.close()


@pytest.fixture
def sites(tmp_path: Path, database_url: sa.URL) -> Sites:
    return Sites(database_url, tmp_path)


@pytest.fixture
def open_restore(sites: Sites, database_url: sa.URL, tmp_path: Path) -> Operation:
    """A restore that is open in the older state that is put back; only the late folder has seen a later one."""
    with sites.started() as site:
        site.early.witness.note()
        site.late.witness.note()
        operation = restoring(site.operations)
    dump = Dump(database_url, tmp_path)
    with sites.started() as site:
        site.late.witness.note()
    dump.put_back()
    return operation


def test_a_folder_that_remembers_no_later_state_does_not_speak_for_another(
    sites: Sites, open_restore: Operation
) -> None:
    with sites.started() as site:
        assert site.standings() == (Standing.SAME, Standing.OLDER)
        assert (site.early.witness.doubts(), site.late.witness.doubts()) == (False, True)
        assert site.late.taken() == []
        assert site.operations.get(open_restore.id).state is OperationState.PENDING


def test_a_worker_with_the_older_mark_takes_nothing_up_once_the_other_has_looked(
    sites: Sites, open_restore: Operation
) -> None:
    with sites.started() as site:
        site.late.witness.note()
        assert (site.early.witness.doubts(), site.late.witness.doubts()) == (True, True)
        assert site.operations.get(open_restore.id).state is OperationState.FAILED
        site.early.witness.note()
        assert (site.early.taken(), site.late.taken()) == ([], [])
        snapshot = available(site.operations, instance_id="other")
        with pytest.raises(OlderDatabase):
            site.operations.begin(following(snapshot, open_restore.action), Event.RESTORE, Status.AVAILABLE, fence=True)
        taken = creating(site.operations, instance_id="third")
        assert site.early.taken() == [taken.id]


def test_the_order_in_which_the_workers_look_does_not_matter(sites: Sites, open_restore: Operation) -> None:
    with sites.started() as site:
        # It goes on giving marks to a folder that they mean nothing to.
        for _time in range(3):
            site.early.witness.note()
        assert site.standings() == (Standing.SAME, Standing.OLDER)
        site.late.witness.note()
        assert site.epochs.put_back() is not None
        assert site.operations.get(open_restore.id).state is OperationState.FAILED


def test_an_older_state_that_is_declared_before_the_first_start_is_carried_on_by_nobody(
    sites: Sites, open_restore: Operation
) -> None:
    with sites.started() as site:
        # As `stillframe db accept-older --unnoticed` on the machine that remembers no later state.
        assert site.epochs.hold("an operator", None) == [open_restore.id]
        assert (site.early.taken(), site.late.taken()) == ([], [])
        site.epochs.accept([], ())
        for worker in (site.early, site.late):
            worker.witness.note()
        assert site.standings() == (Standing.SAME, Standing.SAME)
        assert (site.early.taken(), site.late.taken()) == ([], [])


def test_an_accepted_state_is_the_latest_for_both(sites: Sites, open_restore: Operation) -> None:
    with sites.started() as site:
        site.late.witness.note()
        assert site.epochs.put_back() is not None
        site.epochs.accept([], ())
        assert site.standings() == (Standing.ACCEPTED, Standing.ACCEPTED)
        for worker in (site.late, site.early):
            worker.witness.note()
        assert site.standings() == (Standing.SAME, Standing.SAME)
        assert (site.early.witness.doubts(), site.late.witness.doubts()) == (False, False)
        snapshot = available(site.operations, instance_id="other")
        following_restore = following(snapshot, open_restore.action)
        site.operations.begin(following_restore, Event.RESTORE, Status.AVAILABLE, fence=True)
        assert site.early.taken() == [following_restore.id]
