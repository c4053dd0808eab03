"""The volume snapshots that instance snapshots are made of, each by itself, for clients that look their ids up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import NotFound, StillframeError
from stillframe.domain.snapshot import CopyKind
from stillframe.drivers.storage import PartOnly
from stillframe.store.snapshots import ListQuery

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from stillframe.domain.snapshot import InstanceSnapshot, VolumeSnapshot
    from stillframe.service.caller import Caller
    from stillframe.service.instance_snapshots import SnapshotService

LOG = logging.getLogger(__name__)

# What fits into the databases' own numbers.
_ALL: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RecordedCopy:
    """A volume snapshot as the records have it: of which volume, why, and to which instance snapshot it belongs."""

    id: str
    volume_id: str
    kind: CopyKind
    snapshot: InstanceSnapshot


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the back end has of some copies, by id; `complete` unless a part of it did not answer."""

    found: Mapping[str, VolumeSnapshot]
    complete: bool


@dataclass(frozen=True, slots=True)
class VolumeSnapshotService:
    """Volume snapshots as the caller may see them: those of the instance snapshots that the caller sees."""

    snapshots: SnapshotService

    def list(
        self, caller: Caller, *, volume_id: str | None = None, all_projects: bool = False
    ) -> Sequence[RecordedCopy]:
        """Those of the newest instance snapshot first; of one volume, if it is named."""
        listed = self.snapshots.list(caller, ListQuery(project_id=None, limit=_ALL), all_projects=all_projects)
        return [copy for one in listed for copy in _copies(one) if volume_id in (None, copy.volume_id)]

    def show(self, caller: Caller, copy_id: str) -> RecordedCopy:
        """One of them; raises `NotFound`, and `Forbidden` as for its instance snapshot."""
        everywhere = self.snapshots.policy.allows(caller, "admin", caller.project_id)
        for snapshot_id in self.snapshots.snapshots.ids_naming(copy_id, None if everywhere else caller.project_id):
            try:
                snapshot = self.snapshots.show(caller, snapshot_id)
            except NotFound:
                continue
            for copy in _copies(snapshot):
                if copy.id == copy_id:
                    return copy
        raise NotFound(f"Volume snapshot {copy_id} could not be found.")

    def holdings(self, copies: Collection[RecordedCopy]) -> Holdings:
        """What the back end has of them; one that does not answer is no reason not to show the records."""
        owners = {copy.snapshot.id: copy.snapshot for copy in copies}
        one = next(iter(owners.values())) if len(owners) == 1 else None
        if one is None and self.snapshots.instances.visibility is not None:
            # A cloud would be asked for all that is there; it shows its own volume snapshots itself.
            return Holdings({}, complete=False)
        try:
            if one is not None:
                found = self.snapshots.storage.find(one.id, one.instance_id, one.project_id)
            else:
                found = self.snapshots.storage.find(None)
        except PartOnly as error:
            return Holdings({copy.id: copy for copy in error.found}, complete=False)
        except StillframeError as error:
            LOG.warning("volume snapshots are shown by the records alone: %s", error.message)
            return Holdings({}, complete=False)
        return Holdings({copy.id: copy for copy in found}, complete=True)


def _copies(snapshot: InstanceSnapshot) -> Iterator[RecordedCopy]:
    for kind, copies in ((CopyKind.SNAPSHOT, snapshot.snapshots), (CopyKind.SAFETY, snapshot.temp_snapshots)):
        for volume_id, copy_id in (copies or {}).items():
            yield RecordedCopy(copy_id, volume_id, kind, snapshot)
