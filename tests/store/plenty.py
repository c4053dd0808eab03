"""Many rows at once, put in without asking the store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stillframe.domain.operation import OperationState
from stillframe.domain.status import Status
from stillframe.store.rows import operation_to_row, snapshot_to_row
from stillframe.store.tables import OPERATIONS, SNAPSHOTS
from tests.store.samples import LATER, NOON, new_id, sample_operation, sample_snapshot

if TYPE_CHECKING:
    from stillframe.store.database import Database


def settled_operations(database: Database, count: int) -> None:
    """Operations whose snapshots are gone."""
    rows = [
        operation_to_row(sample_operation(state=OperationState.SUCCEEDED, finished_at=LATER)) | {"sequence": number}
        for number in range(count)
    ]
    with database.writer.begin() as connection:
        connection.execute(sa.insert(OPERATIONS), rows)


def snapshots(database: Database, count: int, projects: int) -> None:
    """Snapshots spread over projects, several of them of each moment."""
    rows = []
    for number in range(count):
        operation = sample_operation(
            project_id=f"p{number % projects}", created_at=NOON + timedelta(seconds=number // 7)
        )
        given = {"id": new_id(), "status": Status.AVAILABLE, "instance_id": f"i{number % 500}"}
        rows.append(snapshot_to_row(sample_snapshot(operation, **given)) | {"sequence": number})
    with database.writer.begin() as connection:
        connection.execute(sa.insert(SNAPSHOTS), rows)
        if connection.dialect.name == "sqlite":
            connection.execute(sa.text("ANALYZE"))
