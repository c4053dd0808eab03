"""What the service promises, in a page of plain Python: bytes in dictionaries, and statuses that follow requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

Bytes = Mapping[str, bytes]

#: Every fault that the tests bring about is told by this code.
TOLD = "backend-error"

#: The statuses that a request is accepted in.
ALLOWED: Mapping[str, frozenset[str]] = {
    "restore": frozenset({"available"}),
    "retry": frozenset({"restore-error"}),
    "rollback": frozenset({"restore-error", "rollback-error"}),
    "delete": frozenset({"available", "error", "restore-error", "rollback-error", "error-deleting"}),
}


@dataclass
class Snapshot:
    """One instance snapshot: what each of its maps has to hold, and which copies of it there may be besides."""

    id: str
    name: str
    description: str
    status: str
    snapshots: dict[str, bytes] | None
    temp: dict[str, bytes] | None = None
    failed: set[str] | None = None
    fault: str | None = None
    #: The safety copies are left over from a restore that came to its end, and their content means nothing.
    stale: bool = False


@dataclass
class Model:
    """An instance that is off, its disks, its snapshots from the oldest to the newest, and who fences it."""

    disks: dict[str, bytes]
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    fence: str | None = None

    def refusal(self, kind: str, snapshot_id: str) -> int | None:
        """The code that a request is refused with, or None."""
        snapshot = self.snapshots.get(snapshot_id)
        if snapshot is None:
            return 404
        if snapshot.status not in ALLOWED[kind]:
            return 400
        return 409 if kind != "delete" and self.fence not in (None, snapshot_id) else None

    def ready_for(self, kind: str) -> list[str]:
        """The snapshots that a request would be accepted for, the oldest first."""
        return [snapshot_id for snapshot_id in self.snapshots if self.refusal(kind, snapshot_id) is None]

    def rename(self, snapshot_id: str, changes: Mapping[str, str]) -> None:
        snapshot = self.snapshots[snapshot_id]
        snapshot.name = changes.get("name", snapshot.name)
        snapshot.description = changes.get("description", snapshot.description)

    def create(self, snapshot_id: str, name: str, description: str, disks: Collection[str], *, fails: bool) -> None:
        content = {disk: self.disks[disk] for disk in disks}
        if fails:
            made = Snapshot(snapshot_id, name, description, "error", None, fault=TOLD)
        else:
            made = Snapshot(snapshot_id, name, description, "available", content)
        self.snapshots[snapshot_id] = made

    def restore_undone(self, snapshot_id: str) -> None:
        """A restore that could not take its safety copies."""
        snapshot = self.snapshots[snapshot_id]
        snapshot.temp, snapshot.stale, snapshot.fault = None, False, TOLD

    def restore(self, snapshot_id: str, failing: Collection[str], kept: Collection[str] = ()) -> None:
        """A restore; volumes that fail, and safety copies that cannot be deleted if none does."""
        snapshot = self.snapshots[snapshot_id]
        assert snapshot.snapshots is not None
        snapshot.temp, snapshot.stale = {disk: self.disks[disk] for disk in snapshot.snapshots}, False
        self._put_back(snapshot, snapshot.snapshots, failing, kept)

    def retry(self, snapshot_id: str, failing: Collection[str], kept: Collection[str] = ()) -> None:
        snapshot = self.snapshots[snapshot_id]
        assert snapshot.snapshots is not None
        wanted = {disk: snapshot.snapshots[disk] for disk in snapshot.failed or ()}
        self._put_back(snapshot, wanted, failing, kept)

    def rollback(self, snapshot_id: str, failing: Collection[str], kept: Collection[str] = ()) -> None:
        snapshot = self.snapshots[snapshot_id]
        assert snapshot.temp is not None
        failed = snapshot.failed
        self._put_back(snapshot, snapshot.temp, failing, kept)
        if snapshot.status != "available":
            snapshot.status, snapshot.failed = "rollback-error", failed

    def delete(self, snapshot_id: str, failing: Collection[str]) -> None:
        """A deletion; the disks whose copies cannot be deleted."""
        snapshot = self.snapshots[snapshot_id]
        left = {*(snapshot.snapshots or ()), *(snapshot.temp or ())} & {*failing}
        if not left:
            del self.snapshots[snapshot_id]
            self.gone.append(snapshot_id)
            self.fence = None if self.fence == snapshot_id else self.fence
            return
        snapshot.status, snapshot.fault = "error-deleting", TOLD
        snapshot.snapshots = _only(snapshot.snapshots, left)
        snapshot.temp = _only(snapshot.temp, left)

    def _put_back(self, snapshot: Snapshot, wanted: Bytes, failing: Collection[str], kept: Collection[str]) -> None:
        self.disks.update({disk: content for disk, content in wanted.items() if disk not in failing})
        snapshot.failed = {*wanted} & {*failing} or None
        if snapshot.failed:
            snapshot.status, snapshot.fault, self.fence = "restore-error", TOLD, snapshot.id
            return
        snapshot.status, self.fence = "available", None
        snapshot.stale = bool(kept)
        snapshot.temp = _only(snapshot.temp, kept)
        snapshot.fault = TOLD if kept else None


def _only(content: dict[str, bytes] | None, disks: Collection[str]) -> dict[str, bytes] | None:
    return {disk: data for disk, data in (content or {}).items() if disk in disks} or None
