"""Why an operation failed, for as long as its record is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if "fault" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("operations")}:
        op.add_column("operations", sa.Column("fault", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    op.drop_column("operations", "fault")
