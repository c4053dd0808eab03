"""Accepting an older state of the database that was put back: the platform shows what of it is still true."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from stillframe.domain.arguments import CreateArguments
from stillframe.domain.epoch import Standing
from stillframe.domain.errors import NotFound, OlderDatabase
from stillframe.domain.reconciliation import Change, Evidence, reconcile
from stillframe.domain.status import Status
from stillframe.store.snapshots import ListQuery

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stillframe.domain.snapshot import InstanceSnapshot, VolumeSnapshot
    from stillframe.drivers.compute import ComputeDriver
    from stillframe.drivers.leftovers import DriverLeftovers
    from stillframe.drivers.storage import StorageDriver
    from stillframe.service.witness import Witness
    from stillframe.store.epochs import EpochStore, PutBack
    from stillframe.store.operations import OperationStore
    from stillframe.store.snapshots import SnapshotStore

_PAGE: Final = 1000
_AN_OPERATOR: Final = "an operator"


@dataclass(frozen=True, slots=True)
class Plan:
    """What accepting will change, and the copies of instance snapshots that are not on record: they are all kept."""

    noticed: PutBack
    changes: Sequence[Change]
    unknown: Sequence[VolumeSnapshot]


class Acceptance:
    """See `stillframe.domain.reconciliation`; it may be used beside the service, which holds still meanwhile."""

    def __init__(  # it is made in one place, of what there is
        self,
        epochs: EpochStore,
        snapshots: SnapshotStore,
        operations: OperationStore,
        compute: ComputeDriver,
        storage: StorageDriver,
        left: DriverLeftovers | None,
        witness: Witness,
    ) -> None:
        self._epochs = epochs
        self._snapshots = snapshots
        self._operations = operations
        self._compute = compute
        self._storage = storage
        self._left = left
        self._witness = witness

    def notice(self, *, unnoticed: bool) -> PutBack | None:
        """That an older state was put back, as it is on record; None if nobody and nothing says so.

        What the state folder says is put on record now, and with `unnoticed` what the operator says: whatever is open
        in the database is settled as failed.
        """
        known = self._epochs.put_back()
        if known is not None:
            return known
        if unnoticed or self._witness.standing() in (Standing.OLDER, Standing.OTHER):
            self._epochs.hold(_AN_OPERATOR, None)
        return self._epochs.put_back()

    def plan(self, noticed: PutBack) -> Plan:
        """Look at everything; changes nothing. Raises `Unavailable` where a part of the platform does not answer."""
        on_record = list(self._all())
        lost = {loss.copy_id for loss in self._left.losses()} if self._left is not None else set()
        owners = {snapshot.id: snapshot.project_id for snapshot in on_record}
        copies: dict[str, list[VolumeSnapshot]] = defaultdict(list)
        for copy in self._storage.find(None):
            if copy.ready and copy.id not in lost and copy.may_be_of(owners.get(copy.name.snapshot_id)):
                copies[copy.name.snapshot_id].append(copy)
        fences = self._compute.fences()
        changes = []
        for snapshot in on_record:
            fenced = fences.get(snapshot.instance_id) == snapshot.id
            evidence = Evidence(copies.pop(snapshot.id, ()), fenced, self._wanted(snapshot))
            change = reconcile(snapshot, evidence)
            if change is not None:
                changes.append(change)
        unknown = [copy for some in copies.values() for copy in some]
        return Plan(noticed, changes, sorted(unknown, key=lambda copy: (copy.name.snapshot_id, copy.id)))

    def accept(self, plan: Plan) -> None:
        """Carry a plan out; raises `Conflict` if something has changed since, and then has changed nothing."""
        memory = self._witness.memory()
        self._epochs.accept(plan.changes, [memory.epoch] if memory is not None else [])

    def _all(self) -> Iterator[InstanceSnapshot]:
        query = ListQuery(None, _PAGE)
        while page := self._snapshots.list(query):
            yield from page
            query = replace(query, marker=page[-1].id)

    def _wanted(self, snapshot: InstanceSnapshot) -> frozenset[str]:
        if snapshot.status is not Status.ERROR or snapshot.fault is None or snapshot.task_id is None:
            return frozenset()
        if snapshot.fault.code != OlderDatabase.code:
            return frozenset()
        try:
            asked = self._operations.get(snapshot.task_id).arguments
        except NotFound:
            return frozenset()
        return frozenset(asked.volume_ids) if isinstance(asked, CreateArguments) else frozenset()
