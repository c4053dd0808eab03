"""stillframe snapshot retry."""

from __future__ import annotations

from typing import ClassVar

from stillframe.cli.snapshot.restoring import Restoring


class Retry(Restoring):
    """Restore the volumes whose restore failed (in status restore-error)."""

    how: ClassVar = {"retry": True}
    title = "retrying"
