"""What flows read and write in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from stillframe.domain.operation import Operation, Settlement
from stillframe.domain.snapshot import InstanceSnapshot
from stillframe.drivers.wrappers import RetryPolicy
from stillframe.store.operations import Fence, OperationStore
from stillframe.store.snapshots import SnapshotStore


@dataclass(frozen=True, slots=True)
class Records:
    """The store, with retries: that it is away for a moment is no reason for an operation to fail.

    Each method is that of the store's own of the same name.
    """

    snapshots: SnapshotStore
    operations: OperationStore
    retries: RetryPolicy

    def snapshot(self, snapshot_id: str) -> InstanceSnapshot:
        """One row; raises `NotFound`."""
        return self.retries.asking("snapshot", lambda: self.snapshots.get(snapshot_id))

    def operation(self, operation_id: str) -> Operation:
        """One operation; raises `NotFound`."""
        return self.retries.asking("operation", lambda: self.operations.get(operation_id))

    def fence(self, instance_id: str) -> Fence | None:
        return self.retries.asking("fence", lambda: self.operations.fence(instance_id))

    def note_power(self, operation: Operation, *, was_active: bool) -> None:
        self.retries.asking("note_power", lambda: self.operations.note_power(operation, was_active=was_active))

    def forget_untouched(self, operation: Operation) -> None:
        self.retries.asking("forget_untouched", lambda: self.operations.forget_untouched(operation))

    def commit(self, operation: Operation, safety_copies: Mapping[str, str] | None) -> None:
        self.retries.asking("commit", lambda: self.operations.commit(operation, safety_copies))

    def make_durable(self, operation: Operation) -> None:
        self.retries.asking("make_durable", lambda: self.operations.make_durable(operation))

    def finish(self, operation: Operation, settlement: Settlement, now: datetime, percent: int) -> None:
        self.retries.asking("finish", lambda: self.operations.finish(operation, settlement, now, percent))
