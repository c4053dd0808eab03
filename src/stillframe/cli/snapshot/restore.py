"""stillframe snapshot restore."""

from __future__ import annotations

from stillframe.cli.snapshot.restoring import Restoring


class Restore(Restoring):
    """Put all volumes of an instance back to an instance snapshot; the instance must be off, or give --force."""

    title = "restoring"
