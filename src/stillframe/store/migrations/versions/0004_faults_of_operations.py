"""Why an operation failed, and where in lists a deleted snapshot stood, for as long as the record is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = ("fault", "place")


def upgrade() -> None:
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("operations")}
    for name in COLUMNS:
        if name not in there:
            op.add_column("operations", sa.Column(name, sa.JSON(none_as_null=True)))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("operations", name)
