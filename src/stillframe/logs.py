"""The log: how it is set up, and what its lines say about whose sake they were written for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oslo_config import cfg
from oslo_context import context
from oslo_log import log


def set_up(conf: cfg.ConfigOpts) -> None:
    """Log as the options of oslo.log say.

    The standard output is for the one line that is meant for it; oslo.log would take it for the log.
    """
    if not (conf.log_file or conf.log_dir or conf.use_journal):
        conf.set_default("use_stderr", True)
    log.setup(conf, "stillframe")


class _Context(context.RequestContext):
    """A context of oslo.log's that says more than whose request it was."""

    def __init__(self, request_id: str | None, operation_id: str | None) -> None:
        super().__init__(overwrite=False)
        self._request_id = request_id
        self._operation_id = operation_id

    def to_dict(self) -> dict[str, Any]:
        """See `RequestContext`."""
        # Where it is given none, the library makes up a request id, which would be nobody's.
        return {**super().to_dict(), "request_id": self._request_id, "operation_id": self._operation_id}


@contextmanager
def about(request_id: str, operation_id: str | None = None) -> Iterator[None]:
    """Let the lines that this thread logs in the block say which request and operation they are about."""
    before = context.get_current() or _Context(None, None)
    _Context(request_id, operation_id).update_store()
    try:
        yield
    finally:
        before.update_store()
