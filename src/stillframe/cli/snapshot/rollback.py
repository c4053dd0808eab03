"""stillframe snapshot rollback."""

from __future__ import annotations

from typing import ClassVar

from stillframe.cli.snapshot.restoring import Restoring


class Rollback(Restoring):
    """Put all volumes back to what they were before the restore that failed (in restore-error or rollback-error)."""

    how: ClassVar = {"rollback": True}
    title = "rolling back"
