"""stillframe worker, and its list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.cli.command import Lister, Rows, TimeColumn
from stillframe.cli.serve import Process

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

_LISTED: Final = ("binary", "host", "status", "state", "updated_at")
_TIMES: Final = frozenset({"updated_at", "started_at"})


class Worker(Process):
    """Work on what 'stillframe api' accepts, from the same PostgreSQL or MariaDB."""

    serve = False
    work = True


class ListWorker(Lister):
    """List the workers (administrators); 'down' is one that has ended or hangs, and was not stopped."""

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `Lister`."""
        return (*_LISTED, "started_at", "id")

    def take_action(self, parsed_args: Namespace) -> Rows:
        """See `cliff`."""
        columns = self.columns(parsed_args) if parsed_args.columns else _LISTED
        return columns, [
            [TimeColumn(worker.get(name)) if name in _TIMES else worker.get(name) for name in columns]
            for worker in self.client().workers()
        ]
